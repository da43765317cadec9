"""Plan of a launch: the cells that a sweep asks for, their entries in the store, and the cells left to run."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import cell_fields, flatten, parse, unflatten
from sweeps.engine.plan.cell_state import Rules, State, is_done
from sweeps.engine.plan.choice import CellChoice
from sweeps.engine.plan.searches import Search, searches_of
from sweeps.engine.spec.cells import Cell, changed, check_sizes, fixed_cells, identities_of, preflighted
from sweeps.engine.spec.sweep import BestOf, Sweep
from sweeps.engine.store.reader import Entry, StoredSweep, best_config, read_sweep


@dataclass(frozen=True)
class Row:
    """A known cell of a plan, for display.

    Args:
        note: its progress, or the reason of its end.
        due: whether this launch runs it.
    """

    cell: Cell
    state: State
    note: str
    due: bool

    @property
    def facts(self) -> dict[str, str]:
        """The row as JSON has it."""
        cell = self.cell
        return {"key": cell.key, "label": cell.label, "role": cell.role, "state": self.state, "note": self.note}


@dataclass(frozen=True)
class Plan:
    """A sweep with its base resolved, its cells listed, and the ledger read.

    Args:
        fixed: references and grid cells, done or not.
        entries: the sweep's cells in the store, by key, in the order in which the runs were begun.
        searches: one per point of the grid; () without a space. A launch moves copies of them on.
        rules: which cells this launch runs.
        overrides: cell fields of the base that the command line sets, as MLflow stores them.
        file: the sweep's.
        stored: the sweep in the store, with the list of its last launch.
    """

    sweep: Sweep
    base: TrainConfig
    fixed: tuple[Cell, ...]
    entries: dict[str, Entry]
    searches: tuple[Search, ...] = ()
    rules: Rules = field(default_factory=Rules)
    overrides: Mapping[str, str] = field(default_factory=dict)
    file: Path = Path()
    stored: StoredSweep = field(default_factory=StoredSweep)

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
        return [cell for cell in self.known if self.due(cell)][: self.rules.choice.limit]

    @property
    def unknown(self) -> int:
        """Cells that searches have still to choose: points to propose, and the best candidates' other seeds."""
        return sum(search.num_unknown for search in self.searches)

    @property
    def stand_ins(self) -> list[Cell]:
        """Unknown cells that this launch runs, for their price: each as the base's own cell at its grid point."""
        moving = [search for search in self.searches if self.runs(search)]
        cells = [cell for search in moving for cell in [search.cell_at({})] * search.num_unknown]
        return cells[: self.rules.choice.limit - len(self.missing)]

    @property
    def total(self) -> int:
        """All cells of the sweep."""
        return len(self.known) + self.unknown

    @property
    def outdated(self) -> int:
        """Known cells with a result of other code than the present."""
        found = [self.entries[cell.key] for cell in self.known if cell.key in self.entries]
        return sum(entry.outdated and is_done(self.state(entry)) for entry in found)

    @property
    def lacking(self) -> int:
        """Cells without a result, whether this launch runs them or not."""
        return sum(self.rules.due(self.entries.get(cell.key)) for cell in self.known) + self.unknown

    @property
    def chosen(self) -> int:
        """Cells that this launch would run without a limit."""
        unknown = sum(search.num_unknown for search in self.searches if self.runs(search))
        return sum(map(self.due, self.known)) + unknown

    @property
    def todo(self) -> int:
        """Cells that this launch has to run."""
        return min(self.rules.choice.limit, self.chosen)

    @property
    def failed(self) -> int:
        """Known cells that have failed and that are not to run again."""
        states = [self.state(cell) for cell in self.known if not self.rules.due(self.entries.get(cell.key))]
        return states.count("failed")

    def state(self, cell: Cell | Entry) -> State:
        """State of a cell in the store."""
        return self.rules.state(self.entries.get(cell.key))

    def chooses(self, cell: Cell) -> bool:
        """True for a cell that --only admits."""
        return not self.rules.choice.values or self.rules.choice.takes(flatten(cell.config), cell.role)

    def due(self, cell: Cell) -> bool:
        """True for a cell that this launch runs, if --limit admits it."""
        return self.rules.due(self.entries.get(cell.key)) and self.chooses(cell)

    def runs(self, search: Search) -> bool:
        """True for a search that this launch moves on."""
        return not self.rules.choice.values or self.chooses(search.cell_at({}))

    def refreshed(self) -> "Plan":
        """The plan with the store's present entries, for a launch that holds the sweep. Fixed cells stay."""
        rules, warm = replace(self.rules, held=False), _warm_entries(self.sweep)
        stored = read_sweep(self.sweep.name, self.file)
        entries = rules.read(stored.entries(self.sweep, self.base))
        fresh = replace(self, entries=entries, stored=stored, rules=rules)
        same = entries == self.entries and not warm and not self.rules.held
        return fresh if same else fresh.with_searches(warm)

    def with_searches(self, warm: Iterable[Entry] = ()) -> "Plan":
        """The plan with its searches, from its entries and finished cells of other sweeps."""
        return replace(self, searches=searches_of(self.sweep, self.base, self.entries, warm, self.rules))

    def rows(self) -> list[Row]:
        """Every known cell with its state."""
        due = {cell.key for cell in self.missing}
        return [Row(cell, self.state(cell), self._note(cell, due), cell.key in due) for cell in self.known]

    def _note(self, cell: Cell, due: Collection[str]) -> str:
        entry = self.entries.get(cell.key)
        later = "not in this launch" if self.rules.due(entry) and cell.key not in due else ""
        return "; ".join(filter(None, [self.rules.note(entry, cell.config.epochs), later]))


