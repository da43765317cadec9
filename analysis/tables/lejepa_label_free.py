"""LeJEPA, Sec. 6.3: runs ranked without labels, by train loss / lamb^0.4, next to their accuracies."""

import math

import pandas as pd

from analysis.select.objectives import Goal
from analysis.select.selection import axes
from analysis.table.cells import Quantity, TableCell
from analysis.table.label_free import label_free
from analysis.table.ranking import ranked

TITLE = "LeJEPA: runs by train loss / lamb^0.4, the smallest first; top-1 in %"
GOAL = Goal(metric="train/loss", direction="min", over="method.lamb", power=0.4)
METRIC = "test/probe_top1"
SPEARMAN = Quantity(label="|Spearman|", metric=METRIC, spec=".4f")


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per run: finished ones by rank, then the unfinished, then references."""
    goal = f'[{{"metric": "{GOAL.metric}", "direction": "min", "over": "{GOAL.over}", "power": {GOAL.power}}}]'
    runs = runs.assign(**{"sweep.goals": goal})
    settings = [*axes(runs), *(["seed"] if runs["seed"].nunique() > 1 else [])]
    columns = [Quantity(label=name, metric=name) for name in (*settings, "train/loss", GOAL.name)]
    accuracies = {"val probe": "val/probe_top1", "test probe": METRIC, "test linear": "test/linear_top1"}
    unmarked = [Quantity(label=label, metric=name, factor=100.0, spec=".2f") for label, name in accuracies.items()]
    return ranked(runs, [*columns, *unmarked])


def compared(runs: pd.DataFrame) -> pd.DataFrame:
    """|C(alpha)| over all runs, at alpha 0 and at the best alpha, as in the paper."""
    (group,) = label_free(runs, metric=METRIC)
    scores = {0: group.scores[0], "best": group.best}
    ids = tuple(runs.loc[group.points.index[:1], "run_id"])
    cells = [
        TableCell((abs(score.spearman),), run_ids=ids, quantity=SPEARMAN)
        if math.isfinite(score.spearman)
        else TableCell(states=("not measured",), quantity=SPEARMAN)
        for score in scores.values()
    ]
    index = pd.Index([*scores], name="alpha", dtype=object)
    return pd.DataFrame({SPEARMAN.label: pd.Series(cells, index=index, dtype=object)})
