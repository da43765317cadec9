"""Searches: one state machine per point of the grid. A plan reads it, and a launch advances a copy.

A sweep with a space and no grid is one search, at the one empty point.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import Scalar, flatten
from sweeps.engine.plan.cell_state import Rules
from sweeps.engine.spec.cells import Cell, changed, grid_points, label_of, make_cell
from sweeps.engine.spec.search_space import point_of, size
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import Entry

GridPoint = tuple[str, ...]  # the values on the grid's axes, as MLflow stores them


class SearchState(Enum):
    """Stages of a search."""

    PROPOSING = "proposing"  # candidates are left to start: those of an earlier launch, or new ones
    WAITING = "waiting"  # the next cell depends on candidates that run
    CONFIRMING = "confirming"  # the best candidate's cells with the other seeds are left to start
    DONE = "done"  # no cell is left to start


@dataclass(frozen=True)
class Candidate:
    """A cell of a search that has a run."""

    cell: Cell
    point: dict[str, Scalar]  # of the space
    entry: Entry


class Sampler(Protocol):
    """Source of a search's candidates, which learns from their results."""

    def resume(self, candidate: Candidate) -> None:
        """Start a candidate of an earlier launch."""

    def propose(self, number: int) -> Cell | None:
        """Start a new candidate, after so many others; None where the space has no other point."""

    def tell(self, key: str, status: str, scores: tuple[float, ...], rungs: Mapping[int, float]) -> None:
        """Learn the result of a candidate that was started; see Search.finish."""


@dataclass(eq=False)
class Search:
    """The candidates at one point of the grid, all with the first seed, then the best one with the other seeds.

    A plan builds it from the store's entries and only reads it. A launch advances another one, with a sampler:
    next_cell starts a cell, finish ends one.

    Args:
        point: of the grid; {} for a search alone.
        entries: the sweep's cells in the store, by key.
        candidates: in the order in which they were begun.
        warm: finished cells of other sweeps that are points of this search.
        rules: which cells a launch runs.
    """

    sweep: Sweep
    base: TrainConfig
    point: Mapping[str, Any]
    entries: Mapping[str, Entry]
    candidates: tuple[Candidate, ...]
    warm: tuple[Candidate, ...]
    rules: Rules
    sampler: Sampler | None = None

    def __post_init__(self) -> None:
        self.resumed = deque(candidate for candidate in self.candidates if self.rules.due(candidate.entry))
        self.proposals = int(max(0, min(self.sweep.trials, size(self.sweep.space)) - len(self.candidates)))
        self.best: Cell | None = None  # known once all candidates have ended
        self.confirmations: tuple[Cell, ...] = ()  # the best candidate with the other seeds, done or not
        self._unconfirmed: deque[Cell] = deque()  # those that a launch has still to start
        self._cells = {candidate.cell.key: candidate.cell for candidate in self.candidates}
        self._scores = {each.cell.key: each.entry.scores(self.sweep.goals)[0] for each in self.candidates}
        self._running = {each.cell.key for each in self.candidates if self.rules.state(each.entry) == "running"}
        self._choose_best()

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every known cell: candidates that were started, by any launch, and confirmations."""
        return (*self._cells.values(), *self.confirmations)

    @property
    def state(self) -> SearchState:
        """The stage that the search has reached."""
        if self.resumed or self.proposals:
            return SearchState.PROPOSING
        if self._running and len(self.sweep.seeds) > 1:
            return SearchState.WAITING
        return SearchState.CONFIRMING if self._unconfirmed else SearchState.DONE

    @property
    def num_started(self) -> int:
        """Candidates that have been started, by any launch, without those to be resumed."""
        return len(self._cells) - len(self.resumed)

    @property
    def num_unknown(self) -> int:
        """Cells still to choose: points to propose, and the other seeds of a best candidate that is not known yet."""
        undecided = self.state in (SearchState.PROPOSING, SearchState.WAITING)
        return self.proposals + (len(self.sweep.seeds) - 1) * undecided

    @property
    def problem(self) -> str:
        """A line for the user where the search ends without a single finished candidate, else ""."""
        if len(self.sweep.seeds) == 1 or self.state is not SearchState.DONE or self.best is not None:
            return ""
        where = f" at {label_of(self.point)}" if self.point else ""
        return f"no candidate{where} finished: there is no winner to run with the other seeds"

    def cell_at(self, point: Mapping[str, Any], *, seed: int | None = None) -> Cell:
        """The cell of a point of the space, by default with the sweep's first seed."""
        return make_cell(self.sweep, self.base, {**self.point, **point}, seed=seed)

    def next_cell(self) -> Cell | None:
        """Start the next cell; None where the search is then WAITING or DONE."""
        if self.state is SearchState.PROPOSING and (cell := self._next_candidate()) is not None:
            self._cells[cell.key] = cell
            self._running.add(cell.key)
            return cell
        return self._unconfirmed.popleft() if self._unconfirmed else None

    def finish(self, key: str, status: str, scores: tuple[float, ...], rungs: Mapping[int, float]) -> None:
        """End a cell; a confirmation changes nothing.

        Args:
            status: as in the store.
            scores: one per goal, NaN where there is none.
            rungs: epoch -> score where early stopping judged it.
        """
        if key in self._running:
            assert self.sampler is not None
            self.sampler.tell(key, status, scores, rungs)
            self._running.discard(key)
            self._scores[key] = scores[0]
            self._choose_best()

    def _next_candidate(self) -> Cell | None:
        assert self.sampler is not None
        if self.resumed:
            candidate = self.resumed.popleft()
            self.sampler.resume(candidate)
            return candidate.cell
        cell = self.sampler.propose(self.num_started)
        self.proposals = self.proposals - 1 if cell is not None else 0
        if cell is None:
            self._choose_best()
        return cell

    def _choose_best(self) -> None:
        """Choose the best candidate once all have ended; only its cells without a result follow."""
        if self.resumed or self.proposals or self._running or len(self.sweep.goals) > 1:
            return
        self.best = self._cells.get(self.sweep.goals[0].best_key(self._scores))
        if self.best is None:
            return
        flat = flatten(self.best.config)
        point = {key: flat[key] for key in self.sweep.space}
        self.confirmations = tuple(self.cell_at(point, seed=seed) for seed in self.sweep.seeds[1:])
        self._unconfirmed.extend(cell for cell in self.confirmations if self.rules.due(self.entries.get(cell.key)))


