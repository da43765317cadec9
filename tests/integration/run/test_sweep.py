"""Whole sweeps, as a user launches them: a grid with a diverging and a failing cell, a search, and the second launch.

All cells share one worker group of one worker.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

HEAD = """
import dataclasses
from optuna.distributions import FloatDistribution
from jepa_train.methods import LeJEPA
from jepa_train.config.presets import DIGITS
from sweeps.engine import BestOf, Sweep
BASE = dataclasses.replace(DIGITS, method=LeJEPA(num_slices=16), epochs=2, global_batch=256)
"""
GRID = (
    HEAD
    + """
SWEEP = Sweep(name="tiny_grid", purpose="What happens to cells that end badly.", base=BASE, cpus_per_worker=2,
    grid={"optim.lr": [1e-3, 1e20], "global_batch": [256, 2048]}, references=({"epochs": 0},))
"""
)
SEARCH = (
    HEAD
    + """
SWEEP = Sweep(name="tiny_search", purpose="A search.", base=BASE, cpus_per_worker=2,
    space={"method.lamb": FloatDistribution(0.01, 0.1, log=True)}, trials=3, seeds=(0, 1))
"""
)
DRIVER = """
import collections, json, sys
from contextlib import nullcontext
from pathlib import Path
from unittest import mock
from jepa_train.config.flat import cell_key
from sweeps.engine.plan import plan
from sweeps.engine.spec import cells, sweep
calls = collections.Counter()
def counted(module, name, of):
    whole = getattr(module, name)
    def counting(*args, **options):
        calls[name + " " + of(*args)] += 1
        return whole(*args, **options)
    mock.patch.object(module, name, counting).start()
counted(plan, "make_plan", lambda sweep, *_: sweep.name)
counted(sweep, "_check_cells", lambda sweep, *_: sweep.name)
counted(cells, "cell_key", lambda config: cell_key(config))
import tiny_grid, tiny_search
from sweeps.engine.cluster.session import ray_session
from sweeps.engine.cli.main import launch
from sweeps.engine.cli.args import read_words
with nullcontext() if sys.argv[1:] else ray_session(num_cpus=2):  # one cell at a time, on any machine
    code = launch([(m.SWEEP, Path(m.__file__)) for m in (tiny_grid, tiny_search)], read_words(sys.argv[1:]))
Path("results").is_dir() and Path("results/calls.json").write_text(json.dumps(calls))
sys.exit(code)
"""


def write(folder: Path) -> None:
    """The two sweep files and what launches both."""
    for name, text in (("tiny_grid", GRID), ("tiny_search", SEARCH), ("driver", DRIVER)):
        (folder / f"{name}.py").write_text(text)


def launched(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The driver's run in a process of its own, its results under the folder."""
    environment = {**os.environ, "JEPA_RESULTS": str(folder / "results")}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "driver.py", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The first launch."""
    folder = tmp_path_factory.mktemp("sweep")
    write(folder)
    return folder, launched(folder)


@pytest.fixture(scope="module")
def client(first: tuple[Path, subprocess.CompletedProcess[str]]) -> MlflowClient:
    """The store that the first launch wrote."""
    return MlflowClient(f"sqlite:///{first[0] / 'results' / 'mlflow.db'}")


def runs_of(client: MlflowClient, sweep: str) -> list:
    """The runs of a sweep's cells."""
    found = client.search_runs([client.get_experiment_by_name(sweep).experiment_id])
    return [run for run in found if "cell_key" in run.data.tags]


def test_cells_that_end_badly_do_not_stop_the_sweep_and_the_exit_code_tells(first, client):
    _, done = first
    assert done.returncode == 1, done.stderr
    ends = {
        (run.data.params["optim.lr"], run.data.params["global_batch"], run.data.params["epochs"]): run.data.tags
        for run in runs_of(client, "tiny_grid")
    }
    assert {key: tags["status"] for key, tags in ends.items()} == {
        ("0.005", "256", "0"): "finished",
        ("0.001", "256", "2"): "finished",
        ("0.001", "2048", "2"): "failed",
        ("1e+20", "256", "2"): "diverged",
        ("1e+20", "2048", "2"): "failed",
    }
    assert "is nan in epoch 1" in ends["1e+20", "256", "2"]["reason"]
    assert "global_batch must not exceed the 1222 training images" in ends["0.001", "2048", "2"]["reason"]


