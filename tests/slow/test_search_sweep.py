"""A fair ablation with early stopping, then without: candidates that were stopped early run on.

Run: python -m pytest tests/slow/test_search_sweep.py
"""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

SWEEP = """
import dataclasses, sys
from optuna.distributions import FloatDistribution
from jepa_train.methods import LeJEPA
from jepa_train.config.presets import DIGITS
from sweeps.engine import Sweep
from sweeps.engine.cluster.session import ray_session
from sweeps.engine.cli.main import main
from sweeps.engine.spec.objective import Asha
BASE = dataclasses.replace(DIGITS, method=LeJEPA(num_slices=16), epochs=3, global_batch=256)
SWEEP = Sweep(name="tiny_fair", purpose="A fair ablation.", base=BASE, cpus_per_worker=2, seeds=(0, 1),
    grid={"method.num_slices": [16, 32]}, space={"optim.lr": FloatDistribution(1e-4, 1e-1, log=True)}, trials=3,
    early_stopping=Asha(first=1))
if __name__ == "__main__":
    with ray_session(num_cpus=2):  # one for both launches; one cell at a time, on any machine
        first = main(SWEEP, __file__, [])
        print("=" * 20, flush=True)
        second = main(dataclasses.replace(SWEEP, early_stopping=None), __file__, [])
    sys.exit(first + second)
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Both launches in one process, and the runs of all cells with their curves."""
    folder = tmp_path_factory.mktemp("fair")
    (folder / "tiny_fair.py").write_text(SWEEP)
    environment = {**os.environ, "JEPA_RESULTS": str(folder / "results")}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "tiny_fair.py"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(f"sqlite:///{folder / 'results' / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("tiny_fair").experiment_id])
    cells = [run for run in found if "cell_key" in run.data.tags]
    curves = [(run, client.get_metric_history(run.info.run_id, "val/probe_top1")) for run in cells]
    return SimpleNamespace(first=done.stdout.partition("=" * 20)[0], runs=curves)


def test_candidates_are_given_up_by_early_stopping_and_say_so(launched):
    assert "early stopping at epoch 1: " in launched.first
    assert "is not among the best 1/3 of" in launched.first


def test_every_cell_ends_finished_in_one_run_with_each_epoch_once(launched):
    assert len({run.data.tags["cell_key"] for run, _ in launched.runs}) == len(launched.runs)
    assert {run.data.tags["status"] for run, _ in launched.runs} == {"finished"}
    assert {tuple(sorted(point.step for point in curve)) for _, curve in launched.runs} == {(1, 2, 3)}


def test_each_grid_point_has_its_search_and_its_winner_the_other_seed(launched):
    for slices in ("16", "32"):
        mine = [run for run, _ in launched.runs if run.data.params["method.num_slices"] == slices]
        candidates = [run for run in mine if run.data.params["seed"] == "0"]
        assert len(candidates) == 3
        best = min(candidates, key=lambda run: (-run.data.metrics["val/probe_top1"], run.data.tags["cell_key"]))
        others = {run.data.params["optim.lr"] for run in mine if run.data.params["seed"] == "1"}
        assert best.data.params["optim.lr"] in others
    for run, curve in launched.runs:
        if run.data.params["seed"] == "0":
            assert json.loads(run.data.tags["rungs"]) == {"1": min(curve, key=lambda point: point.step).value}
