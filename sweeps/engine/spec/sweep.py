"""Sweep: the definition of a study, as one frozen value that is checked."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from analysis.select.objectives import Constraint, Direction, Goal
from jepa_train.base.errors import config_errors, nearest, require, short_repr
from jepa_train.base.scale_names import Scale
from jepa_train.base.validation import at_least, conform, conformed, plain
from jepa_train.config import TrainConfig
from jepa_train.config.flat import Scalar, cell_fields, field_types, flatten, unflatten
from jepa_train.evaluation.glossary import ON_VAL
from jepa_train.methods import METHODS
from sweeps.engine.spec.objective import (
    Asha,
    LabelFree,
    check_reported,
    default_objective,
    is_labelled,
    parse_constraints,
    parse_objective,
)
from sweeps.engine.spec.search_space import Domain, all_points, conditions_of
from sweeps.engine.spec.table import Table

_REMEDIES = {
    "purpose": "begin the file with a docstring and write purpose=__doc__",
    "base": "start from jepa_train.config.presets",
    "grid": "write grid={'method.lamb': [0.01, 0.05]}",
    "space": "write space={'optim.lr': a list of values, or a distribution as FloatDistribution(1e-4, 1e-2)}",
    "seeds": "write seeds=(0, 1, 2)",
    "objective": "try 'val/probe_top1', {'val/probe_top1': 'max', 'val/nonzero_fraction': 'min'} or LabelFree()",
    "constraints": "write constraints=('train/peak_memory_gb <= 20',), with the comma",
    "early_stopping": "write early_stopping=Asha(first=6)",
    "gpus_per_worker": "leave it out, or write the share of each trial, as gpus_per_worker=0.25",
    "warm_start": "write warm_start=('other_sweep',), with the comma",
    "references": "write references=({'epochs': 0},), with the comma",
    "table": "write table=Table(rows=['method.lamb'], metrics=['test/linear_top1'])",
}


@dataclass(frozen=True)
class BestOf:
    """A base that is read from the store when the sweep starts: the best finished cell of another sweep."""

    sweep: str

    @config_errors()
    def __post_init__(self) -> None:
        conform(self, remedies=_REMEDIES)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A study, of three kinds from two fields; with neither, its one base cell.

    A grid alone is an ablation: every cell with every seed. A space alone is a search. Both are a fair ablation: each
    cell of the grid gets a search of its own over the space, with the first seeds_per_trial seeds, chosen on val; the
    winner of each then runs with the other seeds, as the winner of a search does.

    Args:
        name: the file's stem, the MLflow experiment and the table; ends in the scale where the file has scales.
        scale: which of the file's scales this is: see jepa_train.config.scales.
        purpose: aim and expected result; the experiment's description. Usually __doc__.
        base: the config that every cell shares, or the best cell of another sweep.
        grid: dotted key -> values; every combination is a cell. A list of such grids where axes depend on each other.
        space: dotted key -> domain, or a list of values; `trials` points are proposed by Optuna. Domain(..., when=...)
            makes it depend on axes of the grid or on earlier keys.
        trials: points of each search.
        seeds_per_trial: seeds with which each point runs, the first ones; their mean counts.
        sampler: source of these points.
        warm_start: sweeps of this store whose finished cells each search knows from the start, where they are points
            of its space and differ in no other field.
        seeds: every grid cell, or winner of a search, runs once per seed.
        references: changes to the base that run besides, to compare with: ({"epochs": 0},) is the untrained encoder.
        objective: the metric, on val, that a search maximises and that ranks the cells; several with their directions;
            or LabelFree(). "" is objective.default_objective, which for images with labels is val/probe_top1.
        constraints: limits that the winner must keep and that the sampler knows: "train/peak_memory_gb <= 20".
        early_stopping: rule that stops trials before their last epoch; None (for ablations) stops none.
        table: rows, columns, metrics and labels of its table; None has the default ones.
        workers: DDP processes per trial; the global batch is shared among them.
        cpus_per_worker: CPU threads of each.
        gpus_per_worker: GPUs of each, a fraction to let one-worker trials share one; -1 means one each where the
            cluster has enough for all workers, else none.
    """

    name: str
    purpose: str
    base: TrainConfig | BestOf
    scale: Scale | None = None
    grid: Mapping[str, Sequence[Scalar]] | Sequence[Mapping[str, Sequence[Scalar]]] = field(default_factory=dict)
    space: Mapping[str, BaseDistribution | Sequence[Scalar] | Domain] = field(default_factory=dict)
    trials: int = 0
    seeds_per_trial: int = at_least(1, 1, "1 is the default")
    sampler: Literal["tpe", "nsga2", "gp", "qmc", "random"] = "tpe"
    warm_start: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    references: tuple[Mapping[str, Scalar], ...] = ()
    objective: str | Mapping[str, Direction] | LabelFree = ""
    constraints: tuple[str, ...] = ()
    early_stopping: Asha | None = None
    table: Table | None = None
    workers: int = at_least(1, 1, "1 is the default")
    cpus_per_worker: int = at_least(1, 1, "1 is the default")
    gpus_per_worker: float = -1.0

    @config_errors()
    def __post_init__(self) -> None:
        conform(self, remedies=_REMEDIES)
        object.__setattr__(self, "space", {key: _plain_domain(key, domain) for key, domain in self.space.items()})
        _check_fields(self)
        if isinstance(self.base, TrainConfig):
            self.check(self.base)

    @property
    def study(self) -> str:
        """The file's stem, and its table's."""
        return self.name.removesuffix(f"_{self.scale}") if self.scale else self.name

    @cached_property
    def grids(self) -> list[dict[str, Sequence[Scalar]]]:
        """The grid as a list of grids, [] without one."""
        grids = [self.grid] if isinstance(self.grid, Mapping) else self.grid
        return [dict(grid) for grid in grids] if self.grid else []

    @cached_property
    def grid_axes(self) -> list[str]:
        """The dotted keys of all grids, each once."""
        return list(dict.fromkeys(key for grid in self.grids for key in grid))

    @cached_property
    def domains(self) -> dict[str, Domain]:
        """The space, each key with its distribution and its conditions."""
        return {key: domain for key, domain in self.space.items() if isinstance(domain, Domain)}

    @property
    def axes(self) -> list[str]:
        """The dotted keys that vary, besides the seed."""
        return [*self.grid_axes, *self.space]

    @cached_property
    def goals(self) -> tuple[Goal, ...]:
        """The metrics that rank the cells."""
        return parse_objective(self.objective or default_objective(self.base, one_method="method" not in self.axes))

    @cached_property
    def limits(self) -> tuple[Constraint, ...]:
        """The constraints on a winner."""
        return parse_constraints(self.constraints)

    @property
    def measured(self) -> dict[str, str]:
        """Objectives and constraints, as messages name them -> their metrics."""
        goals = {f"objective {goal.metric!r}": goal.metric for goal in self.goals}
        return goals | {f"constraint {limit.name!r}": limit.metric for limit in self.limits}

    @property
    def kind(self) -> Literal["grid", "search", "fair"]:
        """An ablation, a search, or a fair ablation: a search at each cell of a grid."""
        return "grid" if not self.space else "fair" if self.grids else "search"

    @config_errors()
    def check(self, base: TrainConfig) -> None:
        """Check the rules that need the base: every value and every end of a domain makes a config that can run."""
        other = "val/probe_top1" if is_labelled(base) else "val/effective_rank"
        corners = [(point, unflatten(point, base=base)) for point in self.corners()]
        methods = sorted({config.method.name for _, config in corners})
        require(
            len(methods) <= 1 or not any(goal.over for goal in self.goals),
            f"objective LabelFree() compares losses of one method, got {', '.join(methods)}; rank by {other}",
        )
        others = [unflatten(point, base=base) for point in (*self.references, *({"seed": one} for one in self.seeds))]
        for config in (*(config for _, config in corners), *others):
            flat, batch = flatten(config), config.global_batch
            require(
                batch % self.workers == 0,
                f"global_batch must be divisible by the workers, got {batch} for {self.workers} workers; "
                f"try {-(-batch // self.workers) * self.workers}",
            )
            for goal in self.goals:
                require(
                    not goal.over or float(flat.get(goal.over, 0.0)) > 0,
                    f"objective LabelFree() needs {goal.over} above 0 in every cell, got method "
                    f"{config.method.name!r} with {flat.get(goal.over, 'none')}; rank by {other}",
                )
        for _, config in corners:
            for name, metric in self.measured.items():
                check_reported(name, metric, config)
            require(
                self.early_stopping is None or self.early_stopping.first < config.epochs,
                f"early_stopping must judge before the last epoch, got {self.early_stopping} for cells of "
                f"{config.epochs} epochs; lower first, or leave early_stopping out",
            )
        for metric in self.table.metrics if self.table and not is_labelled(base) else ():
            require(
                not (metric.startswith(("val/", "test/")) and metric.endswith("_top1")),
                f"table.metrics must need no labels, which {base.data.name} does not have, got {metric!r}; take it out",
            )
        for key in self.space:
            corner = next((config for point, config in corners if key in point), None)
            require(corner is not None, f"space[{key!r}] has conditions that never hold together; leave one out")
            require(
                key in cell_fields(corner or base),
                f"{key} is no part of a cell, so a search over space[{key!r}] would run one cell again and again; "
                "set it in the base",
            )

    def corners(self) -> list[dict[str, Any]]:
        """Points that together show every value of each grid and both ends of every domain.

        Keys on which conditions depend have every value together with every value of the others.
        """
        points: list[dict[str, Any]] = []
        deciding = {other for conditions in conditions_of(self.domains).values() for other in conditions}
        for grid in self.grids or [{}]:
            space = {key: Domain(CategoricalDistribution(values)) for key, values in grid.items()} | self.domains
            few = {
                key: Domain(CategoricalDistribution(domain.ends[:1]), when=domain.when)
                for key, domain in space.items()
                if key not in deciding
            }
            firsts = all_points(space | few)
            points += firsts
            for key in few:
                point = next((point for point in firsts if key in point), None)
                points += [point | {key: value} for value in space[key].ends[1:]] if point else []
        return points


