"""Settings, environment and random state that a run changes are restored for the next one.

Run: python -m pytest tests/unit/lanes/test_process_state.py
"""

import os
import warnings

import numpy as np
import pytest
import torch

from sweeps.engine.lanes.process_state import FreshProcess


def test_changes_of_a_run_are_undone_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
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
