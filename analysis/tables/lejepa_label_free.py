"""LeJEPA, Sec. 6.3: the runs ranked without labels, by train loss / lamb^0.4, next to what the labels say."""

import pandas as pd

from analysis.aggregate import Quantity
from analysis.goals import Goal
from analysis.ranking import ranked
from analysis.selection import axes

TITLE = "LeJEPA: runs by train loss / lamb^0.4, the smallest first; top-1 in %"
GOAL = Goal(metric="train/loss", direction="min", over="method.lamb", power=0.4)


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per run: finished by rank, then the unfinished, then references."""
    goal = f'[{{"metric": "{GOAL.metric}", "direction": "min", "over": "{GOAL.over}", "power": {GOAL.power}}}]'
    runs = runs.assign(**{GOAL.name: GOAL.scores(runs)}).assign(**{"sweep.goals": goal})
    settings = [*axes(runs), *(["seed"] if runs["seed"].nunique() > 1 else [])]
    columns = [Quantity(label=name, metric=name) for name in (*settings, "train/loss", GOAL.name)]
    accuracies = {"val probe": "val/probe_top1", "test linear": "test/linear_top1"}
    unmarked = [Quantity(label=label, metric=name, factor=100.0, spec=".2f") for label, name in accuracies.items()]
    return ranked(runs, [*columns, *unmarked])
