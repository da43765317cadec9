"""Private hooks into Optuna, written for version 5.0."""

import copy
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.samplers import GPSampler, NSGAIISampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

_GP_TRIALS = 300  # that a Gaussian process is fitted to: 1,000 take it 3 s or more


class BoundedGPSampler(GPSampler):
    """Gaussian process that knows of pruned trials, and is fitted to the best and the newest where there are many.

    Hook: overrides _sample_relative_impl, which receives the completed trials. Without it, pruned trials, which count
    here as the worst that finished, are unknown, and it proposes for ever points where runs diverge; and the time of a
    fit grows with the cube of the number of trials.
    """

    def _sample_relative_impl(
        self,
        study: optuna.Study,
        completed_trials: list[FrozenTrial],
        running_trials: list[FrozenTrial],
        search_space: dict[str, optuna.distributions.BaseDistribution],
    ) -> dict[str, Any]:
        worst = [
            (min if direction is StudyDirection.MAXIMIZE else max)(trial.values[place] for trial in completed_trials)
            for place, direction in enumerate(study.directions)
        ]
        pruned = [copy.copy(trial) for trial in study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))]
        for trial in pruned:
            trial.values = worst
        trials = sorted([*completed_trials, *pruned], key=lambda trial: trial.number)
        fitted = best_and_newest(trials, study.directions)
        return super()._sample_relative_impl(study, fitted, running_trials, search_space)


def best_and_newest(trials: list[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
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


def generation_attribute(generation: int) -> dict[str, int]:
    """The system attribute by which NSGA-II knows the generation of a trial.

    Hook: NSGAIISampler._get_generation_key. Without it, the trials of a rebuilt study are nobody's parents, and a
    resumed search begins its evolution anew.
    """
    return {NSGAIISampler._get_generation_key(): generation}
