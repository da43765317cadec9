"""Objectives of a sweep, as its file declares them, and the rule of early stopping."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from analysis.select.objectives import Constraint, Direction, Goal
from jepa_train.base.errors import config_errors, nearest, require
from jepa_train.base.validation import at_least, conform
from jepa_train.config import TrainConfig
from jepa_train.config.names import protocol_names
from jepa_train.data import DATASETS
from jepa_train.evaluation.glossary import ON_TRAIN, ON_VAL, ON_VAL_BY_PROTOCOL
from jepa_train.methods.base import Step

_SHORT = {
    "peak memory": "train/peak_memory_gb",
    "images/s": "train/images_per_s",
    "non-zero fraction": "val/nonzero_fraction",
}
_ON_VAL = [f"val/{name}" for name in (*ON_VAL, *(name for names in ON_VAL_BY_PROTOCOL.values() for name in names))]


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


def default_objective(base: object, *, one_method: bool) -> str | LabelFree:
    """The objective of a sweep that names none, by its base: the accuracy of the online probe on val.

    Without labels LabelFree() for one method with lamb, else the effective rank (RankMe) on val.
    """
    if not isinstance(base, TrainConfig) or is_labelled(base):
        return "val/probe_top1"
    return LabelFree() if one_method and getattr(base.method, "lamb", False) else "val/effective_rank"


def check_reported(name: str, metric: str, config: TrainConfig) -> None:
    """Check that runs of a config report a metric of train or val, by which an objective or a constraint judges.

    Raises:
        ValueError: they do not.
    """
    short = metric.partition("/")[2]
    require(
        is_labelled(config) or not metric.endswith("_top1"),
        f"{name} needs labels, which {config.data.name} does not have; use LabelFree() or val/effective_rank",
    )
    protocols = [protocol for protocol, metrics in ON_VAL_BY_PROTOCOL.items() if short in metrics]
    require(
        {*protocols} <= {*protocol_names(config.probe.protocols)},
        f"{name} is measured by the protocol {', '.join(protocols)}, which is not among "
        f"probe.protocols={config.probe.protocols!r}; add it there",
    )
    if metric.startswith("train/") and short not in ON_TRAIN:
        known = [*ON_TRAIN, *_own_terms(config)]
        require(
            short in known,
            f"{name} must be of a metric that runs of {config.method.name} report, got {metric!r}"
            f"{nearest(metric, [f'train/{term}' for term in known])}",
        )


def _own_terms(config: TrainConfig) -> list[str]:
    """The metrics on train that depend on the config: the terms of its method's loss, here of random z."""
    num_views = config.views.num_global + config.views.num_local
    z = torch.rand(num_views, 8, 8, generator=torch.Generator().manual_seed(0))  # (V, N, D), as if it were rectified
    _, terms = config.method(z, Step(num_global=config.views.num_global, number=0, seed=0))
    rectified = config.method.output_activation != "none"
    return [*terms, *["nonzero_fraction"] * rectified, *["skipped_steps"] * (config.precision == "fp16")]


@config_errors()
def check_counts(measured: Mapping[str, str], *, num_images: int, largest_class: int) -> None:
    """Check that a number of shots or neighbours in a metric is at most the number of training images.

    Args:
        measured: name for messages -> metric.

    Raises:
        ConfigError: the metric would be missing, or that of a smaller number.
    """
    for name, metric in measured.items():
        found = re.fullmatch(r"val/(shot|finetune|knn)(\d+)_.*", metric)
        most, of = (num_images, "all classes") if found and found[1] == "knn" else (largest_class, "the largest class")
        require(
            found is None or int(found[2]) <= most,
            f"{name} needs as many training images as it says, got {most} of {of}; choose a smaller number",
        )


@config_errors()
def parse_constraints(texts: Sequence[str]) -> tuple[Constraint, ...]:
    """The constraints that a sweep file declares: "METRIC <= NUMBER" or "METRIC >= NUMBER".

    Raises:
        ConfigError: another form, or a metric that is not measured on val; check_reported checks those on train.
    """
    found = []
    for text in texts:
        match = re.fullmatch(r"\s*(\S.*?)\s*(<=|>=)\s*(-?\d*\.?\d+(?:[eE][-+]?\d+)?)\s*(GB|)\s*", text)
        form = f"constraints must have the form 'METRIC <= NUMBER' or 'METRIC >= NUMBER', got {text!r}"
        remedy = "write 'train/peak_memory_gb <= 20'"
        require(match is not None, f"{form}; {remedy}")
        name, sense, bound, unit = match.groups() if match else ("",) * 4
        metric = _SHORT.get(name, name)
        require(
            metric.startswith("train/") or metric in _ON_VAL,
            f"constraints must be on metrics of train/ or val/ (test is evaluated once, at the end), got {name!r}"
            f"{nearest(metric, [*_ON_VAL, *_SHORT]) or f'; {remedy}'}",
        )
        require(not unit or metric.endswith("_gb"), f"{form}; leave out the unit {unit}")
        found.append(Constraint(metric=metric, sense="<=" if sense == "<=" else ">=", bound=float(bound)))
    return tuple(found)


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
    for name in named:
        close = nearest(f"val/{name.rpartition('/')[2]}", _ON_VAL) or "; try val/probe_top1"
        rule = "objective must be a metric on val (test is evaluated once, at the end)"
        require(name in _ON_VAL, f"{rule}, got {name!r}{close}")
    return tuple(Goal(metric=name, direction=direction) for name, direction in named.items())
