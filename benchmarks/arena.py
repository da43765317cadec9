"""Where faults strike: a sweep of its own, with its results on a small disk and its store behind a server."""

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from benchmarks.processes import MARK, gone, marked

ROOT = Path(__file__).resolve().parents[1]
NAME = "chaos_digits"
DISK_MB = 400
_CURVES = "SELECT key, step, value FROM metrics WHERE run_uuid = ? AND key NOT LIKE 'system/%' ORDER BY key, step"
TIMED = ("train/images_per_s", "train/peak_memory_gb")  # metrics that no two runs have in common
Points = dict[str, list[tuple[int, float]]]  # metric -> (epoch, value)

SWEEP = '''"""Digits under fire: every cell ends finished once, whatever was killed."""

import dataclasses
import sys

from jepa_train.methods import LeJEPA
from jepa_train.config.presets import DIGITS
from sweeps.engine import Sweep, main

SWEEP = Sweep(
    name="{name}",
    purpose=__doc__,
    base=dataclasses.replace(DIGITS, method=LeJEPA(num_slices=16), epochs={epochs}, global_batch=256),
    grid={{"method.lamb": {lambs}, "optim.lr": [1e-3, 5e-3]}},
    references=({{"epochs": 0}},),
)

if __name__ == "__main__":
    sys.exit(main(SWEEP, __file__))
'''


class Server:
    """`mlflow server` on loopback, over an sqlite file; it can be killed and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self.mark = f"server-{uuid.uuid4().hex}"
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it answers.

        Raises:
            TimeoutError: it does not.
        """
        words = ["--backend-store-uri", f"sqlite:///{self._folder / 'store.db'}", "--host", "127.0.0.1"]
        words += [
            "--artifacts-destination",
            str(self._folder / "artifacts"),
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        with (self._folder / "server.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *words],
                env={**os.environ, MARK: self.mark, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + 300
        while not self.answers():
            if time.monotonic() > until:
                raise TimeoutError(f"mlflow server did not come up; see {self._folder / 'server.log'}")
            time.sleep(0.2)

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> bool:
        """kill -9; whether it lived."""
        return [process.kill() for process in marked(self.mark)].count(True) > 0


class Arena:
    """One sweep's file, results and store.

    Args:
        folder: all of it lies there.
        cells: of the grid, besides the reference.
        epochs: of each.
        server: whether the store is a server's; otherwise it is an sqlite file under the results.
        disk: whether to lay the results on a disk of their own, where this user may mount one.
    """

    def __init__(self, folder: Path, *, cells: int, epochs: int, server: bool, disk: bool) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.file = folder / f"{NAME}.py"
        lambs = [round(0.01 * step, 3) for step in range(1, cells // 2 + 1)]
        self.file.write_text(SWEEP.format(name=NAME, epochs=epochs, lambs=lambs))
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.mounted = disk and _mount(self.disk)
        self.results = self.disk / "results"
        self.server = Server(folder) if server else None
        self.database = folder / "store.db" if server else self.results / "mlflow.db"
        self.driver: subprocess.Popen[bytes] | None = None
        self.lost: Counter[str] = Counter()  # cell key -> worker groups and trials that this launch has lost with it
        if self.server is not None:
            self.server.start()

    @property
    def log(self) -> Path:
        """What the launches wrote."""
        return self.folder / "launches.log"

    def launch(self, *words: str) -> None:
        """Start the command; its results go on where they are."""
        self.lost.clear()
        with self.log.open("ab") as log:
            command = [sys.executable, str(self.file), *words]
            self.driver = subprocess.Popen(
                command, cwd=self.folder, env=self._environment(), stdout=log, stderr=log, start_new_session=True
            )

    def running(self) -> list[str]:
        """Keys of cells that have begun and are not over, by their checkpoints."""
        folders = self._checkpoints().glob("*")
        return [folder.name for folder in folders if [*folder.glob("step-*.pt")] and not (folder / "final.pt").exists()]

    def progress(self) -> float:
        """When an epoch was last completed: the time of the newest checkpoint, 0 without one."""
        times = [0.0]
        for file in self._checkpoints().glob("*/*.pt"):
            with contextlib.suppress(FileNotFoundError):
                times.append(file.stat().st_mtime)
        return max(times)

    def newest(self) -> Path | None:
        """The newest checkpoint of a cell that runs."""
        files = [file for key in self.running() for file in (self._checkpoints() / key).glob("step-*.pt")]
        return max(files, key=lambda file: file.stat().st_mtime, default=None)

    def table(self, form: str) -> bytes:
        """What `python -m analysis` prints."""
        command = [sys.executable, "-m", "analysis", NAME, "--format", form]
        done = subprocess.run(command, cwd=ROOT, env=self._environment(), capture_output=True, check=False)
        return done.stdout or done.stderr

    def history(self) -> dict[str, Points]:
        """Cell key -> metric -> (step, value) of every point, as the store's own table has them, but for the machine's.

        Raises:
            AssertionError: a cell has several runs.
        """
        runs = self._query(
            "SELECT t.value, t.run_uuid FROM tags t JOIN runs r USING (run_uuid) WHERE t.key = 'cell_key' "
            "AND r.lifecycle_stage = 'active'"
        )
        keys = [key for key, _ in runs]
        assert len(keys) == len(set(keys)), f"cells with several runs: {[k for k, n in Counter(keys).items() if n > 1]}"
        points: dict[str, Points] = {}
        for key, run in runs:
            rows = self._query(_CURVES, run)
            points[key] = {}
            for metric, step, value in rows:
                points[key].setdefault(metric, []).append((step, value))
        return points

    def statuses(self) -> dict[str, str]:
        """Cell key -> the tag status of its run."""
        return dict(
            self._query(
                "SELECT k.value, s.value FROM tags k JOIN tags s USING (run_uuid) JOIN runs r USING (run_uuid) "
                "WHERE k.key = 'cell_key' AND s.key = 'status' AND r.lifecycle_stage = 'active'"
            )
        )

    def close(self) -> list[str]:
        """End everything; what of the sweep's own processes was still there half a minute after its last command."""
        left = gone(self.mark, within_s=30)
        for process in marked(self.mark):
            process.kill()
        if self.server is not None:
            self.server.kill()
            gone(self.server.mark, within_s=10)
        if self.mounted:
            gone(self.mark, within_s=10)
            subprocess.run(["umount", "--lazy", str(self.disk)], check=False)
        return [process.title for process in left]

    def remove(self) -> None:
        """Delete the folder, closed before."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _checkpoints(self) -> Path:
        return self.results / "checkpoints" / NAME

    def _query(self, text: str, *values: str) -> list[tuple]:
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=60)) as store:
            return store.execute(text, values).fetchall()

    def _environment(self) -> Mapping[str, str]:
        kept = {name: text for name, text in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        uri = {"MLFLOW_TRACKING_URI": self.server.uri} if self.server is not None else {}
        # one thread each, or the last bits of a sum depend on who else is at work
        return (
            kept
            | uri
            | {"JEPA_RESULTS": str(self.results), MARK: self.mark, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            | {"RAY_ADDRESS": "local"}
        )


def _mount(folder: Path) -> bool:
    """Whether a small disk could be mounted there."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
