"""Differences by rank of rank_matching.py on a GPU: one Triton program sorts a row and its row of targets."""

import triton
import triton.language as tl
from torch import Tensor

from jepa_train.base.kernel_launch import launch

_PER_WARP = 256


def subtract_by_rank(x: Tensor, y: Tensor, squares: Tensor, *, scale: float) -> None:
    """x[m, v, n] -= sort(y[m, v])[rank of n in x[m, v]], in place, and the sums of the squared differences of the rows.

    Bit for bit as x.sort(stable=True) gives it: equal x have the ranks of their places, zeros of either sign are equal,
    NaN is larger than infinity. (A difference of zeros may have the other sign.) A NaN or an infinity shows in its own
    result, in those of the values that its rank moves, and in the row's sum.

    Args:
        x: (M, V, N), contiguous, in fp32, N at most 2048.
        y: (M, V, N) or, one for all V, (M, 1, N), likewise; unchanged.
        squares: (M, V), receives scale * the sum over n.
    """
    num = x.shape[-1]
    width = max(triton.next_power_of_2(num), 16)
    sharing = x.shape[1] // y.shape[1]  # rows of x per row of y
    rows = x.shape[0] * x.shape[1]
    warps = max(width // _PER_WARP, 1)
    launch(_subtract_by_rank, (rows,), x, y, squares, num, sharing, scale, WIDTH=width, num_warps=warps)


@triton.jit
def _ordered(x):  # type: ignore[no-untyped-def]
    """fp32 -> int32 of the same order; one zero, and one NaN, which is the largest but for the padding."""
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    return tl.where(x != x, 0x7FC00000, bits ^ ((bits >> 31) & 0x7FFFFFFF))


@triton.jit
def _value(key):  # type: ignore[no-untyped-def]
    """The inverse of _ordered."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _subtract_by_rank(  # type: ignore[no-untyped-def]
    x_ptr, y_ptr, squares_ptr, num, sharing, scale, WIDTH: tl.constexpr
):
    """One row of x and of y. Each result of a sort depends on all values, so a row is read before it is written."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, WIDTH)
    inside = place < num
    x = tl.load(x_ptr + row * num + place, mask=inside, other=0.0)
    y = tl.load(y_ptr + row // sharing * num + place, mask=inside, other=0.0)
    wanted = tl.sort(tl.where(inside, _ordered(y), 0x7FFFFFFF))
    keys = tl.where(inside, _ordered(x), 0x7FFFFFFF).to(tl.int64)
    keys = tl.sort((keys << 32) | place.to(tl.int64))
    difference = _value((keys >> 32).to(tl.int32)) - _value(wanted)
    tl.store(x_ptr + row * num + (keys & (WIDTH - 1)), difference, mask=inside)
    squared = tl.where(inside, difference * difference, 0.0)
    tl.store(squares_ptr + row, scale * tl.sum(squared, axis=0))
