"""Any sweep without a table of its own: its trials by rank, its winners, or its Pareto set, with test accuracy."""

import dataclasses
from collections.abc import Sequence

import pandas as pd

from analysis.select.front import front_of
from analysis.select.objectives import goals_of
from analysis.select.selection import axes, is_fair, references, searched
from analysis.table.cells import Quantity
from analysis.table.pivot import PivotTable
from analysis.table.ranking import ranked, winners

TITLE = "results"
METRICS = ("test/linear_top1", "test/knn_top1", "test/linear_projector_top1")


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per trial: finished ones by rank, then the unfinished, then references. Headers are the store's names.

    The first of several goals ranks, and "*" marks the Pareto set. A grid with several seeds has one row per setting,
    with means over seeds. A fair ablation has one row per point of its grid, with the best winner in bold.
    """
    goals = goals_of(runs)
    runs = runs.assign(**{goal.name: goal.scores(runs) for goal in goals})
    named = dict.fromkeys([*(goal.name for goal in goals), *METRICS])
    numbers = [_as_stored(name, ".4f" if name.endswith("_top1") else ".4g") for name in named]
    if is_fair(runs):
        of_winners = [dataclasses.replace(one, direction="max" if one.metric in METRICS else "") for one in numbers]
        return winners(runs, [*map(_as_stored, searched(runs)), *of_winners])
    varied = [*axes(runs), *(["seed"] if runs["seed"].nunique() > 1 else [])]
    front = front_of(runs)
    if front is None and "seed" in varied and not searched(runs):
        return _settings(runs, numbers)
    if front is not None:
        runs = runs.assign(pareto=["*" if key in front.keys else "" for key in runs["cell_key"]])
        numbers = [Quantity(label="Pareto set", metric="pareto"), *numbers]
    return ranked(runs, [*map(_as_stored, varied), *numbers])


def _settings(runs: pd.DataFrame, numbers: Sequence[Quantity]) -> pd.DataFrame:
    """A grid over its seeds: one row per setting, in the order of the axes, then the references."""
    rows = {axis: axis for axis in axes(runs)}
    table = PivotTable(rows=rows, quantities=numbers, quantities_in="columns").build(runs)
    compared = ranked(runs, numbers).tail(len(references(runs)))
    names = [*map(str, compared.index)]
    if isinstance(table.index, pd.MultiIndex):
        filled = [(name, *[""] * (len(rows) - 1)) for name in names]
        compared.index = pd.MultiIndex.from_tuples(filled, names=table.index.names)
    return pd.concat([table, compared]) if names else table


def _as_stored(name: str, spec: str = ".4g") -> Quantity:
    return Quantity(label=name, metric=name, spec=spec)
