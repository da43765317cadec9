"""The winner of a sweep: the setting that its table ranks first, with all of its finished seeds.

Run: python -m pytest tests/unit/analysis/select/test_winner.py
"""

import json
from typing import Any

import pandas as pd
import pytest
from made_runs import as_search, made_runs

from analysis.select.compared import winner

LAMBS = [0.1, 0.2, 0.4]
# The best single run is of another setting than the best mean.
SCORES = {0.1: [0.9, 0.1, 0.2], 0.2: [0.6, 0.7, 0.5], 0.4: [0.5, 0.5, 0.5]}


def measure(config: dict[str, Any]) -> dict[str, Any]:
    score = SCORES[config["method.lamb"]][config["seed"]]
    return {"val/probe_top1": score, "train/loss": 1.0}


def grid(**tags: Any) -> pd.DataFrame:
    return made_runs({"method.lamb": LAMBS}, measure, seeds=(2, 0, 1)).assign(**tags)


def searched(runs: pd.DataFrame, kind: str = "search") -> pd.DataFrame:
    """The candidates, with the first seed, and the one of the best score with all of them."""
    best = runs["method.lamb"] == 0.2
    return as_search(runs[best | (runs["seed"] == 2)], ["method.lamb"], kind)


LABEL_FREE = json.dumps([{"metric": "train/loss", "direction": "min", "over": "method.lamb", "power": 1.0}])


@pytest.mark.parametrize(
    ("runs", "expected", "competed"),
    [
        (grid(), 0.2, 9),
        (grid(**{"sweep.goals": LABEL_FREE}), 0.4, 9),
        (grid().assign(status=lambda runs: runs["status"].mask(runs["method.lamb"] == 0.2, "collapsed")), 0.4, 9),
        (searched(grid()), 0.2, 5),
        (searched(grid(), "fair"), 0.2, 5),
    ],
)
def test_the_setting_of_the_best_mean_wins_with_the_sweeps_first_seed_first(
    runs: pd.DataFrame, expected: float, competed: int
) -> None:
    found, count = winner(runs)
    assert count == competed
    assert found["method.lamb"].tolist() == [expected] * 3
    assert found["seed"].tolist() == [2, 0, 1]


def test_of_a_fair_ablation_the_best_point_wins() -> None:
    runs = made_runs(
        {"views.num_global": [2, 4], "method.lamb": LAMBS},
        lambda config: {"val/probe_top1": config["views.num_global"] / 10 - config["method.lamb"] / 10},
        seeds=(0,),
    )
    found, count = winner(as_search(runs, ["method.lamb"], "fair"))
    assert (found["views.num_global"].item(), found["method.lamb"].item(), count) == (4, 0.1, 6)


def test_unfinished_seeds_of_the_winner_are_left_out_and_without_a_finished_run_there_is_none() -> None:
    runs = grid()
    of_winner = (runs["method.lamb"] == 0.2) & (runs["seed"] == 2)
    alone = runs[runs["method.lamb"] == 0.2]
    found, _ = winner(alone.assign(status=alone["status"].mask(of_winner, "running")))
    assert found["seed"].tolist() == [0, 1]
    for nothing in (runs.assign(status="running"), searched(runs.assign(status="diverged"))):
        assert winner(nothing)[0].empty
