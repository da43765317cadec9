"""The command line, killed by SIGKILL after a checkpoint, resumes from an object store.

The chaos test kills whole launches, whose checkpoints are on a disk.

Run: python -m pytest tests/slow/test_resume_process.py
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from jepa_train.checkpoint.checkpoints import read_checkpoint
from jepa_train.storage.storage import storage_path

WORDS = ["epochs=2", "global_batch=300", "model.swa_decay=0.9", "probe.protocols=knn", "snapshot_epochs=1"]
# The command, which dies as soon as another process can see its first checkpoint.
DYING = """
import os, runpy, signal, sys, time
from jepa_train.checkpoint.checkpoints import Checkpoints
from jepa_train.storage.storage import storage_path
save, folder = Checkpoints.save, storage_path(sys.argv[-1])
def dying(*given):
    save(*given)
    while not any(name.startswith("step-") and name.endswith(".pt") for name in folder.names()):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
Checkpoints.save = dying
runpy.run_module("jepa_train", run_name="__main__")
"""


def test_a_killed_process_is_resumed_by_the_same_command(s3: str, tmp_path: Path) -> None:
    def started(*command: str, machine: str, checkpoints: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command, *WORDS, "--checkpoints", checkpoints],
            **{"env": os.environ | {"JEPA_RESULTS": f"{tmp_path}/{machine}"}, "timeout": 300},
            **{"capture_output": True, "text": True, "check": False},
        )

    first = started("-c", DYING, machine="first", checkpoints=s3)
    assert first.returncode == -signal.SIGKILL, first.stderr
    again = started("-m", "jepa_train", machine="second", checkpoints=s3)
    assert again.returncode == 0, again.stderr
    assert "going on after step 4 of 8" in again.stderr
    undisturbed = started("-m", "jepa_train", machine="third", checkpoints=f"{tmp_path}/undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    for name in ("epoch-0001.pt", "epoch-0002.pt", "final.pt"):
        found, expected = (read_checkpoint(storage_path(at) / name) for at in (s3, f"{tmp_path}/undisturbed"))
        assert all(torch.equal(value, expected["network"][key]) for key, value in found["network"].items()), name