def test_each_sweep_is_planned_and_checked_once_and_each_cell_keyed_once(first, client):
    folder, _ = first
    calls = json.loads((folder / "results" / "calls.json").read_text())
    keys = {run.data.tags["cell_key"] for name in ("tiny_grid", "tiny_search") for run in runs_of(client, name)}
    sweeps = {f"{name} {sweep}" for name in ("make_plan", "_check_cells") for sweep in ("tiny_grid", "tiny_search")}
    assert calls == dict.fromkeys(sweeps | {f"cell_key {key}" for key in keys}, 1)


def test_a_finished_run_is_complete(client):
    (run,) = [
        run
        for run in runs_of(client, "tiny_grid")
        if run.data.params["epochs"] == "2" and run.data.tags["status"] == "finished"
    ]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "lr=0.001 global_batch=256"
    assert run.data.params["method.lamb"] == "0.05"
    history = client.get_metric_history(run.info.run_id, "val/probe_top1")
    assert [point.step for point in history] == [1, 2]
    assert 0 < run.data.metrics["test/linear_top1"] <= 1
    assert {"cell_key", "mlflow.source.git.commit", "git_dirty", "mlflow.user", "version.torch"} <= set(run.data.tags)
    assert "mlflow.parentRunId" not in run.data.tags


def test_the_search_proposed_different_points_inside_its_space(client):
    lambs = [float(run.data.params["method.lamb"]) for run in runs_of(client, "tiny_search")]
    assert len(set(lambs)) == 3
    assert all(0.01 <= lamb <= 0.1 for lamb in lambs)


def test_the_terminal_shows_results_and_no_log_noise(first, client):
    _, done = first
    assert "tiny_grid: 2 finished, 1 diverged, 2 failed of 5 cells; 5 ended in this launch" in done.stdout
    assert "failed cells run again with --retry failed" in done.stdout
    for word in ("tiny_grid", "5/5", "failed: ConfigError", "diverged", "tiny_search", "4/4", "MLflow store:"):
        assert word in done.stdout, done.stdout
    assert done.stderr == ""
    note = client.get_experiment_by_name("tiny_grid").tags["mlflow.note.content"]
    assert "What happens to cells that end badly." in note
    assert "|" in note


def test_nothing_is_written_outside_results(first):
    folder, _ = first
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {
        "tiny_grid.py",
        "tiny_search.py",
        "driver.py",
        "results",
    }


def test_a_second_launch_runs_only_what_has_no_result(first, client):
    folder, _ = first
    plan = launched(folder, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "tiny_grid: 3 of 5 cells done" in plan.stdout
    assert "tiny_search: 4 of 4 cells done" in plan.stdout
    assert plan.stdout.count("  failed ") == 2
    (folder / "tiny_grid.py").write_text(GRID.replace("[256, 2048]", "[256]"))
    before = {run.info.run_id: run.info.end_time for run in runs_of(client, "tiny_grid")}
    again = launched(folder)
    assert again.returncode == 0, again.stderr
    assert "tiny_grid: 3 of 3 cells done" in again.stdout
    assert {run.info.run_id: run.info.end_time for run in runs_of(client, "tiny_grid")} == before


def test_a_second_file_with_the_same_sweep_name_is_refused(first):
    folder, _ = first
    (folder / "elsewhere").mkdir()
    write(folder / "elsewhere")
    environment_results = folder / "results"
    done = subprocess.run(
        [sys.executable, "driver.py"],
        cwd=folder / "elsewhere",
        env={**os.environ, "JEPA_RESULTS": str(environment_results)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: name 'tiny_grid' must belong to one sweep file")
    assert done.stderr.count("\n") == 1
