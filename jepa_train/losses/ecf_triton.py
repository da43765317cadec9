"""Waves of ecf.py on a GPU: two fused Triton kernels, each of which reads x once.

Neither uses atomics: a sum over the samples is one partial sum per tile of samples, added up afterwards in a fixed
order, so results repeat bit for bit.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_COLUMNS = 32  # per tile: 128 bytes of a row
_ROWS = 256  # at most per tile: each further tile adds a partial sum at all knots
_PER_WARP = 512  # entries per warp: 16 per thread, whose six values each fit in registers


class TritonWaves:
    """Waves of an fp32 x by fused kernels; on a CPU only in Triton's interpreter. series computes the sines again, as
    storing them costs more. For first, stride and num see Knots."""

    def __init__(self, x: Tensor, *, first: float, stride: int, num: int) -> None:
        assert x.dtype == torch.float32, f"the kernels are written for fp32, not for {x.dtype}"
        self._x = x.contiguous()
        self._first, self._squared, self._num = first, stride == 2, num
        self._rows = min(max(triton.next_power_of_2(x.shape[-2]), 16), _ROWS)
        self._grid = (triton.cdiv(x.shape[-1], _COLUMNS), triton.cdiv(x.shape[-2], self._rows), x.shape[:-2].numel())

    def means(self) -> Tensor:
        """See Waves."""
        *leading, n, columns = self._x.shape
        partial = self._x.new_empty(self._grid[1], self._num, *leading, columns, 2)
        self._launch(_sums, partial)
        return torch.view_as_complex(partial.sum(0) / n)

    def series(self, coefficients: Tensor) -> Tensor:
        """See Waves."""
        out = torch.empty_like(self._x)
        self._launch(_series, torch.view_as_real(coefficients.resolve_conj().contiguous()), out)
        return out

    def _launch(self, kernel: Any, *tensors: Tensor) -> None:
        *_, n, columns = self._x.shape
        kernel[self._grid](
            self._x,
            *tensors,
            n,
            columns,
            self._num,
            self._first,
            SQUARED=self._squared,
            ROWS=self._rows,
            COLUMNS=_COLUMNS,
            num_warps=max(self._rows * _COLUMNS // _PER_WARP, 1),
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
def _series(  # type: ignore[no-untyped-def]
    x_ptr, in_ptr, out_ptr, n, columns, num, first, SQUARED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """out[leading index, row, column]: imaginary part of the series in[knot, leading index, column, re or im]."""
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
