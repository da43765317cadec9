"""Runs that share a process, whatever the others did to it: bit for bit those of a process of their own."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from sweeps.engine.lanes.process_state import FreshProcess

# A parent that has imported everything and computed nothing forks one process per list of runs: cheap fresh processes.
PROCESSES = """
import json, os, sys, warnings
from pathlib import Path
import torch
from jepa_train.checkpoint.checkpoints import read_checkpoint
from jepa_train.config import ModelConfig, OptimConfig, ProbeConfig
from jepa_train.config.flat import unflatten
from sweeps.engine.lanes.process_state import FreshProcess
from jepa_train.methods import RectifiedLpJEPA
from jepa_train.config.presets import DIGITS
from jepa_train.train.loop import train
import torch._dynamo, jepa_train.losses.matmul

common = {"global_batch": 300, "epochs": 1, "probe.protocols": "knn"}
CONFIGS = {
    "a": unflatten(common | {"model.swa_decay": 0.9}, base=DIGITS),
    "b": unflatten(
        common | {"method": "rectified_lpjepa", "method.num_slices": 64, "optim.name": "lars", "optim.lr": 0.3,
                  "precision": "bf16", "views.global_size": 24, "model.channels_last": False, "seed": 3},
        base=DIGITS,
    ),
}

def vandal():
    torch.set_num_threads(1 if torch.get_num_threads() == 2 else 2)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    torch.backends.mkldnn.enabled = False
    torch.manual_seed(7)
    os.environ["OMP_NUM_THREADS"] = "7"
    raise OSError("a cell that fails")

def serve(names, threads, folder):
    fresh = FreshProcess(threads)
    found = []
    for number, name in enumerate(names):
        reports = []
        try:
            with fresh.restored():
                if name == "vandal":
                    vandal()
                own = folder / f"{number}"
                train(CONFIGS[name], report=lambda metrics: reports.append(metrics) is not None, checkpoints=own)
        except OSError:
            continue
        state = read_checkpoint(own / "final.pt")["network"]
        bits = {key: value.double().reshape(-1).numpy().tobytes().hex() for key, value in state.items()}
        times = {"train/images_per_s", "train/peak_memory_gb"}
        metrics = {key: float(value).hex() for key, value in reports[-1].items() if key not in times}
        found.append([name, metrics, hash(tuple(sorted(bits.items())))])
    (folder / "found.json").write_text(json.dumps(found))

for job in json.loads(sys.argv[1]):
    folder = Path(job["folder"])
    folder.mkdir(parents=True)
    if os.fork() == 0:
        serve(job["names"], job["threads"], folder)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], list[list[object]]]:
    """(runs of one process, threads) -> name, metrics and weights of each."""
    folder = tmp_path_factory.mktemp("served")
    jobs = [
        {"names": names.split(), "threads": threads, "folder": str(folder / f"{names} {threads}")}
        for threads in (1, 2)
        for names in ("a", "b", "a b vandal a" if threads == 1 else "b vandal a b")
    ]
    environment = os.environ | {"PYTHONHASHSEED": "0", "JEPA_RESULTS": str(folder), "OMP_WAIT_POLICY": "passive"}
    environment.pop("OMP_NUM_THREADS", None)
    subprocess.run([sys.executable, "-c", PROCESSES, json.dumps(jobs)], check=True, env=environment, timeout=300)
    return {
        (" ".join(job["names"]), job["threads"]): json.loads((Path(job["folder"]) / "found.json").read_text())
        for job in jobs
    }


@pytest.mark.parametrize(("names", "threads"), [("a b vandal a", 1), ("b vandal a b", 2)])
def test_runs_that_share_a_process_are_bit_for_bit_those_of_fresh_ones(
    names: str, threads: int, served: dict[tuple[str, int], list[list[object]]]
) -> None:
    found = served[names, threads]
    assert [name for name, *_ in found] == names.replace("vandal ", "").split()
    for run in found:
        (alone,) = served[str(run[0]), threads]
        assert run == alone


def test_the_number_of_threads_matters_or_the_comparison_above_says_nothing(
    served: dict[tuple[str, int], list[list[object]]],
) -> None:
    assert served["a", 1] != served["a", 2]


def test_what_a_run_sets_is_gone_at_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_SWEEP", "kept")
    threads = torch.get_num_threads()
    fresh = FreshProcess(threads)
    with fresh.restored():
        drawn = (torch.rand(1).item(), np.random.rand())
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        torch.set_num_threads(threads + 1)
        os.environ["OF_THE_SWEEP"] = "changed"
        os.environ["OF_A_RUN"] = "1"
        warnings.simplefilter("error")
    with fresh.restored():
        assert (torch.rand(1).item(), np.random.rand()) == drawn
        assert torch.zeros(1).dtype == torch.float32
        assert torch.zeros(1).device.type == "cpu"
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.benchmark
        assert torch.get_num_threads() == threads
        assert (os.environ["OF_THE_SWEEP"], os.environ.get("OF_A_RUN")) == ("kept", None)
        warnings.warn("no error", stacklevel=1)
