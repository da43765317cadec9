"""A cluster as its user has it: commands typed on a laptop, a head reached through it, machines that may die."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from filled import FILLED
from hosts import RUN_S, Host, Hosts, Running
from machines import serve_ssh

TUNNEL_S = 300.0
MACHINES = ("head", "worker-1", "worker-2")
RANKS = "^ray::RayTrainWo"  # of a trial: a process's name has 15 characters


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up, and whoever uses it."""

    network: Hosts
    laptop: Host
    stranger: Host  # on the same network, without key or token
    machines: dict[int, Host]  # by the last number of their address; the first is the head
    key: str  # of the user, its public half

    @property
    def head(self) -> Host:
        return next(iter(self.machines.values()))

    def boot_again(self, machine: Host) -> None:
        """It was killed, and is back with what it had on its disk. The autoscaler will find it."""
        number = next(number for number, known in self.machines.items() if known is machine)
        self.machines[number] = self.network.boot(machine.name, number)
        serve_ssh(self.machines[number], self.key)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The ranks of the trial that runs stand still for the block, so that no cell ends however fast the machine is.

        Ray's patience with them is ten minutes.
        """
        self._signal_ranks("STOP")
        try:
            yield
        finally:
            self._signal_ranks("CONT")

    def _signal_ranks(self, name: str) -> None:
        living = [machine for machine in self.machines.values() if machine.lives]
        # by the process's name: -f would find the shell that asks, too
        for asked in [machine.start(f"pkill -{name} '{RANKS}' || [ $? -eq 1 ]") for machine in living]:
            asked.wait(RUN_S)

    def submit(self, file: str, words: str = "", *, options: str = "") -> Running:
        """`ray submit` of a file of the project, as a user types it."""
        told = f"ray submit {options} {FILLED} {file} {f'-- {words}' if words else ''}"
        return self.laptop.start(f"cd ~/jepa-sweeps && {told}")

    def on_head(self, command: str) -> str:
        """What a command says on the head, where it succeeds there."""
        return self.head.run(f". ~/.jepa-sweeps.sh && . ~/.jepa-node.sh && cd ~ && {command}")

    @contextmanager
    def tunnel(self, port: int) -> Iterator[str]:
        """The address on the laptop of what listens on the head's loopback."""
        told = f"ray dashboard {FILLED} --port {port} --remote-port {port}"
        running = self.laptop.start(f"cd ~/jepa-sweeps && {told}")
        listens = lambda: f":{port} " in self.laptop.run("ss -Htln 'src 127.0.0.1'")  # noqa: E731
        until(listens, TUNNEL_S, f"{told}: nothing listens", lambda: running.said)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            running.stop()


def until(holds: Callable[[], object], seconds: float, complaint: str, said: Callable[[], str] = str) -> None:
    """Wait for a condition.

    Args:
        said: what explains a failure, asked when it has happened.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"{complaint} after {seconds:.0f} s\n{said()[-3000:]}")
        time.sleep(0.3)
