"""The Optuna study of a sweep: what its file says, read back by Optuna, against the ranking, the front and the report.

Run: python -m pytest tests/unit/analysis/test_optuna_study.py
"""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from made_runs import as_search, made_runs
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState
from paper_store import BEST_LAMB, LAMBS, accuracy_of

from analysis.__main__ import main
from analysis.optuna_study import importance, study_of, write_study
from analysis.runs import load_history, load_runs
from analysis.select.front import front_of
from analysis.select.objectives import Goal, goals_of
from analysis.table.cells import Quantity
from analysis.table.ranking import ranked

LAMB, SCORE = "method.lamb", "val/probe_top1"


def reopened(sweep: str, store: str, folder: Path) -> optuna.Study:
    """The study in the file of a sweep, as optuna-dashboard opens it."""
    file = write_study(sweep, store, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.load_study(study_name=sweep, storage=JournalStorage(JournalFileBackend(str(file))))


def test_a_search_has_the_trials_the_winner_and_the_importances_of_our_report(papers: str, tmp_path: Path) -> None:
    runs = load_runs("searched_mini", papers)
    write_study("searched_mini", papers, tmp_path)  # which the next one replaces
    study = reopened("searched_mini", papers, tmp_path)
    assert (study.metric_names, study.direction) == ([SCORE], StudyDirection.MAXIMIZE)
    trials = study.trials
    assert [trial.params[LAMB] for trial in trials] == runs[LAMB].tolist(), "in the order of their start"
    assert [trial.state for trial in trials].count(TrialState.COMPLETE) == 12
    pruned, failed = trials[5], trials[7]
    assert (pruned.state, failed.state) == (TrialState.PRUNED, TrialState.FAIL)
    assert failed.user_attrs["reason"] == "OutOfMemoryError"
    columns = [Quantity(label=name, metric=name) for name in (LAMB, "method.num_slices", SCORE)]
    best = ranked(runs, columns).iloc[0]
    assert study.best_params == {LAMB: best[LAMB].values[0], "method.num_slices": best["method.num_slices"]}
    assert study.best_value == best[SCORE].values[0]
    own = runs.iloc[study.best_trial.number]
    assert {name: study.best_trial.user_attrs[name] for name in ("cell_key", "run_id", "seed")} == {
        "cell_key": own["cell_key"],
        "run_id": own["run_id"],
        "seed": "0",
    }
    assert study.best_trial.datetime_start.astimezone() == own["start_time"]
    assert study.best_trial.datetime_complete.astimezone() == own["end_time"]
    history = load_history("searched_mini", SCORE, papers)
    curve = history[history["run_id"] == own["run_id"]]
    assert study.best_trial.intermediate_values == dict(zip(curve["epoch"], curve["value"], strict=True))
    assert study.best_trial.distributions == {
        LAMB: optuna.distributions.FloatDistribution(runs[LAMB].min(), runs[LAMB].max(), log=True),
        "method.num_slices": optuna.distributions.IntDistribution(256, 1024),
    }
    (goal,) = goals_of(runs)
    assert importance(runs, goal) == get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    assert importance(runs, goal, "PED-ANOVA") == get_param_importances(study), "Optuna's default"


def test_a_grid_has_a_trial_per_setting_and_those_that_lack_a_seed_do_not_compete(papers: str, tmp_path: Path) -> None:
    study = reopened("lejepa_lambda_views_mini", papers, tmp_path)
    found = {(trial.params["views.num_global"], trial.params[LAMB]): trial.value for trial in study.trials}
    places = [(views, lamb) for views in BEST_LAMB for lamb in LAMBS if views > 2 or lamb < 0.1]
    expected = {place: np.mean([accuracy_of(*place, seed) - 0.02 for seed in range(3)]) for place in places}
    assert found == pytest.approx(expected | {(8, 0.1): None})  # one seed diverged
    assert [trial.user_attrs["status"] for trial in study.trials if trial.state == TrialState.FAIL] == ["diverged"]
    assert study.best_params == {"views.num_global": 8, LAMB: BEST_LAMB[8]}


def test_several_goals_have_the_pareto_set_of_the_table(store: str, tmp_path: Path) -> None:
    study, front = reopened("front", store, tmp_path), front_of(load_runs("front", store))
    assert front is not None
    goals = goals_of(front.runs)
    assert study.metric_names == [goal.name for goal in goals]
    assert [one.name[:3] for one in study.directions] == [goal.direction.upper() for goal in goals]
    assert {trial.user_attrs["cell_key"] for trial in study.best_trials} == front.keys


def test_a_tuned_ablation_has_its_candidates_and_not_the_winners_further_seeds(store: str, tmp_path: Path) -> None:
    study = reopened("fair", store, tmp_path)
    assert {trial.user_attrs["seed"] for trial in study.trials} == {"0"}


def test_states_of_runs_and_seeds() -> None:
    states = {
        0.1: ("finished", "diverged"),
        0.2: ("failed", "failed"),
        0.3: ("running", "pruned"),
        0.4: ("pruned",) * 2,
    }

    def measure(config: dict[str, object]) -> dict[str, object]:
        status = states[config[LAMB]][config["seed"]]
        return {"status": status, "reason": "killed", SCORE: 0.5}

    runs = made_runs({LAMB: [*states]}, measure, seeds=(0, 1))
    study = study_of(runs)
    names = [trial.state.name for trial in study.trials]
    assert names == ["COMPLETE", "FAIL", "PRUNED", "PRUNED"]
    assert study.trials[1].user_attrs["reason"] == "killed"
    assert (study.trials[1].user_attrs["seed"], study.trials[1].user_attrs["status"]) == ("0, 1", "failed")
    unmeasured = made_runs({LAMB: [0.1]}, lambda _: {SCORE: float("nan")}, seeds=(0,))
    (trial,) = study_of(unmeasured).trials
    assert (trial.state, trial.user_attrs["status"]) == (TrialState.FAIL, "not measured")


def test_a_goal_without_labels_scales_its_curve_and_methods_have_their_own_parameters() -> None:
    goal = Goal(metric="train/loss", direction="min", over=LAMB, power=0.4)
    grid = [{"method": ["lejepa"], LAMB: [0.01, 0.1]}, {"method": ["vicreg"], LAMB: [0.5], "method.nonneg": ["relu"]}]
    runs = made_runs(grid, lambda config: {"train/loss": config[LAMB]}, seeds=(0,))
    runs = runs.assign(**{"sweep.goals": json.dumps([dataclasses.asdict(goal)])})
    runs["method.nonneg"] = runs["method.nonneg"].replace("", np.nan)
    history = pd.DataFrame({"run_id": runs["run_id"], "epoch": 1, "value": 2.0})
    study = study_of(runs, history)
    assert study.best_params == {"method": "lejepa", LAMB: 0.01}
    assert [trial.intermediate_values[1] for trial in study.trials] == pytest.approx(
        [2 / x**0.4 for x in (0.01, 0.1, 0.5)]
    )
    assert study.trials[2].params["method.nonneg"] == "relu"


def test_several_seeds_per_trial_compete_by_their_mean_and_constraints_are_those_of_optuna() -> None:
    scores = {0.1: (0.5, 0.7, 0.9), 0.2: (0.9, 0.9, 0.9)}  # of a winner, the last seed is further

    def measure(config: dict[str, object]) -> dict[str, object]:
        lamb, seed = config[LAMB], config["seed"]
        return {SCORE: scores[lamb][seed], "train/peak_memory_gb": 30 if (lamb, seed) == (0.2, 1) else 10}

    limit = {"metric": "train/peak_memory_gb", "sense": "<=", "bound": 20}
    runs = as_search(made_runs({LAMB: [*scores]}, measure), [LAMB])
    runs = runs.assign(**{"sweep.seeds_per_trial": "2", "sweep.constraints": json.dumps([limit])})
    study = study_of(runs)
    assert [trial.value for trial in study.trials] == pytest.approx([0.6, 0.9])
    assert [trial.user_attrs["seed"] for trial in study.trials] == ["0, 1"] * 2
    assert study.trials[1].user_attrs["status"] == "infeasible"
    assert [trial.system_attrs["constraints"] for trial in study.trials] == [[-0.5], [0.5]], "the worst seed, relative"
    best = ranked(runs, [Quantity(label=name, metric=name) for name in (LAMB, SCORE)]).iloc[0]
    assert (study.best_params[LAMB], study.best_value) == (best[LAMB].values[0], pytest.approx(best[SCORE].mean))


def test_a_setting_whose_condition_does_not_hold_is_no_parameter_of_the_trial() -> None:
    grid = {"method.p": [0.5, 1.0], LAMB: [0.1, 0.2]}
    runs = as_search(made_runs(grid, lambda config: {SCORE: config[LAMB]}, seeds=(0,)), [*grid])
    runs = runs.assign(**{"sweep.when": json.dumps({LAMB: {"method.p": [1.0]}})})
    runs = runs[(runs["method.p"] == 1.0) | (runs[LAMB] == 0.1)].reset_index(drop=True)
    assert [{*trial.params} for trial in study_of(runs).trials] == [
        {"method.p"},
        {"method.p", LAMB},
        {"method.p", LAMB},
    ]


def test_cells_of_an_earlier_base_are_no_trials() -> None:
    runs = as_search(made_runs({LAMB: [0.1, 0.2]}, lambda config: {SCORE: config[LAMB]}, seeds=(0,)), [LAMB])
    runs.loc[runs[LAMB] == 0.2, "base"] = "{}"
    assert [trial.params for trial in study_of(runs).trials] == [{LAMB: 0.1}]


def test_the_command_prints_the_file_and_how_to_open_it(
    papers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a b"
    assert main(["optuna", "searched", "--store", papers, "--output", str(folder)]) == 0
    file = folder / "searched_mini.journal"
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(file), f"open it with: optuna-dashboard '{file}'"]
    assert [path.name for path in folder.iterdir()] == [file.name], "no lock"
    assert main(["optuna", "serched", "--store", papers]) == 2
    assert main(["optuna", "searched", "--store", papers, "--output", str(file)]) == 2
    errors = capsys.readouterr().err.splitlines()[-2:]
    assert errors[0].startswith("error: 'serched' is no sweep of the store; did you mean 'searched")
    assert errors[1] == f"error: {file} cannot be used (File exists); name another folder with --output"


@pytest.mark.parametrize("searched", [[], [LAMB]])
def test_a_sweep_whose_cells_have_not_begun_has_no_trials(searched: list[str]) -> None:
    runs = as_search(made_runs({LAMB: [0.1, 0.2]}, lambda _: {SCORE: 0.5}), searched).assign(role="reference")
    assert study_of(runs).trials == []
