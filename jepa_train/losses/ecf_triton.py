"""The Epps-Pulley statistic on a GPU: three fused Triton kernels, of which the first and the last read x once each.

None uses atomics: a sum over the samples is one partial sum per tile of samples, added up afterwards in a fixed order,
so results repeat bit for bit.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from jepa_train.base.kernel_launch import launch
from jepa_train.losses.ecf import Knots

_COLUMNS = 32  # per tile: 128 bytes of a row
_ROWS = 256  # at most per tile: each further tile adds a partial sum at all knots
_PER_WARP = 512  # entries per warp: 16 per thread, whose six values each fit in registers


def wave_sums(x: Tensor, knots: Knots) -> Tensor:
    """(..., N, K), fp32 -> (tiles, num, ..., K, 2): real and imaginary parts of the sums of exp(i t_k x) over N, which
    the sum over the tiles of samples completes. As many tiles for every x of this shape."""
    *leading, _, columns = x.shape
    out = x.new_empty(_grid(x)[1], knots.num, *leading, columns, 2)
    _launch(_sums, x, out, knots=knots)
    return out


def statistics(sums: Tensor, values: Tensor, knots: Knots, *, samples: int, scale: float = 1.0) -> Tensor:
    """Store scale * the statistic of each column in values, (..., K), and return the coefficients of its derivative.

    Args:
        sums: of wave_sums, added up over the ranks.
        values: contiguous; receives samples * sum over k of w_k |sum_k / samples - exp(-t_k^2 / 2)|^2, times scale.
        samples: on all ranks.

    Returns:
        (num, ..., K, 2): as derivative takes them.
    """
    coefficients = torch.empty_like(sums[0])
    launch(
        _statistics,
        (triton.cdiv(values.numel(), _COLUMNS),),
        *(sums, coefficients, values, values.numel(), len(sums), samples, scale),
        *(knots.num, knots.first, knots.stride),
        COLUMNS=_COLUMNS,
        KNOTS=16,
        num_warps=1,
    )
    return coefficients


def derivative(x: Tensor, coefficients: Tensor, knots: Knots, *, values: Tensor, total: Tensor) -> Tensor:
    """(..., N, K): imaginary part of sum_k coefficients_k exp(i t_k x). Computes the sines again, as storing them costs
    more. Stores the sum of values, contiguous, in the scalar total, to save a launch."""
    out = torch.empty_like(x)
    _launch(_series, x, coefficients, out, values, total, values.numel(), knots=knots)
    return out


def _tile_rows(x: Tensor) -> int:
    return min(max(triton.next_power_of_2(x.shape[-2]), 16), _ROWS)


def _grid(x: Tensor) -> tuple[int, int, int]:
    return triton.cdiv(x.shape[-1], _COLUMNS), triton.cdiv(x.shape[-2], _tile_rows(x)), x.shape[:-2].numel()


def _launch(kernel: Any, x: Tensor, *arguments: Any, knots: Knots) -> None:
    assert x.dtype == torch.float32, f"the kernels are written for fp32, not for {x.dtype}"
    assert x.is_contiguous()
    rows = _tile_rows(x)
    launch(
        kernel,
        _grid(x),
        *(x, *arguments, x.shape[-2], x.shape[-1], knots.num, knots.first),
        SQUARED=knots.stride == 2,
        ROWS=rows,
        COLUMNS=_COLUMNS,
        num_warps=max(rows * _COLUMNS // _PER_WARP, 1),
    )


@triton.jit
def _tile(n, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Start of this program's tile of x, the (ROWS, COLUMNS) offsets from there, and the mask of those inside x; then
    start and mask of the tile's columns in a row per leading index. Only the starts may exceed 2^31."""
    row = tl.program_id(1) * ROWS
    column = tl.program_id(0) * COLUMNS
    lead = tl.program_id(2).to(tl.int64)
    rows, across = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    kept = column + across < columns
    inside = (row + rows < n)[:, None] & kept[None, :]
    return (lead * n + row) * columns + column, rows[:, None] * columns + across, inside, lead * columns + column, kept


@triton.jit
def _wave(x_ptr, offsets, inside, first, SQUARED: tl.constexpr):  # type: ignore[no-untyped-def]
    """exp(i first x) and the ratio between neighbouring knots: real and imaginary parts of both."""
    angle = first * tl.load(x_ptr + offsets, mask=inside, other=0.0)
    re, im = tl.cos(angle), tl.sin(angle)
    if SQUARED:
        return re, im, re * re - im * im, 2 * re * im
    else:
        return re, im, re, im


