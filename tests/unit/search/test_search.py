"""Searches: every cell once, Optuna told of what was found, and studies that go on as if nobody had stopped them."""

import dataclasses
import math
import time
from collections.abc import Sequence

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher
from simulated_sweep import SimulatedSweep

from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten
from jepa_train.config.presets import DIGITS
from sweeps.engine.plan.searches import CandidateResult, Search, SearchState
from sweeps.engine.search.optuna_private import best_and_newest
from sweeps.engine.search.sampler import OptunaSampler
from sweeps.engine.spec.cells import Cell, make_cell
from sweeps.engine.spec.objective import Asha, LabelFree
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import Entry

SAMPLERS = ("tpe", "nsga2", "gp", "qmc", "random")
BASE = dataclasses.replace(DIGITS, epochs=4)
SPACE = {
    "method.lamb": FloatDistribution(0.001, 0.1, log=True),
    "optim.lr": FloatDistribution(1e-4, 1e-2, log=True),
}
POINT = {"method.lamb": 0.03, "optim.lr": 2e-3}
SEARCH = Sweep(name="study", purpose="", base=BASE, space=SPACE, trials=12)
FAIR = dataclasses.replace(
    SEARCH,
    grid={"method.num_slices": [64, 128]},
    trials=8,
    seeds=(0, 1, 2),
    references=({"epochs": 0},),
    early_stopping=Asha(first=1),
)


def quality(config: TrainConfig) -> float:
    """Best at lamb 0.02 and lr 3e-3, and better with more slices and with seed 0."""
    lamb, lr = math.log10(config.method.lamb / 0.02), math.log10(config.optim.lr / 3e-3)
    return 0.9 - abs(lamb) / 3 - abs(lr) / 4 + config.method.num_slices / 1000 - config.seed / 100


def reports(config: TrainConfig) -> list[dict[str, float]]:
    """A curve that rises to the quality."""
    epochs = range(min(1, config.epochs), config.epochs + 1)
    return [{"epoch": float(e), "val/probe_top1": quality(config) * (e + 1) / (config.epochs + 1)} for e in epochs]


def uneven(config: TrainConfig) -> list[dict[str, float]]:
    """The same, but large learning rates diverge and the smallest fail at once."""
    whole = reports(config)
    return whole[:2] if config.optim.lr > 5e-3 else [] if config.optim.lr < 2e-4 else whole


def sampler_of(search: SimulatedSweep, number: int = 0) -> OptunaSampler:
    """Optuna's study, as it is rebuilt from the store."""
    return OptunaSampler(search.plan().searches[number], taken=set(search.entries), parallel=False)


def known(search: SimulatedSweep, number: int = 0) -> list[FrozenTrial]:
    """What Optuna is told when the study is rebuilt from the store."""
    return sampler_of(search, number).study.trials


def living(search: SimulatedSweep) -> optuna.Study:
    """Optuna's study of a launch from beginning to end."""
    (study,) = {each.sampler.study for each in search.run().searches}
    return study


