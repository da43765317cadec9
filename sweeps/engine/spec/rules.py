"""What a sweep must fulfil: each rule that is broken is answered in one line, before anything starts."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution

from jepa_train.base.errors import ConfigError, nearest, short_repr
from jepa_train.base.validation import conformed
from jepa_train.config import TrainConfig
from jepa_train.config.flat import Scalar, cell_fields, field_types, flatten, unflatten
from jepa_train.config.names import protocol_names
from jepa_train.evaluation.glossary import ON_VAL, ON_VAL_BY_PROTOCOL
from jepa_train.methods import METHODS
from jepa_train.storage.base import StoragePath
from jepa_train.storage.resolve import mark, unseen

if TYPE_CHECKING:
    from sweeps.engine.spec.sweep import Sweep


def check(sweep: "Sweep") -> None:
    """What is known without the base.

    Raises:
        ConfigError: a rule is broken.
    """
    _require(
        re.fullmatch(r"[a-z][a-z0-9_]*", sweep.name) is not None,
        f"name must be lower-case letters, digits and _, got {sweep.name!r}; use the file's stem",
    )
    _require(
        sweep.scale is None or sweep.name.endswith(f"_{sweep.scale}"),
        f"name must end in the scale, got {sweep.name!r} at {sweep.scale}; write name=f'NAME_{{scale}}'",
    )
    _check_keys(sweep)
    _check_points(sweep)
    _check_space(sweep)
    _check_goals(sweep)
    _check_resources(sweep)


def check_cells(sweep: "Sweep", base: TrainConfig) -> None:
    """What is known with the base: every value and every end of a domain makes a config that can run.

    Raises:
        ConfigError: a rule is broken.
    """
    _check_protocols(sweep, base)
    for point in (*sweep.corners(), *sweep.references, *({"seed": seed} for seed in sweep.seeds)):
        config = unflatten(point, base=base)
        flat = flatten(config)
        _require(
            config.global_batch % sweep.workers == 0,
            f"global_batch must be divisible by the workers, got {config.global_batch} for {sweep.workers} workers; "
            f"try {_next_multiple(config.global_batch, sweep.workers)}",
        )
        for goal in sweep.goals:
            _require(
                not goal.over or float(flat.get(goal.over, 0.0)) > 0,
                f"objective LabelFree() needs {goal.over} above 0 in every cell, got method "
                f"{config.method.name!r} with {flat.get(goal.over, 'none')}; rank by val/probe_top1",
            )
    for key in sweep.space:
        _require(
            key in cell_fields(unflatten(sweep.corners()[0], base=base)),
            f"{key} is no part of a cell, so a search over space[{key!r}] would run one cell again and again; "
            "set it in the base",
        )


def check_results(folder: Path) -> None:
    """Refuse, before anything starts, a results folder that cannot be made or written.

    Raises:
        ConfigError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
    except OSError as error:
        raise ConfigError(
            f"results must go where they can be written, got {folder} ({error.strerror}); make room or set JEPA_RESULTS"
        ) from None


def check_storage(place: StoragePath) -> None:
    """Refuse, before anything starts, a storage of checkpoints that cannot be reached or written.

    Raises:
        ConfigError: it cannot.
    """
    try:
        with mark(place) as name:
            reason = unseen(str(place), name)
    except OSError as error:
        reason = str(error)
    if reason:
        raise ConfigError(f"JEPA_STORAGE must be where checkpoints can be kept: {reason}; see doctor")


def _check_keys(sweep: "Sweep") -> None:
    known = {key: None for method in METHODS.values() for key in field_types(method)}
    for key in (*sweep.axes, *(key for point in sweep.references for key in point)):
        _require(key in known, f"{key} is not a field of the config{nearest(key, known)}")


