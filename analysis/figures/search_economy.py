"""Cost of a search: the best finished run so far against the epochs of all trials, pruned and failed ones included."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.points import label_of, numbers
from analysis.figures.style import panels, series
from analysis.select.objectives import goals_of
from analysis.select.selection import choices, searched
from analysis.table.cells import states_of

SWEEP = ""


def lacks(runs: pd.DataFrame) -> str:
    if not searched(runs):
        return "it is no search"
    done = any("finished" in states_of(choice.candidates) for choice in choices(runs))
    return "" if done else "no finished trial yet"


def draw(runs: pd.DataFrame) -> Figure:
    """One line per point of the grid over its candidates in the order of their end, running ones last."""
    goal = goals_of(runs)[0]
    points = choices(runs)
    figure, (axes,) = panels(width=5.2)
    for look, point in zip(series(len(points)), points, strict=True):
        own = point.candidates.assign(state=states_of(point.candidates), score=goal.scores(point.candidates))
        own = own.sort_values(["end_time", "cell_key"], na_position="last")
        spent = np.cumsum(np.nan_to_num(numbers(own, "epoch")))
        scores = np.where(own["state"] == "finished", own["score"], np.nan)
        best = (np.fmax if goal.direction == "max" else np.fmin).accumulate(scores) if len(scores) else scores
        label = label_of(pd.Series(dict(point.point)), point.point)
        axes.step(spent, best, where="post", label=label, color=look["color"], linestyle=look["linestyle"])
        done = np.isfinite(scores)
        axes.plot(spent[done], scores[done], look["marker"], color=look["color"], markersize=3, alpha=0.5)
    axes.set(xlabel="epochs trained, all trials together", ylabel=goal.name)
    pruned = sum(state.startswith("pruned") for point in points for state in states_of(point.candidates))
    axes.set_title("line: best so far; points: finished trials" + (f"; {pruned} pruned" if pruned else ""))
    if any(point.point for point in points):
        axes.legend()
    return figure
