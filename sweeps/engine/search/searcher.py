"""Tune's searcher: suggests the fixed cells of a plan, then the cells of its searches."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from ray.tune.search import Searcher

from jepa_train.config.flat import Scalar, flatten
from sweeps.engine.plan.plan import Plan
from sweeps.engine.plan.searches import Result, Search, SearchState
from sweeps.engine.search.asha import Judge
from sweeps.engine.search.sampler import OptunaSampler
from sweeps.engine.spec.cells import Cell


@dataclass(eq=False)
class CellSearcher(Searcher):
    """Suggests every cell of a plan to Tune once, as a complete flat config.

    The fixed cells come first. Then the searches take turns, the one with the fewest candidates first, so that all of
    them learn from many results; when one has all its candidates, the best one's cells with the other seeds follow.

    Args:
        parallel: whether several cells run at once.
        announce: called with every cell when it is suggested.
        record: takes the keys of a best candidate's cells with the other seeds once it is known, done or not, and the
            number of all cells, which falls where a search does not need some.
        admit: False for a cell that may not be launched; after the first one nothing more is suggested.
        waits: True while nothing is to be suggested until a running cell ends.
        judge: of early stopping, who learns how cells end.
        note: takes a line for the user.
    """

    plan: Plan
    _: KW_ONLY
    parallel: bool
    announce: Callable[[Cell], None]
    record: Callable[[Sequence[str], int], object]
    admit: Callable[[Cell], bool]
    waits: Callable[[], bool] = lambda: False
    judge: Judge
    note: Callable[[str], object]

    def __post_init__(self) -> None:
        super().__init__()
        self._fixed = deque(cell for cell in self.plan.fixed if self.plan.due(cell))
        taken = {*self.plan.entries, *(cell.key for cell in self.plan.known)}
        self.searches = [
            replace(
                search,
                sampler=OptunaSampler(search, taken=taken, parallel=self.parallel),
                rungs=self.judge.seen,
            )
            for search in self.plan.searches
        ]
        self._total = self.plan.total
        self._totals = {search: search.total for search in self.searches}
        self._chosen = [search for search in self.searches if self.plan.runs(search)]
        self._suggested: set[str] = set()  # keys of the cells that count for --limit
        self._running: dict[str, tuple[Cell, Search | None]] = {}  # by trial id; fixed cells are of no search
        self._closed = False  # after a cell that was not admitted

    def suggest(self, trial_id: str) -> dict[str, Scalar] | str | None:
        """The next cell's trial config, None where it depends on cells that run, or FINISHED."""
        if self.waits():
            return None
        self._closed |= len(self._suggested) == self.plan.rules.choice.limit
        following = None if self._closed else self._next()
        if following is None:
            waiting = not self._closed and any(search.state is SearchState.WAITING for search in self._chosen)
            return None if waiting else Searcher.FINISHED
        cell, _ = following
        if not self.admit(cell):
            self._closed = True
            return Searcher.FINISHED
        self._suggested.add(cell.key)
        self._running[trial_id] = following
        self.announce(cell)
        return cell.trial_config

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass the end of a candidate to its search; a trial that Tune stopped early has no last report."""
        cell, search = self._running.pop(trial_id)
        if search is None:
            return
        result, flat = result or {}, flatten(cell.config)
        stopped = "interrupted" if self.judge.waits(cell.key) else "pruned"
        status = "failed" if error else result.get("status", stopped)
        self.judge.end(cell.key, flat, status)
        search.finish(cell.key, Result.of(self.plan.sweep, status, (result, flat), self.judge.seen(cell.key)))
        self._record_choice(search)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the store holds the searches' history."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: see save."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher into the experiment folder, which is disposable."""
        return {}

    def _next(self) -> tuple[Cell, Search | None] | None:
        if self._fixed:
            return self._fixed.popleft(), None
        startable = (SearchState.PROPOSING, SearchState.CONFIRMING)
        while ready := [search for search in self._chosen if search.state in startable]:
            search = min(ready, key=lambda search: search.num_started)
            cell = search.next_cell()
            self._record_choice(search)
            if cell is not None:
                return cell, search
        return None

    def _record_choice(self, search: Search) -> None:
        """Record the best candidate's cells with the other seeds, done or not, or note that there is none."""
        self._total += search.total - self._totals[search]
        self._totals[search] = search.total
        self.record([cell.key for cell in search.confirmations], self._total)
        if search.problem:
            self.note(search.problem)
