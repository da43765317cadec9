"""The short form of `python -m benchmarks.chaos --quick`: one fault of most kinds, and the sweep ends as in peace."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_sweep_under_fire_ends_like_one_in_peace():
    """Expectation: the same cells by train() alone, in one process, without Ray and MLflow."""
    command = [sys.executable, "-m", "benchmarks.chaos", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 faults" in done.stdout
