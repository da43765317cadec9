"""Checks of one machine: code, versions, storage and data must be those of the head.

Sent to the machines by value, because their own code is what is in question: nothing of it is imported before it has
been compared.
"""

import hashlib
import importlib.metadata
import importlib.util
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("jepa_train", "sweeps/engine", "search_spaces")
VERSIONS = ("ray", "torch", "torchvision", "timm", "numpy")  # what may change results, or cannot talk to each other


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What every machine must have.

    Args:
        code: digests of our source files, by their place.
        versions: of Python and of packages.
        storage: by path or URL, which all machines share.
        probe: the name of the mark that the head has left there (storage.mark).
        data: the folder of images, "" where there is none or each machine copies it from a URL.
    """

    code: Mapping[str, str]
    versions: Mapping[str, str]
    storage: str
    probe: str
    data: str = ""


def source_digests() -> dict[str, str]:
    """Path below the project -> 16 hex digits, of all of PACKAGES that this Python would import."""
    digests = {}
    for package in PACKAGES:
        top, _, below = package.partition("/")
        spec = importlib.util.find_spec(top)  # of what lies deeper it would be imported
        for place in spec.submodule_search_locations or [] if spec is not None else []:
            for file in sorted(Path(place, below).rglob("*.py")):
                name = f"{top}/{file.relative_to(place)}"
                digests[name] = hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
    return digests


def installed_versions() -> dict[str, str]:
    """Of Python (3.11) and of VERSIONS."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def problem(expected: Expected) -> str:
    """What is wrong with this machine, "" where nothing is: "worker-2 runs other code: jepa_train/x.py differs"."""
    what = _other_code(expected) or _other_versions(expected) or _no_storage(expected) or _no_data(expected)
    return f"{socket.gethostname()} {what}" if what else ""


def _other_code(expected: Expected) -> str:
    here = source_digests()
    differing = [name for name in expected.code if here.get(name) != expected.code[name]]
    differing += [name for name in here if name not in expected.code]
    if not differing:
        return ""
    more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
    return f"runs other code: {differing[0]} differs{more}"


def _other_versions(expected: Expected) -> str:
    here = installed_versions()
    differing = [name for name, version in expected.versions.items() if here.get(name) != version]
    told = ", ".join(f"{name} {here.get(name, 'missing')} instead of {expected.versions[name]}" for name in differing)
    return f"has {told}" if told else ""


def _no_storage(expected: Expected) -> str:
    """Looks for what the head has written, and writes, too."""
    from jepa_train.storage.storage import storage_path  # the code is the same by now
    from sweeps.engine.cluster.folders import probe_error, storage_problem

    reason = probe_error(expected.storage, expected.probe)
    if not reason:  # else a folder that is not mounted would be made
        reason = storage_problem(storage_path(expected.storage))
    return f"cannot use the storage: {reason}" if reason else ""


def _no_data(expected: Expected) -> str:
    if not expected.data or Path(expected.data).expanduser().exists():
        return ""
    return f"has no data.path {expected.data!r}: name what every machine has under one absolute path, or a URL"
