"""The sockets of a host that others can reach."""

import ipaddress
import re
from collections.abc import Iterator

from hosts import Host

_LISTENS = re.compile(r'^LISTEN\s+\d+\s+\d+\s+(\S+):(\d+)\s.*?(?:\(\("([^"]+)")', flags=re.MULTILINE)


def reachable(host: Host) -> dict[str, str]:
    """What listens beyond loopback: "address:port" -> the process's name."""
    found = _LISTENS.findall(host.run("ss -Htlnp"))
    assert found, f"{host.name} listens nowhere, not even sshd"
    return {f"{host.address}:{port}": name for bound, port, name in found if not _is_loopback(bound)}


def arguments(host: Host) -> Iterator[str]:
    """The command line of every process, as anybody on the host sees it."""
    yield from host.run("ps -ww -e -o args").splitlines()


def _is_loopback(bound: str) -> bool:
    if bound == "*":
        return False
    address = ipaddress.ip_address(bound.strip("[]").partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
