"""Frames of runs in the form of load_runs, made without a store from known numbers."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

BASE = {"method": "lejepa", "data.name": "digits", "model.encoder": "test_resnet", "epochs": 12, "global_batch": 128}
OTHERS = {"data.val_frac": 0.1, "data.image_size": 12, "probe.lr": 0.01, "views.num_global": 2, "views.num_local": 0}


def made_runs(
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]],
    measure: Callable[[dict[str, Any]], dict[str, Any] | str | None],
    *,
    name: str = "study",
    seeds: Sequence[int] = (0, 1, 2),
    goal: str = "val/probe_top1",
    base: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """The runs of a sweep.

    Args:
        measure: a cell's config -> metrics (and tags) of its finished run, the status of one without a result, or None
            for a cell that has not begun.
    """
    grids = [grid] if isinstance(grid, Mapping) else [*grid]
    axes = [*dict.fromkeys(key for one in grids for key in one)]
    shared = {key: value for key, value in (BASE | OTHERS | dict(base or {})).items() if key not in axes}
    if "method" in axes:
        shared = {key: value for key, value in shared.items() if not key.startswith("method.")}
    tags = {
        **{"sweep": name, "sweep.kind": "grid", "sweep.axes": json.dumps(axes), "sweep.seeds": json.dumps([*seeds])},
        "sweep.grid": json.dumps([{key: [*one.get(key, [shared.get(key, "")])] for key in axes} for one in grids]),
        **{"sweep.goals": json.dumps([{"metric": goal}])},
        "base": json.dumps({key: str(value) for key, value in shared.items()}, sort_keys=True),
    }
    tags["sweep.base"] = tags["base"]
    points = [dict(zip(one, values, strict=True)) for one in grids for values in itertools.product(*one.values())]
    rows = []
    for number, (point, seed) in enumerate(itertools.product(points, seeds)):
        config = {**shared, **point, "seed": seed}
        found = measure(config)
        if found is None:
            continue
        about = {"status": found, "epoch": 1} if isinstance(found, str) else {"status": "finished", "epoch": 12} | found
        key = f"{name}-{number:03}"
        rows.append(
            {
                **tags,
                **{"role": "cell", "reason": "", "run_id": f"run-{key}", "cell_key": key, "run_name": key},
                **{"start_time": number, "commit": "a" * 40, "git_dirty": "false"},
                **config,
                **about,
            }
        )
    return pd.DataFrame(rows)


def as_search(runs: pd.DataFrame, searched: Sequence[str], kind: str = "search") -> pd.DataFrame:
    """The runs of a grid as those of a search over some of its axes."""
    (grid,) = json.loads(runs["sweep.grid"].iloc[0])
    grid = {key: values for key, values in grid.items() if key not in searched}
    return runs.assign(**{"sweep.searched": json.dumps(searched), "sweep.kind": kind, "sweep.grid": json.dumps([grid])})
