"""One real launch of two sweeps in the shared Ray session: a grid with a diverging and a failing cell, and a search.

Run: python -m pytest tests/integration/run/test_sweep.py
"""

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from mlflow import MlflowClient
from optuna.distributions import FloatDistribution

from jepa_train.config.flat import cell_key
from jepa_train.config.presets import DIGITS
from jepa_train.methods import LeJEPA
from sweeps.engine.cli.args import read_words
from sweeps.engine.cli.main import launch
from sweeps.engine.plan import plan
from sweeps.engine.spec import cells
from sweeps.engine.spec.sweep import Sweep

BASE = dataclasses.replace(DIGITS, method=LeJEPA(num_slices=16), epochs=1, global_batch=256)
GRIDS = [{"optim.lr": [1e-3, 1e20]}, {"global_batch": [2048]}]
SPACE = {"method.lamb": FloatDistribution(0.01, 0.1, log=True)}


def launched(folder: Path, *words: str, grids: list[dict[str, Any]] = GRIDS) -> tuple[int, str, str]:
    """Exit code, output and errors of a command on both sweeps, whose cells run one at a time."""
    common = {"purpose": "Cells that end badly.", "base": BASE, "cpus_per_worker": 2}
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        both = [Sweep(name="tiny_grid", grid=grids, **common)]
        both += [Sweep(name="tiny_search", space=SPACE, trials=2, seeds=(0, 1), **common)]
        code = launch([(each, folder / f"{each.name}.py") for each in both], read_words(words))
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def first(shared_ray: Path, template: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:  # noqa: ARG001
    """The first launch, with its store, the plans that were made and the keys that were computed."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "results").mkdir()
    (folder / "results" / "mlflow.db").write_bytes(template)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JEPA_RESULTS", str(folder / "results"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with (
            mock.patch.object(plan, "make_plan", wraps=plan.make_plan) as planned,
            mock.patch.object(cells, "cell_key", wraps=cell_key) as keyed,
        ):
            code, out, err = launched(folder)
        plans = [call.args[0].name for call in planned.call_args_list]
        keys = [cell_key(call.args[0]) for call in keyed.call_args_list]
        client = MlflowClient(f"sqlite:///{folder / 'results' / 'mlflow.db'}")
        yield SimpleNamespace(folder=folder, code=code, out=out, err=err, plans=plans, keys=keys, client=client)


def runs_of(client: MlflowClient, name: str) -> list[Any]:
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    return [run for run in found if "cell_key" in run.data.tags]


def test_cells_that_end_badly_do_not_stop_the_sweep(first: SimpleNamespace) -> None:
    assert first.code == 1, first.err
    ends = {run.info.run_name: run.data.tags for run in runs_of(first.client, "tiny_grid")}
    assert {name: tags["status"] for name, tags in ends.items()} == {
        "lr=0.001": "finished", "lr=1e+20": "diverged", "global_batch=2048": "failed",
    }  # fmt: skip
    assert "is nan in epoch 1" in ends["lr=1e+20"]["reason"]
    assert "global_batch must not exceed the 1222 training images" in ends["global_batch=2048"]["reason"]


def test_each_sweep_is_planned_once_and_each_cell_keyed_once(first: SimpleNamespace) -> None:
    assert first.plans == ["tiny_grid", "tiny_search"]
    runs = [*runs_of(first.client, "tiny_grid"), *runs_of(first.client, "tiny_search")]
    assert sorted(first.keys) == sorted(run.data.tags["cell_key"] for run in runs)


def test_a_finished_run_is_complete(first: SimpleNamespace) -> None:
    (run,) = [run for run in runs_of(first.client, "tiny_grid") if run.data.tags["status"] == "finished"]
    assert (run.info.status, run.data.params["method.lamb"]) == ("FINISHED", "0.05")
    assert [point.step for point in first.client.get_metric_history(run.info.run_id, "val/probe_top1")] == [1]
    assert 0 < run.data.metrics["test/linear_top1"] <= 1
    assert {"cell_key", "mlflow.source.git.commit", "git_dirty", "mlflow.user", "version.torch"} <= set(run.data.tags)


def test_the_search_proposes_different_points_and_runs_the_best_with_the_other_seed(first: SimpleNamespace) -> None:
    runs = runs_of(first.client, "tiny_search")
    lambs = {seed: {run.data.params["method.lamb"] for run in runs if run.data.params["seed"] == seed} for seed in "01"}
    assert (len(runs), len(lambs["0"]), len(lambs["1"])) == (3, 2, 1)
    assert lambs["1"] < lambs["0"]
    assert all(0.01 <= float(lamb) <= 0.1 for lamb in lambs["0"])


def test_the_terminal_shows_results_and_no_log_noise(first: SimpleNamespace) -> None:
    assert "tiny_grid: 1 finished, 1 diverged, 1 failed of 3 cells; 3 ended in this launch" in first.out
    for word in ("3/3", "failed: ConfigError", "failed cells run again with --retry failed", "MLflow store:"):
        assert word in first.out, first.out
    assert first.err == ""
    note = first.client.get_experiment_by_name("tiny_grid").tags["mlflow.note.content"]
    assert note.startswith("Cells that end badly.")
    assert "|" in note
    assert {path.name for path in first.folder.iterdir()} == {"results"}


def test_a_second_launch_runs_only_cells_without_a_result(first: SimpleNamespace) -> None:
    code, out, err = launched(first.folder, "--dry-run")
    assert (code, out.count("  failed ")) == (0, 1), err
    code, out, _ = launched(first.folder, grids=GRIDS[:1])
    assert (code, "tiny_grid: 2 of 2 cells done" in out, "tiny_search: 3 of 3 cells done" in out) == (0, True, True)
    assert len(runs_of(first.client, "tiny_grid")) == 3
