"""Searches on simulated training: every cell once, results given to Optuna, interrupted searches that go on.

Run: python -m pytest tests/unit/search/test_search.py
"""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher
from simulated_sweep import SimulatedSweep, entry_of, plan_of

from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten
from jepa_train.config.presets import DIGITS
from sweeps.engine.plan.choice import CellChoice, read_choice
from sweeps.engine.plan.describe import experiment_tags
from sweeps.engine.search.sampler import OptunaSampler
from sweeps.engine.spec.cells import make_cell
from sweeps.engine.spec.objective import Asha
from sweeps.engine.spec.search_space import Domain
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import Entry

BASE = dataclasses.replace(DIGITS, epochs=4)
SPACE = {"method.lamb": FloatDistribution(0.001, 0.1, log=True), "optim.lr": FloatDistribution(1e-4, 1e-2, log=True)}
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


SEEDED = dataclasses.replace(
    SEARCH, trials=8, seeds=(4, 0, 1), seeds_per_trial=2, early_stopping=Asha(first=1), grid={}, references=()
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


def known(search: SimulatedSweep, number: int = 0) -> list[FrozenTrial]:
    """The trials of Optuna's study, as it is rebuilt from the store."""
    return OptunaSampler(search.plan().searches[number], taken=set(search.entries), parallel=False).study.trials


def test_references_first_then_the_bases_own_point_then_others():
    search = SimulatedSweep(FAIR, reports)
    search.run()
    reference, own, other = (search.entries[cell.key].params for cell in search.launched[:3])
    assert (reference["epochs"], reference["method.num_slices"]) == ("0", "256")
    assert own == {key: str(value) for key, value in flatten(BASE).items()} | {"method.num_slices": "64"}
    assert other == own | {"method.num_slices": "128"}  # the studies take turns


def test_each_end_of_a_candidate_in_terms_of_optuna():
    ends = {0.02: "finished", 0.03: "pruned", 0.04: "diverged", 0.05: "collapsed", 0.06: "failed"}
    search = SimulatedSweep(dataclasses.replace(SEARCH, early_stopping=Asha(first=1)), reports)
    for lamb, status in ends.items():
        cell = make_cell(SEARCH, BASE, {"method.lamb": lamb, "optim.lr": 1e-3})
        ended = {"epoch": 3, "rungs": {3: 0.75, 1: 0.25}, "metrics": {"val/probe_top1": 0.875}}
        search.entries[cell.key] = entry_of(cell, status, **ended)
    trials = known(search)
    complete, pruned, fail = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
    assert [trial.state for trial in trials] == [complete, pruned, pruned, pruned, fail]
    assert [trial.values for trial in trials] == [[0.875], [0.75], None, None, None]
    assert [trial.intermediate_values for trial in trials] == [{1: 0.25, 3: 0.75}] * 2 + [{}] * 3


@pytest.mark.parametrize(("sampler", "seeds"), [("tpe", 1), ("gp", 1), ("random", 1), ("tpe", 2)])
def test_a_search_killed_at_every_step_equals_an_undisturbed_one(sampler: str, seeds: int):
    several = {"seeds": (0, 1)[:seeds], "seeds_per_trial": seeds}
    sweep = dataclasses.replace(SEARCH, sampler=sampler, early_stopping=Asha(first=1), **several)
    undisturbed, killed = SimulatedSweep(sweep, uneven), SimulatedSweep(sweep, uneven)
    undisturbed.run()
    while killed.plan().todo:
        killed.run(turns=1)
    assert killed.entries == undisturbed.entries
    assert killed.total == undisturbed.total == len(killed.entries)
    assert killed.epochs == undisturbed.epochs  # no epoch twice
    assert len({entry.params["optim.lr"] for entry in killed.entries.values()}) == sweep.trials
    left, right = (
        [(trial.state, trial.params, trial.values, trial.intermediate_values) for trial in known(search)]
        for search in (killed, undisturbed)
    )
    assert left == right


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_fair_ablation_killed_at_every_step_runs_no_cell_twice(lanes: int):
    search = SimulatedSweep(FAIR, reports, lanes=lanes)
    while search.plan().todo:
        search.run(turns=1)
    plan = search.plan()
    assert len(search.entries) == plan.total == 1 + 2 * 8 + 2 * 2
    assert not plan.missing
    for point, slices in zip(plan.searches, ("64", "128"), strict=True):
        finished = [c for c in point.candidates if c.entries[0].status == "finished"]
        best = max(finished, key=lambda candidate: quality(candidate.cells[0].config))
        assert point.best is best
        assert best.entries[0].params["method.num_slices"] == slices
        shared = best.entries[0].params | {"seed": ""}
        winners = [entry for entry in search.entries.values() if entry.params | {"seed": ""} == shared]
        ends = sorted((entry.params["seed"], entry.status) for entry in winners)
        assert ends == [("0", "finished"), ("1", "finished"), ("2", "finished")]
    assert search.epochs == sum(entry.epoch for entry in search.entries.values() if entry.role == "cell") + 1


def test_a_point_runs_with_several_seeds_and_optuna_learns_their_mean():
    search = SimulatedSweep(dataclasses.replace(SEEDED, early_stopping=None), reports)
    assert (search.plan().total, search.plan().todo) == (17, 17)
    (point,) = search.run().searches
    assert [cell.config.seed for cell in search.launched] == [4, 0] * 8 + [1]
    means = [(quality(cell.config) + quality(dataclasses.replace(cell.config, seed=0))) / 2 for cell in search.launched]
    assert [trial.value for trial in known(search)] == pytest.approx(means[:-1:2])
    assert [trial.value for trial in point.sampler.study.trials] == pytest.approx(means[:-1:2])
    assert flatten(search.launched[-1].config) == flatten(point.best.cells[0].config) | {"seed": 1}
    assert point.best.point == max(known(search), key=lambda trial: trial.value).params
    assert search.plan().todo == 0


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_the_seeds_of_a_point_are_stopped_together_by_their_mean(lanes: int):
    def lucky(config: TrainConfig) -> list[dict[str, float]]:
        """Seed 0 is far worse at the worst points, seed 4 at the best one."""
        luck = -0.5 if (config.seed == 4) == (config.optim.lr > 2e-3) else 0.5
        return [report | {"val/probe_top1": report["val/probe_top1"] + luck} for report in reports(config)]

    search = SimulatedSweep(SEEDED, lucky, lanes=lanes)
    while search.plan().todo:
        search.run(turns=2)
    trials = {}
    for entry in search.entries.values():
        if entry.params["seed"] != "1":
            trials.setdefault(entry.params["optim.lr"], []).append((entry.status, entry.epoch))
    assert len(trials) == 8
    assert all(len(ends) == 2 and ends[0] == ends[1] for ends in trials.values()), trials
    assert {status for ends in trials.values() for status, _ in ends} == {"finished", "pruned"}
    assert search.epochs == sum(entry.epoch for entry in search.entries.values()), "no epoch twice"
    for trial in known(search):
        rungs = [
            entry.rungs
            for entry in search.entries.values()
            if entry.params["optim.lr"] == str(trial.params["optim.lr"])
        ]
        both = [own for own in rungs if own]
        assert trial.intermediate_values == {rung: (both[0][rung] + both[1][rung]) / 2 for rung in both[0]}


def test_a_seed_that_diverges_ends_its_point_and_one_that_fails_does_not():
    def seed_four(config: TrainConfig) -> list[dict[str, float]]:
        ends = uneven(config)[:1] if config.optim.lr > 5e-3 else uneven(config)
        return ends if config.seed == 4 else reports(config)

    search = SimulatedSweep(dataclasses.replace(SEEDED, early_stopping=Asha(first=2)), seed_four)
    search.run()
    ends = {}
    for entry in search.entries.values():
        ends.setdefault(float(entry.params["optim.lr"]), []).append((int(entry.params["seed"]), entry.status))
    diverged = {rate: found for rate, found in ends.items() if rate > 5e-3}
    failed = {rate: found for rate, found in ends.items() if rate < 2e-4}
    assert diverged
    assert failed
    assert all(found == [(4, "diverged")] for found in diverged.values()), "one after the other: seed 0 never begins"
    assert all(found[0] == (4, "failed") and found[1][1] in ("finished", "pruned") for found in failed.values()), failed
    states = {trial.params["optim.lr"]: trial.state for trial in known(search)}
    assert all(states[rate] is TrialState.PRUNED for rate in diverged)
    assert search.plan().searches[0].best.point["optim.lr"] not in {*diverged, *failed}
    assert search.plan().total == search.total == len(search.entries), "seeds that were not begun are not asked for"


@pytest.mark.parametrize("lanes", [1, 2])
def test_at_every_moment_the_list_and_the_number_of_cells_are_those_that_may_still_run(lanes: int):
    """Every point diverges with its first seed, so that no other seed begins and no winner is confirmed."""
    sweep = dataclasses.replace(SEEDED, early_stopping=None)
    search = SimulatedSweep(sweep, lambda config: reports(config)[:2], lanes=lanes)
    while search.plan().todo:
        search.run(turns=1)
        plan = search.plan()
        assert search.total == plan.total
        assert {cell.key for cell in plan.known} == search.entries.keys(), "a launch lists no cell that may never run"
    assert search.total == len(search.entries)
    assert {entry.status for entry in search.entries.values()} == {"diverged"}


def test_more_seeds_per_trial_complete_the_points_of_the_store():
    search = SimulatedSweep(dataclasses.replace(SEEDED, seeds_per_trial=1, early_stopping=None), reports)
    search.run()
    assert len(search.entries) == 8 + 2
    search.sweep = dataclasses.replace(search.sweep, seeds_per_trial=2)
    assert search.plan().todo == 7 + 1, "seed 0 of all but the winner, and seed 1 of the new winner"
    search.run()
    assert len(known(search)) == 8
    assert search.plan().todo == 0


def test_the_searches_of_a_fair_ablation_begin_alike():
    search = SimulatedSweep(dataclasses.replace(FAIR, early_stopping=None), reports)
    search.run()
    first, second = ([c.point for c in each.candidates[:3]] for each in search.plan().searches)
    assert first == second


def test_seeds_of_another_winner_run_after_more_trials():
    base = dataclasses.replace(BASE, optim=dataclasses.replace(BASE.optim, lr=1e-4))  # far from the best
    sweep = dataclasses.replace(SEARCH, base=base, trials=3, seeds=(0, 1), sampler="random")
    search = SimulatedSweep(sweep, reports)
    search.run()
    (point,) = search.plan().searches
    before, old = point.best, set(search.entries)
    search.sweep = dataclasses.replace(sweep, trials=30)
    plan = search.plan()
    assert (plan.unknown, plan.total, plan.todo) == (28, 31, 28)
    search.run()
    (point,) = search.plan().searches
    assert point.best.point != before.point
    assert len(set(search.entries) - old) == 27 + 1
    assert not search.plan().todo


def test_confirmations_that_are_done_are_recorded_when_their_candidate_is_the_best_again():
    """They are not suggested again, and the list of a launch with more trials begins without them."""

    def best_at_base(config: TrainConfig) -> list[dict[str, float]]:
        good = float(config.method.lamb == BASE.method.lamb)
        return [report | {"val/probe_top1": good} for report in reports(config)]

    search = SimulatedSweep(dataclasses.replace(SEARCH, trials=2, seeds=(0, 1)), best_at_base)
    search.run()
    (confirmation,) = search.plan().searches[0].confirmations
    search.sweep, search.launched, search.recorded = dataclasses.replace(search.sweep, trials=3), [], []
    search.run()
    assert confirmation not in search.launched
    assert {*search.recorded} == {confirmation.key}


def test_a_search_without_a_finished_candidate_says_so_and_ends():
    sweep = dataclasses.replace(FAIR, trials=2)
    search = SimulatedSweep(sweep, lambda config: reports(config) if config.method.num_slices == 128 else [])
    search.run()
    line = "no candidate at num_slices=64 finished: there is no winner to run with the other seeds"
    assert search.notes == [line]
    assert search.plan().todo == 0
    assert sum(entry.params["seed"] != "0" for entry in search.entries.values()) == 2


def test_nothing_is_suggested_while_the_first_price_is_awaited():
    awaited = False
    searcher = SimulatedSweep(FAIR, reports).run(turns=0, waits=lambda: awaited)
    assert isinstance(searcher.suggest("a"), dict)
    awaited = True
    assert searcher.suggest("b") is None
    awaited = False
    assert isinstance(searcher.suggest("b"), dict)


def test_after_the_first_cell_that_is_not_admitted_nothing_is_launched():
    search = SimulatedSweep(FAIR, reports)
    searcher = search.run(admit=lambda cell: cell.role == "reference" or len(search.launched) < 4)
    assert len(search.entries) == 4
    assert searcher.suggest("late") == Searcher.FINISHED


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp", "qmc", "random"])
def test_a_finite_space_ends_with_each_of_its_points_once(sampler: str):
    space = {"method.num_slices": IntDistribution(64, 256, step=64), "method.lamb": FloatDistribution(0.1, 0.1)}
    sweep = dataclasses.replace(SEARCH, base=dataclasses.replace(BASE, epochs=1), space=space, trials=9)
    search = SimulatedSweep(dataclasses.replace(sweep, sampler=sampler), reports)
    search.run()
    assert sorted(int(entry.params["method.num_slices"]) for entry in search.entries.values()) == [64, 128, 192, 256]
    assert len(search.launched) == 4


def test_a_domain_whose_condition_the_grid_does_not_meet_leaves_a_finite_space():
    space = {
        "epochs": [2, 4],
        "optim.lr": Domain(FloatDistribution(1e-3, 1e-2), when={"method.num_slices": 128}),
    }
    sweep = dataclasses.replace(FAIR, space=space, trials=5, seeds=(0,), references=(), early_stopping=None)
    search = SimulatedSweep(sweep, reports)
    assert search.plan().total == 2 + 5
    search.run()
    assert len(search.entries) == 2 + 5


def test_a_warm_start_knows_the_finished_cells_that_differ_in_the_point_alone():
    def elsewhere(key: str, value: float, status: str = "finished") -> Entry:
        cell = make_cell(SEARCH, BASE, POINT | {key: value})
        return entry_of(cell, status, epoch=4, metrics={"val/probe_top1": 0.875})

    others = {"optim.weight_decay": 0.5, "method.lamb": 0.5, "seed": 1}  # of another base; outside the space; not 0
    warm = [elsewhere("seed", 0), elsewhere("method.lamb", 0.04, "diverged"), *map(elsewhere, others, others.values())]
    search = SimulatedSweep(dataclasses.replace(SEARCH, warm_start=("other",)), reports, warm=warm)
    assert [(trial.params, trial.value) for trial in known(search)] == [(POINT, 0.875)]
    assert search.plan().total == 12  # its own
    fair = SimulatedSweep(FAIR, reports, warm=[elsewhere("method.num_slices", 128)])
    assert [len(known(fair, study)) for study in (0, 1)] == [0, 1]  # each knows its own grid point's


def test_a_point_that_has_finished_in_another_sweep_runs_in_this_one_too():
    sweep = dataclasses.replace(SEARCH, trials=3, seeds=(0, 1, 2), seeds_per_trial=2, warm_start=("other",))
    first = SimulatedSweep(sweep, reports)
    first.run()
    of_base = [entry for entry in first.entries.values() if entry.params["method.lamb"] == str(BASE.method.lamb)][:2]
    assert len(of_base) == 2
    warmed = SimulatedSweep(sweep, reports, warm=of_base)
    warmed.run()
    assert {entry.key for entry in of_base} <= warmed.entries.keys()
    assert len(warmed.entries) == len(first.entries) == 3 * 2 + 1  # the winner's other seed
    assert len(known(SimulatedSweep(sweep, reports, warm=of_base[:1]))) == 0  # one seed of two is no result


def test_several_objectives_reach_optuna_together_and_in_their_directions():
    def two(config: TrainConfig) -> list[dict[str, float]]:
        sparse = {} if config.optim.lr > 2e-3 else {"val/nonzero_fraction": config.method.lamb}
        return [metrics | sparse for metrics in reports(config)]

    goals = {"val/probe_top1": "max", "val/nonzero_fraction": "min"}
    search = SimulatedSweep(dataclasses.replace(SEARCH, objective=goals, sampler="nsga2"), two)
    (point,) = search.run().searches
    assert [direction.name for direction in point.sampler.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for trial in known(search):
        lacks = trial.params["optim.lr"] > 2e-3  # a score is missing
        assert trial.state is (TrialState.FAIL if lacks else TrialState.COMPLETE)
        assert lacks or trial.values[1] == trial.params["method.lamb"]
    assert search.plan().searches[0].best is None


def test_a_limit_ends_a_launch_after_so_many_cells_and_the_next_one_proposes_the_same_points() -> None:
    whole, limited = SimulatedSweep(FAIR, reports), SimulatedSweep(FAIR, reports)
    whole.run()
    counts = []
    while limited.plan().todo:
        before = len(limited.launched)
        limited.run(choice=CellChoice(limit=5))
        counts.append(len(limited.launched) - before)
    assert {*counts[:-1]} == {5}
    assert counts[-1] <= 5
    assert [cell.key for cell in limited.launched] == [cell.key for cell in whole.launched]


def test_only_moves_on_the_searches_at_the_chosen_points_of_the_grid() -> None:
    search = SimulatedSweep(FAIR, reports)
    search.run(choice=read_choice(FAIR, ["num_slices=128"], 1000))
    assert {cell.config.method.num_slices for cell in search.launched} == {128}
    assert len(search.launched) == 8 + 2
    plan = search.plan()
    assert (plan.todo, plan.total) == (1 + 8 + 2, 1 + 2 * (8 + 2)), "the reference and the other search"


def test_whole_numbers_on_a_log_scale_and_lists_are_searched_and_resumed() -> None:
    space = {"method.num_slices": IntDistribution(1, 4096, log=True), "optim.lr": [1e-3, 3e-3]}
    sweep = dataclasses.replace(SEARCH, space=space, sampler="random", trials=40)
    whole, killed = SimulatedSweep(sweep, reports), SimulatedSweep(sweep, reports)
    whole.run()
    slices = [cell.config.method.num_slices for cell in whole.launched]
    assert len(slices) == 40
    assert sum(count <= 64 for count in slices) > 10, "half of the log scale; of a linear one 1 in 64"
    assert {cell.config.optim.lr for cell in whole.launched} == {1e-3, 3e-3}
    killed.run(turns=90)
    killed.run()
    assert [*dict.fromkeys(cell.key for cell in killed.launched)] == [cell.key for cell in whole.launched]


def heavy(config: TrainConfig) -> list[dict[str, float]]:
    """Memory grows with lamb; the best points need most."""
    return [report | {"train/peak_memory_gb": 1000 * config.method.lamb + config.seed} for report in reports(config)]


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_constraint_reaches_optuna_and_a_candidate_that_breaks_it_cannot_win(seeds: int):
    several = {"seeds": (0, 1)[:seeds], "seeds_per_trial": seeds}
    sweep = dataclasses.replace(SEARCH, constraints=("peak memory <= 12 GB",), **several)
    whole, killed = SimulatedSweep(sweep, heavy), SimulatedSweep(sweep, heavy)
    (point,) = whole.run().searches
    while killed.plan().todo:
        killed.run(turns=9)
    assert killed.entries == whole.entries
    for study in (point.sampler.study.trials, known(killed)):
        for trial in study:
            most = 1000 * trial.params["method.lamb"] + seeds - 1
            assert trial.constraints == {"train/peak_memory_gb <= 12": pytest.approx((most - 12) / 12)}
    finished = [trial for trial in known(whole) if trial.state is TrialState.COMPLETE]
    feasible = [trial for trial in finished if 1000 * trial.params["method.lamb"] + seeds - 1 <= 12]
    best = max(feasible, key=lambda trial: trial.value)
    assert best.value < max(trial.value for trial in finished)
    assert whole.plan().searches[0].best.point == best.params


def test_a_search_without_a_feasible_candidate_says_so():
    sweep = dataclasses.replace(SEARCH, trials=3, constraints=("train/peak_memory_gb <= 0.5",))
    search = SimulatedSweep(sweep, heavy)
    search.run()
    line = "no feasible candidate: none of the 3 finished ones keeps train/peak_memory_gb <= 0.5"
    assert search.notes == [line]
    unmeasured = SimulatedSweep(sweep, reports)
    unmeasured.run()
    assert unmeasured.notes == [line], "a metric that a run lacks keeps no limit"


CONDITIONAL = dataclasses.replace(
    SEARCH,
    space={
        "method": ["lejepa", "rectified_lpjepa"],
        "method.lamb": Domain(FloatDistribution(0.001, 0.1, log=True), when={"method": "lejepa"}),
        "method.p": Domain([0.5, 1.0, 2.0], when={"method": "rectified_lpjepa"}),
        "method.sigma_mode": Domain(["gn", "rgn"], when={"method.p": [0.5, 1.0]}),
        "optim.lr": FloatDistribution(1e-4, 1e-2, log=True),
    },
    trials=12,
)


def test_conditions_are_recorded_in_the_order_of_the_space_since_one_may_depend_on_another():
    space = {
        "method": ["lejepa", "vicreg"],
        "probe.features": Domain(["embedding", "blocks"], when={"method": "lejepa"}),
        "optim.lr": Domain(FloatDistribution(1e-4, 1e-2), when={"probe.features": "blocks"}),
    }
    plan = dataclasses.replace(plan_of(dataclasses.replace(CONDITIONAL, space=space)), file=Path("study.py"))
    tags = experiment_tags(plan)
    assert [*json.loads(tags["sweep.when"])] == ["probe.features", "optim.lr"]


def simple(config: TrainConfig) -> list[dict[str, float]]:
    """A curve that depends on the learning rate alone."""
    return [{"epoch": float(e), "val/probe_top1": config.optim.lr * e} for e in range(1, config.epochs + 1)]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_conditional_keys_are_searched_where_their_conditions_hold_and_resumed(sampler: str):
    search = SimulatedSweep(dataclasses.replace(CONDITIONAL, sampler=sampler), simple)
    search.run()
    own = known(search)
    assert len(own) == 12
    for trial in own:
        if trial.params["method"] == "lejepa":
            assert trial.params.keys() == {"method", "method.lamb", "optim.lr"}
        else:
            wanted = {"method", "method.p", "optim.lr"} | (
                {"method.sigma_mode"} if trial.params["method.p"] < 2 else set()
            )
            assert trial.params.keys() == wanted
    assert {trial.params["method"] for trial in own} == {"lejepa", "rectified_lpjepa"}
    if sampler in ("tpe", "random"):
        killed = SimulatedSweep(dataclasses.replace(CONDITIONAL, sampler=sampler), simple)
        while killed.plan().todo:
            killed.run(turns=9)
        assert [trial.params for trial in known(killed)] == [trial.params for trial in own]


def test_conditions_may_depend_on_the_grid_and_a_finite_space_ends():
    space = {
        "method.p": Domain([0.5, 1.0], when={"method": "rectified_lpjepa"}),
        "method.sigma_mode": Domain(["gn", "rgn"], when={"method.p": 1.0}),
        "optim.lr": [1e-3, 2e-3],
    }
    grid = {"method": ["lejepa", "rectified_lpjepa"]}
    search = SimulatedSweep(dataclasses.replace(SEARCH, grid=grid, space=space, trials=20), simple)
    assert search.plan().total == 2 + 2 * 3
    search.run()
    points = [[candidate.point for candidate in each.candidates] for each in search.plan().searches]
    assert sorted(map(len, points[0])) == [1, 1]
    assert sorted(map(len, points[1])) == [2, 2, 3, 3, 3, 3]
    assert search.plan().todo == 0
