"""Descriptions of a plan for the store: the tags of its experiment, and the files of its own run."""

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

from analysis.store.cell_list import file_digest
from analysis.tables import file_beside
from jepa_train.config import TrainConfig
from jepa_train.config.flat import Scalar, flatten, key_fields, later_fields, type_names, unflatten
from sweeps.engine.plan.plan import Plan
from sweeps.engine.spec.cells import changed, shared_fields
from sweeps.engine.spec.objective import is_labelled
from sweeps.engine.spec.search_space import conditions_of
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.code_version import Code, code_of


def codes_of(plan: Plan) -> list[Code]:
    """The present code of every cell that the sweep has or may propose, each once."""
    proposed = [changed(plan.base, point) for point in plan.sweep.corners()] if plan.sweep.space else []
    configs = (*(cell.config for cell in plan.known), *proposed)
    codes = [*(code_of(flatten(config)) for config in configs), *(code_of(it.params) for it in plan.entries.values())]
    return [*dict.fromkeys(codes)]


def experiment_tags(plan: Plan) -> dict[str, str]:
    """Tags of the experiment: the facts of the sweep that analysis needs."""
    sweep, keyed = plan.sweep, key_fields(plan.base)
    versions = {code.own: code.version for code in codes_of(plan)}
    base = {key: text for key, text in shared_fields(plan.base, sweep.axes).items() if key in keyed}
    some = {  # written where there are some, and where the store has had some
        "sweep.seeds_per_trial": sweep.seeds_per_trial if sweep.seeds_per_trial > 1 else 0,
        "sweep.constraints": [dataclasses.asdict(limit) for limit in sweep.limits],
        "sweep.when": conditions_of(sweep.domains),
        "sweep.overrides": plan.overrides,
        "sweep.later": later_fields(),
    }
    return {
        "sweep.file": str(plan.file),
        **({"sweep.digest": digest} if (digest := file_digest(plan.file)) else {}),
        **({"sweep.name": sweep.study, "sweep.scale": sweep.scale} if sweep.scale else {}),
        "sweep.kind": sweep.kind,
        "sweep.axes": json.dumps(sweep.axes),
        "sweep.searched": json.dumps([*sweep.space]),
        "sweep.seeds": json.dumps(sweep.seeds),
        "sweep.goals": json.dumps([dataclasses.asdict(goal) for goal in sweep.goals]),
        "sweep.base": json.dumps(base, sort_keys=True),
        "sweep.grid": json.dumps(_grids(sweep, plan.base), default=list),
        "sweep.total": str(plan.total),
        "sweep.references": json.dumps([cell.key for cell in plan.fixed if cell.role == "reference"]),
        "sweep.code": json.dumps({"at": int(time.time() * 1000), "versions": versions}, sort_keys=True),
        "sweep.types": json.dumps(type_names(), sort_keys=True),
        "sweep.table": json.dumps(dataclasses.asdict(sweep.table) if sweep.table else {}),
        "sweep.table_file": file_beside(plan.file).name if file_beside(plan.file).is_file() else "",
        **_views(plan),
    } | {name: json.dumps(value) for name, value in some.items() if value or name in plan.stored.tags}


def _views(plan: Plan) -> dict[str, str]:
    """Views of the UI to which analysis.ui links, as tags in which MLflow keeps shared views.

    All show the runs that the sweep asks for, with columns for what varies and is compared; in "seeds" cells that
    differ in their seed alone are one row, their mean. "compare" has charts: parallel coordinates of the axes and the
    objective, and the objective's curve. Their fields are those of MLflow 3.17's UI; another version may ignore them.
    """
    sweep = plan.sweep
    accuracies = ["test/probe_top1", "test/linear_top1"] if is_labelled(plan.base) else []
    metrics = [*(goal.metric for goal in sweep.goals), *accuracies]
    columns = [*(f"params.`{axis}`" for axis in sweep.axes), *(f"metrics.`{name}`" for name in metrics)]
    grouped = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "group"}]}
    views: dict[str, dict[str, Any]] = {"cells": {"selectedColumns": [*columns, "params.`seed`"]}}
    if len(sweep.seeds) > 1:
        views["seeds"] = {"selectedColumns": columns, "groupBy": grouped}
    goals = [goal.metric for goal in sweep.goals]
    charts: list[dict[str, Any]] = [{"type": "LINE", "metricKey": name, "selectedMetricKeys": [name]} for name in goals]
    if sweep.axes:
        parallel = {"type": "PARALLEL", "selectedParams": sweep.axes, "selectedMetrics": goals, "showAllRuns": True}
        charts.insert(0, parallel)
    views["compare"] = {
        **views["cells"],
        "searchFilter": "tags.stale IS NULL AND tags.cell_key != ''",  # without the sweep's own run
        "runsHiddenMode": "SHOW_ALL",  # else ten runs
        "compareRunSections": [{"uuid": "own", "name": "Comparison", "display": True, "columns": 2, "cardHeight": 380}],
        "compareRunCharts": [{"uuid": f"{at}", "metricSectionId": "own"} | one for at, one in enumerate(charts)],
    }
    present = {"searchFilter": "tags.stale IS NULL"}
    return {f"mlflow.sharedViewState.{name}": json.dumps(present | view) for name, view in views.items()}


def plan_files(plan: Plan) -> dict[str, str]:
    """Files of the sweep's own run: its file, its table file, and every cell with its state before this launch."""
    cells = [row.facts for row in plan.rows()]
    text = json.dumps({"cells": cells, "to be proposed": plan.total - len(cells)}, indent=1)
    own = (plan.file, file_beside(plan.file))
    return {"plan.json": text} | {file.name: file.read_text() for file in own if file.is_file()}


def _grids(sweep: Sweep, base: TrainConfig) -> list[dict[str, Sequence[Scalar]]]:
    """The sweep's grids, one for each method in it, each with a value for every axis of any: the base's own where it
    has none, with another method than the base's that method's own default, "" where a method has no such field."""
    grids: list[dict[str, Sequence[Scalar]]] = []
    for grid in sweep.grids:
        for method in grid.get("method", [base.method.name]):
            flat = flatten(unflatten({"method": method}, base=base))
            named = {"method": [method]} if "method" in sweep.grid_axes else {}
            grids.append({key: grid.get(key, [flat.get(key, "")]) for key in sweep.grid_axes} | named)
    return grids
