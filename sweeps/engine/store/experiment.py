"""A sweep's experiment: made where it is missing, and told what analysis and people must know of the sweep."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from jepa_train.config import TrainConfig
from jepa_train.config.flat import Scalar, flatten, key_fields, later_fields, unflatten
from jepa_train.storage.paths import results_dir
from sweeps.engine.plan.plan import Plan
from sweeps.engine.spec.cells import shared_fields
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import find_experiment, open_client, store_uri

_LONGEST = 19_000  # characters of a description; MLflow takes 20,000


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
    sweep, keyed = plan.sweep, key_fields(plan.base)
    base = {key: text for key, text in shared_fields(plan.base, sweep.axes).items() if key in keyed}
    return {
        "sweep.file": str(source),
        **({"sweep.name": sweep.study, "sweep.scale": sweep.scale} if sweep.scale else {}),
        "sweep.kind": sweep.kind,
        "sweep.axes": json.dumps(sweep.axes),
        "sweep.searched": json.dumps([*sweep.space]),
        "sweep.seeds": json.dumps(sweep.seeds),
        "sweep.goals": json.dumps([dataclasses.asdict(goal) for goal in sweep.goals]),
        "sweep.base": json.dumps(base, sort_keys=True),
        "sweep.grid": json.dumps(_resolved(sweep, plan.base), default=list),
        "sweep.references": json.dumps([cell.key for cell in plan.fixed if cell.role == "reference"]),
        **({"sweep.later": json.dumps(later_fields(), sort_keys=True)} if later_fields() else {}),
        **_views(plan),
    }


def _views(plan: Plan) -> dict[str, str]:
    """The views of the UI which analysis.ui links to, in the tags where MLflow keeps those that people share.

    Both have columns for what varies and is compared; in "seeds" cells that differ in their seed alone are one row,
    their mean.
    """
    sweep = plan.sweep
    metrics = [*(goal.metric for goal in sweep.goals), "test/linear_top1"]
    columns = [*(f"params.`{axis}`" for axis in sweep.axes), *(f"metrics.`{name}`" for name in metrics)]
    grouped = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "group"}]}
    views: dict[str, dict[str, Any]] = {"cells": {"selectedColumns": [*columns, "params.`seed`"]}}
    if len(sweep.seeds) > 1:
        views["seeds"] = {"selectedColumns": columns, "groupBy": grouped}
    return {f"mlflow.sharedViewState.{name}": json.dumps(view) for name, view in views.items()}


def plan_files(plan: Plan, source: Path) -> dict[str, str]:
    """What the sweep's own run keeps: its file, and every cell with the state in which this launch found it."""
    cells = [
        {"key": row.cell.key, "label": row.cell.label, "role": row.cell.role, "state": row.state, "note": row.note}
        for row in plan.rows()
    ]
    text = json.dumps({"cells": cells, "to be proposed": plan.total - len(cells)}, indent=1)
    return {"plan.json": text} | ({source.name: source.read_text()} if source.is_file() else {})


def fitting(description: str) -> str:
    """A description that MLflow takes, cut at a line's end where it is too long."""
    if len(description) <= _LONGEST:
        return description
    return description[:_LONGEST].rpartition("\n")[0] + "\n\n(cut here)"


def harmless(table: str) -> str:
    """A Markdown table without HTML and images, which a label or a reason may hold and the UI would load."""
    return table.replace("<", "&lt;").replace("![", "!&#91;")


def _resolved(sweep: Sweep, base: TrainConfig) -> list[dict[str, Sequence[Scalar]]]:
    """The sweep's grids, one for each method in it, each with a value for every axis of any: the base's own where it
    has none, with another method than the base's that method's own default, "" where a method has no such field."""
    grids: list[dict[str, Sequence[Scalar]]] = []
    for grid in sweep.grids:
        for method in grid.get("method", [base.method.name]):
            flat = flatten(unflatten({"method": method}, base=base))
            named = {"method": [method]} if "method" in sweep.grid_axes else {}
            grids.append({key: grid.get(key, [flat.get(key, "")]) for key in sweep.grid_axes} | named)
    return grids


def _artifacts(name: str, uri: str) -> str | None:
    """Beside a local store, under results; a server decides for itself."""
    return (results_dir() / "artifacts" / name).as_uri() if uri.startswith("sqlite:") else None
