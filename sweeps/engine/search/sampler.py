"""Proposals: an Optuna study without a database of its own, rebuilt from what the store holds of a search."""

import copy
import math
import random
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from jepa_train.base.seeds import derive_seed
from jepa_train.config.flat import Scalar
from sweeps.engine.plan.searches import Candidate, Study
from sweeps.engine.spec.cells import Cell
from sweeps.engine.spec.objective import Goal
from sweeps.engine.spec.search_space import points, size
from sweeps.engine.spec.sweep import Sweep

_DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
_REPEATS = 20  # proposals of known points in a row, after which one of the others is drawn
_COUNTABLE = 10_000  # points of a space that can be listed
_GP_TRIALS = 300  # that a Gaussian process is fitted to: 1,000 take it 3 s or more


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a candidate.

    Args:
        status: as in the store.
        scores: one per goal, NaN where there is none.
        rungs: epoch -> score where early stopping judged it.
    """

    status: str
    scores: tuple[float, ...]
    rungs: Mapping[int, float] = field(default_factory=dict)


def outcome_of(candidate: Candidate, goals: Sequence[Goal]) -> Outcome:
    """The outcome of a candidate whose run is over."""
    entry = candidate.entry
    return Outcome(status=entry.status, scores=entry.scores(goals), rungs=entry.rungs)


class Proposals:
    """Asks Optuna for points and tells it what they gave, earlier launches' included.

    Optuna hears a finished candidate's values, and of one that was stopped early where and at which value. One that
    diverged or collapsed counts as stopped before the first rung, which TPE ranks below everything: told as failed, it
    would teach nothing, and where half of a space diverges TPE then spends 19 of 20 proposals there, instead of 6. A
    failure, or a score that is not a number, says nothing about the point.

    A proposal depends on what Optuna knows and on how many points there were before, not on who asked for those: a
    search that was interrupted goes on as if it had not been (where several candidates run at once, as far as they end
    in the same order).

    Args:
        parallel: whether several candidates run at once: the sampler then keeps away from those that run.
    """

    def __init__(self, sweep: Sweep, study: Study, *, parallel: bool) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._sweep = sweep
        self._parallel = parallel
        self._space = dict(sweep.space)
        self._countable = size(self._space) <= _COUNTABLE
        self._repeats = _REPEATS if self._countable else _COUNTABLE
        if sweep.sampler == "qmc":  # which goes along its sequence anew, past what it proposed before
            self._repeats += len(study.candidates)
        directions = [_DIRECTIONS[goal.direction] for goal in sweep.goals]
        self._study = optuna.create_study(directions=directions, sampler=_sampler(sweep, 0, parallel=parallel))
        resumed = {candidate.cell.key for candidate in study.resumed}
        over = [candidate for candidate in (*study.warm, *study.candidates) if candidate.cell.key not in resumed]
        self._study.add_trials(self._rebuilt(over))

    @property
    def trials(self) -> list[FrozenTrial]:
        """Everything that Optuna knows."""
        return self._study.trials

    def ask(
        self, number: int, complete: Callable[[Mapping[str, Scalar]], Cell], taken: Collection[str]
    ) -> tuple[Trial, Cell] | None:
        """A point whose cell is new, or None where there is none left.

        Args:
            number: of candidates so far.
            complete: a point -> its cell.
            taken: the keys of the cells that are known.
        """
        # The same draws for all points of the grid: their searches begin alike, so that their winners compare fairly.
        seed = derive_seed(self._sweep.name, self._sweep.seeds[0], number) % 2**32
        self._study.sampler = _sampler(self._sweep, seed, parallel=self._parallel)
        for _ in range(self._repeats):
            trial = self._asked()
            cell = complete(trial.params)
            if cell.key not in taken:
                return trial, cell
            self._study.tell(trial, state=TrialState.FAIL)  # what it gave has been told already
        rest = points(self._space) if self._countable else []
        for point in random.Random(seed).sample(rest, len(rest)):
            cell = complete(point)
            if cell.key not in taken:
                return self.adopt(point), cell
        return None

    def adopt(self, point: Mapping[str, Scalar]) -> Trial:
        """Optuna's trial of a point that somebody else chose."""
        self._study.enqueue_trial(dict(point))
        return self._asked()

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """A candidate has ended."""
        state, values = self._verdict(outcome)
        for epoch, score in self._intermediate(outcome).items():
            trial.report(score, epoch)
        self._study.tell(trial, list(values) or None, state=state)

    def _asked(self) -> Trial:
        trial = self._study.ask(self._space)
        if isinstance(self._study.sampler, NSGAIISampler):  # which leaves its first trials without a generation
            self._study.sampler.get_trial_generation(self._study, self._study.trials[trial.number])
        return trial

    def _rebuilt(self, candidates: Sequence[Candidate]) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = []
        complete = 0
        for candidate in candidates:
            outcome = outcome_of(candidate, self._sweep.goals)
            state, values = self._verdict(outcome)
            rungs = self._intermediate(outcome)
            if state is TrialState.PRUNED and rungs:
                values = (rungs[max(rungs)],)  # as Optuna itself does at tell
            generation = {}
            if self._sweep.sampler == "nsga2":  # trials without a generation are nobody's parents
                generation = {NSGAIISampler._get_generation_key(): complete // _population(self._sweep)}
            complete += state is TrialState.COMPLETE
            trials.append(
                create_trial(
                    state=state,
                    values=values or None,
                    params=candidate.point,
                    distributions=self._space,
                    intermediate_values=rungs,
                    system_attrs=generation,
                )
            )
        return trials

    def _verdict(self, outcome: Outcome) -> tuple[TrialState, tuple[float, ...]]:
        if outcome.status == "finished" and all(map(math.isfinite, outcome.scores)):
            return TrialState.COMPLETE, outcome.scores
        if outcome.status in ("pruned", "diverged", "collapsed"):
            return TrialState.PRUNED, ()
        return TrialState.FAIL, ()

    def _intermediate(self, outcome: Outcome) -> dict[int, float]:
        """Optuna takes them with one objective only, and a value that led to no judgement is none."""
        known = outcome.status in ("finished", "pruned") and len(self._sweep.goals) == 1
        return dict(sorted(outcome.rungs.items())) if known else {}


class _BoundedGP(GPSampler):
    """Knows of pruned trials, and is fitted to the best and the newest where there are many.

    Without the pruned ones, which count as the worst that finished, it proposes points where runs diverge for ever. The
    time of a fit grows with the cube of the number of trials.
    """

    def _sample_relative_impl(
        self,
        study: optuna.Study,
        completed_trials: list[FrozenTrial],
        running_trials: list[FrozenTrial],
        search_space: dict[str, optuna.distributions.BaseDistribution],
    ) -> dict[str, Scalar]:
        worst = [
            (min if direction is StudyDirection.MAXIMIZE else max)(trial.values[place] for trial in completed_trials)
            for place, direction in enumerate(study.directions)
        ]
        pruned = [copy.copy(trial) for trial in study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))]
        for trial in pruned:
            trial.values = worst
        trials = sorted([*completed_trials, *pruned], key=lambda trial: trial.number)
        told = _telling(trials, study.directions)
        return super()._sample_relative_impl(study, told, running_trials, search_space)