def make_plan(
    sweep: Sweep,
    file: Path,
    words: Sequence[str] = (),
    *,
    retry: frozenset[str] = frozenset(),
    held: bool = False,
    choice: CellChoice | None = None,
) -> Plan:
    """Resolve the base, check every field, list the cells and read the ledger.

    Args:
        words: assignments of the command line, which override the base.
        retry: see Rules.
        held: a living launch holds the sweep.
        choice: of the cells to run, by default all of them.

    Raises:
        ConfigError: anything that could not run.
    """
    base = resolved_base(sweep, words)
    fixed = checked_cells(sweep, base)
    rules = Rules(retry=retry, held=held, stopping=sweep.early_stopping is not None, choice=choice or CellChoice())
    stored = read_sweep(sweep.name, file)
    entries = rules.read(stored.entries(sweep, base))
    overrides = {key: str(value) for key, value in parse(words, base=base).items() if key in cell_fields(base)}
    plan = Plan(sweep, base, fixed, entries, rules=rules, overrides=overrides, file=file, stored=stored)
    plan = plan.with_searches(_warm_entries(sweep))
    if not any(map(plan.chooses, plan.known)) and not any(map(plan.runs, plan.searches)):
        raise ConfigError(f"--only fits no cell of {sweep.name}, as no cell has these values together; see --dry-run")
    return plan


def checked_cells(sweep: Sweep, base: TrainConfig) -> tuple[Cell, ...]:
    """The cells known beforehand, after the checks of every value that the sweep has or may propose.

    Args:
        base: as resolved_base gives it.

    Raises:
        ConfigError: a cell that could not run, or two equal ones.
    """
    sweep.check(base)
    corners = [changed(base, point) for point in sweep.corners()] if sweep.space else []
    fixed = tuple(fixed_cells(sweep, base))
    check_sizes(sweep, [*corners, *(cell.config for cell in fixed)])
    return fixed


def resolved_base(sweep: Sweep, words: Sequence[str]) -> TrainConfig:
    """The sweep's base after preflight, with the overrides of the command line.

    Raises:
        ConfigError: as overridden; the base is the best cell of a sweep without one; the data or encoder is not there.
    """
    base = best_config(sweep.base.sweep) if isinstance(sweep.base, BestOf) else sweep.base
    return preflighted(overridden(sweep, base, words))


def overridden(sweep: Sweep, base: TrainConfig, words: Sequence[str]) -> TrainConfig:
    """A base with the assignments of the command line, before preflight.

    Raises:
        ConfigError: a key that varies in the sweep, or an assignment that makes no valid config.
    """
    changes = parse(words, base=base)
    for key in sorted(changes.keys() & cell_fields(base).keys() & {"seed", *sweep.axes}):
        remedy = "change it in the sweep's file"
        if key == "seed":
            remedy = f"write --seeds {changes[key]}"
        elif key in sweep.grid_axes:
            remedy = f"choose among its values by --only {key}={changes[key]}"
        raise ConfigError(
            f"{key} varies in {sweep.name}, so the base cannot set it, got {key}={changes[key]}; {remedy}"
        )
    identities = identities_of(changes.keys() - {"data.path"})  # which may be another one on this machine
    return unflatten({**dict.fromkeys(identities, ""), **changes}, base=base)


def _warm_entries(sweep: Sweep) -> list[Entry]:
    """The cells of the sweeps that a search starts from."""
    found: list[Entry] = []
    for name in sweep.warm_start:
        stored = read_sweep(name)
        if not stored.tags:
            raise ConfigError(
                f"warm_start must name sweeps of this store, got {name!r}; run python sweeps/{name}.py first, or "
                "leave it out"
            )
        found += stored.cells
    return found
