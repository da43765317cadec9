"""Memory of a head per trial, by kind of process: python -m benchmarks.head [--quick]

Memory is USS, the memory of a process that no other shares, so other work on the machine does not change it.
"""

import argparse
import collections
import dataclasses
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

import psutil
from ray import tune

from benchmarks import machine
from benchmarks.report import as_markdown
from jepa_train.config.flat import flatten
from jepa_train.config.presets import DIGITS
from sweeps.engine.cluster.nodes import expected_of_nodes
from sweeps.engine.cluster.session import ray_session
from sweeps.engine.lanes.pool import LanePool
from sweeps.engine.lanes.trial import make_trial

RESULTS = Path(__file__).parent / "results"
METRICS = {f"val/metric{number}": 0.5 for number in range(40)}
REPORTS = 4  # of each trial, before memory is read
Memory = Mapping[str, Sequence[int]]  # kind of process -> USS in bytes of each


@dataclass(frozen=True, kw_only=True)
class ProcessMemory:
    """Memory of the processes of one kind."""

    kind: str
    at: str
    sizes: Sequence[int]  # USS in bytes

    HEADER: ClassVar[tuple[str, ...]] = ("process", "at", "median, MB", "n")
    NOTE: ClassVar[str] = "USS: memory that would be free if the process ended."

    def cells(self) -> tuple[str, ...]:
        """One text per column of HEADER."""
        return self.kind, self.at, f"{median(self.sizes) / 1e6:.4g}", str(len(self.sizes))

    def record(self) -> dict[str, Any]:
        """The fields."""
        return dataclasses.asdict(self)


def memory_rows(lanes: int, folder: Path) -> Iterator[ProcessMemory]:
    """Memory by kind of process while every lane runs a trial; "once" for kinds that exist without trials."""
    before, during = memory_by_kind(), _with_trials(lanes, folder)
    for kind, sizes in sorted(during.items()):
        at = f"{len(before[kind])} once" if kind in before else f"{len(sizes)} with {lanes} trials at once"
        yield ProcessMemory(kind=kind, at=at, sizes=sizes)


class _ReadOnce(tune.Callback):
    """Reads the memory of all processes when every trial has reported several times, then lets the trials end."""

    def __init__(self, lanes: int, end: Path) -> None:
        self.memory: Memory = {}
        self._lanes = lanes
        self._end = end
        self._reports: collections.Counter[str] = collections.Counter()

    def on_trial_result(self, *_: object, trial: Any, **__: object) -> None:
        self._reports[trial.trial_id] += 1
        if not self.memory and len(self._reports) == self._lanes and min(self._reports.values()) >= REPORTS:
            self.memory = memory_by_kind()
            self._end.touch()


def _with_trials(lanes: int, folder: Path) -> Memory:
    end = folder / "measured"

    def runner(cell: Any, report: Any, *_: Any) -> Any:  # noqa: ARG001 (the runner's signature)
        epoch = 0.0
        while not end.exists():
            epoch += 1
            report({"epoch": epoch, **METRICS})
            time.sleep(0.5)
        return SimpleNamespace(status="finished", reason="")

    reader = _ReadOnce(lanes, end)
    pool_of = partial(LanePool, num_lanes=lanes, workers=1, cpus_per_worker=1, gpus_per_worker=0, runner=runner)
    # As on a cluster
    with expected_of_nodes() as expected, pool_of(storage=folder / "train", expected=expected) as pool:
        tune.Tuner(
            make_trial(pool.mailbox, str(folder)),
            param_space=flatten(DIGITS) | {"seed": tune.grid_search(list(range(lanes)))},
            tune_config=tune.TuneConfig(max_concurrent_trials=lanes, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=str(folder / "tune"), callbacks=[reader], verbose=0),
        ).fit()
    return reader.memory


def memory_by_kind() -> Memory:
    """Memory of this process and all its descendants."""
    me, found = psutil.Process(), collections.defaultdict(list)
    for process in [me, *me.children(recursive=True)]:
        try:
            kind = "driver" if process == me else kind_of(process.cmdline(), process.name())
            found[kind].append(process.memory_full_info().uss)
        except psutil.NoSuchProcess:
            continue
    return dict(found)


def kind_of(command: Sequence[str], name: str) -> str:
    """The role of a process that Ray started."""
    title = " ".join(command)
    if title.startswith("ray::"):
        return f"Ray: {re.split(r'[ .(]', title[5:])[0]}"
    servers = ("gcs_server", "raylet", "dashboard", "log_monitor", "monitor")
    return f"Ray: {next((word for word in servers if word in title), name)}"


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print; record under benchmarks/results unless quick."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.head", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one trial; never recorded")
    quick = parser.parse_args(words).quick
    lanes = 1 if quick else 4
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(os.environ, JEPA_RESULTS=folder),
        ray_session(lanes),
    ):
        rows = list(memory_rows(lanes, Path(folder)))
    device = machine.chosen_device()
    text = as_markdown(rows, {"ray": version("ray")} | machine.described(device))
    sys.stdout.write(text)
    if not quick:
        (RESULTS / f"head-memory-{machine.slug(device)}.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