def _telling(trials: list[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """At most _GP_TRIALS trials: half of them the best by each objective, the others the newest."""
    if len(trials) <= _GP_TRIALS:
        return trials
    kept: set[int] = set()
    for place, direction in enumerate(directions):
        sign = -1 if direction is StudyDirection.MAXIMIZE else 1
        ranked = sorted(trials, key=lambda trial: sign * trial.values[place])
        kept |= {trial.number for trial in ranked[: _GP_TRIALS // (2 * len(directions))]}
    newest = [trial.number for trial in reversed(trials) if trial.number not in kept]
    kept |= set(newest[: _GP_TRIALS - len(kept)])
    return [trial for trial in trials if trial.number in kept]


def _population(sweep: Sweep) -> int:
    """Of NSGA-II: small enough for some generations."""
    return max(4, min(50, sweep.trials // 5))


def _sampler(sweep: Sweep, seed: int, *, parallel: bool) -> BaseSampler:
    startup = max(2, min(10, sweep.trials // 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if sweep.sampler == "tpe":
            # group=True is of conditional spaces; here every trial has every key
            return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=parallel)
        if sweep.sampler == "nsga2":
            return NSGAIISampler(seed=seed, population_size=_population(sweep))
        if sweep.sampler == "gp":
            return _BoundedGP(seed=seed, n_startup_trials=startup)
        if sweep.sampler == "qmc":  # a sequence has one seed
            fixed = derive_seed(sweep.name, sweep.seeds[0]) % 2**32
            return QMCSampler(seed=fixed, scramble=True, warn_independent_sampling=False)
        return RandomSampler(seed=seed)
