"""The winner of a sweep: the setting that every view of it ranks first, with all of its finished seeds.

Run: python -m pytest tests/unit/analysis/select/test_winner.py
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
from made_runs import as_search, made_runs

from analysis import figures
from analysis.figures.style import styled
from analysis.optuna_study import study_of
from analysis.select.compared import best_over, cells, winner
from analysis.select.front import front_of
from analysis.select.objectives import goals_of
from analysis.select.selection import choices, infeasible_note
from analysis.sweep_list import best_score
from analysis.table.cells import Quantity
from analysis.table.ranking import ranked

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
    ("runs", "expected"),
    [
        (grid(), 0.2),
        (grid(**{"sweep.goals": LABEL_FREE}), 0.4),
        (grid().assign(status=lambda runs: runs["status"].mask(runs["method.lamb"] == 0.2, "collapsed")), 0.4),
        (searched(grid()), 0.2),
        (searched(grid(), "fair"), 0.2),
    ],
)
def test_the_setting_of_the_best_mean_wins_with_the_sweeps_first_seed_first(
    runs: pd.DataFrame, expected: float
) -> None:
    found = winner(runs).runs
    assert found["method.lamb"].tolist() == [expected] * 3
    assert found["seed"].tolist() == [2, 0, 1]


def test_of_a_fair_ablation_the_best_point_wins() -> None:
    runs = made_runs(
        {"views.num_global": [2, 4], "method.lamb": LAMBS},
        lambda config: {"val/probe_top1": config["views.num_global"] / 10 - config["method.lamb"] / 10},
        seeds=(0,),
    )
    found = winner(as_search(runs, ["method.lamb"], "fair")).runs
    assert (found["views.num_global"].item(), found["method.lamb"].item()) == (4, 0.1)


def test_unfinished_seeds_of_the_winner_are_left_out_and_without_a_finished_run_there_is_none() -> None:
    runs = grid()
    of_winner = (runs["method.lamb"] == 0.2) & (runs["seed"] == 2)
    alone = runs[runs["method.lamb"] == 0.2]
    found = winner(alone.assign(status=alone["status"].mask(of_winner, "running"))).runs
    assert found["seed"].tolist() == [0, 1]
    for nothing in (runs.assign(status="running"), searched(runs.assign(status="diverged"))):
        assert winner(nothing).runs.empty


GOAL, OTHER, LIMITED = "val/probe_top1", "val/nonzero_fraction", "train/peak_memory_gb"
UP, DOWN = {"metric": GOAL}, {"metric": GOAL, "direction": "min"}
SPARSE = {"metric": OTHER, "direction": "min"}
LIMIT = json.dumps([{"metric": LIMITED, "sense": "<=", "bound": 20}])
NAN = math.nan

# per lamb and seed, in the order of the sweep's seeds: the score, or the state of a run without one, or None
CASES: dict[str, tuple[dict[float, Sequence[Any]], dict[str, Any], float | None]] = {
    "fewer finished seeds": ({0.1: (0.9, "diverged"), 0.2: (0.5, 0.6), 0.4: (0.4, 0.4)}, {}, 0.2),
    "a seed that runs": ({0.1: (0.9, "running"), 0.2: (0.5, 0.6), 0.4: (0.4, 0.4)}, {}, 0.2),
    "a seed that has not begun": ({0.1: (0.9, None), 0.2: (0.5, 0.6), 0.4: (None, 0.9)}, {}, 0.2),
    "a seed without a number": ({0.1: (0.9, NAN), 0.2: (0.5, 0.6), 0.4: (math.inf, 0.9)}, {}, 0.2),
    "ties": ({0.1: (0.5, 0.1), 0.2: (0.1, 0.5), 0.4: (0.2, 0.2)}, {}, 0.2),  # 0.1 starts first, 0.2 has the first key
    "minimised": ({0.1: (0.1, NAN), 0.2: (0.2, 0.3), 0.4: (0.2, 0.4)}, {"sweep.goals": json.dumps([DOWN])}, 0.2),
    "several goals": (
        {0.1: (0.9, "failed"), 0.2: (0.8, 0.7), 0.4: (0.2, 0.2)},
        {"sweep.goals": json.dumps([UP, SPARSE])},
        0.2,
    ),
    "without a number of a further goal": (
        {0.1: (0.9, 0.95), 0.2: (0.8, 0.7), 0.4: (0.2, 0.2)},
        {"sweep.goals": json.dumps([UP, {"metric": "val/l1_sparsity"}])},
        0.2,
    ),
    "nothing finished": ({0.1: ("running", "diverged")}, {}, None),
}
INFEASIBLE: dict[str, tuple[dict[float, Sequence[Any]], dict[str, Any], float | None]] = {
    "one seed breaks the limit": ({0.1: (0.9, 0.95), 0.2: (0.5, 0.6), 0.4: (0.4, 0.4)}, {}, 0.2),
    "of several goals too": ({0.1: (0.9, 0.95), 0.2: (0.5, 0.6)}, {"sweep.goals": json.dumps([UP, SPARSE])}, 0.2),
    "all break it": ({0.1: (0.9, 0.95)}, {"sweep.goals": json.dumps([UP, SPARSE])}, None),
}


def of_case(scores: dict[float, Sequence[Any]], tags: dict[str, Any], *, search: bool) -> pd.DataFrame:
    """Seeds 5 and 3, in this order; a search has them in each trial. lamb 0.1 starts first and has the last cell key.

    Its second seed needs more memory than LIMIT allows and lacks the metric val/l1_sparsity.
    """

    def measured(config: dict[str, Any]) -> Any:
        score, broken = scores[config["method.lamb"]][[5, 3].index(config["seed"])], config["method.lamb"] == 0.1
        if score is None or isinstance(score, str):
            return score
        found = {GOAL: score, OTHER: config["method.lamb"], LIMITED: 10 + 20 * (broken and config["seed"] == 3)}
        return found if broken and config["seed"] == 3 else found | {"val/l1_sparsity": 0.5}

    runs = made_runs({"method.lamb": [*scores]}, measured, seeds=(5, 3)).assign(**tags)
    first = (runs["method.lamb"] == 0.1) & (runs["seed"] == 5)  # its last seed has the smallest key of all
    runs["cell_key"] = runs["cell_key"].mask(first, "study-999")
    runs = runs.sort_values("start_time", ascending=False, kind="stable") if search else runs
    return as_search(runs, ["method.lamb"]).assign(**{"sweep.seeds_per_trial": "2"}) if search else runs


def chosen(runs: pd.DataFrame) -> dict[str, float | None]:
    """lamb of the winner in each view of a sweep; None for no winner."""
    found, (goal, *more) = winner(runs).runs, goals_of(runs)
    views: dict[str, list[float]] = {"best": found["method.lamb"].tolist()[:1]}
    assert found["seed"].tolist() == [5, 3][: len(found)]
    table = best_over(cells(runs), ["method.lamb"])
    views["table"] = table[0]["method.lamb"].tolist()[:1] if table[1] else []
    if searched := json.loads(runs.get("sweep.searched", pd.Series(["[]"])).iloc[0]):
        ranking = ranked(runs, [Quantity(label="lamb", metric="method.lamb")])
        views["ranking"] = [cell.mean for rank, cell in ranking["lamb"].items() if rank == 1][:1]
        views["fair"] = [] if more else choices(runs)[0].winner["method.lamb"].tolist()[:1]
    study = study_of(runs)
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    feasible = [trial for trial in complete if max(trial.system_attrs.get("constraints", [0])) <= 0]
    sign = 1 if goal.direction == "max" else -1
    best = max(feasible, key=lambda trial: sign * trial.values[0], default=None)
    views["optuna"] = [best.params["method.lamb"]] if best else []
    if not more and best:
        assert study.best_trial.number == best.number
    history = runs[["run_id"]].assign(metric=goal.metric, epoch=1, value=0.5)
    with styled():
        figure = figures.find("curves").make(runs, history)
    views["figure"] = [float(figure.legends[0].get_texts()[0].get_text().partition("=")[2])] if best else []
    views["list"] = [float(best_score(runs).split(" ")[0])] if len(found) else []
    scores = [float(f"{found[goal.metric].mean():.4g}")] if len(found) else []
    assert views.pop("list") == scores
    if more and best:
        front = front_of(runs)
        assert front is not None
        assert {*found["cell_key"]} <= front.keys
    if more and searched:
        views.pop("fair")
    return {view: lambs[0] if lambs else None for view, lambs in views.items()}


@pytest.mark.parametrize("search", [False, True], ids=["grid", "search"])
@pytest.mark.parametrize("case", CASES)
def test_every_view_has_the_same_winner(case: str, search: bool) -> None:
    scores, tags, expected = CASES[case]
    views = chosen(of_case(scores, tags, search=search))
    assert {*views.values()} == {expected}, views


@pytest.mark.parametrize("case", INFEASIBLE)
def test_no_view_has_a_winner_that_breaks_a_constraint(case: str) -> None:
    scores, tags, expected = INFEASIBLE[case]
    runs = of_case(scores, tags | {"sweep.constraints": LIMIT}, search=True)
    views = chosen(runs)
    assert {*views.values()} == {expected}, views
    note = "no feasible candidate: none keeps train/peak_memory_gb <= 20; the nearest is study-001 with "
    assert infeasible_note(runs) == (f"{note}train/peak_memory_gb 30" if expected is None else "")


def test_best_and_list_have_the_mean_over_all_seeds_of_a_fair_ablations_winner() -> None:
    """The other point's winner has the best trial, and the worse mean."""
    scores = {(2, 0.2): (0.9, 0.1), (2, 0.1): (0.7, None), (4, 0.1): (0.8, 0.75), (4, 0.2): (0.6, None)}

    def measured(config: dict[str, Any]) -> Any:
        score = scores[config["views.num_global"], config["method.lamb"]][[5, 3].index(config["seed"])]
        return score if score is None else {GOAL: score}

    runs = made_runs({"views.num_global": [2, 4], "method.lamb": [0.1, 0.2]}, measured, seeds=(5, 3))
    runs = as_search(runs, ["method.lamb"], "fair")
    best = winner(runs)
    assert best.runs["views.num_global"].tolist() == [4, 4]
    assert (best.score, best.judged["seed"].tolist(), best.rivals) == (pytest.approx(0.775), [5, 3], 4)
    assert best_score(runs) == "0.775 probe_top1"


def test_a_winners_score_is_of_the_seeds_with_numbers() -> None:
    runs = of_case({0.2: (0.9, NAN), 0.4: (0.4, "diverged")}, {}, search=False)
    assert (winner(runs).score, winner(runs).judged["seed"].tolist()) == (0.9, [5])


def test_the_nearest_point_is_that_whose_worst_seed_is_nearest() -> None:
    memory = {(0.1, 5): 20.2, (0.1, 3): 120.0, (0.2, 5): 22.0, (0.2, 3): 21.0}
    runs = made_runs(
        {"method.lamb": [0.1, 0.2]},
        lambda config: {GOAL: 0.5, LIMITED: memory[config["method.lamb"], config["seed"]]},
        seeds=(5, 3),
    )
    runs = as_search(runs, ["method.lamb"]).assign(**{"sweep.seeds_per_trial": "2", "sweep.constraints": LIMIT})
    assert infeasible_note(runs).endswith("with train/peak_memory_gb 22")
