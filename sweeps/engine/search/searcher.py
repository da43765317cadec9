"""The searcher that hands Tune one cell at a time: the known ones, Optuna's proposals, the winners' other seeds."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import Trial
from ray.tune.search import Searcher

from jepa_train.config.flat import Scalar, flatten
from sweeps.engine.plan.plan import Plan
from sweeps.engine.plan.searches import Study, further_seeds, winner, without_winner
from sweeps.engine.search.sampler import Outcome, Proposals
from sweeps.engine.spec.cells import Cell, changed, make_cell
from sweeps.engine.spec.search_space import contains


class CellSearcher(Searcher):
    """Suggests every cell of a plan once, as a complete flat config.

    The fixed cells come first. Then the studies take turns, the one with the fewest candidates first, so that all of
    them learn from many results; when one has all its candidates, its winner's cells with the other seeds follow.

    Args:
        parallel: whether several cells run at once.
        announce: called with every cell when it is suggested.
        admit: whether a cell may still be launched; after the first refusal nothing more is suggested.
        rungs: a cell's key -> epoch -> score, where early stopping judged it.
        note: takes a line for the user.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        parallel: bool,
        announce: Callable[[Cell], None],
        admit: Callable[[Cell], bool],
        rungs: Callable[[str], Mapping[int, float]],
        note: Callable[[str], object],
    ) -> None:
        super().__init__()
        self._goals = plan.sweep.goals
        self._announce = announce
        self._admit = admit
        self._rungs = rungs
        self._taken = {*plan.entries, *(cell.key for cell in plan.known)}
        self._fixed = deque(cell for cell in plan.fixed if plan.due(cell))
        self._searches = [
            _Search(plan, study, taken=self._taken, parallel=parallel, note=note) for study in plan.studies
        ]
        self._running: dict[str, _Offer] = {}  # by trial id
        self._closed = False
        self.not_launched = 0  # cells that were not admitted, and those that would have followed

    def suggest(self, trial_id: str) -> dict[str, Scalar] | str | None:
        """The next cell's trial config, None where it depends on cells that run, or FINISHED."""
        offer = None if self._closed else self._next()
        if offer is None:
            waiting = not self._closed and any(search.waiting for search in self._searches)
            return None if waiting else Searcher.FINISHED
        if not self._admit(offer.cell):
            self._closed = True
            self.not_launched = 1 + len(self._fixed) + sum(search.left for search in self._searches)
            return Searcher.FINISHED
        self._running[trial_id] = offer
        self._announce(offer.cell)
        return offer.cell.trial_config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing to learn: Optuna is told once, at the end."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how a candidate ended; a trial that Tune stopped has said nothing of its end."""
        offer = self._running.pop(trial_id)
        if offer.search is None:
            return
        result = result or {}
        flat = flatten(offer.cell.config)
        status = "failed" if error else result.get("status", "pruned")
        scores = tuple(goal.score(result if status == "finished" else {}, flat) for goal in self._goals)
        offer.search.ended(offer, Outcome(status=status, scores=scores, rungs=self._rungs(offer.cell.key)))

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the store holds the studies' history."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: see save."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into the experiment folder, which is disposable: nothing of us belongs there."""
        return {}

    def _next(self) -> "_Offer | None":
        if self._fixed:
            return _Offer(self._fixed.popleft())
        while ready := [search for search in self._searches if search.left > 0 and not search.waiting]:
            offer = min(ready, key=lambda search: search.launched).next()
            if offer is not None:
                return offer
        return None


@dataclass(frozen=True)
class _Offer:
    """A cell to run; of a search's candidates, Optuna's trial and the search."""

    cell: Cell
    trial: Trial | None = None
    search: "_Search | None" = None


