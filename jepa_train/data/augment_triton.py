"""Views of small square images on a GPU: one launch, in which each program makes a whole view.

A pixel of the view is a weighted sum over the few pixels of the image below it, which are read from the cache: a crop
of twice the view's size has four by four of them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from jepa_train.base.kernel_launch import launch
from jepa_train.data.pictures import Source

_PER_WARP = 256  # pixels of the view: 8 per thread, whose colors and intermediate values fit in registers


def fused_views(source: Source, fields: Tensor, out: Tensor) -> None:
    """Write the views as augment.torch_views does, up to rounding, but for blur: its field is not read.

    Of three channels a program makes a view, of another number one channel of a view, whose fields of saturation, hue
    and grayscale are not read.

    Args:
        source: squares.
        fields: (fields, N * V) of augment.view_fields, on the device of the source.
        out: (V, N, C, s, s) of at most 64 px, in fp32, bf16 or fp16, with any strides.
    """
    assert not source.lines, "the kernel is written for squares"
    assert all(x.is_contiguous() for x in (source.pixels, source.first, source.norm, fields))
    assert fields.dtype == torch.float32, fields.dtype
    num_views, num, channels, size, _ = out.shape
    padded = triton.next_power_of_2(size)
    launch(
        _make_view,
        (num, num_views, 1 if channels == 3 else channels),
        source.pixels,
        source.first,
        fields,
        source.norm,
        out,
        *out.stride(),
        source.pixels.shape[-1],
        channels,
        IS_COLOR=channels == 3,
        MOST=torch.iinfo(source.pixels.dtype).max,
        SIZE=size,
        PADDED=padded,
        num_warps=max(padded**2 // _PER_WARP, 1),
    )


@triton.jit
def _clamp(x):  # type: ignore[no-untyped-def]
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@triton.jit
def _luma(r, g, b):  # type: ignore[no-untyped-def]
    return 0.2989 * r + 0.587 * g + 0.114 * b


@triton.jit
def _filter(length, flip, SIZE: tl.constexpr, PADDED: tl.constexpr):  # type: ignore[no-untyped-def]
    """The triangle filters along one side of the view, as augment_ops.resampling_matrices defines them.

    In pixels of the crop: their centers, half their width, and the first pixel within each; and how many lie within.
    """
    scale = length / SIZE
    index = tl.arange(0, PADDED)
    center = scale * tl.where(flip > 0, SIZE - index - 0.5, index + 0.5)
    reach = tl.maximum(scale, 1.0)
    return center, reach, tl.floor(center - reach - 0.5) + 1, tl.ceil(2 * reach).to(tl.int32)


@triton.jit
def _weight(pixel, center, reach, length):  # type: ignore[no-untyped-def]
    """Weight of a pixel of the crop, before normalization; 0 beyond the ends of the crop."""
    weight = tl.maximum(1 - tl.abs(pixel + 0.5 - center) / reach, 0.0)
    return tl.where((pixel >= 0) & (pixel < length), weight, 0.0)


@triton.jit
def _place(pixel, start, length):  # type: ignore[no-untyped-def]
    """Row or column in the image of a pixel of the crop, or of the nearest one that exists."""
    return (start + tl.minimum(tl.maximum(pixel, 0.0), length - 1)).to(tl.int32)


@triton.jit
def _store(out, x, norm, channels, inside):  # type: ignore[no-untyped-def]
    """Write a channel of a view, normalised by its factor, at norm, and its offset."""
    x = x * tl.load(norm) + tl.load(norm + channels)
    tl.store(out, x.to(out.dtype.element_ty), mask=inside)


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
    norm_ptr,
    out_ptr,
    view_stride,
    image_stride,
    channel_stride,
    row_stride,
    column_stride,
    side,
    channels,
    IS_COLOR: tl.constexpr,
    MOST: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED: tl.constexpr,
):
    """Program (i, v, c) makes channel c, or with IS_COLOR all three, of view v of image i.

    The rows of the fields are augment.FIELDS; MOST is the largest value of a pixel.
    """
    image, view, channel = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    count = tl.num_programs(0) * tl.num_programs(1)
    field = fields_ptr + image * tl.num_programs(1) + view
    top, left = tl.load(field), tl.load(field + count)
    height, width = tl.load(field + 2 * count), tl.load(field + 3 * count)
    flip = tl.load(field + 4 * count)
    brightness, contrast = tl.load(field + 5 * count), tl.load(field + 6 * count)
    saturation, hue = tl.load(field + 7 * count), tl.load(field + 8 * count)
    grayscale, threshold = tl.load(field + 9 * count), tl.load(field + 11 * count)

    source = pixels_ptr + (tl.load(first_ptr + image) * channels + channel) * (side * side)
    center_y, reach_y, first_y, count_y = _filter(height, 0.0, SIZE, PADDED)
    center_x, reach_x, first_x, count_x = _filter(width, flip, SIZE, PADDED)
    r = tl.zeros((PADDED, PADDED), tl.float32)
    g = tl.zeros((PADDED, PADDED), tl.float32)
    b = tl.zeros((PADDED, PADDED), tl.float32)
    total = tl.zeros((PADDED, PADDED), tl.float32)
    for y in range(count_y):
        weight_y = _weight(first_y + y, center_y, reach_y, height)
        row = _place(first_y + y, top, height) * side
        for x in range(count_x):
            weight = weight_y[:, None] * _weight(first_x + x, center_x, reach_x, width)[None, :]
            pixel = source + row[:, None] + _place(first_x + x, left, width)[None, :]
            total += weight
            r += weight * tl.load(pixel).to(tl.float32)
            if IS_COLOR:
                g += weight * tl.load(pixel + side * side).to(tl.float32)
                b += weight * tl.load(pixel + 2 * side * side).to(tl.float32)
    index = tl.arange(0, PADDED)
    inside = (index < SIZE)[:, None] & (index < SIZE)[None, :]
    share = tl.where(inside, 1 / (MOST * tl.maximum(total, 1e-6)), 0.0)  # 0 in the padding
    r, g, b = _clamp(r * share), _clamp(g * share), _clamp(b * share)

    # the branches are the same for all threads of a program
    if (brightness != 1) | (contrast != 1) | (saturation != 1):
        r, g, b = _clamp(r * brightness), _clamp(g * brightness), _clamp(b * brightness)
        mean = tl.sum(_luma(r, g, b) if IS_COLOR else r) / (SIZE * SIZE)
        shift = mean * (1 - contrast)
        r, g, b = _clamp(r * contrast + shift), _clamp(g * contrast + shift), _clamp(b * contrast + shift)
        if IS_COLOR:
            r, g, b = _saturate(r, g, b, saturation)
    if IS_COLOR:
        if hue != 0:
            r, g, b = _shift_hue(r, g, b, hue)
        if grayscale != 1:
            r, g, b = _saturate(r, g, b, grayscale)
    r = tl.where(r >= threshold, 1 - r, r)
    g = tl.where(g >= threshold, 1 - g, g)
    b = tl.where(b >= threshold, 1 - b, b)

    out = out_ptr + view.to(tl.int64) * view_stride + image.to(tl.int64) * image_stride + channel * channel_stride
    out += index[:, None] * row_stride + index[None, :] * column_stride
    norm = norm_ptr + channel
    _store(out, r, norm, channels, inside)
    if IS_COLOR:
        _store(out + channel_stride, g, norm + 1, channels, inside)
        _store(out + 2 * channel_stride, b, norm + 2, channels, inside)
