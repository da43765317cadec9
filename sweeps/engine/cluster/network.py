"""The network interface by which the ranks of a run reach each other: found on each machine, not asked for."""

import os
import socket

import psutil


def interface_of(address: str) -> str:
    """The name of this machine's interface that has the IP address; "" where none has, as behind a translated one."""
    for name, addresses in psutil.net_if_addrs().items():
        for found in addresses:
            same_kind = found.family in (socket.AF_INET, socket.AF_INET6)
            if same_kind and found.address.partition("%")[0] == address:  # fe80::1%eth0
                return name
    return ""


def use_interface_of(address: str) -> None:
    """Let gloo and NCCL talk through the interface that has the address; what the user has set stays.

    Left alone, gloo takes the address that the machine's own name resolves to, which is often loopback, and NCCL the
    first interface that it finds, which may be a container's bridge.
    """
    name = interface_of(address)
    if name:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")  # exactly this one, not all that begin so
