"""Differences by rank, the core of sliced Wasserstein distances: fp32 on a CPU by NumPy's sort, else by torch's."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK = 2**16  # samples sorted at once: with their keys they stay in a core's cache
_INDEX_BITS = 28


@torch.no_grad()
def differences_by_rank(x: Tensor, y: Tensor) -> Tensor:
    """Differences of equal ranks within rows: x[m, v, n] - sort(y[m, v])[rank of n in x[m, v]].

    Equal x share their ranks in an arbitrary but reproducible order. A row of x with a NaN or an infinity makes some
    result in its neighbourhood NaN or infinite, and raises nothing.

    Args:
        x: (M, V, N), contiguous, in fp32 or float64; overwritten.
        y: (M, V, N) or, one for all V, (M, 1, N), likewise; overwritten.

    Returns:
        (M, V, N). No device synchronisation.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32:
        ordered, places = x.sort(dim=-1)
        return x.scatter_(-1, places, ordered - y.sort(dim=-1).values)
    if not x.numel():
        return x
    # NumPy's sort uses AVX-512, takes a thirtieth of torch.sort's time and releases the GIL.
    rows = -(-_CHUNK // x[0].numel())
    chunks = [(a.numpy(), b.numpy()) for a, b in zip(x.split(rows), y.split(rows), strict=True)]
    threads = min(torch.get_num_threads(), len(chunks))
    list(_pool(threads, os.getpid()).map(_subtract_by_rank, *zip(*chunks, strict=True)))
    return x


@functools.cache
def _pool(threads: int, _process: int) -> ThreadPoolExecutor:
    # of this process: a forked one inherits the pool without its threads, and would wait for ever
    return ThreadPoolExecutor(threads, thread_name_prefix="sort")


def _subtract_by_rank(x: NDArray, y: NDArray) -> None:
    """x -= y by rank, in place; sorts y."""
    with np.errstate(all="ignore"):  # values that are not finite show in the result
        y.sort()
        ordered, places = _sort_with_places(x)
        ordered -= y
        x.reshape(-1)[places] = ordered


def _sort_with_places(x: NDArray) -> tuple[NDArray, NDArray]:
    """The sorted fp32 rows and each value's index in x: argsort takes seven times as long as this sort of keys.

    A key is the value in float64 with the index in the low bits of its mantissa, which are zero, and too low to change
    the value when it is rounded back.
    """
    assert x.size < 2**_INDEX_BITS, f"an index must fit a key's low bits, got {x.shape}"
    keys = x.astype(np.float64)
    places = keys.view(np.int64)
    places |= _places(x.size).reshape(x.shape)
    keys.sort()
    ordered = keys.astype(np.float32)
    places &= 2**_INDEX_BITS - 1
    return ordered, places


@functools.lru_cache(maxsize=4)
def _places(count: int) -> NDArray:
    return np.arange(count)
