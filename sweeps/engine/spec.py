"""Sweep: what to run, as one frozen value that cannot be wrong."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from jepa_train.checks import ConfigError, conform, nearest
from jepa_train.config import TrainConfig
from jepa_train.flat import Scalar, unflatten
from jepa_train.metrics import ON_VAL, ON_VAL_BY_PROTOCOL
from jepa_train.protocols import protocol_names

_REMEDIES = {
    "purpose": "begin the file with a docstring and write purpose=__doc__",
    "base": "start from jepa_train.presets",
    "grid": "write grid={'method.lamb': [0.01, 0.05]}",
    "space": "write space={'optim.lr': a distribution, as FloatDistribution(1e-4, 1e-2)}",
    "seeds": "write seeds=(0, 1, 2)",
    "references": "write references=({'epochs': 0},), with the comma",
}


@dataclass(frozen=True)
class BestOf:
    """A base that is read from the store when the sweep starts: the best finished cell of another sweep."""

    sweep: str

    def __post_init__(self) -> None:
        _conform(self)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A study: a grid alone is an ablation, a space alone an Optuna search (TPE); with neither, its one base cell.

    Args:
        name: the file's stem, the MLflow experiment and the table.
        purpose: what the sweep is for and what to expect; the experiment's description. Usually __doc__.
        base: the config that every cell shares, or the best cell of another sweep.
        grid: dotted key -> values; every combination is a cell.
        space: dotted key -> domain; `trials` points are proposed by Optuna.
        seeds: every grid cell runs once per seed; a search runs with the first.
        references: changes to the base that run besides, to compare with: ({"epochs": 0},) is the untrained encoder.
        objective: the metric, on val, that a search maximises and that ranks the cells.
        workers: DDP processes per trial; the global batch is shared among them.
        cpus_per_worker: CPU threads of each.
        gpus_per_worker: GPUs of each; -1 means one each where the cluster has enough for all workers, else none.
    """

    name: str
    purpose: str
    base: TrainConfig | BestOf
    grid: Mapping[str, Sequence[Scalar]] = field(default_factory=dict)
    space: Mapping[str, BaseDistribution] = field(default_factory=dict)
    trials: int = 0
    seeds: tuple[int, ...] = (0,)
    references: tuple[Mapping[str, Scalar], ...] = ()
    objective: str = "val/probe_top1"
    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float = -1

    def __post_init__(self) -> None:
        _conform(self)
        _require(
            re.fullmatch(r"[a-z][a-z0-9_]*", self.name) is not None,
            f"name must be lower-case letters, digits and _, got {self.name!r}; use the file's stem",
        )
        self._check_points()
        self._check_objective()
        for name in ("workers", "cpus_per_worker"):
            value = getattr(self, name)
            _require(value >= 1, f"{name} must be at least 1, got {value}; 1 is the default")
        gpus = self.gpus_per_worker
        _require(
            gpus == -1 or gpus >= 0,
            f"gpus_per_worker must be -1 (one each where there are enough), 0 or more, got {gpus:g}; leave it out",
        )
        if isinstance(self.base, TrainConfig):
            self.check(self.base)

    def _check_points(self) -> None:
        _require(
            not (self.grid and self.space),
            f"grid and space exclude each other, got both in sweep {self.name}; keep one",
        )
        _require(
            bool(self.space) == (self.trials > 0),
            f"trials counts the points of the space, got trials={self.trials} with {len(self.space)} searched keys; "
            "give both or neither",
        )
        _require(
            len(set(self.seeds)) == len(self.seeds) > 0, f"seeds must be different numbers, got {self.seeds}; try (0,)"
        )
        _require(
            not self.space or len(self.seeds) == 1,
            f"seeds of a search must be one number, got {self.seeds}; repeat the best cell with base=BestOf(...)",
        )
        for key, values in self.grid.items():
            _require(len(values) > 0, f"grid[{key!r}] must be a non-empty list of values, got []; name at least one")
            _require(
                len(set(values)) == len(values), f"grid[{key!r}] lists a value twice, got {list(values)}; keep one"
            )
        _require(
            "seed" not in self.grid and "seed" not in self.space,
            "seed is not an axis; give the seeds as seeds=(0, 1, 2)",
        )

    def _check_objective(self) -> None:
        metric = self.objective.removeprefix("val/")
        _require(
            self.objective.startswith("val/"),
            f"objective must be a metric on val (test is evaluated once, at the end), got {self.objective!r}; "
            "try val/probe_top1",
        )
        known = [*ON_VAL, *(name for names in ON_VAL_BY_PROTOCOL.values() for name in names)]
        _require(
            metric in known,
            f"objective must be val/ and a metric of the evaluation, got {self.objective!r}"
            + (nearest(metric, known) or "; try val/probe_top1"),
        )

    @property
    def axes(self) -> list[str]:
        """The dotted keys that vary, besides the seed."""
        return [*self.grid, *self.space]

    def check(self, base: TrainConfig) -> None:
        """Refuse, before anything starts, what no cell of this sweep could run with."""
        needed = [name for name, of in ON_VAL_BY_PROTOCOL.items() if self.objective.removeprefix("val/") in of]
        _require(
            set(needed) <= set(protocol_names(base.probe.protocols)),
            f"objective {self.objective!r} is measured by the protocol {', '.join(needed)}, which is not among "
            f"probe.protocols={base.probe.protocols!r}; add it there",
        )
        for point in (*self.corners(), *self.references, *({"seed": seed} for seed in self.seeds)):
            config = unflatten(point, base=base)
            _require(
                config.global_batch % self.workers == 0,
                f"global_batch must be divisible by the workers, got {config.global_batch} for {self.workers} workers; "
                f"try {_next_multiple(config.global_batch, self.workers)}",
            )

    def require_room(self, room: int, *, cpus: float, gpus: float, gpus_per_worker: float) -> None:
        """Refuse a trial that could never be placed, with the arithmetic."""
        _require(
            room >= 1,
            f"workers must fit the cluster, got {self.workers} workers x ({self.cpus_per_worker} CPUs + "
            f"{gpus_per_worker:g} GPUs) for {cpus:g} CPUs and {gpus:g} GPUs; lower workers or cpus_per_worker",
        )

    def corners(self) -> list[dict[str, Any]]:
        """Points that together show every value of the grid and both ends of every domain."""
        axes: dict[str, list[Any]] = {key: list(values) for key, values in self.grid.items()}
        for key, domain in self.space.items():
            ends = domain.choices if isinstance(domain, CategoricalDistribution) else (domain.low, domain.high)  # type: ignore[attr-defined]
            axes[key] = list(ends)
        first = {key: values[0] for key, values in axes.items()}
        return [first] + [{**first, key: value} for key, values in axes.items() for value in values[1:]]


def _conform(value: Any) -> None:
    try:
        conform(value, remedies=_REMEDIES)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


def _next_multiple(number: int, divisor: int) -> int:
    return -(-number // divisor) * divisor
