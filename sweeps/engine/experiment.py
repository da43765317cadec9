"""A sweep's experiment: made where it is missing, and told what analysis and people must know of the sweep."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from jepa_train.config import TrainConfig
from jepa_train.flat import Scalar, flatten
from jepa_train.paths import results_dir
from sweeps.engine.cells import shared_fields
from sweeps.engine.plan import Plan
from sweeps.engine.spec import Sweep
from sweeps.engine.store import find_experiment, open_client, store_uri


def open_experiment(sweep: str) -> tuple[MlflowClient, Experiment]:
    """A client of the store and the sweep's experiment, which is created where it is missing.

    Raises:
        MlflowException: the store cannot be reached; ConfigError: the experiment has been deleted.
    """
    uri = store_uri()
    results_dir().mkdir(parents=True, exist_ok=True)
    client = open_client(uri)
    experiment = find_experiment(sweep, uri)
    if experiment is None:
        try:
            client.create_experiment(sweep, artifact_location=_artifacts(sweep, uri))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another launch was faster
                raise
        experiment = find_experiment(sweep, uri)
    assert experiment is not None
    return client, experiment


def described(plan: Plan, source: Path) -> dict[str, str]:
    """The experiment's tags: what analysis must know of the sweep."""
    sweep = plan.sweep
    return {
        "sweep.file": str(source),
        "sweep.kind": sweep.kind,
        "sweep.axes": json.dumps(sweep.axes),
        "sweep.searched": json.dumps([*sweep.space]),
        "sweep.seeds": json.dumps(sweep.seeds),
        "sweep.objective": sweep.goals[0].metric,
        "sweep.goals": json.dumps([dataclasses.asdict(goal) for goal in sweep.goals]),
        "sweep.base": json.dumps(shared_fields(plan.base, sweep.axes), sort_keys=True),
        "sweep.grid": json.dumps(_resolved(sweep, plan.base), default=list),
        "sweep.references": json.dumps([cell.key for cell in plan.fixed if cell.role == "reference"]),
    }


def plan_files(plan: Plan, source: Path) -> dict[str, str]:
    """What the sweep's own run keeps: its file, and every cell with the state in which this launch found it."""
    fixed = [
        {"key": cell.key, "label": cell.label, "role": cell.role, "state": _state(plan, cell.key)}
        for cell in plan.fixed
    ]
    points = [{"key": one.key, "label": one.label, "role": one.role, "state": one.status} for one in plan.points]
    text = json.dumps({"cells": fixed + points, "to be proposed": plan.proposals}, indent=1)
    return {"plan.json": text} | ({source.name: source.read_text()} if source.is_file() else {})


def _state(plan: Plan, key: str) -> str:
    return plan.entries[key].status if key in plan.entries else "missing"


def _resolved(sweep: Sweep, base: TrainConfig) -> list[dict[str, Sequence[Scalar]]]:
    """The sweep's grids, each with a value for every axis of any of them: the base's own where it has none."""
    flat = flatten(base)
    return [{key: grid.get(key, [flat.get(key, "")]) for key in sweep.grid_axes} for grid in sweep.grids]


def _artifacts(name: str, uri: str) -> str | None:
    """Beside a local store, under results; a server decides for itself."""
    return (results_dir() / "artifacts" / name).as_uri() if uri.startswith("sqlite:") else None
