"""Pareto set of a sweep with several goals."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.select.objectives import goals_of
from analysis.select.pareto import hypervolumes, knee, pareto_set, worst
from analysis.select.selection import current, runs_of_trials, trials


class Front(NamedTuple):
    """The Pareto set of the finished runs that have a number for each goal.

    Args:
        keys: cell keys of the set.
        note: its size, hypervolume and knee.
        runs, points: all of those runs, oldest first, and their numbers, (n, goals).
        inside: (n,) bool, the members of the set; knee: a position, or None.
        volumes: (n,) hypervolume of the runs up to each one.
    """

    keys: frozenset[str]
    note: str
    runs: pd.DataFrame
    points: np.ndarray
    inside: np.ndarray
    knee: int | None
    volumes: np.ndarray


def front_of(runs: pd.DataFrame) -> Front | None:
    """The front of a sweep's present cells; None where it has one goal, or no finished cell with a number for each."""
    goals, present, seeds = goals_of(runs), trials(current(runs)), runs_of_trials(runs)
    finished = present[present["status"] == "finished"].sort_values(["start_time", "cell_key"])
    points = np.column_stack([goal.scores(finished) for goal in goals])
    scored = np.isfinite(points).all(axis=1)
    if len(goals) == 1 or not scored.any():
        return None
    finished, points, directions = finished[scored], points[scored], [goal.direction for goal in goals]
    inside, reference, bend = pareto_set(points, directions), worst(points, directions), knee(points, directions)
    volumes = hypervolumes(points, reference, directions)
    ends = ", ".join(f"{goal.name} {value:.4g}" for goal, value in zip(goals, reference, strict=True))
    note = f"Pareto set of {inside.sum()} among {len(points)} finished"
    note += f", hypervolume {volumes[-1]:.4g} from {ends} (the worst of each)"
    note += "" if bend is None else f", knee at {finished['run_name'].iloc[bend]}"
    members = finished["cell_key"][inside]
    keys = frozenset(key for first in members for key in (seeds[first]["cell_key"] if seeds else [first]))
    return Front(keys, note, finished, points, inside, bend, volumes)
