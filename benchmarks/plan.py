"""Time of planning 10,000 cells that are all in the store: python -m benchmarks.plan [--quick]

The store is MLflow's own, filled by plain SQL in seconds: complete configs, 40 metrics and 24 tags per run.
"""

import argparse
import dataclasses
import json
import logging
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from mlflow import MlflowClient

from analysis.store.uri import sqlite_uri
from benchmarks import machine
from benchmarks.comparison import in_time
from benchmarks.report import as_markdown
from jepa_train.config.flat import Scalar, flatten
from jepa_train.config.presets import DIGITS
from jepa_train.evaluation.glossary import GLOSSARY
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.spec.cells import Cell, shared_fields
from sweeps.engine.spec.sweep import Sweep

RESULTS = Path(__file__).parent / "results"
METRICS = [f"{split}/{name}" for split in ("val", "test") for name in [*GLOSSARY][:20]]
TARGET_S = 10.0
START = 1_700_000_000_000  # ms


@dataclass(frozen=True, kw_only=True)
class PlanTiming:
    """Seconds of repeated plans of one sweep."""

    cells_in_store: int
    samples: tuple[float, ...]

    HEADER: ClassVar[tuple[str, ...]] = ("what", "size", "time", "n", "target", "met")
    NOTE: ClassVar[str] = "Median of n plans in one process."

    def cells(self) -> tuple[str, ...]:
        """One text per column of HEADER."""
        seconds, size = median(self.samples), f"{self.cells_in_store:,} cells, all in the store"
        met = "yes" if seconds <= TARGET_S else "no"
        return "plan", size, in_time(seconds), str(len(self.samples)), f"at most {TARGET_S:g} s", met

    def record(self) -> dict[str, Any]:
        """The fields."""
        return dataclasses.asdict(self)


def grid_of(side: int) -> Sweep:
    """A sweep of side ** 4 cells: three axes and the seeds."""
    grid: dict[str, list[Scalar]] = {
        "method.lamb": [round(0.01 * step, 4) for step in range(1, side + 1)],
        "optim.lr": [round(1e-4 * step, 6) for step in range(1, side + 1)],
        "method.num_slices": [64 * step for step in range(1, side + 1)],
    }
    return Sweep(name="plan", purpose="Many cells.", base=DIGITS, grid=grid, seeds=tuple(range(side)))


def fill(file: Path, sweep: Sweep, cells: Iterable[Cell]) -> None:
    """Record the cells as finished in an sqlite store, which is created if it is missing."""
    client = MlflowClient(sqlite_uri(file))
    tags = {
        "sweep.kind": sweep.kind,
        "sweep.axes": json.dumps(sweep.axes),
        "sweep.goals": json.dumps([dataclasses.asdict(goal) for goal in sweep.goals]),
        "sweep.base": json.dumps(shared_fields(DIGITS, sweep.axes), sort_keys=True),
    }
    experiment = client.create_experiment(sweep.name, tags=tags)
    chance = random.Random(sweep.name)
    with closing(sqlite3.connect(file)) as connection:
        for number, cell in enumerate(cells):
            _insert(connection, experiment, cell, START + 1000 * number, chance)
        connection.commit()


def _insert(store: sqlite3.Connection, experiment: str, cell: Cell, started: int, chance: random.Random) -> None:
    run = f"{chance.getrandbits(128):032x}"
    tags = {"cell_key": cell.key, "role": cell.role, "status": "finished", "reason": "", "workers": "1", "epoch": "100"}
    tags |= {"device_seconds": "12.5", "mlflow.runName": cell.label, "mlflow.user": "me"}
    tags |= {f"version.package{index}": "1.2.3" for index in range(24 - len(tags))}
    store.execute(
        "insert into runs (run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage,"
        " artifact_uri, experiment_id) values (?, ?, 'UNKNOWN', 'me', 'FINISHED', ?, ?, 'active', ?, ?)",
        (run, cell.label, started, started + 900, f"/home/me/results/artifacts/{run}", experiment),
    )
    params = [(key, str(value), run) for key, value in flatten(cell.config).items()]
    store.executemany("insert into params (key, value, run_uuid) values (?, ?, ?)", params)
    store.executemany("insert into tags (key, value, run_uuid) values (?, ?, ?)", [(*tag, run) for tag in tags.items()])
    for table in ("metrics", "latest_metrics"):
        store.executemany(
            f"insert into {table} (key, value, timestamp, step, is_nan, run_uuid) values (?, ?, ?, 100, 0, ?)",
            [(name, chance.random(), started, run) for name in METRICS],
        )


def measure(side: int, repeats: int = 3) -> PlanTiming:
    """Fill a store in a temporary folder and plan the sweep repeatedly."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    sweep, file, samples = grid_of(side), Path("plan.py"), []
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        os.environ["JEPA_RESULTS"] = folder
        fill(Path(folder) / "mlflow.db", sweep, make_plan(sweep, file).fixed)
        for _ in range(repeats):
            started = time.perf_counter()
            plan = make_plan(sweep, file)
            samples.append(time.perf_counter() - started)
            assert (plan.total, plan.todo) == (side**4, 0), "the store does not hold the sweep's cells"
    return PlanTiming(cells_in_store=side**4, samples=tuple(samples))


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print; record under benchmarks/results unless quick. Returns 1 if the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="81 cells; never recorded")
    quick = parser.parse_args(words).quick
    row, device = measure(3 if quick else 10), machine.chosen_device()
    text = as_markdown([row], {"mlflow": version("mlflow")} | machine.described(device))
    sys.stdout.write(text)
    if not quick:
        (RESULTS / f"plan-{machine.slug(device)}.md").write_text(text)
    return int(median(row.samples) > TARGET_S)


if __name__ == "__main__":
    sys.exit(main())
