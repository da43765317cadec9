"""Searches: one state machine per point of the grid. A plan reads it, and a launch advances a copy.

A sweep with a space and no grid is one search, at the one empty point.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import fmean
from typing import Any, NamedTuple, Protocol, Self

from analysis.select.objectives import LOST
from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import Scalar, flatten
from sweeps.engine.plan.cell_state import Rules
from sweeps.engine.spec.cells import Cell, changed, grid_points, label_of, make_cell
from sweeps.engine.spec.search_space import Space, point_of, size, space_at
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import Entry

GridPoint = tuple[str, ...]  # the values on the grid's axes, as MLflow stores them


class SearchState(Enum):
    """Stages of a search."""

    PROPOSING = "proposing"  # candidates are left to start: those of an earlier launch, or new ones
    WAITING = "waiting"  # the next cell depends on candidates that run
    CONFIRMING = "confirming"  # the best candidate's cells with the other seeds are left to start
    DONE = "done"  # no cell is left to start


class Result(NamedTuple):
    """End of a cell, or of a candidate over the seeds of its trial.

    Args:
        status: as in the store.
        scores: one per goal, NaN where there is none.
        rungs: epoch -> score where early stopping judged it.
        violations: one per constraint, above 0 where it is broken, also if a finished cell lacks the metric.
    """

    status: str
    scores: tuple[float, ...]
    rungs: Mapping[int, float]
    violations: tuple[float, ...]

    @property
    def feasible(self) -> bool:
        """True if no constraint is broken."""
        return all(violation <= 0 for violation in self.violations)

    @classmethod
    def of(
        cls, sweep: Sweep, status: str, run: tuple[Mapping[str, float], Mapping[str, Any]], rungs: Mapping[int, float]
    ) -> Self:
        """The end of a cell. run: its metrics and its flat config."""
        metrics, flat = run
        found = (goal.score(metrics if status == "finished" else {}, flat) for goal in sweep.goals)
        scores = tuple(score if math.isfinite(score) else math.nan for score in found)  # as tables have them
        unknown = float(status == "finished")
        violations = (limit.violation(metrics) for limit in sweep.limits)
        judged = {rung: score for rung, score in rungs.items() if not math.isnan(score)}
        return cls(status, scores, judged, tuple(unknown if one != one else one for one in violations))

    @classmethod
    def mean(cls, results: Sequence[Self]) -> Self:
        """The result over seeds: the worst status and violations, and mean scores, at rungs where all have one."""
        states = [result.status for result in results]
        shared = set(results[0].rungs).intersection(*(result.rungs for result in results))
        return cls(
            next((state for state in (*LOST, *states) if state in states and state != "finished"), "finished"),
            tuple(map(fmean, zip(*(result.scores for result in results), strict=True))),
            {rung: fmean(result.rungs[rung] for result in results) for rung in sorted(shared)},
            tuple(map(max, zip(*(result.violations for result in results), strict=True))),
        )


@dataclass(frozen=True)
class Candidate:
    """A point of a search that was begun.

    Args:
        point: of the space.
        cells: one per seed of a trial, in the order of the seeds.
        entries: of those of its cells that have a run.
    """

    point: dict[str, Scalar]
    cells: tuple[Cell, ...]
    entries: list[Entry] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Key of its first cell, which names the candidate."""
        return self.cells[0].key


class Sampler(Protocol):
    """Source of a search's candidates, which learns from their results."""

    def resume(self, candidate: Candidate) -> None:
        """Start a candidate of an earlier launch."""

    def propose(self, number: int) -> Candidate | None:
        """Start a new candidate, after so many others; None where the space has no other point."""

    def tell(self, candidate: Candidate, result: Result) -> None:
        """Learn the result of a candidate that was started."""