def candidates(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Without the proposals that were skipped because their cells were known."""
    found: list[FrozenTrial] = []
    for trial in trials:
        if trial.state is not TrialState.FAIL or trial.params not in [earlier.params for earlier in found]:
            found.append(trial)
    return found


def told(trials: Sequence[FrozenTrial]) -> list[tuple]:
    """What a sampler can learn from."""
    generation = "NSGAIISampler:generation"
    return [
        (
            trial.params,
            trial.state,
            trial.values,
            trial.intermediate_values,
            trial.system_attrs.get(generation) if trial.state is TrialState.COMPLETE else None,
        )
        for trial in trials
    ]


def test_references_first_then_the_bases_own_point_then_others():
    search = SimulatedSweep(FAIR, BASE, reports)
    search.run()
    reference, own, other = (search.entries[cell.key].params for cell in search.launched[:3])
    assert (reference["epochs"], reference["method.num_slices"]) == ("0", "256")
    assert own == {key: str(value) for key, value in flatten(BASE).items()} | {"method.num_slices": "64"}
    assert other == own | {"method.num_slices": "128"}  # the studies take turns
    assert len(search.entries[search.launched[3].key].params) == len(own)  # complete configs


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_rebuilt_from_the_store_is_the_one_that_lived(sampler: str):
    sweep = dataclasses.replace(SEARCH, sampler=sampler, early_stopping=Asha(first=1, eta=2), trials=20)
    search = SimulatedSweep(sweep, BASE, uneven)
    trials = candidates(living(search).trials)
    assert told(known(search)) == told(trials)
    states = [trial.state for trial in trials]
    assert {TrialState.COMPLETE, TrialState.PRUNED} <= set(states)
    assert len(states) == 20


def test_what_optuna_hears_of_each_end():
    ends = {0.02: "finished", 0.03: "pruned", 0.04: "diverged", 0.05: "collapsed", 0.06: "failed"}
    search = SimulatedSweep(dataclasses.replace(SEARCH, early_stopping=Asha(first=1)), BASE, reports)
    for lamb, status in ends.items():
        cell = make_cell(SEARCH, BASE, {"method.lamb": lamb, "optim.lr": 1e-3})
        search.write(cell, status=status, epoch=3, rungs={3: 0.75, 1: 0.25}, metrics={"val/probe_top1": 0.875})
    trials = known(search)
    complete, pruned, fail = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
    assert [trial.state for trial in trials] == [complete, pruned, pruned, pruned, fail]
    assert [trial.values for trial in trials] == [[0.875], [0.75], None, None, None]
    assert [trial.intermediate_values for trial in trials] == [{1: 0.25, 3: 0.75}] * 2 + [{}] * 3


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_samplers_that_learn_keep_away_from_where_runs_diverge(sampler: str):
    """Told as failures, 15 to 20 of 20 would be there, in a half of the space."""
    sweep = dataclasses.replace(SEARCH, trials=40 if sampler == "tpe" else 24, sampler=sampler)
    search = SimulatedSweep(sweep, BASE, lambda config: reports(config)[: 1 if config.optim.lr > 1e-3 else None])
    search.run()
    ends = [entry.status for entry in search.entries.values()]
    assert ends[-10:].count("diverged") <= 6


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_that_is_killed_all_the_time_finds_what_an_undisturbed_one_finds(sampler: str):
    sweep = dataclasses.replace(SEARCH, sampler=sampler, early_stopping=Asha(first=1))
    undisturbed, killed = SimulatedSweep(sweep, BASE, uneven), SimulatedSweep(sweep, BASE, uneven)
    undisturbed.run()
    while killed.plan().todo:
        killed.run(turns=1)
    assert killed.entries == undisturbed.entries
    assert killed.epochs == undisturbed.epochs  # no epoch twice
    assert len(killed.entries) == sweep.trials


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_fair_ablation_killed_at_every_step_runs_no_cell_twice(lanes: int):
    search = SimulatedSweep(FAIR, BASE, reports, lanes=lanes)
    while search.plan().todo:
        search.run(turns=1)
    plan = search.plan()
    assert len(search.entries) == plan.total == 1 + 2 * 8 + 2 * 2
    assert not plan.missing
    assert plan.notes == []
    for point, slices in zip(plan.searches, ("64", "128"), strict=True):
        finished = [c for c in point.candidates if c.entry.status == "finished"]
        best = max(finished, key=lambda candidate: quality(candidate.cell.config))
        assert point.best is best.cell
        assert point.state is SearchState.DONE
        assert {c.cell.config.seed for c in point.candidates} == {0}
        shared = best.entry.params | {"seed": ""}
        winners = [entry for entry in search.entries.values() if entry.params | {"seed": ""} == shared]
        assert sorted(entry.params["seed"] for entry in winners) == ["0", "1", "2"]
        assert {entry.status for entry in winners} == {"finished"}
        assert best.entry.params["method.num_slices"] == slices
    assert search.epochs == sum(entry.epoch for entry in search.entries.values() if entry.role == "cell") + 1


def test_the_searches_of_a_fair_ablation_begin_alike():
    search = SimulatedSweep(dataclasses.replace(FAIR, early_stopping=None), BASE, reports)
    search.run()
    first, second = ([c.point for c in each.candidates[:3]] for each in search.plan().searches)
    assert first == second


def test_more_trials_can_change_the_winner_whose_seeds_then_run():
    sweep = dataclasses.replace(SEARCH, trials=3, seeds=(0, 1), sampler="random")
    base = dataclasses.replace(BASE, optim=dataclasses.replace(BASE.optim, lr=1e-4))
    search = SimulatedSweep(sweep, base, reports)
    search.run()
    (point,) = search.plan().searches
    before, old = point.best, set(search.entries)
    search.sweep = dataclasses.replace(sweep, trials=30)
    plan = search.plan()
    assert (plan.proposals, plan.awaited, plan.total, plan.todo) == (27, 1, 31, 28)
    search.run()
    (point,) = search.plan().searches
    assert point.best.config != before.config
    assert len(set(search.entries) - old) == 27 + 1
    assert not search.plan().todo


def test_a_search_without_a_finished_candidate_says_so_and_ends():
    sweep = dataclasses.replace(FAIR, trials=2)
    search = SimulatedSweep(sweep, BASE, lambda config: reports(config) if config.method.num_slices == 128 else [])
    search.run()
    line = "no candidate at num_slices=64 finished: there is no winner to run with the other seeds"
    assert search.notes == search.plan().notes == [line]
    assert search.plan().todo == 0
    assert sum(entry.params["seed"] != "0" for entry in search.entries.values()) == 2


def test_the_searcher_waits_for_the_last_candidates_before_the_winners_seeds():
    search = SimulatedSweep(dataclasses.replace(SEARCH, trials=2, seeds=(0, 1)), BASE, reports, lanes=2)
    searcher = search.run(turns=0)
    assert isinstance(searcher.suggest("a"), dict)
    assert isinstance(searcher.suggest("b"), dict)
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", {"status": "finished", "val/probe_top1": 0.5})
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("b", {"status": "finished", "val/probe_top1": 0.75})
    assert isinstance(searcher.suggest("c"), dict)
    assert searcher.suggest("d") == Searcher.FINISHED
    first, second, confirmation = (cell.config for cell in search.launched)
    assert confirmation == dataclasses.replace(second, seed=1)
    assert first != second


def test_confirmations_that_are_done_are_recorded_when_their_candidate_is_the_best_again():
    """They are not suggested again, and the list of a launch with more trials begins without them."""

    def best_at_base(config: TrainConfig) -> list[dict[str, float]]:
        good = config.method.lamb == BASE.method.lamb
        return [report | {"val/probe_top1": 0.9 if good else 0.1} for report in reports(config)]

    search = SimulatedSweep(dataclasses.replace(SEARCH, trials=2, seeds=(0, 1)), BASE, best_at_base)
    search.run()
    (confirmation,) = search.plan().searches[0].confirmations
    search.sweep = dataclasses.replace(search.sweep, trials=3)
    assert confirmation not in search.plan().known
    search.recorded.clear()
    search.launched.clear()
    search.run()
    assert confirmation not in search.launched
    assert set(search.recorded) == {confirmation.key}


class Listed:
    """A sampler that proposes these values of lamb and then no more."""

    def __init__(self, search: Search, *lambs: float) -> None:
        self.cells = [search.cell_at({**POINT, "method.lamb": lamb}) for lamb in lambs]
        self.heard: list[tuple[str, str]] = []

    def propose(self, number: int) -> Cell | None:
        return self.cells[number] if number < len(self.cells) else None

    def tell(self, key: str, result: CandidateResult) -> None:
        self.heard.append((key, result.status))


@pytest.mark.parametrize("trials", [2, 3])  # as many as there are points, and more
def test_a_search_goes_through_its_stages(trials: int):
    planned = SimulatedSweep(dataclasses.replace(SEARCH, trials=trials, seeds=(0, 1)), BASE, reports).plan().searches[0]
    sampler = Listed(planned, 0.01, 0.02)
    search = planned.with_sampler(sampler)
    assert (search.state, search.left) == (SearchState.PROPOSING, trials + 1)
    first, second = search.next_cell(), search.next_cell()
    assert [first, second] == sampler.cells
    search.finish(first.key, CandidateResult(status="finished", scores=(0.7,)))
    assert search.next_cell() is None
    assert (search.state, search.left, search.best) == (SearchState.WAITING, 1, None)
    search.finish(second.key, CandidateResult(status="diverged", scores=(math.nan,)))
    assert (search.state, search.left, search.best) == (SearchState.CONFIRMING, 1, first)
    confirmation = search.next_cell()
    assert confirmation.config == dataclasses.replace(first.config, seed=1)
    search.finish(confirmation.key, CandidateResult(status="finished", scores=(0.9,)))
    assert (search.state, search.left, search.best, search.next_cell()) == (SearchState.DONE, 0, first, None)
    assert sampler.heard == [(first.key, "finished"), (second.key, "diverged")]
    assert (planned.state, planned.left) == (SearchState.PROPOSING, trials + 1)  # the plan's own


def test_what_is_not_admitted_is_not_launched_and_counted():
    search = SimulatedSweep(FAIR, BASE, reports)
    searcher = search.run(admit=lambda cell: cell.role == "reference" or len(search.launched) < 4)
    assert len(search.entries) == 4
    assert searcher.not_launched == 2 * 8 + 2 * 2 - 3
    assert searcher.suggest("late") == Searcher.FINISHED


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_finite_space_ends_with_each_of_its_points_once(sampler: str):
    space = {
        "method.num_slices": CategoricalDistribution([64, 128, 256, 512]),
        "method.lamb": FloatDistribution(0.1, 0.1),
    }
    base = dataclasses.replace(BASE, epochs=1)
    search = SimulatedSweep(dataclasses.replace(SEARCH, space=space, trials=9, sampler=sampler), base, reports)
    search.run()
    assert sorted(int(entry.params["method.num_slices"]) for entry in search.entries.values()) == [64, 128, 256, 512]
    assert len(search.launched) == 4


@pytest.mark.parametrize("value", [0.5, 0.0001])
def test_a_base_outside_the_space_is_not_proposed(value: float):
    base = dataclasses.replace(BASE, method=dataclasses.replace(BASE.method, lamb=value))
    search = SimulatedSweep(dataclasses.replace(SEARCH, base=base, trials=1), base, reports)
    search.run()
    (entry,) = search.entries.values()
    assert 0.001 <= float(entry.params["method.lamb"]) <= 0.1


def test_a_warm_start_knows_the_finished_cells_that_differ_in_the_point_alone():
    def elsewhere(status: str = "finished", **changes: float) -> Entry:
        other = SimulatedSweep(dataclasses.replace(SEARCH, name="other"), BASE, reports)
        cell = make_cell(other.sweep, BASE, POINT | {key.replace("_", ".", 1): value for key, value in changes.items()})
        return other.write(cell, status=status, epoch=4, rungs={}, metrics={"val/probe_top1": 0.875})

    warm = [
        elsewhere(),
        elsewhere(optim_weight_decay=0.5),  # another base
        elsewhere(method_lamb=0.5),  # outside the space
        elsewhere(seed=1),
        elsewhere("diverged", method_lamb=0.04),
        elsewhere("running", method_lamb=0.05),
    ]
    search = SimulatedSweep(dataclasses.replace(SEARCH, warm_start=("other",)), BASE, reports, warm=warm)
    assert [(trial.params, trial.value) for trial in known(search)] == [
        ({"method.lamb": 0.03, "optim.lr": 2e-3}, 0.875)
    ]
    assert search.plan().total == 12  # its own
    search.run()
    assert len(search.entries) == 12
    fair = SimulatedSweep(FAIR, BASE, reports, warm=[elsewhere(method_num_slices=128)])
    assert [len(known(fair, study)) for study in (0, 1)] == [0, 1]  # each knows its own grid point's


def test_several_objectives_are_told_together_and_in_their_directions():
    sweep = dataclasses.replace(SEARCH, objective={"val/probe_top1": "max", "val/nonzero_fraction": "min"})

    def two(config: TrainConfig) -> list[dict[str, float]]:
        sparse = {} if config.optim.lr > 5e-3 else {"val/nonzero_fraction": config.method.lamb}
        return [metrics | sparse for metrics in reports(config)]

    for sampler in SAMPLERS:
        search = SimulatedSweep(dataclasses.replace(sweep, sampler=sampler), BASE, two)
        study = living(search)
        assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
        assert told(known(search)) == told(candidates(study.trials))
        for trial in candidates(study.trials):
            if trial.params["optim.lr"] > 5e-3:
                assert trial.state is TrialState.FAIL  # a score is missing
            else:
                assert trial.values[1] == trial.params["method.lamb"]
        assert search.plan().searches[0].best is None


def test_label_free_search_picks_by_loss_over_lamb_to_the_alpha_and_reads_no_label():
    sweep = dataclasses.replace(FAIR, objective=LabelFree(alpha=0.5))
    read: set[str] = set()

    class Metrics(dict):
        """Remembers what is asked of it."""

        def get(self, key, default=None):
            read.add(key)
            return super().get(key, default)

        def __getitem__(self, key):
            read.add(key)
            return super().__getitem__(key)

    def losses(config: TrainConfig) -> list[dict[str, float]]:
        loss = 0.5 + abs(math.log10(config.optim.lr / 1e-3)) + config.method.lamb
        return [
            Metrics(metrics | {"train/loss": loss * 4 / metrics["epoch"]})
            for metrics in reports(config)
            if config.epochs
        ]

    search = SimulatedSweep(sweep, BASE, losses)
    search.run()
    for point in search.plan().searches:
        scores = {
            c.cell.key: c.entry.metrics["train/loss"] / float(c.entry.params["method.lamb"]) ** 0.5
            for c in point.candidates
            if c.entry.status == "finished"
        }
        assert point.best.key == min(scores, key=scores.get)
        assert any(c.entry.status == "pruned" for c in point.candidates)
    assert {key for key in read if not key.startswith("train/")} <= {"epoch", "status"}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_next_point_after_a_thousand_trials_takes_less_than_a_second(sampler: str):
    """Three seconds of processor time here, of any machine. A Gaussian process is fitted to 300 of them."""
    sweep = dataclasses.replace(SEARCH, sampler=sampler, trials=1001)
    made = sampler_of(SimulatedSweep(sweep, BASE, reports))
    draw = optuna.samplers.RandomSampler(seed=0)
    source = optuna.create_study(sampler=draw)
    points = [source.ask(SPACE).params for _ in range(1000)]
    for number, point in enumerate(points):
        value = number % 97 / 97
        trial = optuna.trial.create_trial(params=point, distributions=SPACE, value=value, system_attrs={})
        made.study.add_trial(trial)
    times = []
    for number in range(2):  # the first imports what it needs
        start = time.process_time()
        cell = made.propose(1000 + number)
        times.append(time.process_time() - start)
        assert 0.001 <= cell.config.method.lamb <= 0.1
    assert min(times) < 3.0


def test_a_gaussian_process_is_fitted_to_the_best_and_the_newest():
    study = optuna.create_study(direction="maximize")
    for number in range(400):
        value = float(number == 7)
        trial = optuna.trial.create_trial(params={}, distributions={}, value=value)
        study.add_trial(trial)
    kept = [trial.number for trial in best_and_newest(study.trials, study.directions)]
    assert len(kept) == 300
    assert 7 in kept
    assert kept == sorted(kept)
    assert set(range(251, 400)) <= set(kept)
