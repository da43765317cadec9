"""Selection without labels against scipy.stats.spearmanr and values worked out by hand.

Run: python -m pytest tests/unit/analysis/table/test_label_free.py
"""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_runs import made_runs
from scipy.stats import spearmanr

from analysis.table.label_free import ALPHAS, label_free, points_of, report

RNG = np.random.default_rng(3)


def frame(lambs: list[float], losses: list[float], tops: list[float], seeds: int = 1, **more: Any) -> pd.DataFrame:
    """Finished runs of a grid over lamb and lr; equal settings follow one another as seeds."""
    grid = [{"method.lamb": [lamb], "optim.lr": [float(number)]} for number, lamb in enumerate(lambs[::seeds])]
    names = [f"setting {number // seeds}" for number in range(len(lambs))]
    columns = {"train/loss": losses, "test/probe_top1": tops, "run_name": names}
    return made_runs(grid, lambda _: {}, seeds=range(seeds)).assign(**columns | more)


def some(count: int = 24) -> pd.DataFrame:
    lambs = [float(RNG.choice([0.01, 0.02, 0.05, 0.1])) for _ in range(count)]
    tops = [round(float(RNG.uniform(0.5, 0.9)), 2) for _ in range(count)]  # with ties
    losses = [lamb**0.4 * (1.5 - top + 0.2 * float(RNG.uniform())) for lamb, top in zip(lambs, tops, strict=True)]
    return frame(lambs, losses, tops)


def test_the_curve_is_scipys_spearman_of_minus_the_scaled_loss_at_every_alpha():
    runs = some()
    (group,) = label_free(runs)
    scaled = [runs["train/loss"] / runs["method.lamb"] ** alpha for alpha in ALPHAS]
    expected = [spearmanr(-loss, runs["test/probe_top1"]).statistic for loss in scaled]
    assert group.curve == pytest.approx(expected)
    assert group.best.alpha == ALPHAS[int(np.argmax(expected))]
    assert [score.alpha for score in group.scores[:2]] == [0.0, 0.4]
    assert group.scores[1].spearman == pytest.approx(expected[ALPHAS.index(0.4)])


def test_the_setting_of_least_mean_scaled_loss_is_chosen():
    lambs, tops = [0.01, 0.01, 0.1, 0.1, 0.1, 0.1], [0.5, 0.7, 0.8, 0.9, 0.95, 0.95]
    runs = frame(lambs, [0.2, 0.4, 0.5, 0.3, 0.9, 1.1], tops, seeds=2)
    (group,) = label_free(runs)
    assert group.scores[0].chosen == "setting 0"  # 0.3 before 0.4 and 1.0
    assert group.scores[0].regret == pytest.approx(0.95 - 0.6)
    assert group.scores[1].chosen == "setting 1"  # 0.4 / 0.1^0.4 = 1.00 before 0.3 / 0.01^0.4 = 1.89
    assert group.scores[1].regret == pytest.approx(0.95 - 0.85)


def test_diverged_and_collapsed_runs_count_and_other_failures_do_not():
    lambs = [0.1] * 7
    statuses = ["finished", "finished", "finished", "diverged", "collapsed", "failed", "pruned"]
    losses = [1.0, 2.0, 3.0, 0.5, 0.1, 0.0, 0.0]
    probes = [0.1, 0.1, 0.1, 0.3, math.nan, 0.9, 0.9]
    tops = [0.9, 0.8, 0.7, math.nan, math.nan, math.nan, math.nan]
    runs = frame(lambs, losses, tops, status=statuses, **{"val/probe_top1": probes})
    points = points_of(runs, "test/probe_top1")
    assert points["loss"].tolist() == [1.0, 2.0, 3.0, math.inf, 0.1]  # diverged: infinite; collapsed: its own
    assert points["accuracy"].tolist() == [0.9, 0.8, 0.7, 0.3, 0.0]  # the last probe on val, or none
    (group,) = label_free(runs)
    ranks = spearmanr([-1, -2, -3, -99, -0.1], [0.9, 0.8, 0.7, 0.3, 0.0]).statistic
    assert group.scores[0].spearman == pytest.approx(ranks)
    assert group.scores[0].finished_only == pytest.approx(1)
    assert group.scores[0].chosen == "setting 0"  # the collapsed run has the least loss, and is no candidate
    assert group.scores[0].regret == 0


def test_too_few_runs_give_no_number_and_runs_without_a_weight_are_left_out():
    runs = frame([0.1, 0.1], [1.0, 2.0], [0.9, 0.8])
    (group,) = label_free(runs)
    assert math.isnan(group.scores[0].spearman)
    assert "| 2 finished | 0     |      |        - |" in report([group])
    runs = frame([0.1, 0.0, 0.1, 0.1], [1.0, 2.0, 3.0, 4.0], [0.9, 0.1, 0.8, 0.7])
    assert points_of(runs, "test/probe_top1")["run_name"].tolist() == ["setting 0", "setting 2", "setting 3"]