@dataclass(eq=False)
class Search:
    """The candidates at one point of the grid, with the first seeds_per_trial seeds; then the best one with the others.

    A plan builds it from the store's entries and only reads it. A launch advances another one, with a sampler:
    next_cell starts a cell, finish ends one.

    The seeds of a candidate begin one after the other, as far as there is room for them. Once one of them has diverged,
    collapsed or was stopped early, the candidate is lost, and no other one begins.

    Args:
        point: of the grid; {} for a search alone.
        space: the domains that are searched there.
        entries: the sweep's cells in the store, by key.
        candidates: in the order in which they were begun.
        warm: points of this search whose cells have finished in other sweeps; they count with every seed of a trial.
        rules: which cells a launch runs.
        rungs: cell key -> epoch -> score where early stopping has judged it.
    """

    sweep: Sweep
    base: TrainConfig
    point: Mapping[str, Any]
    space: Space
    entries: Mapping[str, Entry]
    candidates: tuple[Candidate, ...]
    warm: tuple[Candidate, ...]
    rules: Rules
    sampler: Sampler | None = None
    rungs: Callable[[str], Mapping[int, float]] = lambda _: {}

    def __post_init__(self) -> None:
        self.best: Candidate | None = None  # known once all candidates have ended
        self.confirmations: tuple[Cell, ...] = ()  # the best candidate with the other seeds, done or not
        self._unconfirmed: deque[Cell] = deque()  # those that a launch has still to start
        self._candidates = {each.key: each for each in self.candidates}
        self._results: dict[str, Result] = {}  # of cells that have ended
        self._begun: set[str] = set()  # keys of cells with a run
        self._running: dict[str, Candidate] = {}  # by the keys of the cells that run
        for each in self.candidates:
            for entry in each.entries:
                self._begun.add(entry.key)
                if self.rules.state(entry) == "running":
                    self._running[entry.key] = each
                elif not self.rules.due(entry):
                    self._results[entry.key] = self._result_of(entry)
        whole = [each for each in self.warm if len({entry.key for entry in each.entries}) == len(each.cells)]
        self._warm = [(each, Result.mean([*map(self._result_of, each.entries)])) for each in whole]
        self._open = {key: each for key, each in self._candidates.items() if self._left(each)}  # not over yet
        self._resumed = {*self._open}  # those of them that no launch has started again
        self.proposals = int(max(0, min(self.sweep.trials, size(self.space)) - len(self.candidates)))
        self._choose_best()

    @property
    def ended(self) -> list[tuple[Candidate, Result]]:
        """The candidates that are over, in the order in which they were begun, with their results; first warm ones."""
        over = [each for each in self._candidates.values() if each.key not in self._open]
        return [*self._warm, *((each, self._result(each)) for each in over)]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every known cell: those of candidates that have been begun, by any launch, and confirmations."""
        begun = (cell for each in self._candidates.values() for cell in each.cells if cell.key in self._begun)
        return (*begun, *self.confirmations)

    @property
    def state(self) -> SearchState:
        """The stage that the search has reached."""
        if self.proposals or any(map(self._startable, self._open.values())):
            return SearchState.PROPOSING
        if self._running:
            return SearchState.WAITING
        return SearchState.CONFIRMING if self._unconfirmed else SearchState.DONE

    @property
    def num_started(self) -> int:
        """Candidates that have been started, by any launch, without those to be resumed."""
        return len(self._candidates) - len(self._resumed)

    @property
    def num_unknown(self) -> int:
        """Cells still to choose: points to propose, seeds that begin if their candidate is not lost before, and the
        other seeds of a best candidate that is not known yet."""
        undecided = self.state in (SearchState.PROPOSING, SearchState.WAITING)
        each = self.sweep.seeds_per_trial
        later = sum(cell.key not in self._begun for each in self._open.values() for cell in self._left(each))
        return self.proposals * each + later + (len(self.sweep.seeds) - each) * undecided

    @property
    def total(self) -> int:
        """All cells that are known or still to choose."""
        return len(self.cells) + self.num_unknown

    @property
    def problem(self) -> str:
        """A line for the user where the search ends without a winner, else ""."""
        if self.state is not SearchState.DONE or self.best is not None:
            return ""
        where = f" at {label_of(self.point)}" if self.point else ""
        finished = [result for _, result in self.ended[len(self._warm) :] if result.status == "finished"]
        limits = " and ".join(limit.name for limit in self.sweep.limits)
        if finished and not any(result.feasible for result in finished):
            return f"no feasible candidate{where}: none of the {len(finished)} finished ones keeps {limits}"
        if len(self.sweep.seeds) > self.sweep.seeds_per_trial and len(self.sweep.goals) == 1:
            return f"no candidate{where} finished: there is no winner to run with the other seeds"
        return ""

    def candidate_at(self, point: Mapping[str, Scalar]) -> Candidate:
        """The candidate of a point of the space."""
        return _candidate(self.sweep, self.base, self.point, point)

    def cell_at(self, point: Mapping[str, Any], *, seed: int | None = None) -> Cell:
        """The cell of a point of the space, by default with the sweep's first seed."""
        return make_cell(self.sweep, self.base, {**self.point, **point}, seed=seed)

    def next_cell(self) -> Cell | None:
        """Start the next cell; None where the search is then WAITING or DONE."""
        if self.proposals and not any(map(self._startable, self._open.values())):
            assert self.sampler is not None
            candidate = self.sampler.propose(self.num_started)
            self.proposals = self.proposals - 1 if candidate is not None else 0
            if candidate is not None:
                self._candidates[candidate.key] = self._open[candidate.key] = candidate
            self._choose_best()  # where the space has no other point
        for each in self._open.values():
            cell = self._startable(each)
            if cell is not None:
                if each.key in self._resumed:
                    assert self.sampler is not None
                    self.sampler.resume(each)
                    self._resumed.discard(each.key)
                self._begun.add(cell.key)
                self._running[cell.key] = each
                return cell
        return self._unconfirmed.popleft() if self._unconfirmed else None

    def finish(self, key: str, result: Result) -> None:
        """End a cell; a confirmation changes nothing. One that early stopping has interrupted goes on later."""
        candidate = self._running.pop(key, None)
        if candidate is None:
            return
        if result.status != "interrupted":
            self._results[key] = result
        if not self._left(candidate):
            assert self.sampler is not None
            self.sampler.tell(candidate, self._result(candidate))
            del self._open[candidate.key]
            self._choose_best()

    def _result_of(self, entry: Entry) -> Result:
        return Result.of(self.sweep, entry.status, (entry.metrics, entry.params), entry.rungs)

    def _result(self, candidate: Candidate) -> Result:
        return Result.mean([self._results[cell.key] for cell in candidate.cells if cell.key in self._results])

    def _left(self, candidate: Candidate) -> list[Cell]:
        """The cells of a candidate that have not ended and are to end: of a lost one only those that were begun."""
        ended = {cell.key: self._results[cell.key] for cell in candidate.cells if cell.key in self._results}
        lost = any(result.status in LOST for result in ended.values())
        left = [cell for cell in candidate.cells if cell.key not in ended]
        return [cell for cell in left if cell.key in self._begun] if lost else left

    def _startable(self, candidate: Candidate) -> Cell | None:
        """The next cell of a candidate that may start. One that has reached a rung waits there for the others."""
        reached = [(max(self.rungs(cell.key), default=0), cell) for cell in self._left(candidate)]
        lowest = min((rung for rung, _ in reached), default=0)
        return next((cell for rung, cell in reached if rung == lowest and cell.key not in self._running), None)

    def _choose_best(self) -> None:
        """Choose the best candidate once all have ended; only its cells without a result follow."""
        if self._open or self.proposals or self._running or len(self.sweep.goals) > 1:
            return
        results = {key: self._result(each) for key, each in self._candidates.items()}
        scores = {key: result.scores[0] for key, result in results.items() if result.feasible}
        self.best = self._candidates.get(self.sweep.goals[0].best_key(scores))
        if self.best is None:
            return
        others = self.sweep.seeds[self.sweep.seeds_per_trial :]
        self.confirmations = tuple(self.cell_at(self.best.point, seed=seed) for seed in others)
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
    spaces: dict[GridPoint, Space] = {}
    for point in grid_points(sweep):
        flat = flatten(changed(base, point))
        grid_point = grid_point_of(sweep, flat)
        if grid_point in points:
            raise ConfigError(f"{sweep.name} has the same point of the grid twice, {label_of(point)!r}; keep one")
        points[grid_point], spaces[grid_point] = point, space_at(sweep.domains, flat)
    own = _by_grid_point(sweep, base, points, (entry for entry in entries.values() if entry.role == "cell"))
    others = _by_grid_point(sweep, base, points, (entry for entry in warm if entry.status == "finished"))
    return tuple(
        Search(sweep, base, points[at], spaces[at], entries, tuple(own[at]), tuple(others[at]), rules) for at in points
    )


