"""Check of one machine of a cluster: versions, storage and data. It runs on that machine, as a Ray task."""

import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jepa_train.storage.storage import storage_path
from sweeps.engine.cluster.folders import probe_error, storage_problem
from sweeps.engine.store.provenance import version_of

VERSIONS = ("torch", "torchvision", "timm", "numpy")  # they may change results; Ray compares its own


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Requirements of every machine.

    Args:
        versions: of Python and of the packages in VERSIONS.
        storage: by path or URL, shared by all machines.
        probe: name of the file that the head has left there (folders.probe_file).
        data: folder of images, "" where there is none or each machine copies it from a URL.
    """

    versions: Mapping[str, str]
    storage: str
    probe: str
    data: str = ""


def installed_versions() -> dict[str, str]:
    """Versions of Python (3.11) and of VERSIONS."""
    return {"python": ".".join(platform.python_version_tuple()[:2]), **{name: version_of(name) for name in VERSIONS}}


def problem(expected: Expected) -> str:
    """Problem of this machine, as "worker-2 has torch 2.1 instead of 2.2"; "" if it has none."""
    here = installed_versions()
    versions = expected.versions.items()
    others = [f"{name} {here[name]} instead of {version}" for name, version in versions if here[name] != version]
    # The head's file first: writing one would create a folder that is not mounted.
    unusable = probe_error(expected.storage, expected.probe) or storage_problem(storage_path(expected.storage))
    if others:
        reason = f"has {', '.join(others)}"
    elif unusable:
        reason = f"cannot use the storage: {unusable}"
    elif expected.data and not Path(expected.data).expanduser().exists():
        remedy = "name what every machine has under one absolute path, or a URL"
        reason = f"has no data.path {expected.data!r}: {remedy}"
    else:
        return ""
    return f"{socket.gethostname()} {reason}"
