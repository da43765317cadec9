"""The searcher that hands Tune one complete cell at a time: the fixed cells first, then Optuna's proposals."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import TPESampler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from jepa_train.config import Scalar, TrainConfig, flatten
from jepa_train.randomness import derive_seed
from sweeps.engine.cells import Cell, make_cell
from sweeps.engine.spec import Sweep
from sweeps.engine.store import Entry


class CellSearcher(Searcher):
    """Suggests each fixed cell once, then the proposals of Optuna, as complete flat configs.

    Args:
        fixed: cells to run first.
        proposals: Optuna's searcher, or None for a grid.
        complete: a proposed point -> its cell.
        announce: called with every cell when it is suggested.
    """

    def __init__(
        self,
        *,
        fixed: Sequence[Cell],
        proposals: OptunaSearch | None,
        complete: Callable[[Mapping[str, Any]], Cell],
        announce: Callable[[Cell], None],
        objective: str,
    ) -> None:
        super().__init__(metric=objective, mode="max")
        self._fixed = list(fixed)
        self._proposals = proposals
        self._complete = complete
        self._announce = announce
        self._objective = objective
        self._values: dict[str, float] = {}  # trial id -> latest objective, for the proposed ones

    def suggest(self, trial_id: str) -> dict[str, Scalar] | str:
        """The complete flat config of the next cell, or FINISHED."""
        if self._fixed:
            cell = self._fixed.pop(0)
        elif self._proposals is not None:
            cell = self._complete(self._proposals.suggest(trial_id))
            self._values[trial_id] = float("nan")
        else:
            return Searcher.FINISHED
        self._announce(cell)
        return flatten(cell.config)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Remember the objective; Optuna is told once, at the end."""
        if trial_id in self._values and self._objective in result:
            self._values[trial_id] = float(result[self._objective])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna the last value; a cell that did not finish counts as failed, or Optuna would wait for ever."""
        if self._proposals is None or trial_id not in self._values:
            return
        value = self._values.pop(trial_id)
        finished = not error and (result or {}).get("status") == "finished" and value == value
        told = {self._objective: value} if finished else None
        self._proposals.on_trial_complete(trial_id, result=told, error=not finished)

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
    first = [own] if not history and all(_holds(sweep.space[key], value) for key, value in own.items()) else None
    search = OptunaSearch(
        space=dict(sweep.space), metric=sweep.objective, mode="max", sampler=sampler, points_to_evaluate=first
    )
    for entry in history:
        failed = entry.status != "finished" or sweep.objective not in entry.metrics
        search.add_evaluated_point(
            {key: _read(entry.params[key], domain) for key, domain in sweep.space.items()},
            entry.metrics.get(sweep.objective),
            error=failed,
        )
    return search


def completer(sweep: Sweep, base: TrainConfig) -> Callable[[Mapping[str, Any]], Cell]:
    """A proposed point -> its cell."""
    return lambda point: make_cell(sweep, base, point)


def _holds(domain: Any, value: Scalar) -> bool:
    """Whether a value lies in a domain."""
    if isinstance(domain, CategoricalDistribution):
        return value in domain.choices
    return bool(domain.low <= value <= domain.high)


def _read(text: str, domain: BaseDistribution) -> Any:
    """A logged parameter in its domain's type."""
    if isinstance(domain, CategoricalDistribution):
        return next(choice for choice in domain.choices if str(choice) == text)
    return int(text) if isinstance(domain, IntDistribution) else float(text)
