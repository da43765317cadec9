"""FreshProcess: each run in a process that serves many starts from the state in which the first one started."""

import gc
import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.backends import cuda, cudnn, mkldnn

# Settings that a run, or the code of its model, may change: a reader and a writer of each.
_FLAGS: list[tuple[Any, str]] = [(cudnn, name) for name in ("benchmark", "deterministic", "allow_tf32")]
_FLAGS += [(cuda.matmul, "allow_tf32"), (mkldnn, "enabled")]
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, lambda _: torch.set_default_device(None)),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    *((partial(getattr, owner, name), partial(setattr, owner, name)) for owner, name in _FLAGS),
)


class FreshProcess:
    """Records the process's state when it is made, before the first run.

    Args:
        threads: of torch on the CPU. They change the last bits, so the sweep sets them, not the machine.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._settings = [read() for read, _ in _SETTINGS]
        self._environment = dict(os.environ)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restore that state for one run, and free the memory of the runs before."""
        gc.collect()
        gc.freeze()  # what survives is modules: scanning them again would take 0.2 s per run
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
