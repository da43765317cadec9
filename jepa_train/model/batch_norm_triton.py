"""Batch norm over views and ranks on a GPU: three Triton kernels forward, three backward, with an optional ReLU.

An input (V * N, C), or (V * N, C, h, w) with channels last, is V matrices of R = N h w rows and C columns.
Statistics, sums and arithmetic are in fp32. No atomics: rows are divided into splits, whose partial results are merged
in a fixed order, so results repeat bit for bit. Means and squared deviations are merged by Chan et al. (1979): nothing
cancels, however far the mean is from zero.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from jepa_train.base.kernel_launch import launch

_TILE = 4096  # entries of a matrix that a program holds at a time: 16 per thread
_WARPS = 8
_COLUMNS = 64  # per program: 128 bytes of a row in bf16
_PROGRAMS = 1024  # about as many as run at a time on a large GPU
_SPLITS = 256  # per view at most, merged by one program ...
_MERGED = 16  # ... for so many columns


def has_form(x: Tensor) -> bool:
    """True for the shapes and types of the kernels."""
    return x.ndim in (2, 4) and x.dtype in (torch.float32, torch.bfloat16, torch.float16)


def laid_out(x: Tensor) -> Tensor:
    """x in the layout of the kernels: the same tensor if it has it already, as behind a convolution in that layout."""
    return x.contiguous(memory_format=torch.contiguous_format if x.ndim == 2 else torch.channels_last)


def view_statistics(x: Tensor, views: int) -> Tensor:
    """(V, 2, C): mean and biased variance of each view's rows. Two launches."""
    tiles = _Tiles(x, views)
    parts = tiles.empty(tiles.splits)
    tiles.run(_deviations, x, parts)
    found = tiles.empty()
    tiles.merge(_merge_deviations, (tiles.views,), parts, found, tiles.rows, tiles.columns, tiles.per_split)
    return found


def normalize(
    x: Tensor, found: Tensor, weight: Tensor, bias: Tensor, buffers: Any, *, eps: float, relu: bool
) -> tuple[Tensor, Tensor]:
    """Normalise every view, and update the running statistics view by view. One launch.

    Args:
        found: (W, V, 2, C), statistics of all ranks.
        buffers: a batch norm with running_mean, running_var, num_batches_tracked and momentum.

    Returns:
        Like x; and (V, 2, C), the global mean and inverse standard deviation of each view.
    """
    ranks, views = found.shape[:2]
    tiles = _Tiles(x, views)
    out, scales = torch.empty_like(x), tiles.empty()
    count = ranks * tiles.rows
    running = buffers.running_mean, buffers.running_var, buffers.num_batches_tracked
    numbers = ranks, views, buffers.momentum, count / (count - 1), eps
    tiles.run(_normalize, x, out, found, scales, weight, bias, *running, *numbers, RELU=relu)
    return out, scales


def gradient_sums(
    grad: Tensor, x: Tensor, scales: Tensor, weight: Tensor, bias: Tensor, *, relu: bool
) -> tuple[Tensor, Tensor]:
    """Sums over this rank's rows of grad, where ReLU let it through, and of grad times the normalised x. Two launches.

    Returns:
        (V, 2, C), of each view; and (2, C), over the views: the gradients of bias and weight.
    """
    tiles = _Tiles(x, len(scales))
    parts = tiles.empty(tiles.splits)
    tiles.run(_products, grad, x, scales, weight, bias, parts, RELU=relu)
    sums, total = tiles.empty(), tiles.empty()[0]
    tiles.merge(_merge_products, (), parts, sums, total, tiles.columns, tiles.views)
    return sums, total


def input_gradient(
    grad: Tensor, x: Tensor, scales: Tensor, sums: Tensor, weight: Tensor, bias: Tensor, *, relu: bool
) -> Tensor:
    """Gradient of the input, like x, through the statistics of all ranks too. One launch.

    Args:
        sums: (W, V, 2, C), gradient_sums of all ranks.
    """
    ranks, views = sums.shape[:2]
    tiles = _Tiles(x, views)
    out = torch.empty_like(x)
    share = 1 / (ranks * tiles.rows)
    tiles.run(_input_gradient, grad, x, scales, sums, weight, bias, out, ranks, views, share, RELU=relu)
    return out


