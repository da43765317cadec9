"""A small sweep in its own folder, launched as a command, with access to its processes, checkpoints and store."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
from launches import small_sweep

from analysis.tables import table

ROOT = Path(__file__).resolve().parents[3]
NAME = "chaos_digits"
MARK = "JEPA_CHAOS"  # environment variable that Ray hands on to every process that it starts
CURVES = "SELECT key, step, value FROM metrics WHERE run_uuid = ? AND key NOT LIKE 'system/%' ORDER BY key, step"
CELLS = (
    "SELECT k.value, s.value, r.run_uuid FROM runs r JOIN tags k USING (run_uuid) JOIN tags s USING (run_uuid) "
    "WHERE k.key = 'cell_key' AND s.key = 'status' AND r.lifecycle_stage = 'active'"
)
TIMED = ("train/images_per_s", "train/peak_memory_gb")  # differ between runs
Points = dict[str, list[tuple[int, float | None]]]  # metric -> (epoch, value), without the values of TIMED


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal. Returns False if the process has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


class ChaosSweep:
    """The sweep's file, results and launches in one folder. One thread per process, for equal sums."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.log = folder / "launches.log"
        self.database = folder / "results" / "mlflow.db"
        self._file = folder / f"{NAME}.py"
        self._file.write_text(small_sweep(NAME, epochs=16, fields='references=({"epochs": 0},)'))
        self._mark = uuid.uuid4().hex
        kept = {name: text for name, text in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        own = {"JEPA_RESULTS": str(folder / "results"), MARK: self._mark, "PYTHONPATH": str(ROOT)}
        self._environment = kept | own | {"OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"}

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the command, which resumes what is there."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(self._file)],
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def processes(self, title: str = "") -> dict[int, str]:
        """Id -> title of the living processes of this sweep whose title contains a text, whatever their parents are.

        The title is the command line; Ray's workers replace it by their role.
        """
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # it may end meanwhile
                words = " ".join(process.cmdline())
                marked = process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE
                if marked and title in words:
                    found[process.pid] = words
        return found

    def end(self) -> list[str]:
        """Kill all processes. Returns the titles of those still alive half a minute after the last command."""
        until = time.monotonic() + 30
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.2)
        for pid in left:
            send(pid, signal.SIGKILL)
        return [*left.values()]

    def last_epoch(self) -> float:
        """Time at which an epoch was last completed, from the newest checkpoint; 0 without one."""
        return max(self._checkpoints("*.pt").values(), default=0.0)

    def newest_checkpoint(self) -> Path | None:
        """The newest checkpoint of the cells that are running."""
        times = self._checkpoints("step-*.pt")
        running = [file for file in times if not (file.parent / "final.pt").exists()]
        return max(running, key=times.__getitem__, default=None)

    def _checkpoints(self, pattern: str) -> dict[Path, float]:
        """Checkpoints of all cells with the time at which they were written."""
        times = {}
        for file in (self.folder / "results" / "checkpoints" / NAME).glob(f"*/{pattern}"):
            with contextlib.suppress(FileNotFoundError):
                times[file] = file.stat().st_mtime
        return times

    def table(self) -> str:
        """The sweep's table, without the last column: ids of runs."""
        text = table(NAME, f"sqlite:///{self.database}", format="csv")
        return "\n".join(line.rpartition(",")[0] for line in text.splitlines())

    def cells(self) -> list[tuple[str, str, Points]]:
        """Key, status and metrics of each run of a cell, ordered by key."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=60)) as store:
            found = []
            for key, status, run in store.execute(CELLS).fetchall():
                points: Points = {}
                for metric, step, value in store.execute(CURVES, [run]):
                    points.setdefault(metric, []).append((step, None if metric in TIMED else value))
                found.append((key, status, points))
        return sorted(found, key=lambda cell: cell[0])
