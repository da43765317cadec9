"""Plans: what a sweep asks for, what the store has of it, and what is left to run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import cell_fields, parse, unflatten
from sweeps.engine.plan.cell_state import Rules, State
from sweeps.engine.plan.searches import Search, searches_of
from sweeps.engine.spec.cells import Cell, changed, fixed_cells, preflighted
from sweeps.engine.spec.sweep import BestOf, Sweep
from sweeps.engine.store.reader import Entry, best_config, find_experiment, read_entries, read_ledger, store_uri


@dataclass(frozen=True)
class Row:
    """A known cell of a plan, as people are shown it.

    Args:
        note: how far it is, or why it ended so.
        due: whether this launch runs it.
    """

    cell: Cell
    state: State
    note: str
    due: bool


@dataclass(frozen=True)
class Plan:
    """A sweep with its base resolved, its cells laid out, and the ledger read.

    Args:
        fixed: references and grid cells, done or not.
        entries: what the store has of the sweep, by cell key, in the order in which the runs were begun.
        searches: one per point of the grid; () without a space. A launch moves copies of them on.
        rules: which cells this launch runs.
        file: the sweep's.
    """

    sweep: Sweep
    base: TrainConfig
    fixed: tuple[Cell, ...]
    entries: dict[str, Entry]
    searches: tuple[Search, ...] = ()
    rules: Rules = field(default_factory=Rules)
    file: Path = Path()

    @cached_property
    def known(self) -> tuple[Cell, ...]:
        """Every known cell, each once: fixed ones, candidates, and confirmations of the best candidates."""
        cells = {cell.key: cell for cell in self.fixed}
        for search in self.searches:
            for cell in search.cells:
                cells.setdefault(cell.key, cell)  # a reference may be a point of the search as well
        return tuple(cells.values())

    @property
    def missing(self) -> list[Cell]:
        """The known cells that this launch runs."""
        return [cell for cell in self.known if self.due(cell)]

    @property
    def proposals(self) -> int:
        """Points that searches have still to propose; a finite space has no more than all of its points."""
        return sum(search.proposals for search in self.searches)

    @property
    def awaited(self) -> int:
        """Confirmations of best candidates that are not known yet."""
        return sum(search.pending_confirmations for search in self.searches)

    @property
    def total(self) -> int:
        """All cells of the sweep."""
        return len(self.known) + self.proposals + self.awaited

    @property
    def todo(self) -> int:
        """Cells that this launch has to run."""
        return len(self.missing) + self.proposals + self.awaited

    @property
    def notes(self) -> list[str]:
        """Lines for the user about cells that the sweep asks for and that cannot be known."""
        return [search.problem for search in self.searches if search.problem]

    def state(self, cell: Cell | Entry) -> State:
        """What the ledger says of a cell."""
        return self.rules.state(self.entries.get(cell.key))

    def due(self, cell: Cell | Entry) -> bool:
        """Whether this launch runs a cell."""
        return self.rules.due(self.entries.get(cell.key))

    def refreshed(self) -> "Plan":
        """The plan with what the store says now, for a launch that holds the sweep. Fixed cells stay as they are."""
        entries, warm = read_ledger(self.sweep, self.base, self.file), _warm_entries(self.sweep)
        if entries == self.entries and not warm and not self.rules.held:
            return self
        rules = replace(self.rules, held=False)
        return laid_out(self.sweep, self.base, self.fixed, entries, warm, rules, file=self.file)

    def after(self, searches: Sequence[Search]) -> "Plan":
        """The plan with its searches as a launch has moved them on."""
        return replace(self, searches=tuple(searches))

    def rows(self) -> list[Row]:
        """Every known cell with its state."""
        return [
            Row(cell, self.state(cell), self.rules.note(self.entries.get(cell.key), cell.config.epochs), self.due(cell))
            for cell in self.known
        ]


def make_plan(
    sweep: Sweep, file: Path, places: Sequence[str] = (), *, retry: frozenset[str] = frozenset(), held: bool = False
) -> Plan:
    """Resolve the base, check everything that can be checked, lay out the cells and read the ledger.

    Args:
        places: command-line words that say where the data lies.
        retry: states that are run again although they are over: "failed".
        held: a living launch holds the sweep.

    Raises:
        ConfigError: anything that could not run.
    """
    base = resolved_base(sweep, places)
    if places or isinstance(sweep.base, BestOf):  # another base than the one that the sweep was checked with
        sweep.check(base)
    for point in sweep.corners() if sweep.space else ():
        changed(base, point)
    rules = Rules(retry=retry, held=held, stopping=sweep.early_stopping is not None)
    fixed = tuple(fixed_cells(sweep, base))
    return laid_out(sweep, base, fixed, read_ledger(sweep, base, file), _warm_entries(sweep), rules, file=file)


def laid_out(
    sweep: Sweep,
    base: TrainConfig,
    fixed: tuple[Cell, ...],
    entries: Mapping[str, Entry],
    warm: Iterable[Entry],
    rules: Rules,
    file: Path = Path(),
) -> Plan:
    """The plan of a sweep whose base, fixed cells and entries are at hand."""
    found = dict(entries)
    return Plan(sweep, base, fixed, found, searches_of(sweep, base, found, warm, rules), rules, file)


def resolved_base(sweep: Sweep, places: Sequence[str]) -> TrainConfig:
    """The sweep's base after preflight, its data where the words say.

    What decides results is written in the file, never on the command line.
    """
    base = best_config(sweep.base.sweep) if isinstance(sweep.base, BestOf) else sweep.base
    changes = parse(places, base=base)
    for key in changes.keys() & cell_fields(base).keys():
        raise ConfigError(f"{key} is part of the cell, got {key}={changes[key]}; change it in the sweep's file")
    return preflighted(unflatten(changes, base=base))


def _warm_entries(sweep: Sweep) -> list[Entry]:
    """The cells of the sweeps that a search starts from."""
    found: list[Entry] = []
    for name in sweep.warm_start:
        experiment = find_experiment(name, store_uri())
        if experiment is None:
            raise ConfigError(
                f"warm_start must name sweeps of this store, got {name!r}; run python sweeps/{name}.py first, or "
                "leave it out"
            )
        found += read_entries(experiment, store_uri())
    return found