def _by_grid_point(
    sweep: Sweep, base: TrainConfig, points: Mapping[GridPoint, Mapping[str, Any]], entries: Iterable[Entry]
) -> dict[GridPoint, list[Candidate]]:
    found: dict[GridPoint, list[Candidate]] = {grid_point: [] for grid_point in points}
    known: dict[str, Candidate] = {}  # by the keys of their cells
    seeds = {*map(str, sweep.seeds[: sweep.seeds_per_trial])}
    for entry in entries:
        grid_point = grid_point_of(sweep, entry.params)
        if entry.params.get("seed") not in seeds or grid_point not in points:
            continue
        searched = point_of(sweep.domains, entry.params, base)
        if searched is None:
            continue
        if entry.key not in known:
            candidate = _candidate(sweep, base, points[grid_point], searched)
            if entry.key not in {cell.key for cell in candidate.cells}:
                continue  # it differs in more than the point: another base
            known |= {cell.key: candidate for cell in candidate.cells}
            found[grid_point].append(candidate)
        known[entry.key].entries.append(entry)
    return found


def _candidate(sweep: Sweep, base: TrainConfig, at: Mapping[str, Any], point: Mapping[str, Scalar]) -> Candidate:
    seeds = sweep.seeds[: sweep.seeds_per_trial]
    return Candidate(dict(point), tuple(make_cell(sweep, base, {**at, **point}, seed=seed) for seed in seeds))
