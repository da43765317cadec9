"""Sweep: what to run, as one frozen value that cannot be wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution

from jepa_train.base.errors import ConfigError
from jepa_train.base.validation import conform
from jepa_train.config import TrainConfig
from jepa_train.config.flat import Scalar
from jepa_train.config.scales import Scale
from sweeps.engine.spec import rules
from sweeps.engine.spec.objective import Asha, Direction, Goal, LabelFree, goals_of

_REMEDIES = {
    "purpose": "begin the file with a docstring and write purpose=__doc__",
    "base": "start from jepa_train.config.presets",
    "grid": "write grid={'method.lamb': [0.01, 0.05]}",
    "space": "write space={'optim.lr': a distribution, as FloatDistribution(1e-4, 1e-2)}",
    "seeds": "write seeds=(0, 1, 2)",
    "objective": "try 'val/probe_top1', {'val/probe_top1': 'max', 'val/nonzero_fraction': 'min'} or LabelFree()",
    "early_stopping": "write early_stopping=Asha(first=6)",
    "warm_start": "write warm_start=('other_sweep',), with the comma",
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
    """A study, of three kinds from two fields; with neither, its one base cell.

    A grid alone is an ablation: every cell with every seed. A space alone is a search. Both are a fair ablation: each
    cell of the grid gets a search of its own over the space, with the first seed, chosen on val; the winner of each
    then runs with the other seeds, as the winner of a search does.

    Args:
        name: the file's stem, the MLflow experiment and the table; ends in the scale where the file has scales.
        scale: which of the file's scales this is: see jepa_train.config.scales.
        purpose: what the sweep is for and what to expect; the experiment's description. Usually __doc__.
        base: the config that every cell shares, or the best cell of another sweep.
        grid: dotted key -> values; every combination is a cell. A list of such grids where axes depend on each other.
        space: dotted key -> domain; `trials` points are proposed by Optuna.
        trials: points of each search.
        sampler: who proposes them.
        warm_start: sweeps of this store whose finished cells each search knows from the start, where they lie in its
            space and differ in nothing else but what is searched.
        seeds: every grid cell, or winner of a search, runs once per seed.
        references: changes to the base that run besides, to compare with: ({"epochs": 0},) is the untrained encoder.
        objective: the metric, on val, that a search maximises and that ranks the cells; several with their directions;
            or LabelFree().
        early_stopping: when a trial is given up before its last epoch; None (for ablations) never.
        workers: DDP processes per trial; the global batch is shared among them.
        cpus_per_worker: CPU threads of each.
        gpus_per_worker: GPUs of each, a fraction to let one-worker trials share one; -1 means one each where the
            cluster has enough for all workers, else none; "measured" lets as many trials share a GPU as its memory
            holds.
    """

    name: str
    purpose: str
    base: TrainConfig | BestOf
    scale: Scale | None = None
    grid: Mapping[str, Sequence[Scalar]] | Sequence[Mapping[str, Sequence[Scalar]]] = field(default_factory=dict)
    space: Mapping[str, BaseDistribution] = field(default_factory=dict)
    trials: int = 0
    sampler: Literal["tpe", "nsga2", "gp", "qmc", "random"] = "tpe"
    warm_start: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    references: tuple[Mapping[str, Scalar], ...] = ()
    objective: str | Mapping[str, Direction] | LabelFree = "val/probe_top1"
    early_stopping: Asha | None = None
    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float | Literal["measured"] = -1.0

    def __post_init__(self) -> None:
        _conform(self)
        rules.check(self)
        if isinstance(self.base, TrainConfig):
            self.check(self.base)

    @property
    def study(self) -> str:
        """The file's stem, and its table's."""
        return self.name.removesuffix(f"_{self.scale}") if self.scale else self.name

    @cached_property
    def grids(self) -> list[dict[str, Sequence[Scalar]]]:
        """The grid as a list of grids, [] without one."""
        if isinstance(self.grid, Mapping):
            return [dict(self.grid)] if self.grid else []
        return [dict(grid) for grid in self.grid]

    @cached_property
    def grid_axes(self) -> list[str]:
        """The dotted keys of all grids, each once."""
        return list(dict.fromkeys(key for grid in self.grids for key in grid))

    @property
    def axes(self) -> list[str]:
        """The dotted keys that vary, besides the seed."""
        return [*self.grid_axes, *self.space]

    @cached_property
    def goals(self) -> tuple[Goal, ...]:
        """What the cells are ranked by."""
        return goals_of(self.objective)

    @property
    def kind(self) -> Literal["grid", "search", "fair"]:
        """An ablation, a search, or a fair ablation: a search at each cell of a grid."""
        if not self.space:
            return "grid"
        return "fair" if self.grids else "search"

    def check(self, base: TrainConfig) -> None:
        """Refuse, before anything starts, what no cell of this sweep could run with."""
        rules.check_cells(self, base)

    def corners(self) -> list[dict[str, Any]]:
        """Points that together show every value of each grid and both ends of every domain."""
        searched: dict[str, list[Any]] = {}
        for key, domain in self.space.items():
            ends = domain.choices if isinstance(domain, CategoricalDistribution) else (domain.low, domain.high)  # type: ignore[attr-defined]
            searched[key] = list(ends)
        points: list[dict[str, Any]] = []
        for grid in self.grids or [{}]:
            axes = {key: list(values) for key, values in grid.items()} | searched
            first = {key: values[0] for key, values in axes.items()}
            points += [first] + [{**first, key: value} for key, values in axes.items() for value in values[1:]]
        return points


def _conform(value: Any) -> None:
    try:
        conform(value, remedies=_REMEDIES)
    except ValueError as error:
        raise ConfigError(str(error)) from None