class _Tiles:
    """Division of the matrices of x among programs: (splits of rows, tiles of columns, views)."""

    def __init__(self, x: Tensor, views: int) -> None:
        self.views, self.columns = views, x.shape[1]
        self.rows = x.numel() // (views * self.columns)
        self._x = x
        self._width = min(triton.next_power_of_2(self.columns), _COLUMNS)
        self._height = _TILE // self._width
        across = triton.cdiv(self.columns, self._width)
        wanted = min(max(_PROGRAMS // (across * views), 1), _SPLITS)
        self.per_split = self._height * triton.cdiv(self.rows, self._height * wanted)
        self.splits = triton.cdiv(self.rows, self.per_split)
        self._grid = (self.splits, across, views)

    def empty(self, *splits: int) -> Tensor:
        """(V, 2, C) in fp32, or (V, splits, 2, C)."""
        return self._x.new_empty(self.views, *splits, 2, self.columns, dtype=torch.float32)

    def run(self, kernel: Any, *args: Any, **constants: bool) -> None:
        """Run a kernel on all tiles; its last arguments are the tiles' sizes."""
        sizes = {"ROWS": self._height, "COLUMNS": self._width, "num_warps": _WARPS}
        launch(kernel, self._grid, *args, self.rows, self.columns, self.per_split, **constants, **sizes)

    def merge(self, kernel: Any, grid: tuple[int, ...], *args: Any) -> None:
        """Run a kernel that merges the splits, for some columns per program."""
        whole = (triton.cdiv(self.columns, _MERGED), *grid)
        launch(kernel, whole, *args, self.splits, SPLITS=triton.next_power_of_2(self.splits), COLUMNS=_MERGED)


@triton.jit
def _columns(columns, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    """This program's columns, and the mask of those inside."""
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    return column, column < columns


@triton.jit
def _place(start, last, rows, columns, column, kept, ROWS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Start of a tile in this program's view, its (ROWS, COLUMNS) offsets from there, and the masks of its rows and
    entries. Only the start may exceed 2^31."""
    row = tl.arange(0, ROWS)
    inside = start + row < last
    begin = (tl.program_id(2).to(tl.int64) * rows + start) * columns
    return begin, row[:, None] * columns + column[None, :], inside, inside[:, None] & kept[None, :]


@triton.jit
def _deviations(  # type: ignore[no-untyped-def]
    x_ptr, out_ptr, rows, columns, per_split, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """out[view, split]: mean of the split's rows, and sum of their squared deviations from it."""
    column, kept = _columns(columns, COLUMNS)
    first = tl.program_id(0) * per_split
    last = tl.minimum(first + per_split, rows)
    seen = tl.zeros((ROWS,), tl.float32)
    mean = tl.zeros((ROWS, COLUMNS), tl.float32)
    squares = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(first, last, ROWS):  # Welford's algorithm, for each row of the tile by itself
        begin, offsets, inside, mask = _place(start, last, rows, columns, column, kept, ROWS)
        x = tl.load(x_ptr + begin + offsets, mask=mask, other=0.0).to(tl.float32)
        seen += inside.to(tl.float32)
        change = tl.where(inside[:, None], x - mean, 0.0)
        mean += change * (1.0 / tl.maximum(seen, 1.0))[:, None]
        squares += change * (x - mean)
    count = seen[:, None]
    center = tl.sum(mean * count, axis=0) / (last - first)
    spread = mean - center[None, :]
    out = out_ptr + 2 * (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)) * columns + column
    tl.store(out, center, mask=kept)
    tl.store(out + columns, tl.sum(squares + count * spread * spread, axis=0), mask=kept)


@triton.jit
def _merge_deviations(  # type: ignore[no-untyped-def]
    parts_ptr, out_ptr, rows, columns, per_split, splits, SPLITS: tl.constexpr, COLUMNS: tl.constexpr
):
    """out[view]: mean and biased variance of its rows."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    view, kept = tl.program_id(1), column < columns
    split = tl.arange(0, SPLITS)
    mask = (split < splits)[:, None] & kept[None, :]
    parts = parts_ptr + 2 * (view * splits + split)[:, None] * columns + column[None, :]
    means = tl.load(parts, mask=mask, other=0.0)
    squares = tl.load(parts + columns, mask=mask, other=0.0)
    count = tl.minimum(tl.maximum(rows - split * per_split, 0), per_split).to(tl.float32)[:, None]
    mean = tl.sum(means * count, axis=0) / rows
    spread = means - mean[None, :]
    out = out_ptr + 2 * view * columns + column
    tl.store(out, mean, mask=kept)
    tl.store(out + columns, tl.sum(squares + count * spread * spread, axis=0) / rows, mask=kept)


@triton.jit
def _of_all_ranks(found_ptr, view, ranks, views, columns, column, kept):  # type: ignore[no-untyped-def]
    """Mean and biased variance of a view's rows on all ranks, which have equally many."""
    per_rank = 2 * views * columns
    start = found_ptr + 2 * view * columns + column
    mean = tl.zeros_like(column).to(tl.float32)
    for rank in range(ranks):
        mean += tl.load(start + rank * per_rank, mask=kept, other=0.0)
    mean /= ranks
    variance = tl.zeros_like(mean)
    for rank in range(ranks):
        spread = tl.load(start + rank * per_rank, mask=kept, other=0.0) - mean
        variance += tl.load(start + rank * per_rank + columns, mask=kept, other=0.0) + spread * spread
    return mean, variance / ranks


@triton.jit
def _normalize(  # type: ignore[no-untyped-def]
    x_ptr,
    out_ptr,
    found_ptr,
    scales_ptr,
    weight_ptr,
    bias_ptr,
    running_mean_ptr,
    running_var_ptr,
    batches_ptr,
    ranks,
    views,
    momentum,
    correction,
    eps,
    rows,
    columns,
    per_split,
    RELU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    column, kept = _columns(columns, COLUMNS)
    split, view = tl.program_id(0), tl.program_id(2)
    mean, variance = _of_all_ranks(found_ptr, view, ranks, views, columns, column, kept)
    scale = 1.0 / tl.sqrt(variance + eps)
    if split == 0:
        scales = scales_ptr + 2 * view * columns + column
        tl.store(scales, mean, mask=kept)
        tl.store(scales + columns, scale, mask=kept)
        if view == 0:
            running_mean = tl.load(running_mean_ptr + column, mask=kept, other=0.0)
            running_var = tl.load(running_var_ptr + column, mask=kept, other=0.0)
            for each in range(views):
                new_mean, new_var = _of_all_ranks(found_ptr, each, ranks, views, columns, column, kept)
                running_mean += momentum * (new_mean - running_mean)
                running_var += momentum * (new_var * correction - running_var)
            tl.store(running_mean_ptr + column, running_mean, mask=kept)
            tl.store(running_var_ptr + column, running_var, mask=kept)
            if tl.program_id(1) == 0:
                tl.store(batches_ptr, tl.load(batches_ptr) + views)
    weight = tl.load(weight_ptr + column, mask=kept, other=0.0)
    bias = tl.load(bias_ptr + column, mask=kept, other=0.0)
    first = split * per_split
    last = tl.minimum(first + per_split, rows)
    for start in range(first, last, ROWS):
        begin, offsets, _inside, mask = _place(start, last, rows, columns, column, kept, ROWS)
        x = tl.load(x_ptr + begin + offsets, mask=mask, other=0.0).to(tl.float32)
        normal = (x - mean[None, :]) * scale[None, :] * weight[None, :] + bias[None, :]
        if RELU:
            normal = tl.where(normal <= 0.0, 0.0, normal)  # NaN stays, as in torch
        tl.store(out_ptr + begin + offsets, normal, mask=mask)


@triton.jit
def _scales(scales_ptr, weight_ptr, bias_ptr, columns, column, kept):  # type: ignore[no-untyped-def]
    """Mean and inverse standard deviation of this program's view, weight and bias: (1, COLUMNS) each."""
    scales = scales_ptr + 2 * tl.program_id(2) * columns + column
    mean = tl.load(scales, mask=kept, other=0.0)
    scale = tl.load(scales + columns, mask=kept, other=0.0)
    weight = tl.load(weight_ptr + column, mask=kept, other=0.0)
    bias = tl.load(bias_ptr + column, mask=kept, other=0.0)
    return mean[None, :], scale[None, :], weight[None, :], bias[None, :]


@triton.jit
def _passed(grad_ptr, x_ptr, offsets, mask, mean, scale, weight, bias, RELU: tl.constexpr):  # type: ignore[no-untyped-def]
    """The gradient of the normalised x before ReLU, and the normalised x without weight and bias."""
    grad = tl.load(grad_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    normal = (tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32) - mean) * scale
    if RELU:
        grad = tl.where(normal * weight + bias <= 0.0, 0.0, grad)
    return grad, normal


@triton.jit
def _products(  # type: ignore[no-untyped-def]
    grad_ptr,
    x_ptr,
    scales_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    rows,
    columns,
    per_split,
    RELU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """out[view, split]: sums over its rows of the gradient, and of the gradient times the normalised x."""
    column, kept = _columns(columns, COLUMNS)
    mean, scale, weight, bias = _scales(scales_ptr, weight_ptr, bias_ptr, columns, column, kept)
    first = tl.program_id(0) * per_split
    last = tl.minimum(first + per_split, rows)
    plain = tl.zeros((ROWS, COLUMNS), tl.float32)
    products = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(first, last, ROWS):
        begin, offsets, _inside, mask = _place(start, last, rows, columns, column, kept, ROWS)
        grad, normal = _passed(grad_ptr + begin, x_ptr + begin, offsets, mask, mean, scale, weight, bias, RELU)
        plain += grad
        products += grad * normal
    out = out_ptr + 2 * (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)) * columns + column
    tl.store(out, tl.sum(plain, axis=0), mask=kept)
    tl.store(out + columns, tl.sum(products, axis=0), mask=kept)


@triton.jit
def _merge_products(  # type: ignore[no-untyped-def]
    parts_ptr, out_ptr, total_ptr, columns, views, splits, SPLITS: tl.constexpr, COLUMNS: tl.constexpr
):
    """out[view]: the sums of its splits; total: the sums of the views."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    kept = column < columns
    split = tl.arange(0, SPLITS)
    mask = (split < splits)[:, None] & kept[None, :]
    all_plain = tl.zeros((COLUMNS,), tl.float32)
    all_products = tl.zeros((COLUMNS,), tl.float32)
    for view in range(views):
        parts = parts_ptr + 2 * (view * splits + split)[:, None] * columns + column[None, :]
        plain = tl.sum(tl.load(parts, mask=mask, other=0.0), axis=0)
        products = tl.sum(tl.load(parts + columns, mask=mask, other=0.0), axis=0)
        out = out_ptr + 2 * view * columns + column
        tl.store(out, plain, mask=kept)
        tl.store(out + columns, products, mask=kept)
        all_plain += plain
        all_products += products
    tl.store(total_ptr + column, all_plain, mask=kept)
    tl.store(total_ptr + columns + column, all_products, mask=kept)


@triton.jit
def _input_gradient(  # type: ignore[no-untyped-def]
    grad_ptr,
    x_ptr,
    scales_ptr,
    sums_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    ranks,
    views,
    share,
    rows,
    columns,
    per_split,
    RELU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """weight * scale * (grad - mean(grad) - normal * mean(grad * normal)); the means are over all ranks' rows."""
    column, kept = _columns(columns, COLUMNS)
    mean, scale, weight, bias = _scales(scales_ptr, weight_ptr, bias_ptr, columns, column, kept)
    plain = tl.zeros((COLUMNS,), tl.float32)
    products = tl.zeros((COLUMNS,), tl.float32)
    for rank in range(ranks):
        sums = sums_ptr + 2 * (rank * views + tl.program_id(2)) * columns + column
        plain += tl.load(sums, mask=kept, other=0.0)
        products += tl.load(sums + columns, mask=kept, other=0.0)
    first = tl.program_id(0) * per_split
    last = tl.minimum(first + per_split, rows)
    for start in range(first, last, ROWS):
        begin, offsets, _inside, mask = _place(start, last, rows, columns, column, kept, ROWS)
        grad, normal = _passed(grad_ptr + begin, x_ptr + begin, offsets, mask, mean, scale, weight, bias, RELU)
        rest = plain[None, :] * share + normal * (products[None, :] * share)
        tl.store(out_ptr + begin + offsets, weight * scale * (grad - rest), mask=mask)
