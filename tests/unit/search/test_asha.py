"""Early stopping: verdicts against a hand-made table.

Run: python -m pytest tests/unit/search/test_asha.py
"""

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from optuna.distributions import FloatDistribution
from ray.tune.schedulers import TrialScheduler
from simulated_sweep import entry_of, plan_of

from jepa_train.config.flat import flatten
from jepa_train.config.presets import DIGITS
from sweeps.engine.search.asha import AshaScheduler, Judge
from sweeps.engine.spec.cells import make_cell
from sweeps.engine.spec.objective import Asha
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import Entry

BASE = dataclasses.replace(DIGITS, epochs=20)
SWEEP = Sweep(
    name="study",
    purpose="",
    base=BASE,
    space={"method.lamb": FloatDistribution(0.001, 0.1)},
    trials=9,
    seeds=(0, 1),
    references=({"method.num_slices": 16},),
    early_stopping=Asha(first=2, eta=3),
)
# lamb, epoch, score, goes on?: at the rungs, 2, 6 and 18, the best max(1, n // 3) of the n so far go on, ties included
TABLE = [
    (0.01, 1, 0.10, True),  # no rung
    (0.01, 2, 0.30, True),  # the first of its rung
    (0.02, 2, 0.40, True),  # best of 2
    (0.03, 2, 0.35, False),  # second of 3, of which 1 goes on
    (0.04, 2, 0.40, True),  # as good as the best
    (0.05, 2, 0.20, False),
    (0.01, 6, 0.50, True),  # the first of its rung
    (0.06, 2, 0.39, False),  # third of 6, of which 2 go on
    (0.07, 2, 0.41, True),
    (0.02, 6, 0.49, False),  # second of 2
    (0.04, 6, 0.60, True),
    (0.04, 7, 0.01, True),
    (0.04, 18, 0.01, True),
    (0.04, 20, 0.01, True),  # the last epoch is no rung
]


def fresh(entries: Sequence[Entry] = (), sweep: Sweep = SWEEP) -> Judge:
    """A judge as a launch makes it."""
    return Judge(plan_of(sweep, entries))


def verdict(judge: Judge, lamb: float, epoch: int, score: float, **changes: float) -> str:
    """The reason to stop a candidate, "" if it goes on."""
    cell = make_cell(SWEEP, BASE, {"method.lamb": lamb, **{key.replace("_", ".", 1): v for key, v in changes.items()}})
    return judge.judge(cell.key, flatten(cell.config), {"epoch": float(epoch), "val/probe_top1": score})


def test_verdicts_are_those_of_a_table_made_by_hand():
    judge = fresh()
    assert [not verdict(judge, *row[:3]) for row in TABLE] == [row[3] for row in TABLE]
    key = make_cell(SWEEP, BASE, {"method.lamb": 0.03}).key
    assert judge.reason(key) == "early stopping at epoch 2: 0.35 is not among the best 1/3 of 3"
    assert judge.seen(make_cell(SWEEP, BASE, {"method.lamb": 0.04}).key) == {2: 0.4, 6: 0.6, 18: 0.01}


def test_references_other_seeds_and_nan_are_never_stopped_and_count_for_nothing():
    judge = fresh()
    assert verdict(judge, 0.02, 2, 0.9) == ""
    assert verdict(judge, 0.02, 2, 0.1, seed=1) == ""
    reference = make_cell(SWEEP, BASE, SWEEP.references[0])
    assert judge.judge(reference.key, flatten(reference.config), {"epoch": 2.0, "val/probe_top1": 0.1}) == ""
    assert verdict(judge, 0.04, 2, float("nan")) == ""
    assert verdict(judge, 0.03, 2, 0.8).endswith("of 2")


def test_candidates_of_a_fair_ablation_compete_at_their_own_grid_point_to_minimise_a_loss():
    sweep = dataclasses.replace(SWEEP, grid={"optim.lr": [1e-3, 1e-2]}, references=())
    judge = fresh(sweep=dataclasses.replace(sweep, objective={"val/probe_top1": "min"}))
    assert verdict(judge, 0.02, 2, 0.5, optim_lr=1e-3) == ""
    assert verdict(judge, 0.02, 2, 0.9, optim_lr=1e-2) == ""
    assert verdict(judge, 0.03, 2, 0.6, optim_lr=1e-3) != ""


