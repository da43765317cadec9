"""Cells: the complete configs of a sweep, each named by its key."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jepa_train.checks import ConfigError
from jepa_train.config import TrainConfig, cell_fields, cell_key, flatten, unflatten
from jepa_train.preflight import preflight
from sweeps.engine.spec import Sweep

Role = Literal["cell", "reference"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One complete config; role "reference" marks a row to compare with, outside the grid or the search."""

    config: TrainConfig
    label: str  # the run's name: what tells this cell from its sisters
    role: Role = "cell"

    @property
    def key(self) -> str:
        """The hash that names the cell in the ledger."""
        return cell_key(self.config)


def fixed_cells(sweep: Sweep, base: TrainConfig) -> list[Cell]:
    """The cells known beforehand: the references, and the grid times the seeds (the base itself without a grid).

    Args:
        base: the sweep's base after preflight.

    Raises:
        ConfigError: an encoder or a dataset that is not there, or two equal cells.
    """
    cells = [make_cell(sweep, base, point, role="reference") for point in sweep.references]
    if not sweep.space:
        for values in itertools.product(*sweep.grid.values()):
            point = dict(zip(sweep.grid, values, strict=True))
            cells += [make_cell(sweep, base, point, seed=seed) for seed in sweep.seeds]
    cells = [_preflighted(cell, base) for cell in cells]
    labels: dict[str, str] = {}
    for cell in cells:
        if cell.key in labels:
            raise ConfigError(
                f"{sweep.name} has the same cell twice, {labels[cell.key]!r} and {cell.label!r}; keep one"
            )
        labels[cell.key] = cell.label
    return cells


def make_cell(
    sweep: Sweep, base: TrainConfig, point: Mapping[str, Any], *, seed: int | None = None, role: Role = "cell"
) -> Cell:
    """The base changed at a point of the grid, the space or the references; by default with the sweep's first seed."""
    config = unflatten({"seed": sweep.seeds[0] if seed is None else seed, **point}, base=base)
    several = {"seed": config.seed} if len(sweep.seeds) > 1 else {}
    return Cell(config=config, label=label_of({**point, **several}) or "base", role=role)


def shared_fields(config: TrainConfig, axes: Sequence[str]) -> dict[str, str]:
    """What every cell of a sweep has in common, as MLflow stores it: the cell fields but the axes and the seed."""
    fields = {key: str(value) for key, value in cell_fields(config).items() if key not in {*axes, "seed"}}
    if "method" in axes:  # each method brings its own hyper-parameters
        fields = {key: text for key, text in fields.items() if not key.startswith("method.")}
    return fields


def label_of(point: Mapping[str, Any]) -> str:
    """A run name a person can read: "p=1 mu=-0.5 seed=0"."""
    return " ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in point.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _preflighted(cell: Cell, base: TrainConfig) -> Cell:
    """The cell with its own encoder and data checked, when it changes the base's."""
    before, after = flatten(base), flatten(cell.config)
    if all(before[key] == after[key] for key in ("model.encoder", "data.name", "data.path")):
        return cell
    return Cell(config=preflight(cell.config), label=cell.label, role=cell.role)
