"""Network interface by which the ranks of a run reach each other, found on each machine."""

import os

import psutil


def interface_of(address: str) -> str:
    """Name of this machine's interface with the IP address; "" if none has it, as behind address translation."""
    interfaces = psutil.net_if_addrs().items()
    names = [name for name, found in interfaces if address in {one.address.partition("%")[0] for one in found}]
    return names[0] if names else ""  # an IPv6 address ends in %eth0


def use_interface_of(address: str) -> None:
    """Make gloo and NCCL use the interface with the address, unless the user has set one.

    By default gloo takes the address that the machine's own name resolves to, which is often loopback, and NCCL the
    first interface that it finds, which may be a container's bridge.
    """
    name = interface_of(address)
    if name:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # exactly this one, not all that begin so
