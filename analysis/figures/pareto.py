"""Any sweep with several goals: its Pareto set and knee, and the hypervolume from trial to trial."""

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import legend, panels, printable, series
from analysis.select.front import Front, front_of
from analysis.select.objectives import Goal, goals_of

SWEEP = ""


def lacks(runs: pd.DataFrame) -> str:
    if len(goals_of(runs)) == 1:
        return "it has one goal"
    return "" if front_of(runs) else "no finished run has a number for each goal yet"


def draw(runs: pd.DataFrame) -> Figure:
    """A panel for each further goal against the first, then the hypervolume over the finished trials, oldest first."""
    goals, front = goals_of(runs), front_of(runs)
    assert front is not None
    figure, (*planes, growth) = panels(1, len(goals), width=4.8)
    for number, axes in enumerate(planes, 1):
        _plane(axes, front, goals, number)
    legend(planes[0])
    trials = np.arange(1, len(front.volumes) + 1)
    growth.step(trials, front.volumes, where="post", color=series(1)[0]["color"])
    growth.set(xlabel="finished trials", ylabel="hypervolume", ylim=(0, None))
    growth.set_title("reference: the worst of each goal")
    growth.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _plane(axes: Axes, front: Front, goals: list[Goal], number: int) -> None:
    """The runs by one goal (x) and the first (y); with two goals a line below which runs are dominated."""
    x, y, inside = front.points[:, number], front.points[:, 0], front.inside
    color = series(1)[0]["color"]
    if not inside.all():
        axes.plot(x[~inside], y[~inside], "o", color="0.7", markersize=4, label="dominated")
    if len(goals) == 2:
        order = np.flatnonzero(inside)[np.argsort(x[inside], kind="stable")]
        side: Literal["pre", "post"] = "pre" if goals[number].direction == "max" else "post"
        axes.step(x[order], y[order], where=side, color=color, linewidth=1, zorder=1)
    axes.plot(x[inside], y[inside], "s", color=color, label=f"Pareto set ({inside.sum()})")
    if front.knee is not None:
        name = printable(f"knee: {front.runs['run_name'].iloc[front.knee]}")
        axes.plot(x[front.knee], y[front.knee], "o", markersize=12, fillstyle="none", color="0.2", label=name)
    texts = [f"{goal.name} ({goal.direction})" for goal in goals]
    axes.set(xlabel=texts[number], ylabel=texts[0], title=f"{len(x)} finished")