def _check_fields(sweep: Sweep) -> None:
    """Rules that need no base."""
    require(
        re.fullmatch(r"[a-z][a-z0-9_]*", sweep.name) is not None,
        f"name must be lower-case letters, digits and _, got {sweep.name!r}; use the file's stem",
    )
    require(
        sweep.scale is None or sweep.name.endswith(f"_{sweep.scale}"),
        f"name must end in the scale, got {sweep.name!r} at {sweep.scale}; write name=f'NAME_{{scale}}'",
    )
    known = {key: None for method in METHODS.values() for key in field_types(method)}
    for key in (*sweep.axes, *(key for point in sweep.references for key in point)):
        require(key in known, f"{key} is not a field of the config{nearest(key, known)}")
    _check_points(sweep)
    _check_goals(sweep)
    if sweep.table is not None:
        sweep.table.check(sweep.axes, sweep.grid_axes)
    gpus, alone = sweep.gpus_per_worker, sweep.workers == 1
    require(
        gpus == -1 or (gpus >= 0 and gpus == int(gpus)) or (0 < gpus < 1 and alone),
        "gpus_per_worker must be -1 (one each where there are enough), 0 or more and whole, or below 1 for trials of "
        f"one worker, got {gpus:g} for {sweep.workers} workers; leave it out",
    )


