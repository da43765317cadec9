"""Runs that share a process: the same bits whatever ran before them.

Run: python -m pytest tests/slow/test_shared_process.py
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_train.checkpoint.checkpoints import read_checkpoint
from jepa_train.config.flat import unflatten
from jepa_train.config.presets import DIGITS
from jepa_train.train.loop import train
from sweeps.engine.lanes.process_state import FreshProcess

COMMON = {"global_batch": 300, "epochs": 1, "probe.protocols": "knn"}
FIRST = unflatten(COMMON | {"model.swa_decay": 0.9}, base=DIGITS)
OTHER = unflatten(
    COMMON
    | {
        "method": "rectified_lpjepa",
        "method.num_slices": 64,
        "optim.name": "lars",
        "optim.lr": 0.3,
        "precision": "bf16",
        "views.global_size": 24,
        "model.channels_last": False,
        "seed": 3,
    },
    base=DIGITS,
)
TIMES = {"train/images_per_s", "train/peak_memory_gb"}


def vandal() -> None:
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    torch.backends.mkldnn.enabled = False
    torch.manual_seed(7)
    os.environ["OMP_NUM_THREADS"] = "7"
    raise OSError("a cell that fails")


def test_a_run_has_the_same_bits_before_and_after_others(tmp_path: Path) -> None:
    fresh = FreshProcess(threads=1)

    def result(name: str, config: Any) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        reports: list[dict[str, float]] = []
        with fresh.restored():
            train(config, report=lambda metrics: reports.append(metrics) is not None, checkpoints=tmp_path / name)
        metrics = {key: value for key, value in reports[-1].items() if key not in TIMES}
        return metrics, read_checkpoint(tmp_path / name / "final.pt")["network"]

    before = result("first", FIRST)
    assert result("other", OTHER)[0] != before[0]
    with pytest.raises(OSError, match="a cell that fails"), fresh.restored():
        vandal()
    metrics, network = result("again", FIRST)
    assert metrics == before[0]
    assert all(torch.equal(value, before[1][key]) for key, value in network.items())
