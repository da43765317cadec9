"""A tuned ablation with early stopping, launched twice: the second launch, without it, completes the pruned cells.

Run: python -m pytest tests/slow/test_search_sweep.py
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from optuna.distributions import FloatDistribution

from jepa_train.config.presets import DIGITS
from jepa_train.methods import LeJEPA
from sweeps.engine import Asha, Sweep, main

SWEEP = Sweep(
    name="tiny_fair",
    purpose="A tuned ablation.",
    base=dataclasses.replace(DIGITS, method=LeJEPA(num_slices=16), epochs=3, global_batch=256),
    cpus_per_worker=2,
    seeds=(0, 1),
    grid={"method.num_slices": [16, 32]},
    space={"optim.lr": FloatDistribution(1e-4, 1e-1, log=True)},
    trials=3,
    early_stopping=Asha(first=1),
)


def of_seed(cells: list[Any], seed: str) -> list[Any]:
    return [run for run in cells if run.data.params["seed"] == seed]


@pytest.mark.usefixtures("shared_ray")
def test_a_tuned_ablation_prunes_candidates_and_a_launch_without_early_stopping_completes_them(
    results: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(SWEEP, "tiny_fair.py", []) == 0
    printed = capsys.readouterr().out
    assert "early stopping at epoch 1: " in printed
    assert "is not among the best 1/3 of" in printed
    assert main(dataclasses.replace(SWEEP, early_stopping=None), "tiny_fair.py", []) == 0

    client = MlflowClient(f"sqlite:///{results / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("tiny_fair").experiment_id])
    cells = [run for run in found if "cell_key" in run.data.tags]
    assert len({run.data.tags["cell_key"] for run in cells}) == len(cells), "one run per cell"
    assert {run.data.tags["status"] for run in cells} == {"finished"}
    for run in cells:
        curve = sorted(client.get_metric_history(run.info.run_id, "val/probe_top1"), key=lambda point: point.step)
        assert [point.step for point in curve] == [1, 2, 3], "each epoch once"
        if run.data.params["seed"] == "0":
            assert json.loads(run.data.tags.get("rungs", "{}")) == {"1": curve[0].value}
    for slices in ("16", "32"):
        point = [run for run in cells if run.data.params["method.num_slices"] == slices]
        candidates = of_seed(point, "0")
        assert len(candidates) == 3
        best = min(candidates, key=lambda run: (-run.data.metrics["val/probe_top1"], run.data.tags["cell_key"]))
        assert best.data.params["optim.lr"] in {run.data.params["optim.lr"] for run in of_seed(point, "1")}
