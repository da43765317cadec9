"""A cluster as its user has it: commands typed on a laptop, a head reached through it, machines that may be killed."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from hosts import RUN_S, Host, Hosts, Running
from machines import PROJECT, serve_ssh
from stores import until

TUNNEL_S = 300.0
MACHINES = ("head", "worker-1", "worker-2")
FILLED = "cluster/mine.yaml"  # cluster/local.yaml with the user's values, below the project on the laptop
LOSS = "AUTOSCALER_HEARTBEAT_TIMEOUT_S=20 RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=5000"
RANKS = "^ray::RayTrainWo"  # of a trial: a process's name has 15 characters


def fill_in(laptop: Host, head: Host, *workers: Host) -> None:
    """Write FILLED: addresses, the login, the storage, and one CPU for each machine, because they share this one.

    A machine that does not answer for 20 s counts as lost; with Ray's own settings that takes a minute.
    """
    text = (PROJECT / "cluster/local.yaml").read_text()
    for old, new in {
        "JEPA_STORAGE=/nfs/jepa": "JEPA_STORAGE=/mnt/shared",
        "ray start --": f"{LOSS} ray start --num-cpus=1 --object-store-memory=100000000 --",
    }.items():
        assert old in text, f"cluster/local.yaml no longer says {old!r}"
        text = text.replace(old, new)
    config = yaml.safe_load(text)
    config["provider"] |= {"head_ip": head.address, "worker_ips": [worker.address for worker in workers]}
    config["auth"]["ssh_user"] = "root"
    (laptop.home / "jepa-sweeps" / FILLED).write_text(yaml.safe_dump(config, sort_keys=False))


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up, its user, and the sweep of the story."""

    network: Hosts
    laptop: Host
    machines: dict[int, Host]  # by the last number of their address; the first is the head
    key: str  # of the user, its public half

    @property
    def head(self) -> Host:
        return next(iter(self.machines.values()))

    def boot_again(self, machine: Host) -> None:
        """Boot a killed machine with its disk. The autoscaler will find it."""
        number = next(number for number, known in self.machines.items() if known is machine)
        self.machines[number] = self.network.boot(machine.name, number)
        serve_ssh(self.machines[number], self.key)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the ranks of the running trial for the block, so that no cell ends however fast the machine is."""
        self._signal_ranks("STOP")
        try:
            yield
        finally:
            self._signal_ranks("CONT")

    def _signal_ranks(self, name: str) -> None:
        alive = [machine for machine in self.machines.values() if Path(f"/proc/{machine.init}").exists()]
        # by the process's name: -f would find the shell that asks, too
        for command in [machine.start(f"pkill -{name} '{RANKS}' || [ $? -eq 1 ]") for machine in alive]:
            command.wait(RUN_S)

    def training(self) -> list[Host]:
        """The machines with a worker of a trial."""
        return [host for host in self.machines.values() if "RayTrainWorker" in host.run("ps -e -o args")]

    def submit(self, file: str, words: str = "", *, options: str = "") -> Running:
        """`ray submit` of a file of the project, as a user types it."""
        command = f"ray submit {options} {FILLED} {file} {f'-- {words}' if words else ''}"
        return self.laptop.start(f"cd ~/jepa-sweeps && {command}")

    @contextmanager
    def tunnel(self, port: int) -> Iterator[str]:
        """Address on the laptop of a port on the head's loopback."""
        running = self.laptop.start(f"cd ~/jepa-sweeps && ray dashboard {FILLED} --port {port} --remote-port {port}")
        until(lambda: f":{port} " in self.laptop.run("ss -Htln 'src 127.0.0.1'"), TUNNEL_S, "no tunnel")
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            running.stop()

    def finished(self) -> dict[str, int]:
        """The finished cells, with the time at which their last checkpoint was written."""
        return {file.parent.name: file.stat().st_mtime_ns for file in self._checkpoints("final.pt")}

    def steps(self) -> int:
        """Sum of the steps of the unfinished cells, by their checkpoints."""
        newest: dict[str, int] = {}
        for file in self._checkpoints("step-*.pt"):
            if file.parent.name not in self.finished():
                newest[file.parent.name] = max(newest.get(file.parent.name, 0), int(file.stem.partition("-")[2]))
        return sum(newest.values())

    def _checkpoints(self, pattern: str) -> list[Path]:
        return list((self.network.shared / "checkpoints" / "cluster_story").glob(f"*/{pattern}"))

    def driver(self) -> int:
        """Process id, on the head, of the launch that runs the sweep; 0 for none."""
        store = f"file:{self.head.home}/jepa-results/mlflow.db?mode=ro"
        with closing(sqlite3.connect(store, uri=True, timeout=60)) as connection:
            query = "select value from experiment_tags where key = 'sweep.holder'"
            return next((json.loads(tag)["pid"] for (tag,) in connection.execute(query) if tag), 0)


def ray_logs(host: Host, name: str) -> list[Path]:
    """Ray's log files of that name, which may be a pattern."""
    return sorted(host.folder.glob(f"tmp/ray/session_2*/logs/{name}"))
