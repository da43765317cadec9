"""Training curves of any sweep: its first goal, the loss and its terms, epoch by epoch, with bands over seeds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.points import grouped, label_of, lacking
from analysis.figures.style import panels, printable, series
from analysis.select.metrics import loss_terms
from analysis.select.objectives import goals_of
from analysis.select.selection import axes as axes_of
from analysis.select.selection import current, trials

SWEEP = ""
MOST = 6  # lines with a name; the others are thin
LOSS = "train/loss"


def lacks(runs: pd.DataFrame) -> str:
    return "" if len(current(runs)) else lacking(runs) or "no cell has begun"


def curves(runs: pd.DataFrame) -> Sequence[str]:
    return [*dict.fromkeys([goals_of(runs)[0].metric, LOSS, *loss_terms(current(runs))])]


def draw(runs: pd.DataFrame, histories: pd.DataFrame) -> Figure:
    """One line per setting, the mean over those of its seeds that have reached the epoch, also of failed runs; a panel
    per metric that was reported.

    The MOST best settings have names: in the order of the ranking those that compete, then by their last value.
    """
    runs, goal = current(runs), goals_of(runs)[0]
    keys = axes_of(runs)
    groups = grouped(runs, keys)
    named = [(label_of(own.iloc[0], keys) or printable(str(own["run_name"].iloc[0])), own) for _, own in groups]
    labels = {run: name for name, own in named for run in own["run_id"]}
    histories = histories.assign(label=histories["run_id"].map(labels)).dropna(subset="label").astype({"value": float})
    reported = {*histories["metric"][np.isfinite(histories["value"])]}
    metrics = [metric for metric in curves(runs) if metric in reported]
    across = min(len(metrics), 2 if len(metrics) <= 4 else 3)
    figure, places = panels(-(-len(metrics) // max(1, across)), across, width=4.8)
    if not metrics:
        return figure
    for spare in places[len(metrics) :]:
        spare.remove()
    best = (labels[run_ids[0]] for run_ids in goal.best_first(trials(runs, runs))["run_ids"])
    descending = metrics[0] == goal.metric and goal.direction == "max"
    others = _order(histories[histories["metric"] == metrics[0]], descending=descending)
    drawn = {*histories["label"]}
    order = [label for label in dict.fromkeys([*best, *others, *sorted(drawn)]) if label in drawn]
    for axes, metric in zip(places, metrics, strict=False):
        _draw_metric(axes, histories[histories["metric"] == metric], order)
        axes.set(xlabel="epoch", ylabel=metric)
    handles, names = places[0].get_legend_handles_labels()
    if names:
        figure.legend(handles[::-1], names[::-1], loc="outside lower center", ncols=2)
    seeds = max(own["seed"].nunique() for _, own in groups)
    thin = f"; thin: the other {len(order) - MOST}" if len(order) > MOST else ""
    figure.suptitle(f"bands: ± std over up to {seeds} seeds{thin}" if seeds > 1 else f"one seed{thin}", fontsize=9)
    return figure


def _order(history: pd.DataFrame, *, descending: bool) -> list[str]:
    """The settings by the mean of their last value; ties by name."""
    last = history.sort_values("epoch").groupby("run_id").last()
    means = last.groupby("label")["value"].mean().reset_index()
    return [*means.sort_values(["value", "label"], ascending=[not descending, True])["label"]]


def _draw_metric(axes: Axes, history: pd.DataFrame, order: list[str]) -> None:
    named = order[:MOST]
    looks = dict(zip(named, series(len(named)), strict=True))
    for name in reversed(order):  # the best on top
        own = history[(history["label"] == name) & np.isfinite(history["value"])]
        line = own.groupby("epoch")["value"].agg(["mean", "std"])
        if not len(line):
            continue
        if name not in looks:
            axes.plot(line.index, line["mean"], color="0.75", linewidth=0.6, zorder=1)
            continue
        look = looks[name] | {"marker": "none"} if len(line) > 1 else looks[name]
        axes.plot(line.index, line["mean"], label=name, **look)
        spread = line["std"].fillna(0)
        axes.fill_between(line.index, line["mean"] - spread, line["mean"] + spread, color=look["color"], alpha=0.18)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
