"""Runs that share a process, whatever the others did to it: bit for bit those of a process of their own.

Run: python -m pytest tests/slow/test_shared_process.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

# A parent that has imported everything and computed nothing forks one process per list of runs: cheap fresh processes.
PROCESSES = """
import json, os, sys
from pathlib import Path
import torch
from jepa_train.checkpoint.checkpoints import read_checkpoint
from jepa_train.config.flat import unflatten
from sweeps.engine.lanes.process_state import FreshProcess
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
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    torch.backends.mkldnn.enabled = False
    torch.manual_seed(7)
    os.environ["OMP_NUM_THREADS"] = "7"
    raise OSError("a cell that fails")

def serve(names, folder):
    fresh = FreshProcess(threads=1)
    found = []
    for number, name in enumerate(names):
        reports, own = [], folder / f"{number}"
        try:
            with fresh.restored():
                if name == "vandal":
                    vandal()
                train(CONFIGS[name], report=lambda metrics: reports.append(metrics) is not None, checkpoints=own)
        except OSError:
            continue
        state = read_checkpoint(own / "final.pt")["network"]
        bits = {key: value.double().reshape(-1).numpy().tobytes().hex() for key, value in state.items()}
        times = {"train/images_per_s", "train/peak_memory_gb"}
        metrics = {key: float(value).hex() for key, value in reports[-1].items() if key not in times}
        found.append([name, metrics, hash(tuple(sorted(bits.items())))])
    (folder / "found.json").write_text(json.dumps(found))

for names in ("a", "b", "a b vandal a"):
    folder = Path(sys.argv[1]) / names
    folder.mkdir(parents=True)
    if os.fork() == 0:
        serve(names.split(), folder)
        os._exit(0)
    os.wait()
"""


def test_runs_that_share_a_process_are_bit_for_bit_those_of_fresh_ones(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "0", "JEPA_RESULTS": str(tmp_path), "OMP_WAIT_POLICY": "passive"}
    environment.pop("OMP_NUM_THREADS", None)
    subprocess.run([sys.executable, "-c", PROCESSES, str(tmp_path)], check=True, env=environment, timeout=300)
    alone, shared = {}, json.loads((tmp_path / "a b vandal a" / "found.json").read_text())
    for name in ("a", "b"):
        (alone[name],) = json.loads((tmp_path / name / "found.json").read_text())
    assert [run[0] for run in shared] == ["a", "b", "a"]
    assert shared == [alone["a"], alone["b"], alone["a"]]