def _check_points(sweep: Sweep) -> None:
    _check_distinct("seeds", sweep.seeds)
    each = sweep.seeds_per_trial
    require(bool(sweep.space) or each == 1, f"seeds_per_trial is of a search, got {each} without a space; leave it out")
    require(
        each <= len(sweep.seeds),
        f"seeds_per_trial must be at most the number of seeds, got {each} with seeds={sweep.seeds}; give {each} seeds, "
        f"as seeds={tuple(range(each))} or --seeds 0-{each - 1}, or lower it",
    )
    require("seed" not in sweep.axes, "seed is not an axis; give the seeds as seeds=(0, 1, 2)")
    for key, values in (axis for grid in sweep.grids for axis in grid.items()):
        _check_distinct(f"grid[{key!r}]", values)
    for key, domain in sweep.domains.items():
        require(key not in sweep.grid_axes, f"{key} must be in the grid or in the space, got both; keep one")
        if isinstance(domain.values, CategoricalDistribution):
            _check_distinct(f"space[{key!r}]", conformed(f"space[{key!r}]", domain.values.choices, Sequence[Scalar]))
    _check_conditions(sweep)
    require(
        sweep.trials > 0 if sweep.space else sweep.trials == 0,
        f"trials counts the points of the space, got trials={sweep.trials} with {len(sweep.space)} searched keys; "
        "give both or neither",
    )
    others = {*sweep.warm_start} - {sweep.name}
    require(
        len(others) == len(sweep.warm_start) and (not others or bool(sweep.space)),
        f"warm_start must name other sweeps, each once, for a search, got {sweep.warm_start}; leave it out",
    )


