"""Sampling of candidates: an Optuna study without a database of its own, rebuilt from the store."""

import math
import random
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import cached_property, partial
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from analysis.select.objectives import LOST
from jepa_train.base.seeds import derive_seed
from jepa_train.config.flat import Scalar, flatten
from sweeps.engine.plan.searches import Candidate, Result, Search
from sweeps.engine.spec.cells import changed
from sweeps.engine.spec.search_space import COUNTABLE, Domain, all_points, conditions_of, point_by, size
from sweeps.engine.spec.sweep import Sweep

_DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
_REPEATS = 20  # proposals of known points in a row, after which one of the others is drawn


@dataclass(eq=False)
class OptunaSampler:
    """Source of points from Optuna, which receives their results, those of earlier launches included.

    Optuna receives the values of a finished candidate, means over its seeds, and the epoch and value of one that was
    stopped early. One that diverged or collapsed counts as stopped before the first rung, which TPE ranks below
    everything: reported as failed, it would teach nothing, and where half of a space diverges TPE then spends 19 of 20
    proposals there, not 6. A failure, or a score that is not a number, teaches nothing about the point. The worst
    end of a seed is that of its candidate.

    Constraints count by their violations: the samplers prefer points that keep them, "qmc" and "random" ignore them.

    A proposal depends on the known results and on the number of points before it, not on the launch: an interrupted
    search with "tpe", "gp" or "random" proposes the points of an uninterrupted one (where several candidates run at
    once, as far as they end in the same order). With "nsga2" and "qmc" it may propose others.

    Args:
        search: as the store has it.
        taken: the keys of the cells that are known, shared by the searches of a sweep; those of the candidates that
            start are added.
        parallel: whether several candidates run at once: the sampler then keeps away from those that run.
    """

    search: Search
    _: KW_ONLY
    taken: set[str]
    parallel: bool

    def __post_init__(self) -> None:
        self._sweep = self.search.sweep
        self._space = self.search.space
        self._trials: dict[str, Trial] = {}  # of the candidates that run, by their keys

    @cached_property
    def study(self) -> optuna.Study:
        """Optuna's study, made when it is first needed: there may be thousands of searches."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        directions = [_DIRECTIONS[goal.direction] for goal in self._sweep.goals]
        sampler = _optuna_sampler(self._sweep, 0, parallel=self.parallel)
        study = optuna.create_study(directions=directions, sampler=sampler)
        study.add_trials([self._rebuilt(candidate, result) for candidate, result in self.search.ended])
        return study

    def propose(self, number: int) -> Candidate | None:
        """Start a candidate whose cells are new, after so many others; None where there is none left."""
        if number == 0:  # the base's own point, where it lies in the space: a new search is to improve on it
            flat = flatten(changed(self.search.base, self.search.point))
            own = point_by(self._space, lambda key, _: flat[key])
            if all(self._space[key].contains(value) for key, value in own.items()):
                first = self._first_new([own])
                if first is not None:
                    return first
        # The same draws for all points of the grid: their searches begin alike, so that the best compare fairly.
        seed = derive_seed(self._sweep.name, self._sweep.seeds[0], number) % 2**32
        self.study.sampler = _optuna_sampler(self._sweep, seed, parallel=self.parallel)
        countable = size(self._space) <= COUNTABLE
        for _ in range(_REPEATS if countable else COUNTABLE):
            trial = self._ask()
            candidate = self.search.candidate_at(trial.params)
            if candidate.key not in self.taken:
                self.taken.add(candidate.key)
                self._trials[candidate.key] = trial
                return candidate
            self.study.tell(trial, state=TrialState.FAIL)  # the result of that point is known
        rest = all_points(self._space) if countable else []
        return self._first_new(random.Random(seed).sample(rest, len(rest)))

    def tell(self, candidate: Candidate, result: Result) -> None:
        """Learn the result of a candidate that was started."""
        trial = self._trials.pop(candidate.key)
        state, values, reports = self._optuna_result(result)
        for epoch, score in reports.items():
            trial.report(score, epoch)
        for name, violation in self._violations(result):
            trial.set_constraint(name, violation)
        self.study.tell(trial, list(values) or None, state=state)

    def _first_new(self, points: Iterable[Mapping[str, Scalar]]) -> Candidate | None:
        """Start the first of the points whose cells are new."""
        for candidate in map(self.search.candidate_at, points):
            if candidate.key not in self.taken:
                self.resume(candidate)
                return candidate
        return None

    def resume(self, candidate: Candidate) -> None:
        """Start a candidate that Optuna did not choose, as one of an earlier launch."""
        self.study.enqueue_trial(dict(candidate.point))
        self.taken.add(candidate.key)
        self._trials[candidate.key] = self._ask()

    def _ask(self) -> Trial:
        """A new trial with a value for each key that the others leave open."""
        trial = self.study.ask()
        point_by(self._space, partial(_suggest, trial))
        return trial

    def _rebuilt(self, candidate: Candidate, result: Result) -> FrozenTrial:
        state, values, rungs = self._optuna_result(result)
        if state is TrialState.PRUNED and rungs:
            values = (rungs[max(rungs)],)  # as Optuna itself does at tell
        distributions: dict[str, Any] = {key: self._space[key].values for key in candidate.point}
        trial = create_trial(
            state=state,
            values=values or None,
            params=candidate.point,
            distributions=distributions,
            intermediate_values=rungs,
        )
        for name, violation in self._violations(result):
            trial.set_constraint(name, violation)
        return trial

    def _violations(self, result: Result) -> Iterable[tuple[str, float]]:
        return zip((limit.name for limit in self._sweep.limits), result.violations, strict=True)

    def _optuna_result(self, result: Result) -> tuple[TrialState, tuple[float, ...], dict[int, float]]:
        """State, values and intermediate values, which Optuna takes with one objective only, of a candidate's end."""
        judged = result.status in ("finished", "pruned") and len(self._sweep.goals) == 1
        reports = dict(sorted(result.rungs.items())) if judged else {}
        if result.status == "finished" and all(map(math.isfinite, result.scores)):
            return TrialState.COMPLETE, result.scores, reports
        return TrialState.PRUNED if result.status in LOST else TrialState.FAIL, (), reports


def _suggest(trial: Trial, key: str, domain: Domain) -> Any:
    values: Any = domain.values
    if isinstance(values, CategoricalDistribution):
        return trial.suggest_categorical(key, values.choices)
    suggest = trial.suggest_int if isinstance(values, IntDistribution) else trial.suggest_float
    return suggest(key, values.low, values.high, step=values.step, log=values.log)


def _optuna_sampler(sweep: Sweep, seed: int, *, parallel: bool) -> BaseSampler:
    startup = max(2, min(10, sweep.trials // 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if sweep.sampler == "tpe":
            grouped = bool(conditions_of(sweep.domains))  # without it keys that some trials lack are drawn one by one
            return TPESampler(
                seed=seed, n_startup_trials=startup, multivariate=True, group=grouped, constant_liar=parallel
            )
        if sweep.sampler == "nsga2":  # a population small enough for some generations
            return NSGAIISampler(seed=seed, population_size=max(4, min(50, sweep.trials // 5)))
        if sweep.sampler == "gp":
            return GPSampler(seed=seed, n_startup_trials=startup)
        if sweep.sampler == "qmc":  # a sequence has one seed
            return QMCSampler(seed=derive_seed(sweep.name, sweep.seeds[0]) % 2**32, scramble=True)
        return RandomSampler(seed=seed)
