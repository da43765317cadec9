"""Goals: the numbers by which the cells of a sweep are ranked. The engine imports them, so pandas is not loaded."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

LOST = ("diverged", "collapsed", "pruned")  # ends of a seed that end its point, the worst first
Direction = Literal["max", "min"]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A number of a run to maximise or minimise: a metric, or metric / over^power (selection without labels)."""

    metric: str
    direction: Direction = "max"
    over: str = ""
    power: float = 0.0

    @property
    def name(self) -> str:
        """Name for display: "val/probe_top1", "train/loss / method.lamb^0.4"."""
        return f"{self.metric} / {self.over}^{self.power:g}" if self.over else self.metric

    def score(self, metrics: Mapping[str, float], flat: Mapping[str, Any]) -> float:
        """The number of a run with these metrics and this flat config; NaN where it is undefined."""
        value = metrics.get(self.metric, math.nan)
        if not self.over:
            return float(value)
        base = float(flat.get(self.over, math.nan))
        return float(value) / base**self.power if base > 0 else math.nan

    def scores(self, runs: "pd.DataFrame") -> "pd.Series":
        """The number of each run, whatever its status; NaN where it is undefined."""
        values = _numbers(runs, self.metric)
        if not self.over:
            return values
        base = _numbers(runs, self.over)
        return (values / base**self.power).where(base > 0)

    def better(self, score: float, than: float) -> bool:
        """Comparison of two scores; any number beats NaN."""
        if math.isnan(score) or math.isnan(than):
            return not math.isnan(score)
        return score > than if self.direction == "max" else score < than

    def best_key(self, scores: Mapping[str, float]) -> str:
        """The cell key with the best score, the smallest of equals; "" where there is no number."""
        best = ""
        for key in sorted(scores):
            if self.better(scores[key], scores.get(best, math.nan)):
                best = key
        return best

    def best_first(self, runs: "pd.DataFrame") -> "pd.DataFrame":
        """The runs sorted by this goal, ties by cell key, those without a number last; the score as column `score`."""
        scored = runs.assign(score=self.scores(runs))
        return scored.sort_values(["score", "cell_key"], ascending=[self.direction == "min", True])


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """A limit on a metric of a run that the winner of a search has to keep."""

    metric: str
    sense: Literal["<=", ">="]
    bound: float

    @property
    def name(self) -> str:
        """The constraint for display: "train/peak_memory_gb <= 20"."""
        return f"{self.metric} {self.sense} {self.bound:g}"

    def violation(self, metrics: Mapping[str, Any]) -> float:
        """Distance beyond the bound in units of the bound, 0 or less where it is kept; NaN for a run without it."""
        beyond = (_number(metrics.get(self.metric)) - self.bound) / (abs(self.bound) or 1.0)
        return beyond if self.sense == "<=" else -beyond


def constraints_of(tags: Mapping[str, str]) -> list[Constraint]:
    """The constraints of one sweep, by the tags of its experiment."""
    return [Constraint(**limit) for limit in json.loads(tags.get("sweep.constraints", "[]"))]


def goals_of(runs: "pd.DataFrame") -> list[Goal]:
    """The goals of one sweep; the first one ranks."""
    return [Goal(**goal) for goal in json.loads(runs["sweep.goals"].iloc[0])]


def _numbers(runs: "pd.DataFrame", name: str) -> "pd.Series":
    return runs.reindex(columns=[name])[name].map(_number).astype(float)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