def _check_conditions(sweep: Sweep) -> None:
    earlier: dict[str, Sequence[Scalar]] = {}  # key -> the values that it may have
    for axis, values in (axis for grid in sweep.grids for axis in grid.items()):
        earlier[axis] = [*earlier.get(axis, ()), *values]
    for key, domain in sweep.domains.items():
        for other, wanted in domain.conditions.items():
            offered = earlier.get(other, ())
            known = nearest(other, earlier) if earlier and not offered else "; leave it out"
            require(
                bool(wanted) and all(value in offered for value in wanted),
                f"space[{key!r}] must depend on axes of the grid, or on earlier keys of the space with listed values, "
                f"by values that they may have, got when={other!r}: {short_repr(wanted)}"
                f"{f'; choose among {short_repr(offered)}' if offered else known}",
            )
        if domain.size < math.inf:
            earlier[key] = domain.listed


def _check_goals(sweep: Sweep) -> None:
    names = [goal.metric for goal in sweep.goals]
    every_epoch = {"train/loss", *(f"val/{name}" for name in ON_VAL)}
    require(
        not sweep.early_stopping or (len(names) == 1 and names[0] in every_epoch),
        "early_stopping judges by one objective that is measured after every epoch, got "
        f"{', '.join(names)}; leave it out, or rank by val/probe_top1",
    )
    require(
        not sweep.limits or bool(sweep.space),
        f"constraints choose the winner of a search, got {sweep.constraints} without a space; leave them out",
    )
    each, several = sweep.seeds_per_trial, "a search for several objectives, which has no single winner,"
    require(
        len(names) == 1 or not sweep.space or len(sweep.seeds) == each,
        f"seeds of {several} must be as many as seeds_per_trial, got {sweep.seeds} and {each}; give {each}, or write "
        f"seeds_per_trial={len(sweep.seeds)}",
    )


def _plain_domain(key: str, domain: BaseDistribution | Sequence[Scalar] | Domain) -> Domain:
    """The domain with Python's own values. Optuna converts bounds, of float32(0.1) to 0.10000000149011612."""
    when, values = (domain.when, domain.values) if isinstance(domain, Domain) else ({}, domain)
    if not isinstance(values, BaseDistribution):
        require(len(values) > 0, f"space[{key!r}] must list at least one value, got {short_repr(values)}; leave it out")
        values = CategoricalDistribution(values)
    if isinstance(values, CategoricalDistribution):
        values = CategoricalDistribution([plain(choice) for choice in values.choices])
    if isinstance(values, FloatDistribution):
        step = None if values.step is None else _plain_bound(values.step)
        values = FloatDistribution(_plain_bound(values.low), _plain_bound(values.high), log=values.log, step=step)
    return Domain(values, when=when)


def _plain_bound(value: float) -> float:
    """The number of at most six digits of which the value is the float32, else the value."""
    short = float(f"{value:.6g}")
    return short if float(np.float32(short)) == value else value


def _check_distinct(name: str, values: Sequence[Any]) -> None:
    require(len(values) > 0, f"{name} must list at least one value, got {short_repr(values)}; leave it out")
    distinct = len(set(values)) == len(values)
    require(distinct, f"{name} must list values, each once, got {short_repr(values)}; keep one of each")