def test_the_seeds_of_a_point_wait_for_each_other_and_have_one_verdict():
    sweep = dataclasses.replace(SWEEP, seeds_per_trial=2)
    judge = fresh(sweep=sweep)
    table = [  # lamb, seed, epoch, score: ends with
        ((0.01, 0, 2, 0.2), "waits at epoch 2 for the other seeds of its point"),
        ((0.01, 1, 2, 0.6), ""),  # mean 0.4, the first of its rung
        ((0.01, 0, 2, 0.2), ""),  # begins again
        ((0.02, 1, 2, 0.9), "waits at epoch 2 for the other seeds of its point"),
        ((0.02, 0, 2, -0.2), "early stopping at epoch 2: 0.35 is not among the best 1/3 of 2"),
        ((0.02, 1, 2, 0.9), "early stopping at epoch 2: 0.35 is not among the best 1/3 of 2"),
        ((0.03, 0, 2, 0.6), "waits at epoch 2 for the other seeds of its point"),
        ((0.04, 0, 2, 0.7), "waits at epoch 2 for the other seeds of its point"),
    ]
    for (lamb, seed, epoch, score), why in table:
        assert verdict(judge, lamb, epoch, score, seed=seed) == why
        assert judge.waits(make_cell(sweep, BASE, {"method.lamb": lamb}, seed=seed).key) == why.startswith("waits")
    for lamb, status in ((0.03, "failed"), (0.04, "diverged")):
        other = make_cell(sweep, BASE, {"method.lamb": lamb}, seed=1)
        judge.end(other.key, flatten(other.config), status)
    assert verdict(judge, 0.03, 2, 0.6) == "", "its mean without the other seed is the best"
    assert verdict(judge, 0.04, 2, 0.7) == "early stopping at epoch 2: another seed has diverged"
    assert verdict(judge, 0.04, 6, 0.9) == "early stopping at epoch 6: another seed has diverged"


def test_a_point_with_a_seed_without_a_score_goes_on_and_does_not_count():
    judge = fresh(sweep=dataclasses.replace(SWEEP, seeds_per_trial=2))
    nan, wait = float("nan"), "waits at epoch 2 for the other seeds of its point"
    for lamb, first, second in ((0.01, nan, 0.1), (0.02, 0.1, nan)):
        assert [verdict(judge, lamb, 2, first), verdict(judge, lamb, 2, second, seed=1)] == [wait, ""]
        assert verdict(judge, lamb, 2, first) == ""
    for seed in (0, 1):
        why = verdict(judge, 0.03, 2, 0.05, seed=seed)
    assert why == "", "the first of its rung"


@pytest.mark.parametrize(("status", "epoch"), [("finished", 20), ("interrupted", 5), ("failed", 1)])
def test_a_seed_that_came_by_without_early_stopping_is_not_waited_for(status: str, epoch: int):
    sweep = dataclasses.replace(SWEEP, seeds_per_trial=2)
    before = entry_of(make_cell(sweep, BASE, {"method.lamb": 0.01}), status, epoch=epoch)
    assert verdict(fresh([before], sweep), 0.01, 2, 0.5, seed=1) == ""


def test_the_scheduler_stops_trials_that_the_judge_gives_up():
    scheduler = AshaScheduler(fresh())

    def decision(lamb: float, score: float, **report: object) -> str:
        trial = SimpleNamespace(config=make_cell(SWEEP, BASE, {"method.lamb": lamb}).trial_config)
        return scheduler.on_trial_result(None, trial, {"epoch": 2.0, "val/probe_top1": score, **report})

    assert decision(0.01, 0.5) == TrialScheduler.CONTINUE
    assert decision(0.02, 0.4) == TrialScheduler.STOP
    for report in ({"status": "collapsed"}, {"note": "its worker died"}):
        assert decision(0.03, 0.1, **report) == TrialScheduler.CONTINUE