def _check_points(sweep: "Sweep") -> None:
    _require(
        len(set(sweep.seeds)) == len(sweep.seeds) > 0, f"seeds must be different numbers, got {sweep.seeds}; try (0,)"
    )
    several = isinstance(sweep.grid, tuple)
    _require(not several or len(sweep.grids) > 0, "grid must list at least one grid, got []; leave it out")
    for number, grid in enumerate(sweep.grids):
        name = f"grid[{number}]" if several else "grid"
        _require(bool(grid), f"{name} must name an axis, got {{}}; leave it out")
        for key, values in grid.items():
            _require(len(values) > 0, f"{name}[{key!r}] must be a non-empty list of values, got []; name at least one")
            _check_once(f"{name}[{key!r}]", values)
    _require("seed" not in sweep.axes, "seed is not an axis; give the seeds as seeds=(0, 1, 2)")


def _check_space(sweep: "Sweep") -> None:
    for key, domain in sweep.space.items():
        _require(key not in sweep.grid_axes, f"{key} must be in the grid or in the space, got both; keep one")
        if isinstance(domain, CategoricalDistribution):
            _check_once(f"space[{key!r}]", _scalars(f"space[{key!r}]", domain.choices))
    _require(sweep.trials >= 0, f"trials counts the points of the space, got {sweep.trials}; leave it out, or try 20")
    _require(
        bool(sweep.space) == (sweep.trials > 0),
        f"trials counts the points of the space, got trials={sweep.trials} with {len(sweep.space)} searched keys; "
        "give both or neither",
    )
    _require(bool(sweep.space) or not sweep.warm_start, "warm_start is of a search, got no space; leave it out")
    _check_once("warm_start", sweep.warm_start)
    _require(
        sweep.name not in sweep.warm_start,
        f"warm_start must name other sweeps, got {sweep.name!r} itself; a search knows its own cells by itself",
    )


def _check_goals(sweep: "Sweep") -> None:
    several = len(sweep.goals) > 1
    _require(
        not several or not sweep.early_stopping,
        f"early_stopping judges by one objective, got {len(sweep.goals)}; leave it out",
    )
    _require(
        not several or not sweep.space or len(sweep.seeds) == 1,
        f"seeds of a search for several objectives must be one number, got {sweep.seeds}; it has no single winner",
    )
    metric = sweep.goals[0].metric
    _require(
        not sweep.early_stopping or not metric.startswith("val/") or metric.removeprefix("val/") in ON_VAL,
        f"early_stopping judges after every epoch, got the objective {metric!r}, which is measured at the end; "
        "rank by val/probe_top1",
    )


def _check_resources(sweep: "Sweep") -> None:
    for name in ("workers", "cpus_per_worker"):
        value = getattr(sweep, name)
        _require(value >= 1, f"{name} must be at least 1, got {value}; 1 is the default")
    gpus = sweep.gpus_per_worker
    if isinstance(gpus, str):
        _require(
            sweep.workers == 1,
            f"gpus_per_worker='measured' packs trials of one worker, got {sweep.workers} workers; leave it out",
        )
        return
    _require(
        gpus == -1 or gpus >= 0,
        f"gpus_per_worker must be -1 (one each where there are enough), 0 or more, got {gpus:g}; leave it out",
    )
    _require(
        gpus <= 0 or gpus == int(gpus) or (gpus < 1 and sweep.workers == 1),
        f"gpus_per_worker must be whole, or below 1 for trials of one worker, got {gpus:g} for {sweep.workers} "
        "workers; leave it out",
    )


def _check_protocols(sweep: "Sweep", base: TrainConfig) -> None:
    names = protocol_names(base.probe.protocols)
    for goal in sweep.goals:
        metric = goal.metric.removeprefix("val/")
        needed = [name for name, of in ON_VAL_BY_PROTOCOL.items() if metric in of and metric not in ON_VAL]
        _require(
            set(needed) <= set(names),
            f"objective {goal.metric!r} is measured by the protocol {', '.join(needed)}, which is not among "
            f"probe.protocols={base.probe.protocols!r}; add it there",
        )


def _scalars(name: str, values: Any) -> Sequence[Scalar]:
    try:
        return conformed(name, values, Sequence[Scalar])
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _check_once(name: str, values: Sequence[Any]) -> None:
    _require(len(set(values)) == len(values), f"{name} lists a value twice, got {short_repr(list(values))}; keep one")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


def _next_multiple(number: int, divisor: int) -> int:
    return -(-number // divisor) * divisor
