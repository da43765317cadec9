"""The interface by which ranks talk is the one that has the address by which Ray reaches the machine."""

import os
import subprocess

import pytest

from sweeps.engine.cluster.network import interface_of, use_interface_of


def test_the_interface_of_an_address_is_the_one_that_the_system_names():
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.77") == "", "an address of documentation, which no machine has"
    listed = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
    for address in listed:
        assert interface_of(address) not in ("", "lo")


def test_gloo_and_nccl_are_told_unless_the_user_has_spoken(monkeypatch: pytest.MonkeyPatch):
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    for name in names:
        monkeypatch.setenv(name, "")  # so that what the code sets is taken away at the end
        monkeypatch.delenv(name)
    use_interface_of("192.0.2.77")
    assert [os.environ.get(name) for name in names] == [None, None]
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    use_interface_of("127.0.0.1")
    assert [os.environ.get(name) for name in names] == ["ib0", "=lo"]
