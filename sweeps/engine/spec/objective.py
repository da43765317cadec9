"""What a search is after: one metric, several at once, or none that needs labels; and when it gives a trial up."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jepa_train.base.errors import ConfigError, nearest, require
from jepa_train.base.validation import conform
from jepa_train.evaluation.glossary import ON_VAL, ON_VAL_BY_PROTOCOL

Direction = Literal["max", "min"]


@dataclass(frozen=True)
class LabelFree:
    """Minimise train/loss / lamb^alpha: selection without any label (LeJEPA, Sec. 6.3, Eq. 8, with alpha near 0.4)."""

    alpha: float = 0.4

    def __post_init__(self) -> None:
        try:
            conform(self)
        except ValueError as error:
            raise ConfigError(str(error)) from None


@dataclass(frozen=True, kw_only=True)
class Asha:
    """Asynchronous successive halving: at epochs first, first * eta, first * eta^2, ... a trial goes on while it is
    among the best 1 / eta of those that came so far (Li et al. 2020). It judges by the objective, never by test.

    Args:
        first: epochs that every trial gets: let them outlast the warm-up, before which nobody can be judged.
        eta: of so many trials one goes on.
    """

    first: int
    eta: int = 3

    def __post_init__(self) -> None:
        try:
            conform(self)
            require(self.first >= 1, f"first must be at least 1 epoch, got {self.first}; try 6")
            require(self.eta >= 2, f"eta must be at least 2, got {self.eta}; 3 is the default")
        except ValueError as error:
            raise ConfigError(f"Asha: {error}") from None

    def rungs(self, epochs: int) -> list[int]:
        """The epochs at which trials are judged; the last epoch is none of them."""
        rungs, epoch = [], self.first
        while epoch < epochs:
            rungs.append(epoch)
            epoch *= self.eta
        return rungs


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One number of a run to be made large or small: a metric, or a metric / over^power."""

    metric: str
    direction: Direction = "max"
    over: str = ""
    power: float = 0.0

    @property
    def name(self) -> str:
        """As people read it: "val/probe_top1", "train/loss / method.lamb^0.4"."""
        return f"{self.metric} / {self.over}^{self.power:g}" if self.over else self.metric

    def score(self, metrics: Mapping[str, float], flat: Mapping[str, Any]) -> float:
        """The number of a run with these metrics and this flat config; NaN where it is not to be had."""
        value = metrics.get(self.metric, math.nan)
        if not self.over:
            return float(value)
        base = float(flat.get(self.over, math.nan))
        return float(value) / base**self.power if base > 0 else math.nan

    def better(self, score: float, than: float) -> bool:
        """Whether a score beats another; any number beats NaN."""
        if math.isnan(score) or math.isnan(than):
            return not math.isnan(score)
        return score > than if self.direction == "max" else score < than


def goals_of(objective: str | Mapping[str, Direction] | LabelFree) -> tuple[Goal, ...]:
    """The goals of what a sweep file says.

    Raises:
        ConfigError: a metric that is not measured on val, or no metric at all.
    """
    if isinstance(objective, LabelFree):
        return (Goal(metric="train/loss", direction="min", over="method.lamb", power=objective.alpha),)
    named: Mapping[str, Direction] = {objective: "max"} if isinstance(objective, str) else objective
    if not named:
        raise ConfigError("objective must name a metric on val, got {}; try val/probe_top1")
    known = [*ON_VAL, *(name for names in ON_VAL_BY_PROTOCOL.values() for name in names)]
    for name in named:
        metric = name.removeprefix("val/")
        if not name.startswith("val/"):
            raise ConfigError(
                f"objective must be a metric on val (test is evaluated once, at the end), got {name!r}; "
                "try val/probe_top1"
            )
        if metric not in known:
            raise ConfigError(
                f"objective must be val/ and a metric of the evaluation, got {name!r}"
                + (nearest(metric, known) or "; try val/probe_top1")
            )
    return tuple(Goal(metric=name, direction=direction) for name, direction in named.items())
