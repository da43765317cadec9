"""Views of small square images on a GPU: one launch, in which a program makes a whole view.

An image and a view lie in registers. Sizes are padded to powers of two: pixels and weights there are 0.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from jepa_train.data.pictures import Source

_CHUNK = 16  # rows of an image that are multiplied at a time, which bounds the registers
_WARPS = {16: 2, 32: 4, 64: 8}  # by padded size of the view


def fused_views(source: Source, fields: Tensor, out: Tensor) -> None:
    """Write the views as augment.static_views does, up to rounding, but for blur: its field is not read.

    Args:
        source: squares of at most 64 px.
        fields: (fields, N * V) of augment.view_fields, on the device of the source.
        out: (V, N, 3, s, s) of at most 64 px, in fp32, bf16 or fp16, with any strides.
    """
    size_in, size_out = source.pixels.shape[-1], out.shape[-1]
    assert not source.lines
    assert source.pixels.is_contiguous() and fields.is_contiguous() and fields.dtype == torch.float32
    num_views, num = out.shape[:2]
    padded_in, padded_out = (max(triton.next_power_of_2(size), 16) for size in (size_in, size_out))
    _make_view[(num, num_views)](
        source.pixels,
        source.first,
        fields,
        out,
        *out.stride(),
        SIZE_IN=size_in,
        SIZE_OUT=size_out,
        PADDED_IN=padded_in,
        PADDED_OUT=padded_out,
        CHUNK=_CHUNK,
        num_warps=_WARPS[padded_out],
    )


@triton.jit
def _clamp(x):  # type: ignore[no-untyped-def]
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@triton.jit
def _luma(r, g, b):  # type: ignore[no-untyped-def]
    return 0.2989 * r + 0.587 * g + 0.114 * b


@triton.jit
def _weights(start, length, flip, pixel, SIZE_OUT: tl.constexpr, PADDED_OUT: tl.constexpr):  # type: ignore[no-untyped-def]
    """(PADDED_OUT, pixels): the columns of augment_ops.resampling_matrices for these pixels, before normalization."""
    scale = length / SIZE_OUT
    index = tl.arange(0, PADDED_OUT)
    center = scale * tl.where(flip > 0, SIZE_OUT - index - 0.5, index + 0.5)
    at = pixel + 0.5 - start
    weight = tl.maximum(1 - tl.abs(at[None, :] - center[:, None]) / tl.maximum(scale, 1.0), 0.0)
    inside = ((at > 0) & (at < length))[None, :] & (index < SIZE_OUT)[:, None]
    return tl.where(inside, weight, 0.0)


@triton.jit
def _add_rows(total, source, offsets, inside, rows, columns):  # type: ignore[no-untyped-def]
    """Add what some rows of one color contribute to the view: rows (PADDED_OUT, CHUNK), columns (PADDED_IN, PADDED_OUT).

    Three products in TF32 have the precision of fp32, and keep fewer values in registers than fp32's.
    """
    x = tl.load(source + offsets, mask=inside, other=0).to(tl.float32) / 255
    return tl.dot(rows, tl.dot(x, columns, input_precision="tf32x3"), total, input_precision="tf32x3")


@triton.jit
def _saturate(r, g, b, factor):  # type: ignore[no-untyped-def]
    gray = _luma(r, g, b) * (1 - factor)
    return _clamp(r * factor + gray), _clamp(g * factor + gray), _clamp(b * factor + gray)


@triton.jit
def _shift_hue(r, g, b, turns):  # type: ignore[no-untyped-def]
    low, high = tl.minimum(tl.minimum(r, g), b), tl.maximum(tl.maximum(r, g), b)
    chroma = high - low
    at = tl.where(high == r, g - b, tl.where(high == g, b - r + 2 * chroma, r - g + 4 * chroma))
    at = at / (6 * tl.maximum(chroma, 1e-12)) + turns + 1
    at = (at - tl.floor(at)) * 6
    r = low + chroma * _clamp(tl.abs(at - 3) - 1)
    g = low + chroma * _clamp(2 - tl.abs(at - 2))
    b = low + chroma * _clamp(2 - tl.abs(at - 4))
    return r, g, b


@triton.jit
def _make_view(  # type: ignore[no-untyped-def]
    pixels_ptr,
    first_ptr,
    fields_ptr,
    out_ptr,
    view_stride,
    image_stride,
    channel_stride,
    row_stride,
    column_stride,
    SIZE_IN: tl.constexpr,
    SIZE_OUT: tl.constexpr,
    PADDED_IN: tl.constexpr,
    PADDED_OUT: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Program (i, v) makes view v of image i; the rows of the fields are augment.FIELDS."""
    image, view = tl.program_id(0), tl.program_id(1)
    count = tl.num_programs(0) * tl.num_programs(1)
    field = fields_ptr + image * tl.num_programs(1) + view
    top, left = tl.load(field), tl.load(field + count)
    height, width = tl.load(field + 2 * count), tl.load(field + 3 * count)
    flip = tl.load(field + 4 * count)
    brightness, contrast = tl.load(field + 5 * count), tl.load(field + 6 * count)
    saturation, hue = tl.load(field + 7 * count), tl.load(field + 8 * count)
    grayscale, threshold = tl.load(field + 9 * count), tl.load(field + 11 * count)

    across = tl.arange(0, PADDED_IN)
    columns = _weights(left, width, flip, across, SIZE_OUT, PADDED_OUT)
    columns = tl.trans(columns / tl.maximum(tl.sum(columns, axis=1), 1e-6)[:, None])
    source = pixels_ptr + tl.load(first_ptr + image) * (3 * SIZE_IN * SIZE_IN)
    r = tl.zeros((PADDED_OUT, PADDED_OUT), tl.float32)
    g = tl.zeros((PADDED_OUT, PADDED_OUT), tl.float32)
    b = tl.zeros((PADDED_OUT, PADDED_OUT), tl.float32)
    weight = tl.zeros((PADDED_OUT,), tl.float32)
    for start in range(0, SIZE_IN, CHUNK):
        down = start + tl.arange(0, CHUNK)
        rows = _weights(top, height, 0.0, down, SIZE_OUT, PADDED_OUT)
        weight += tl.sum(rows, axis=1)
        offsets = down[:, None] * SIZE_IN + across[None, :]
        inside = (down < SIZE_IN)[:, None] & (across < SIZE_IN)[None, :]
        r = _add_rows(r, source, offsets, inside, rows, columns)
        g = _add_rows(g, source + SIZE_IN * SIZE_IN, offsets, inside, rows, columns)
        b = _add_rows(b, source + 2 * SIZE_IN * SIZE_IN, offsets, inside, rows, columns)
    share = (1 / tl.maximum(weight, 1e-6))[:, None]
    r, g, b = _clamp(r * share), _clamp(g * share), _clamp(b * share)

    # the branches are the same for all threads of a program
    if (brightness != 1) | (contrast != 1) | (saturation != 1):
        r, g, b = _clamp(r * brightness), _clamp(g * brightness), _clamp(b * brightness)
        mean = tl.sum(_luma(r, g, b)) / (SIZE_OUT * SIZE_OUT)  # the padding is 0
        shift = mean * (1 - contrast)
        r, g, b = _clamp(r * contrast + shift), _clamp(g * contrast + shift), _clamp(b * contrast + shift)
        r, g, b = _saturate(r, g, b, saturation)
    if hue != 0:
        r, g, b = _shift_hue(r, g, b, hue)
    if grayscale != 1:
        r, g, b = _saturate(r, g, b, grayscale)
    r = tl.where(r >= threshold, 1 - r, r)
    g = tl.where(g >= threshold, 1 - g, g)
    b = tl.where(b >= threshold, 1 - b, b)

    across = tl.arange(0, PADDED_OUT)
    inside = (across < SIZE_OUT)[:, None] & (across < SIZE_OUT)[None, :]
    out = out_ptr + view.to(tl.int64) * view_stride + image.to(tl.int64) * image_stride
    out += across[:, None] * row_stride + across[None, :] * column_stride
    kind = out_ptr.dtype.element_ty
    tl.store(out, (r * 4 - 2).to(kind), mask=inside)
    tl.store(out + channel_stride, (g * 4 - 2).to(kind), mask=inside)
    tl.store(out + 2 * channel_stride, (b * 4 - 2).to(kind), mask=inside)
