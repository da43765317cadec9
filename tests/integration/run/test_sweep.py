"""The real launch of tests/integration/conftest.py, in the shared Ray session of `shared_ray`.

Run: python -m pytest tests/integration/run/test_sweep.py
"""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

from mlflow import MlflowClient

from jepa_train.methods import METHODS


def runs_of(client: MlflowClient, name: str) -> list[Any]:
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    return [run for run in found if "cell_key" in run.data.tags]


def test_cells_that_end_badly_do_not_stop_the_sweep(first: SimpleNamespace) -> None:
    assert first.code == 1, first.err
    ends = {run.info.run_name: run.data.tags for run in runs_of(first.client, "tiny_grid")}
    assert {name: tags["status"] for name, tags in ends.items()} == {"lr=0.001": "finished", "lr=1e+20": "diverged"}
    assert "is nan in epoch 1" in ends["lr=1e+20"]["reason"]
    (failed,) = [run for run in runs_of(first.client, "golden_mini") if run.data.tags["status"] == "failed"]
    assert "global_batch must not exceed the" in failed.data.tags["reason"]


def test_each_sweep_is_planned_once_and_each_cell_keyed_once(first: SimpleNamespace) -> None:
    assert first.plans == ["tiny_grid", "golden_mini"]
    runs = [*runs_of(first.client, "tiny_grid"), *runs_of(first.client, "golden_mini")]
    assert sorted(first.keys) == sorted(run.data.tags["cell_key"] for run in runs)


def test_a_finished_run_is_complete(first: SimpleNamespace) -> None:
    (run,) = [run for run in runs_of(first.client, "tiny_grid") if run.data.tags["status"] == "finished"]
    assert (run.info.status, run.data.params["method.lamb"]) == ("FINISHED", "0.02")
    assert [point.step for point in first.client.get_metric_history(run.info.run_id, "val/probe_top1")] == [1]
    assert 0 < run.data.metrics["test/linear_top1"] <= 1
    assert {"cell_key", "mlflow.source.git.commit", "git_dirty", "mlflow.user", "version.torch"} <= set(run.data.tags)


def test_each_grid_point_has_its_search_and_its_winner_the_other_seed(first: SimpleNamespace) -> None:
    runs = [run.data.params for run in runs_of(first.client, "golden_mini") if run.data.tags["status"] == "finished"]
    trained = [params for params in runs if params["epochs"] != "0"]
    assert sorted((params["method"], params["seed"]) for params in trained) == [
        (method, seed) for method in sorted(METHODS) for seed in "01"
    ]
    assert len({(params["method"], params["optim.lr"]) for params in trained}) == len(METHODS)


def test_the_terminal_shows_results_and_no_log_noise(first: SimpleNamespace) -> None:
    assert "tiny_grid: 1 finished, 1 diverged of 2 cells; 2 ended in this launch" in first.out
    done = 2 * len(METHODS) + 2  # two seeds of each method and of the reference; one cell failed
    for word in (
        f" {done}/",  # the other seed of the failed one leaves the count
        "failed: ConfigError",
        "failed cells run again with --retry failed",
        "MLflow store:",
    ):
        assert word in first.out, first.out
    assert first.err == ""
    note = first.client.get_experiment_by_name("tiny_grid").tags["mlflow.note.content"]
    assert note.startswith("Cells that end badly.")
    assert "|" in note
    assert {path.name for path in first.folder.iterdir()} - {"__pycache__"} == {"results", "golden.py"}


def test_a_second_launch_runs_only_cells_without_a_result(first: SimpleNamespace) -> None:
    code, out, err = first.launched(first.sweeps, "--dry-run")
    assert (code, out.count("  failed ")) == (0, 1), err
    assert f"golden_mini: {2 * len(METHODS) + 1} of {2 * len(METHODS) + 2} cells done" in out
    code, out, _ = first.launched(first.sweeps[:1])
    assert (code, "tiny_grid: 2 of 2 cells done" in out) == (0, True)
    assert len(runs_of(first.client, "tiny_grid")) == 2


