"""What can be seen of a sweep from outside of its cluster: the checkpoints on the storage, and who holds the sweep."""

import fcntl
import json
from dataclasses import dataclass
from pathlib import Path

from hosts import Host


@dataclass(frozen=True)
class Watched:
    """A sweep that runs."""

    checkpoints: Path
    lock: Path

    def finished(self) -> dict[str, int]:
        """The cells that are over, with the time at which their last checkpoint was written."""
        return {file.parent.name: file.stat().st_mtime_ns for file in self.checkpoints.glob("*/final.pt")}

    def steps(self) -> int:
        """How many steps all cells together have behind them, by their checkpoints."""
        newest: dict[str, int] = {}
        for file in self.checkpoints.glob("*/step-*.pt"):
            if file.parent.name not in self.finished():
                newest[file.parent.name] = max(newest.get(file.parent.name, 0), int(file.stem.partition("-")[2]))
        return sum(newest.values())

    @property
    def driver(self) -> int:
        """The process, on the head, of the launch that holds it."""
        return json.loads(self.lock.read_text())["pid"]

    def is_run(self) -> bool:
        """Whether a launch holds it: the kernel frees the lock when that ends."""
        with self.lock.open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def ray_logs(host: Host, name: str) -> list[Path]:
    """Ray's log files of that name on it, which may be a pattern."""
    return sorted(host.folder.glob(f"tmp/ray/session_2*/logs/{name}"))


def trains(host: Host) -> bool:
    """Whether it has a worker of a trial."""
    return "RayTrainWorker" in host.run("ps -e -o args")
