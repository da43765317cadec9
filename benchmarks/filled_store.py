"""A store of many finished runs, filled by plain SQL: MLflow's own interface would need minutes for thousands."""

import dataclasses
import json
import math
import random
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from optuna.distributions import CategoricalDistribution, FloatDistribution

from jepa_train.config.flat import Scalar, flatten
from jepa_train.config.presets import DIGITS
from jepa_train.evaluation.glossary import GLOSSARY
from sweeps.engine.spec.cells import Cell, make_cell, shared_fields
from sweeps.engine.spec.sweep import Sweep

METRICS = [f"{split}/{name}" for split in ("val", "test") for name in [*GLOSSARY][:20]]
SPACE = {
    "method.lamb": FloatDistribution(1e-3, 0.5, log=True),
    "optim.lr": FloatDistribution(1e-4, 1e-1, log=True),
    "optim.weight_decay": FloatDistribution(1e-6, 1e-1, log=True),
    "method.num_slices": CategoricalDistribution([256, 512, 1024, 2048]),
}
EPOCHS = 100
START = 1_700_000_000_000  # ms


def grid_of(side: int) -> Sweep:
    """side ** 4 cells: three axes and the seeds."""
    grid: dict[str, list[Scalar]] = {
        "method.lamb": [round(0.01 * step, 4) for step in range(1, side + 1)],
        "optim.lr": [round(1e-4 * step, 6) for step in range(1, side + 1)],
        "method.num_slices": [64 * step for step in range(1, side + 1)],
    }
    return Sweep(name="scale", purpose="Many cells.", base=DIGITS, grid=grid, seeds=tuple(range(side)))


def search_of(trials: int) -> Sweep:
    """A search with so many trials, which are done, and six more."""
    return Sweep(name="scale_search", purpose="Many trials.", base=DIGITS, space=SPACE, trials=trials + 6)


def drawn_cells(sweep: Sweep, count: int) -> list[Cell]:
    """So many points of the space, drawn at random."""
    chance = random.Random(0)
    points = [{key: _drawn(domain, chance) for key, domain in SPACE.items()} for _ in range(count)]
    return [make_cell(sweep, DIGITS, point) for point in points]


def fill(file: Path, sweep: Sweep, cells: Iterable[Cell]) -> None:
    """Record the cells as finished in an sqlite store, which is created where it is missing."""
    client = MlflowClient(f"sqlite:///{file}")
    about = {
        "sweep.kind": sweep.kind,
        "sweep.axes": json.dumps(sweep.axes),
        "sweep.goals": json.dumps([dataclasses.asdict(goal) for goal in sweep.goals]),
        "sweep.base": json.dumps(shared_fields(DIGITS, sweep.axes), sort_keys=True),
    }
    experiment = client.create_experiment(sweep.name, tags=about)
    chance = random.Random(sweep.name)
    with closing(sqlite3.connect(file)) as connection:
        for number, cell in enumerate(cells):
            _insert(connection, experiment, cell, START + 1000 * number, chance)
        connection.commit()


def _insert(store: sqlite3.Connection, experiment: str, cell: Cell, started: int, chance: random.Random) -> None:
    run = f"{chance.getrandbits(128):032x}"
    tags = {"cell_key": cell.key, "role": cell.role, "status": "finished", "reason": "", "workers": "1"}
    tags |= {"epoch": str(EPOCHS), "device_seconds": "12.5", "mlflow.runName": cell.label, "mlflow.user": "me"}
    tags |= {"mlflow.source.name": "/home/me/sweeps/scale.py", "mlflow.source.git.commit": "0" * 40}
    tags |= {f"version.package{index}": "1.2.3" for index in range(24 - len(tags))}
    store.execute(
        "insert into runs (run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage,"
        " artifact_uri, experiment_id) values (?, ?, 'UNKNOWN', 'me', 'FINISHED', ?, ?, 'active', ?, ?)",
        (run, cell.label, started, started + 900, f"/home/me/results/artifacts/{run}", experiment),
    )
    params = [(key, str(value), run) for key, value in flatten(cell.config).items()]
    store.executemany("insert into params (key, value, run_uuid) values (?, ?, ?)", params)
    store.executemany("insert into tags (key, value, run_uuid) values (?, ?, ?)", [(*tag, run) for tag in tags.items()])
    columns = "(key, value, timestamp, step, is_nan, run_uuid) values (?, ?, ?, ?, 0, ?)"
    last = [(name, chance.random(), started, EPOCHS, run) for name in METRICS]
    store.executemany(f"insert into latest_metrics {columns}", last)
    curve = [("val/probe_top1", chance.random(), started, epoch, run) for epoch in range(1, EPOCHS)]
    store.executemany(f"insert into metrics {columns}", [*curve, *last])


def _drawn(domain: Any, chance: random.Random) -> float:
    if isinstance(domain, CategoricalDistribution):
        return chance.choice(domain.choices)  # type: ignore[return-value]
    return math.exp(chance.uniform(math.log(domain.low), math.log(domain.high)))
