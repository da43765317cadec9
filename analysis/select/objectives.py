"""What the cells of a sweep are ranked by, as its experiment says."""

import json
from dataclasses import dataclass
from typing import Literal

import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One number of a run to be made large or small: a metric, or a metric / over^power (selection without labels)."""

    metric: str
    direction: Literal["max", "min"] = "max"
    over: str = ""
    power: float = 0.0

    @property
    def name(self) -> str:
        """As people read it: "val/probe_top1", "train/loss / method.lamb^0.4"."""
        return f"{self.metric} / {self.over}^{self.power:g}" if self.over else self.metric

    def scores(self, runs: pd.DataFrame) -> pd.Series:
        """The number of each run, whatever its status; NaN where it is not to be had."""
        values = _numbers(runs, self.metric)
        if not self.over:
            return values
        base = _numbers(runs, self.over)
        return (values / base**self.power).where(base > 0)

    def best_first(self, runs: pd.DataFrame) -> pd.DataFrame:
        """The runs by this goal, equal ones by cell key, those without a number last; the score as column `score`."""
        scored = runs.assign(score=self.scores(runs))
        return scored.sort_values(["score", "cell_key"], ascending=[self.direction == "min", True])


def goals_of(runs: pd.DataFrame) -> list[Goal]:
    """The goals of one sweep, the one that ranks first."""
    text = runs["sweep.goals"].iloc[0] if "sweep.goals" in runs else None
    if isinstance(text, str):
        return [Goal(**goal) for goal in json.loads(text)]
    return [Goal(metric=runs["sweep.objective"].iloc[0])]  # a store from before goals names one metric to maximise


def _numbers(runs: pd.DataFrame, name: str) -> pd.Series:
    column = runs[name] if name in runs else pd.Series(index=runs.index, dtype=float)
    return pd.to_numeric(column, errors="coerce").astype(float)
