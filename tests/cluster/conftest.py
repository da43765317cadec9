"""Three machines and a user's laptop, and on the machines the cluster that cluster/local.yaml makes of them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from filled import FILLED, fill_in
from hosts import Host, Hosts, Running, missing
from machines import PYTHON, furnish, make_user, serve_ssh

MACHINES = ("head", "worker-1", "worker-2")
UP_S = 240.0


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

    def submit(self, file: str, words: str = "", *, options: str = "") -> Running:
        """`ray submit` of a file of the project, as a user types it."""
        told = f"ray submit {options} {FILLED} {file} {f'-- {words}' if words else ''}"
        return self.laptop.start(f"cd ~/jepa-sweeps && {told}")

    def on_head(self, command: str) -> str:
        """What a command says on the head, where it succeeds there."""
        return self.head.run(f". ~/.jepa-sweeps.sh && cd ~ && {command}")

    @contextmanager
    def tunnel(self, port: int) -> Iterator[str]:
        """The address on the laptop of what listens on the head's loopback."""
        told = f"ray dashboard {FILLED} --port {port} --remote-port {port}"
        running = self.laptop.start(f"cd ~/jepa-sweeps && {told}")
        until(lambda: str(port) in self.laptop.run("ss -Htln 'src 127.0.0.1'"), 60, f"{told}: nothing listens", running)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            running.stop()


def until(holds: Callable[[], object], seconds: float, complaint: str, *running: Running) -> None:
    """Wait for a condition.

    Args:
        running: commands whose words explain a failure.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            said = "\n".join(f"{command.told}\n{command.said[-3000:]}" for command in running)
            pytest.fail(f"{complaint} after {seconds:.0f} s\n{said}")
        time.sleep(0.3)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    if why := missing():
        pytest.skip(why)
    with Hosts(tmp_path_factory.mktemp("hosts"), visible=PYTHON) as network:
        yield network


@pytest.fixture(scope="session")
def cluster(network: Hosts) -> Cluster:
    """After `ray up`, with all machines in it."""
    laptop, stranger = network.boot("laptop", 2), network.boot("stranger", 3)
    machines = {number: network.boot(name, number) for number, name in enumerate(MACHINES, start=10)}
    for host in (laptop, stranger, *machines.values()):
        furnish(host)
    key = make_user(laptop)
    for machine in machines.values():
        serve_ssh(machine, key)
    head, *workers = machines.values()
    fill_in(laptop, head, workers)
    laptop.run(f"cd ~/jepa-sweeps && ray up --yes {FILLED}", timeout=UP_S)
    return Cluster(network, laptop, stranger, machines, key)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What the machines have logged and the drivers said, beside what failed."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(cluster, Cluster):
        for machine in cluster.machines.values():
            for log in sorted(machine.folder.glob("tmp/ray/session_2*/logs/*")):
                if log.match("monitor.log") or log.match("*.err") or log.match("job-driver-*"):
                    report.sections.append((f"{machine.name}: {log.name}", log.read_text(errors="replace")[-1000:]))
        report.sections.append(("the head's tmux", cluster.head.run("tmux capture-pane -p || true")[-3000:]))
    return report