def grid_point_of(sweep: Sweep, flat: Mapping[str, Any]) -> GridPoint:
    """A cell's point of the grid, from its flat config or its logged parameters."""
    return tuple(str(flat.get(axis, "")) for axis in sweep.grid_axes)


def searches_of(
    sweep: Sweep, base: TrainConfig, entries: Mapping[str, Entry], warm: Iterable[Entry], rules: Rules
) -> tuple[Search, ...]:
    """The searches of a sweep over a space, in the order of the grid; none for a sweep without a space.

    Args:
        entries: of the sweep, by cell key.
        warm: of other sweeps.

    Raises:
        ConfigError: two equal points of the grid.
    """
    if not sweep.space:
        return ()
    points: dict[GridPoint, dict[str, Any]] = {}
    for point in grid_points(sweep):
        grid_point = grid_point_of(sweep, flatten(changed(base, point)))
        if grid_point in points:
            raise ConfigError(f"{sweep.name} has the same point of the grid twice, {label_of(point)!r}; keep one")
        points[grid_point] = point
    own = _by_grid_point(sweep, base, points, (entry for entry in entries.values() if entry.role == "cell"))
    others = _by_grid_point(sweep, base, points, (entry for entry in warm if entry.status == "finished"))
    return tuple(
        Search(sweep, base, point, entries, tuple(own[grid_point]), tuple(others[grid_point]), rules)
        for grid_point, point in points.items()
    )


def _by_grid_point(
    sweep: Sweep, base: TrainConfig, points: Mapping[GridPoint, Mapping[str, Any]], entries: Iterable[Entry]
) -> dict[GridPoint, list[Candidate]]:
    found: dict[GridPoint, list[Candidate]] = {grid_point: [] for grid_point in points}
    first = str(sweep.seeds[0])
    for entry in entries:
        grid_point = grid_point_of(sweep, entry.params)
        if entry.params.get("seed") != first or grid_point not in points:
            continue
        searched = point_of(sweep.space, entry.params, base)
        if searched is None:
            continue
        cell = make_cell(sweep, base, {**points[grid_point], **searched})
        if cell.key == entry.key:  # else it differs in more than the point: another base
            found[grid_point].append(Candidate(cell, searched, entry))
    return found
