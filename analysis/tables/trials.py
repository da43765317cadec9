"""Individual runs of any sweep, by rank; of several goals with the Pareto set: python -m analysis NAME --trials."""

from collections.abc import Sequence

import pandas as pd

from analysis.select.metrics import ACCURACIES, RANK, check_metrics, metrics_of
from analysis.select.objectives import goals_of
from analysis.select.selection import axes
from analysis.table.cells import Quantity
from analysis.table.ranking import ranked, with_pareto_set

TITLE = "individual runs"


def build(runs: pd.DataFrame, metrics: Sequence[str] = ()) -> pd.DataFrame:
    """One row per run: finished ones by rank, then the unfinished, then references. Headers are the store's names.

    The first of several goals ranks, and "*" marks the Pareto set.

    Args:
        metrics: in place of the usual accuracies on test, or of the effective rank where no run has an accuracy.

    Raises:
        UnknownMetric: no run has one of the metrics.
    """
    check_metrics(runs, metrics)
    goals = goals_of(runs)
    varied = [*axes(runs), *(["seed"] if runs["seed"].nunique() > 1 else [])]
    runs, columns = with_pareto_set(runs, [*map(_as_stored, varied)])
    usual = [f"test/{name}" for name in ACCURACIES]
    measured = {*metrics_of(runs)}
    if RANK in measured and measured.isdisjoint(usual):
        usual = [RANK]
    named = dict.fromkeys([*(goal.name for goal in goals), *(metrics or usual)])
    return ranked(runs, [*columns, *map(_as_stored, named)], individual=True)


def _as_stored(name: str) -> Quantity:
    return Quantity(label=name, metric=name, spec=".4f" if name.endswith("_top1") else ".4g")
