"""Differences by rank, the heart of sliced Wasserstein distances: on a CPU by NumPy's sort, on a GPU by torch's."""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK = 2**16  # samples sorted at once: with their keys they stay in a core's cache
_INDEX_BITS = 28


@torch.no_grad()
def differences_by_rank(x: Tensor, y: Tensor) -> Tensor:
    """What each x exceeds the y of the same rank by, within rows: x[m, v, n] - sort(y[m, v])[rank of n in x[m, v]].

    Equal x share their ranks in an arbitrary but reproducible order. A row of x with a NaN or an infinity makes some
    result in its neighbourhood NaN or infinite, and raises nothing.

    Args:
        x: (M, V, N), contiguous, in fp32 or float64; overwritten.
        y: (M, V, N) or, one for all V, (M, 1, N), likewise; overwritten.

    Returns:
        (M, V, N). No device synchronisation.
    """
    if x.device.type != "cpu":
        ordered, places = x.sort(dim=-1)
        return x.scatter_(-1, places, ordered - y.sort(dim=-1).values)
    if not x.numel():
        return x
    # NumPy's sort, with the processor's vector units (AVX-512), takes a thirtieth of torch.sort's time and releases the
    # GIL.
    many = -(-_CHUNK // x[0].numel())
    chunks = list(zip(_array(x, many), _array(y, many), strict=True))
    threads = min(torch.get_num_threads(), len(chunks))
    if threads == 1:
        for chunk in chunks:
            _subtract_by_rank(*chunk)
    else:
        list(_pool(threads).map(_subtract_by_rank, *zip(*chunks, strict=True)))
    return x


def _array(x: Tensor, many: int) -> list[NDArray]:
    """Views of x's memory, many rows each."""
    return [part.numpy() for part in x.split(many)]


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="sort")


def _subtract_by_rank(x: NDArray, y: NDArray) -> None:
    """x -= y by rank, in place; sorts y."""
    with np.errstate(all="ignore"):  # what is not finite shows in the result
        y.sort()
        ordered, places = _sort_with_places(x) if x.dtype == np.float32 else _argsort_with_places(x)
        ordered -= y
        x.reshape(-1)[places] = ordered


def _sort_with_places(x: NDArray) -> tuple[NDArray, NDArray]:
    """The sorted fp32 rows and where in x each value lay: argsort costs seven times as much as this sort of keys.

    A key is the value in float64 with the place in the low bits of its mantissa, which are zero, and too low to
    change the value when it is rounded back.
    """
    assert x.size < 2**_INDEX_BITS, f"a place must fit a key's low bits, got {x.shape}"
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


def _argsort_with_places(x: NDArray) -> tuple[NDArray, NDArray]:
    places = np.argsort(x)
    ordered = np.take_along_axis(x, places, axis=-1)
    places += np.arange(0, x.size, x.shape[-1]).reshape(*x.shape[:-1], 1)
    return ordered, places
