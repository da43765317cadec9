"""Objectives of a sweep, as its file declares them, and the rule of early stopping."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.select.objectives import Constraint, Direction, Goal
from jepa_train.base.errors import config_errors, nearest, require
from jepa_train.base.validation import at_least, conform
from jepa_train.config import TrainConfig
from jepa_train.data import DATASETS
from jepa_train.evaluation.glossary import GLOSSARY, ON_VAL, ON_VAL_BY_PROTOCOL

_SHORT = {
    "peak memory": "train/peak_memory_gb",
    "images/s": "train/images_per_s",
    "non-zero fraction": "val/nonzero_fraction",
}


@dataclass(frozen=True)
class LabelFree:
    """Minimise train/loss / lamb^alpha: selection without any label (LeJEPA, Sec. 6.3, Eq. 8, with alpha near 0.4)."""

    alpha: float = 0.4

    @config_errors()
    def __post_init__(self) -> None:
        conform(self)


@dataclass(frozen=True, kw_only=True)
class Asha:
    """Asynchronous successive halving: at epochs first, first * eta, first * eta^2, ... a trial goes on while it is
    among the best 1 / eta of those that came so far (Li et al. 2020). It judges by the objective, never by test.

    Args:
        first: epochs of every trial; more than the warm-up, before which trials cannot be compared.
        eta: of so many trials one goes on.
    """

    first: int
    eta: int = at_least(2, 3, "3 is the default")

    @config_errors("Asha: ")
    def __post_init__(self) -> None:
        conform(self)
        require(self.first >= 1, f"first must be at least 1 epoch, got {self.first}; try 6")

    def rungs(self, epochs: int) -> list[int]:
        """The epochs at which trials are judged; the last epoch is none of them."""
        rungs, epoch = [], self.first
        while epoch < epochs:
            rungs.append(epoch)
            epoch *= self.eta
        return rungs


def is_labelled(config: TrainConfig) -> bool:
    """True if the images of a config have labels, so that accuracies are measured."""
    return DATASETS[config.data.name].labelled


def default_objective(base: object) -> str | LabelFree:
    """The objective of a sweep that names none, by its base: the accuracy of the online probe on val.

    Without labels LabelFree() for a method with lamb, else the effective rank (RankMe) on val.
    """
    if not isinstance(base, TrainConfig) or is_labelled(base):
        return "val/probe_top1"
    return LabelFree() if getattr(base.method, "lamb", 0) else "val/effective_rank"


@config_errors()
def check_measured(goals: Sequence[Goal], *, num_images: int, largest_class: int) -> None:
    """Check that a number of shots or neighbours in an objective is at most the number of training images.

    Raises:
        ConfigError: the metric would be missing, or that of a smaller number.
    """
    for goal in goals:
        found = re.fullmatch(r"val/(shot|finetune|knn)(\d+)_.*", goal.metric)
        most, of = (num_images, "all classes") if found and found[1] == "knn" else (largest_class, "the largest class")
        require(
            found is None or int(found[2]) <= most,
            f"objective {goal.metric!r} needs as many training images as it says, got {most} of {of}; rank by a "
            "smaller number",
        )


@config_errors()
def parse_constraints(texts: Sequence[str]) -> tuple[Constraint, ...]:
    """The constraints that a sweep file declares: "METRIC <= NUMBER" or "METRIC >= NUMBER".

    Raises:
        ConfigError: another form, or a metric that is not measured on train or val.
    """
    found = []
    known = [f"train/{name}" for name in GLOSSARY if not name.endswith("_top1")] + [f"val/{name}" for name in _on_val()]
    for text in texts:
        match = re.fullmatch(r"\s*(\S.*?)\s*(<=|>=)\s*(-?\d*\.?\d+(?:[eE][-+]?\d+)?)\s*(GB|)\s*", text)
        form = f"constraints must have the form 'METRIC <= NUMBER' or 'METRIC >= NUMBER', got {text!r}"
        remedy = "write 'train/peak_memory_gb <= 20'"
        require(match is not None, f"{form}; {remedy}")
        name, sense, bound, unit = match.groups() if match else ("",) * 4
        metric = _SHORT.get(name, name)
        require(
            metric in known,
            f"constraints must be on metrics of train/ or val/ (test is evaluated once, at the end), got {name!r}"
            f"{nearest(metric, [*known, *_SHORT]) or f'; {remedy}'}",
        )
        require(not unit or metric.endswith("_gb"), f"{form}; leave out the unit {unit}")
        found.append(Constraint(metric=metric, sense="<=" if sense == "<=" else ">=", bound=float(bound)))
    return tuple(found)


def _on_val() -> list[str]:
    return [*ON_VAL, *(name for names in ON_VAL_BY_PROTOCOL.values() for name in names)]


@config_errors()
def parse_objective(objective: str | Mapping[str, Direction] | LabelFree) -> tuple[Goal, ...]:
    """The goals that a sweep file declares.

    Raises:
        ConfigError: a metric that is not measured on val, or no metric at all.
    """
    if isinstance(objective, LabelFree):
        return (Goal(metric="train/loss", direction="min", over="method.lamb", power=objective.alpha),)
    named: Mapping[str, Direction] = {objective: "max"} if isinstance(objective, str) else objective
    require(bool(named), "objective must name a metric on val, got {}; try val/probe_top1")
    known = _on_val()
    for name in named:
        prefix, _, metric = name.partition("/")
        require(
            prefix == "val" and metric in known,
            f"objective must be a metric on val (test is evaluated once, at the end), got {name!r}"
            f"{nearest(f'val/{metric}', [f'val/{name}' for name in known]) or '; try val/probe_top1'}",
        )
    return tuple(Goal(metric=name, direction=direction) for name, direction in named.items())
