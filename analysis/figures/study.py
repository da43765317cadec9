"""A search by Optuna: importance of each axis, and the objective along each, from the store alone."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import log_axis, printable, series
from analysis.optuna_study import finished_points, importance, is_log, is_number, varied_axes
from analysis.select.objectives import goals_of
from analysis.select.selection import searched
from analysis.table.cells import short

SWEEP = ""
FEWEST = 4  # finished trials: an importance of fewer means nothing
FEW = 10  # trials per axis: an importance of fewer is a hint


def lacks(runs: pd.DataFrame) -> str:
    if not searched(runs):
        return "it is no search"
    trials = finished_points(runs)
    if len(trials) < FEWEST or not varied_axes(trials):
        return f"{len(trials)} finished trials are too few; {FEWEST} at least"
    return "" if trials[goals_of(runs)[0].name].nunique() > 1 else "all finished trials have the same score"


def caution(runs: pd.DataFrame) -> str:
    """Number of finished trials, with a warning where they are few for the number of axes."""
    trials = finished_points(runs)
    axes, count = len(varied_axes(trials)), f"{len(trials)} finished trials"
    return count if len(trials) >= FEW * axes else f"{count}, few for {axes} axes: the importance is only a hint"


def draw(runs: pd.DataFrame) -> Figure:
    """Finished points, with their means over seeds, by the first goal. MLflow's UI draws their parallel coordinates."""
    goal = goals_of(runs)[0]
    trials = finished_points(runs)
    keys, weights = varied_axes(trials), importance(runs, goal)
    figure = Figure(figsize=(max(6.4, 2.1 * len(keys)), 5.4))
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=(0.9, 1)))
    bars = top.subplots()
    names = sorted(weights, key=lambda key: weights[key])
    labels = {key: short(key) if [*map(short, keys)].count(short(key)) == 1 else key for key in keys}
    bars.barh([labels[name] for name in names], [weights[name] for name in names], color=series(1)[0]["color"])
    bars.set(xlabel=f"importance for {goal.name} (fANOVA)", xlim=(0, 1), title=caution(runs))
    panels = bottom.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, key in zip(panels, keys, strict=True):
        numeric = is_number(trials[key])
        values, order = trials[key] if numeric else trials[key].astype(str).map(printable), np.arange(len(trials))
        shown = axes.scatter(values, trials[goal.name], c=order, cmap="viridis_r", s=18, edgecolor="0.3", linewidth=0.3)
        axes.set_xlabel(labels[key])
        if numeric and is_log(trials[key]):
            log_axis(axes, "x")
    panels[0].set_ylabel(goal.name)
    bottom.colorbar(shown, ax=panels, label="trial")
    return figure
