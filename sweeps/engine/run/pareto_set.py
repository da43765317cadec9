"""The Pareto set of what a sweep has reached so far: the scores that no other beats in every goal."""

import math
from collections.abc import Sequence

from sweeps.engine.spec.objective import Goal


class ParetoSet:
    """Grows score by score, so that a view can show its size at any time."""

    def __init__(self, goals: Sequence[Goal]) -> None:
        self._goals = goals
        self._front: list[tuple[float, ...]] = []

    def __len__(self) -> int:
        return len(self._front)

    def add(self, scores: tuple[float, ...]) -> None:
        """A cell's scores, one per goal; NaN in any leaves it out."""
        if any(math.isnan(score) for score in scores) or any(self._dominates(other, scores) for other in self._front):
            return
        self._front = [other for other in self._front if not self._dominates(scores, other)] + [scores]

    def _dominates(self, one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        """Better somewhere, worse nowhere."""
        triples = list(zip(self._goals, one, other, strict=True))
        better = any(goal.better(a, b) for goal, a, b in triples)
        return better and not any(goal.better(b, a) for goal, a, b in triples)
