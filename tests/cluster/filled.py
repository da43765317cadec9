"""The shipped cluster/local.yaml, filled in as a user would: addresses, who logs in, folders, and how many CPUs."""

from collections.abc import Mapping, Sequence

import yaml
from hosts import Host
from machines import PROJECT

SHIPPED = PROJECT / "cluster" / "local.yaml"
FILLED = "cluster/mine.yaml"  # below the project on the laptop

_PLACES = {"JEPA_STORAGE=/nfs/jepa": "JEPA_STORAGE=/mnt/shared"}
_RESOURCES = {"ray start ": "ray start --num-cpus=1 --object-store-memory=100000000 "}  # three share this machine


def fill_in(laptop: Host, head: Host, workers: Sequence[Host]) -> None:
    """Write it on the laptop."""
    config = yaml.safe_load(SHIPPED.read_text())
    config["provider"] |= {"head_ip": head.address, "worker_ips": [worker.address for worker in workers]}
    config["auth"]["ssh_user"] = "root"
    for name, changes in (
        ("initialization_commands", _PLACES),
        ("head_start_ray_commands", _RESOURCES),
        ("worker_start_ray_commands", _RESOURCES),
    ):
        config[name] = _replaced(config[name], changes)
    (laptop.home / "jepa-sweeps" / FILLED).write_text(yaml.safe_dump(config, sort_keys=False))


def _replaced(lines: Sequence[str], changes: Mapping[str, str]) -> list[str]:
    """The lines with the changes, each of which must apply."""
    text = "\n".join(lines)
    for old, new in changes.items():
        assert old in text, f"{SHIPPED.name} no longer says {old!r}"
        text = text.replace(old, new)
    return text.split("\n")
