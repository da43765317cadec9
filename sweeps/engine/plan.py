"""Plans: what a sweep asks for, what the store has of it, and what is left to run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jepa_train.checks import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.flat import cell_fields, parse, unflatten
from sweeps.engine.cells import Cell, changed, fixed_cells, preflighted
from sweeps.engine.space import point_of, size
from sweeps.engine.spec import BestOf, Sweep
from sweeps.engine.store import Entry, best_config, read_ledger


@dataclass(frozen=True)
class Plan:
    """A sweep with its base resolved, its cells laid out, and the ledger read.

    Args:
        fixed: references and grid cells, done or not.
        entries: what the store has of the sweep, by cell key.
    """

    sweep: Sweep
    base: TrainConfig
    fixed: tuple[Cell, ...]
    entries: dict[str, Entry]

    @cached_property
    def points(self) -> list[Entry]:
        """The search's cells in the store that lie in its space."""
        cells = [entry for entry in self.entries.values() if entry.role == "cell"] if self.sweep.space else []
        return [entry for entry in cells if point_of(self.sweep.space, entry.params) is not None]

    @property
    def history(self) -> list[Entry]:
        """The search's points that have a result."""
        return [entry for entry in self.points if entry.done]

    @property
    def resumed(self) -> list[Cell]:
        """The search's points that were proposed and begun but have no result: failed, interrupted, killed."""
        return [Cell(config=entry.config(self.base), label=entry.label) for entry in self.points if not entry.done]

    @property
    def missing(self) -> list[Cell]:
        """The known cells without a result."""
        return [cell for cell in self.fixed if not self.is_done(cell)] + self.resumed

    @property
    def proposals(self) -> int:
        """Points that the search has still to propose; a finite space has no more than all of its points."""
        return int(max(0, min(self.sweep.trials, size(self.sweep.space)) - len(self.points)))

    @property
    def total(self) -> int:
        """All cells of the sweep."""
        return len(self.fixed) + len(self.points) + self.proposals

    @property
    def todo(self) -> int:
        """Cells that this launch has to run."""
        return len(self.missing) + self.proposals

    def is_done(self, cell: Cell) -> bool:
        """Whether the ledger holds a result of the cell."""
        return cell.key in self.entries and self.entries[cell.key].done


def make_plan(sweep: Sweep, file: Path, places: Sequence[str] = ()) -> Plan:
    """Resolve the base, check everything that can be checked, lay out the cells and read the ledger.

    Args:
        places: command-line words that say where the data lies.

    Raises:
        ConfigError: anything that could not run.
    """
    base = resolved_base(sweep, places)
    sweep.check(base)
    for point in sweep.corners():
        changed(base, point)
    fixed = fixed_cells(sweep, base)
    return Plan(sweep, base, tuple(fixed), read_ledger(sweep, base, file))


def resolved_base(sweep: Sweep, places: Sequence[str]) -> TrainConfig:
    """The sweep's base after preflight, its data where the words say."""
    base = best_config(sweep.base.sweep) if isinstance(sweep.base, BestOf) else sweep.base
    return preflighted(_placed(base, places))


def _placed(base: TrainConfig, words: Sequence[str]) -> TrainConfig:
    """The base with its data elsewhere. What decides results is written in the file, never on the command line."""
    changes = parse(words, base=base)
    for key in changes.keys() & cell_fields(base).keys():
        raise ConfigError(f"{key} is part of the cell, got {key}={changes[key]}; change it in the sweep's file")
    return unflatten(changes, base=base)