def test_candidates_that_early_stopping_gave_up_run_on_without_it(first: SimpleNamespace) -> None:
    on = dataclasses.replace(first.fair, early_stopping=None)
    for sweep, statuses in ((first.fair, {"finished", "pruned"}), (on, {"finished"})):
        code, out, err = first.launched([sweep])
        assert code == 0, err
        assert ("is not among the best 1/3 of" in out) == ("pruned" in statuses)
        runs = runs_of(first.client, "tiny_fair")
        assert {run.data.tags["status"] for run in runs} == statuses
        assert len({run.data.tags["cell_key"] for run in runs}) == len(runs)
    for run in runs:
        curve = first.client.get_metric_history(run.info.run_id, "val/probe_top1")
        assert [point.step for point in curve] == [1, 2]
        if run.data.params["seed"] == "0":
            assert json.loads(run.data.tags["rungs"]) == {"1": curve[0].value}
    candidates = [run for run in runs if run.data.params["seed"] == "0"]
    best = max(candidates, key=lambda run: run.data.metrics["val/probe_top1"])
    assert best.data.params["probe.lr"] in {run.data.params["probe.lr"] for run in runs if run not in candidates}


def test_a_seed_that_waits_at_a_rung_goes_on_in_its_run_also_in_the_next_launch(first: SimpleNamespace) -> None:
    limited = {"constraints": ("peak memory <= 0.001 GB",), "seeds_per_trial": 2}
    sweep = dataclasses.replace(first.fair, name="tiny_seeds", **limited)
    code, _, err = first.launched([sweep], "--limit", "1")
    (run,) = runs_of(first.client, "tiny_seeds")
    assert (code, run.info.status) == (0, "KILLED"), err
    assert run.data.tags["status"] == "interrupted"
    assert run.data.tags["reason"] == "waits at epoch 1 for the other seeds of its point"
    code, out, err = first.launched([sweep])
    runs = runs_of(first.client, "tiny_seeds")
    assert (code, len(runs)) == (0, 6), err
    assert run.info.run_id in {run.info.run_id for run in runs}
    ends: dict[str, list[tuple[str, list[int]]]] = {}
    for run in runs:
        steps = [point.step for point in first.client.get_metric_history(run.info.run_id, "val/probe_top1")]
        ends.setdefault(run.data.params["probe.lr"], []).append((run.data.tags["status"], steps))
    stopped = [("pruned", [1])] * 2
    assert ends == {"1e-07": stopped, "1e-06": stopped, str(sweep.base.probe.lr): [("finished", [1, 2])] * 2}
    assert "no feasible candidate: none of the 1 finished ones keeps train/peak_memory_gb <= 0.001" in out
    assert first.client.get_experiment_by_name("tiny_seeds").tags["sweep.total"] == "6"


def test_options_of_a_launch_choose_its_base_its_seeds_and_its_cells(first: SimpleNamespace) -> None:
    study = dataclasses.replace(first.sweeps[0], name="tiny_options", grid={"optim.lr": [1e-3, 2e-3, 3e-3]})
    words = ["global_batch=512", "--seeds", "3", "--only", "lr=0.002,0.003", "--limit", "1"]
    code, out, err = first.launched([study], *words)
    assert (code, "0 of 3 cells done before; 1 run now" in out) == (0, True), err
    assert "base with global_batch=512, by the command line of the launch" in out
    (run,) = runs_of(first.client, "tiny_options")
    assert [run.data.params[name] for name in ("optim.lr", "global_batch", "seed")] == ["0.002", "512", "3"]
    tags = first.client.get_experiment_by_name("tiny_options").tags
    assert (tags["sweep.total"], tags["sweep.overrides"]) == ("3", '{"global_batch": "512"}')