class _Search:
    """A study that goes on: what is left of it, and what its candidates have given so far."""

    def __init__(
        self, plan: Plan, study: Study, *, taken: set[str], parallel: bool, note: Callable[[str], object]
    ) -> None:
        self._plan = plan
        self._study = study
        self._taken = taken
        self._parallel = parallel
        self._note = note
        self._proposals: Proposals | None = None  # made when it is first asked: there may be thousands of studies
        self._resumed = deque(study.resumed)
        self._to_propose = study.proposals
        self._own = [] if study.candidates else self._own_point()
        self._further = deque(cell for cell in study.further if plan.due(cell))
        self._undecided = study.open
        self._running: set[str] = set()
        self._cells = {candidate.cell.key: candidate.cell for candidate in study.candidates}
        goal = plan.sweep.goals[:1]
        self._scores = {candidate.cell.key: candidate.entry.scores(goal)[0] for candidate in study.candidates}
        self.launched = len(study.candidates) - len(study.resumed)

    @property
    def proposals(self) -> Proposals:
        """Optuna's study."""
        if self._proposals is None:
            self._proposals = Proposals(self._plan.sweep, self._study, parallel=self._parallel)
        return self._proposals

    @property
    def left(self) -> int:
        """Cells that are still to be suggested; those of a winner count before it is known."""
        further = len(self._plan.sweep.seeds) - 1 if self._undecided else len(self._further)
        return len(self._resumed) + self._to_propose + further

    @property
    def waiting(self) -> bool:
        """Whether the next cell depends on candidates that run."""
        return bool(self._running) and not self._resumed and not self._to_propose and len(self._plan.sweep.seeds) > 1

    def next(self) -> _Offer | None:
        """The next cell, or None where the search turns out to have none."""
        offer = self._candidate()
        if offer is not None:
            self._running.add(offer.cell.key)
            self._cells[offer.cell.key] = offer.cell
            self._taken.add(offer.cell.key)
            self.launched += 1
            return offer
        self._decide()
        return _Offer(self._further.popleft()) if self._further else None

    def ended(self, offer: _Offer, outcome: Outcome) -> None:
        """A candidate has ended."""
        assert offer.trial is not None
        self.proposals.tell(offer.trial, outcome)
        self._running.discard(offer.cell.key)
        self._scores[offer.cell.key] = outcome.scores[0]
        self._decide()

    def _candidate(self) -> _Offer | None:
        if self._resumed:
            candidate = self._resumed.popleft()
            return _Offer(candidate.cell, self.proposals.adopt(candidate.point), self)
        if not self._to_propose:
            return None
        self._to_propose -= 1
        for point in (self._own.pop() for _ in self._own[:1]):
            cell = self._complete(point)
            if cell.key not in self._taken:
                return _Offer(cell, self.proposals.adopt(point), self)
        asked = self.proposals.ask(self.launched, self._complete, self._taken)
        if asked is None:
            self._to_propose = 0
            return None
        trial, cell = asked
        return _Offer(cell, trial, self)

    def _decide(self) -> None:
        """The winner, once every candidate has ended; only cells that have no result follow."""
        if not self._undecided or self._running or self._resumed or self._to_propose:
            return
        self._undecided = False
        sweep, base = self._plan.sweep, self._plan.base
        if len(sweep.seeds) == 1:
            return
        best = winner(sweep.goals[0], self._scores)
        if not best:
            self._note(without_winner(self._study.point))
            return
        further = further_seeds(sweep, base, self._study.point, self._cells[best])
        self._further.extend(cell for cell in further if self._plan.due(cell))

    def _complete(self, point: Mapping[str, Any]) -> Cell:
        return make_cell(self._plan.sweep, self._plan.base, {**self._study.point, **point})

    def _own_point(self) -> list[dict[str, Scalar]]:
        """The base's own point, where it lies in the space: what a new search is to improve on."""
        flat = flatten(changed(self._plan.base, self._study.point))
        own = {key: flat[key] for key in self._plan.sweep.space}
        inside = all(contains(self._plan.sweep.space[key], value) for key, value in own.items())
        return [own] if inside else []