@triton.jit
def _sums(  # type: ignore[no-untyped-def]
    x_ptr, out_ptr, n, columns, num, first, SQUARED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """out[tile of rows, knot, leading index, column, re or im]: the sum over the tile's rows."""
    start, offsets, inside, place, kept = _tile(n, columns, ROWS, COLUMNS)
    re, im, ratio_re, ratio_im = _wave(x_ptr + start, offsets, inside, first, SQUARED)
    re = tl.where(inside, re, 0.0)  # 0 stays 0 under the products below
    im = tl.where(inside, im, 0.0)
    per_knot = tl.num_programs(2).to(tl.int64) * columns
    out = out_ptr + 2 * (tl.program_id(1) * num * per_knot + place)
    pairs = 2 * tl.arange(0, COLUMNS)
    for _ in range(num):
        tl.store(out + pairs, tl.sum(re, axis=0), mask=kept)
        tl.store(out + pairs + 1, tl.sum(im, axis=0), mask=kept)
        re, im = re * ratio_re - im * ratio_im, re * ratio_im + im * ratio_re
        out += 2 * per_knot


@triton.jit
def _statistics(  # type: ignore[no-untyped-def]
    sums_ptr,
    out_ptr,
    values_ptr,
    columns,
    tiles,
    samples,
    scale,
    num,
    first,
    stride,
    COLUMNS: tl.constexpr,
    KNOTS: tl.constexpr,
):
    """sums[tile, knot, column, re or im], leading indices among the columns -> out[knot, column, re or im], values."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    value = tl.zeros((COLUMNS,), tl.float32)
    for begin in range(0, num, KNOTS):
        knot = begin + tl.arange(0, KNOTS)[:, None]
        inside = (knot < num) & (column < columns)[None, :]
        t = first * (1 + stride * knot)
        gaussian = tl.exp(-0.5 * t * t)
        weight = tl.where(knot == num - 1, 1.0, 2.0) * first * stride * gaussian  # twice the spacing: for t and -t
        re = tl.zeros((KNOTS, COLUMNS), tl.float32)
        im = tl.zeros((KNOTS, COLUMNS), tl.float32)
        for tile in range(tiles):
            place = 2 * ((tile * num + knot).to(tl.int64) * columns + column[None, :])
            re += tl.load(sums_ptr + place, mask=inside, other=0.0)
            im += tl.load(sums_ptr + place + 1, mask=inside, other=0.0)
        re = re / samples - gaussian
        im = im / samples
        value += tl.sum(tl.where(inside, weight * (re * re + im * im), 0.0), axis=0)
        # d|error|^2 = 2 Re(conj(error) i t exp(itx)) / N dx, and N is the factor of the statistic
        place = 2 * (knot.to(tl.int64) * columns + column[None, :])
        tl.store(out_ptr + place, -2 * scale * weight * t * re, mask=inside)
        tl.store(out_ptr + place + 1, 2 * scale * weight * t * im, mask=inside)
    tl.store(values_ptr + column, scale * samples * value, mask=column < columns)


@triton.jit
def _series(  # type: ignore[no-untyped-def]
    x_ptr,
    in_ptr,
    out_ptr,
    values_ptr,
    total_ptr,
    num_values,
    n,
    columns,
    num,
    first,
    SQUARED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """out[leading index, row, column]: imaginary part of the series in[knot, leading index, column, re or im].

    The first program also adds up the values.
    """
    if (tl.program_id(0) == 0) & (tl.program_id(1) == 0) & (tl.program_id(2) == 0):
        place = tl.arange(0, 256)
        summed = tl.zeros((256,), tl.float32)
        for begin in range(0, num_values, 256):
            summed += tl.load(values_ptr + begin + place, mask=begin + place < num_values, other=0.0)
        tl.store(total_ptr, tl.sum(summed, axis=0))
    start, offsets, inside, place, kept = _tile(n, columns, ROWS, COLUMNS)
    re, im, ratio_re, ratio_im = _wave(x_ptr + start, offsets, inside, first, SQUARED)
    per_knot = tl.num_programs(2).to(tl.int64) * columns
    coefficient = in_ptr + 2 * ((num - 1) * per_knot + place)
    pairs = 2 * tl.arange(0, COLUMNS)
    total_re = tl.zeros((ROWS, COLUMNS), tl.float32)
    total_im = tl.zeros((ROWS, COLUMNS), tl.float32)
    for _ in range(num):  # Horner's scheme
        more_re = tl.load(coefficient + pairs, mask=kept, other=0.0)[None, :]
        more_im = tl.load(coefficient + pairs + 1, mask=kept, other=0.0)[None, :]
        total_re, total_im = (
            total_re * ratio_re - total_im * ratio_im + more_re,
            total_re * ratio_im + total_im * ratio_re + more_im,
        )
        coefficient -= 2 * per_knot
    tl.store(out_ptr + start + offsets, total_re * im + total_im * re, mask=inside)
