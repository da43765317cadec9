"""The searcher that hands Tune one complete cell at a time: the known cells first, then Optuna's proposals."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import TPESampler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from jepa_train.config import TrainConfig
from jepa_train.flat import Scalar, flatten
from jepa_train.randomness import derive_seed
from sweeps.engine.cells import Cell, make_cell
from sweeps.engine.space import contains, point_of
from sweeps.engine.spec import Sweep
from sweeps.engine.store import Entry

_REPEATS = 100  # proposals of known points in a row, after which a search counts as exhausted


class CellSearcher(Searcher):
    """Suggests each known cell once, then the proposals of Optuna, as complete flat configs; no cell twice.

    Args:
        known: cells to run first; those of the search are told to Optuna as well when they end.
        proposals: Optuna's searcher, or None for a grid.
        complete: a proposed point -> its cell.
        taken: keys of cells that have a result, with the objective's value.
        announce: called with every cell when it is suggested.
    """

    def __init__(
        self,
        *,
        known: Sequence[Cell],
        proposals: OptunaSearch | None,
        complete: Callable[[Mapping[str, Any]], Cell],
        taken: Mapping[str, float],
        announce: Callable[[Cell], None],
        objective: str,
    ) -> None:
        super().__init__(metric=objective, mode="max")
        self._known = list(known)
        self._proposals = proposals
        self._complete = complete
        self._taken = {**taken, **{cell.key: float("nan") for cell in known}}
        self._announce = announce
        self._objective = objective
        self._asked = 0  # proposals so far: Optuna knows each by its own id
        self._running: dict[str, tuple[Cell, str]] = {}  # trial id -> the cell, and Optuna's id ("" if not proposed)

    def suggest(self, trial_id: str) -> dict[str, Scalar] | str:
        """The complete flat config of the next cell, or FINISHED."""
        cell, asked = (self._known.pop(0), "") if self._known else self._propose()
        if cell is None:
            return Searcher.FINISHED
        self._taken.setdefault(cell.key, float("nan"))
        self._running[trial_id] = (cell, asked)
        self._announce(cell)
        return flatten(cell.config)

    def _propose(self) -> tuple[Cell | None, str]:
        """Optuna's next point that has no cell yet; of the others it is told what they gave, or that they are taken."""
        for _ in range(_REPEATS if self._proposals is not None else 0):
            assert self._proposals is not None
            self._asked += 1
            asked = f"proposal-{self._asked}"
            cell = self._complete(self._proposals.suggest(asked))
            if cell.key not in self._taken:
                return cell, asked
            self._tell(cell, asked, self._taken[cell.key])
        return None, ""

    def _tell(self, cell: Cell, asked: str, value: float) -> None:
        """Optuna hears the last value, or that there is none: it would wait for ever."""
        if self._proposals is None or cell.role == "reference":
            return
        failed = value != value
        if asked:
            told = None if failed else {self._objective: value}
            self._proposals.on_trial_complete(asked, result=told, error=failed)
        else:  # begun by an earlier launch
            flat = flatten(cell.config)
            point = {key: flat[key] for key in self._proposals._space}
            self._proposals.add_evaluated_point(point, value, error=failed)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Remember the objective; Optuna is told once, at the end."""
        cell, _ = self._running[trial_id]
        self._taken[cell.key] = float(result.get(self._objective, self._taken[cell.key]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna; a cell that did not finish has no value."""
        cell, asked = self._running.pop(trial_id)
        if error or (result or {}).get("status") != "finished":
            self._taken[cell.key] = float("nan")
        self._tell(cell, asked, self._taken[cell.key])

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the store holds the study's history."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: see save."""


def optuna_search(sweep: Sweep, base: TrainConfig, history: Sequence[Entry]) -> OptunaSearch:
    """TPE over the sweep's space, told of every point the store holds; a search goes on where it stopped.

    A new search starts with the base's own point, where it lies in the space: what the search is to improve on. The
    sampler's seed depends on the length of the history, or a continued search would propose the same points again.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray.tune.search.optuna").setLevel(logging.ERROR)
    sampler = TPESampler(
        seed=derive_seed(sweep.name, sweep.seeds[0], len(history)) % 2**32,
        n_startup_trials=max(2, min(10, sweep.trials // 3)),
        multivariate=True,
    )
    flat = flatten(base)
    own = {key: flat[key] for key in sweep.space}
    first = [own] if not history and all(contains(sweep.space[key], value) for key, value in own.items()) else None
    search = OptunaSearch(
        space=dict(sweep.space), metric=sweep.goals[0].metric, mode="max", sampler=sampler, points_to_evaluate=first
    )
    for entry in history:
        failed = entry.status != "finished" or sweep.goals[0].metric not in entry.metrics
        point = point_of(sweep.space, entry.params)
        search.add_evaluated_point(point, entry.metrics.get(sweep.goals[0].metric), error=failed)
    return search


def completer(sweep: Sweep, base: TrainConfig) -> Callable[[Mapping[str, Any]], Cell]:
    """A proposed point -> its cell."""
    return lambda point: make_cell(sweep, base, point)
