"""Any sweep without a table of its own: its trials by rank, its winners, or its Pareto set, with test accuracy."""

import pandas as pd

from analysis.aggregate import ranked, winners
from analysis.front import front_of
from analysis.goals import goals_of
from analysis.selection import axes, is_fair, searched

TITLE = "trials ranked by the sweep's objective on val"
METRICS = ("test/linear_top1", "test/knn_top1", "test/linear_projector_top1")
FORMATS = {"val/probe_top1": ".4f"} | dict.fromkeys(METRICS, ".4f")


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per trial: finished by rank, then the unfinished, then references. Headers are the store's names.

    Of several goals the first ranks, and "*" marks the Pareto set. A fair ablation has one row per point of its grid.
    """
    goals = goals_of(runs)
    runs = runs.assign(**{goal.name: goal.scores(runs) for goal in goals})
    numbers = {name: (name, 1.0) for name in dict.fromkeys([*(goal.name for goal in goals), *METRICS])}
    if is_fair(runs):
        return winners(runs, {name: (name, 1.0) for name in searched(runs)} | numbers)
    varied = [*axes(runs), *(["seed"] if runs["seed"].nunique() > 1 else [])]
    front = front_of(runs)
    if front is not None:
        runs = runs.assign(pareto=["*" if key in front.keys else "" for key in runs["cell_key"]])
        numbers = {"Pareto set": ("pareto", 1.0)} | numbers
    return ranked(runs, {name: (name, 1.0) for name in varied} | numbers)
