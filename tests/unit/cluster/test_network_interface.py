"""Ranks communicate through the interface with the address by which Ray reaches the machine.

Run: python -m pytest tests/unit/cluster/test_network_interface.py
"""

import os

import pytest

from sweeps.engine.cluster.network import use_interface_of


def test_gloo_and_nccl_use_that_interface_unless_the_user_has_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is restored at the end
        monkeypatch.delenv(name)
    use_interface_of("192.0.2.77")  # an address of documentation, which no machine has
    assert [os.environ.get(name) for name in names] == [None, None]
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    use_interface_of("127.0.0.1")
    assert [os.environ.get(name) for name in names] == ["ib0", "=lo"]
