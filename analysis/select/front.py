"""Pareto set of a sweep with several goals."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.select.objectives import goals_of
from analysis.select.pareto import hypervolumes, knee, pareto_set, worst
from analysis.select.selection import trials


class Front(NamedTuple):
    """The Pareto set of the points that compete: see trials.

    Args:
        keys: cell keys of the set, all seeds.
        note: its size, hypervolume and knee.
        runs, points: their rows, oldest first, and their numbers, (n, goals): means over seeds.
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
    goals = goals_of(runs)
    finished = goals[0].best_first(trials(runs)).sort_values(["start_time", "cell_key"])
    if len(goals) == 1 or finished.empty:
        return None
    points, directions = finished[[goal.name for goal in goals]].to_numpy(), [goal.direction for goal in goals]
    inside, reference, bend = pareto_set(points, directions), worst(points, directions), knee(points, directions)
    volumes = hypervolumes(points, reference, directions)
    ends = ", ".join(f"{goal.name} {value:.4g}" for goal, value in zip(goals, reference, strict=True))
    note = f"Pareto set of {inside.sum()} among {len(points)} finished"
    note += f", hypervolume {volumes[-1]:.4g} from {ends} (the worst of each)"
    note += "" if bend is None else f", knee at {finished['run_name'].iloc[bend]}"
    members = {run_id for run_ids in finished["run_ids"][inside] for run_id in run_ids}
    keys = frozenset(runs["cell_key"][runs["run_id"].isin(members)])
    return Front(keys, note, finished, points, inside, bend, volumes)
