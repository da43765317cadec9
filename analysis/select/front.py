"""Pareto set of a sweep with several goals."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.select.objectives import Goal, goals_of
from analysis.select.pareto import hypervolume, knee, pareto_set, worst
from analysis.select.selection import current


@dataclass(frozen=True, kw_only=True)
class Front:
    """The finished cells that no other dominates.

    Args:
        goals: in the order of the sweep.
        finished: number of finished cells.
        keys: the cell keys of the set.
        reference: the worst of each goal among the finished cells.
        volume: the hypervolume between reference and set.
        knee: the run's name, "" where there is none.
    """

    goals: tuple[Goal, ...]
    finished: int
    keys: frozenset[str]
    reference: tuple[float, ...]
    volume: float
    knee: str

    def __str__(self) -> str:
        ends = ", ".join(f"{goal.name} {value:.4g}" for goal, value in zip(self.goals, self.reference, strict=True))
        covered = f", hypervolume {self.volume:.4g} from {ends} (the worst of each)"
        bend = f", knee at {self.knee}" if self.knee else ""
        return f"Pareto set of {len(self.keys)} among {self.finished} finished{covered}{bend}"


def front_of(runs: pd.DataFrame) -> Front | None:
    """The front of a sweep's present cells; None where it has one goal, or no finished cell with a number for each."""
    goals, present = goals_of(runs), current(runs)
    finished = present[present["status"] == "finished"]
    points = np.column_stack([goal.scores(finished) for goal in goals])
    scored = np.isfinite(points).all(axis=1)
    if len(goals) == 1 or not scored.any():
        return None
    finished, points, directions = finished[scored], points[scored], [goal.direction for goal in goals]
    reference, bend = worst(points, directions), knee(points, directions)
    return Front(
        goals=tuple(goals),
        finished=len(points),
        keys=frozenset(finished["cell_key"][pareto_set(points, directions)]),
        reference=tuple(reference),
        volume=hypervolume(points, reference, directions),
        knee="" if bend is None else str(finished["run_name"].iloc[bend]),
    )
