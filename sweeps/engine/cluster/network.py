"""Network interface by which the ranks of a run reach each other, found on each machine."""

import os

import psutil


def use_interface_of(address: str) -> None:
    """Make gloo and NCCL use this machine's interface with the IP address, unless the user has set one.

    By default gloo takes the address that the machine's own name resolves to, which is often loopback, and NCCL the
    first interface that it finds, which may be a container's bridge.
    """
    for name, addresses in psutil.net_if_addrs().items():  # none may have it, as behind address translation
        if address in {one.address.partition("%")[0] for one in addresses}:  # an IPv6 address ends in %eth0
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # exactly this one, not all that begin so
