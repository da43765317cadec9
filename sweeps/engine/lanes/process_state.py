"""FreshProcess: every run in a process that serves many starts from the state in which the first one started."""

import gc
import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.backends import cuda, cudnn, mkldnn

# What a run may have set, whether in our code or in that of a model: how it is read, how it is set again.
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, lambda _: torch.set_default_device(None)),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
    (lambda: torch.is_autocast_enabled("cuda"), lambda on: torch.set_autocast_enabled("cuda", on)),
    (lambda: cudnn.benchmark, lambda on: setattr(cudnn, "benchmark", on)),
    (lambda: cudnn.deterministic, lambda on: setattr(cudnn, "deterministic", on)),
    (lambda: cudnn.allow_tf32, lambda on: setattr(cudnn, "allow_tf32", on)),
    (lambda: cuda.matmul.allow_tf32, lambda on: setattr(cuda.matmul, "allow_tf32", on)),
    (lambda: mkldnn.enabled, lambda on: setattr(mkldnn, "enabled", on)),
)


class FreshProcess:
    """Remembers the process's state when it is made, before the first run.

    Args:
        threads: of torch on the CPU: they change the last bits, so they come from the sweep, not from the machine.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._settings = [read() for read, _ in _SETTINGS]
        self._environment = dict(os.environ)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """For one run: that state again, with the memory of the runs before given back."""
        gc.collect()
        gc.freeze()  # what survives is modules: looking through them again would take 0.2 s per run
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        for (read, write), value in zip(_SETTINGS, self._settings, strict=True):
            if read() != value:
                write(value)
        if dict(os.environ) != self._environment:
            os.environ.clear()
            os.environ.update(self._environment)
        torch.set_num_threads(self._threads)
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        with warnings.catch_warnings():
            yield
