"""Batched multi-crop augmentation on the training device: no loop over images, no transform object per image.

Order of the operations, fixed (torchvision shuffles the four of the jitter): random resized crop, flip, brightness,
contrast, saturation, hue, grayscale, blur, solarize. Each agrees with torchvision.transforms.v2.functional on the same
parameters, in float. A probability or strength of 0 skips its operation and changes no other operation's draws.

view_fields draws on the host, apply_views computes on the device; make_views is both. The device part has three forms:
on a CPU an operation is computed for the views that it changes; on a GPU for all views, so that launches and shapes are
the same in every step and nothing is read back, and small views without blur are made by one Triton kernel.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from jepa_train.base.kernel_launch import runs_kernels
from jepa_train.base.seeds import generator
from jepa_train.config import ViewsConfig
from jepa_train.data import augment_ops
from jepa_train.data.device_transfer import to_device
from jepa_train.data.pictures import ASPECT, Shapes, Source, center_of, gather

_ATTEMPTS = 10  # to draw a crop that fits, as torchvision; then the whole image
_SIGMA = (0.1, 2.0)  # of the blur, in pixels, uniform
_THRESHOLD = 0.5  # of solarization: values that round to 128 of 255 or more
_DRAWS = 2 * _ATTEMPTS + 12  # uniform numbers per view of an image

_AT_ONCE = {"cpu": 2**18, "gpu": 2**25}  # floats in the views of one chunk; on a CPU per thread

_Operation = tuple[str, Callable[[Tensor, Tensor], Tensor], float]  # the parameter's name and neutral value

# In order of application. A stage gathers the views that one of its operations changes and scatters them back once.
_STAGES: tuple[tuple[_Operation, ...], ...] = (
    (
        ("brightness", augment_ops.brightness, 1.0),
        ("contrast", augment_ops.contrast, 1.0),
        ("saturation", augment_ops.saturation, 1.0),
        ("hue", augment_ops.hue, 0.0),
    ),
    (("grayscale", augment_ops.saturation, 1.0),),
    (("blur", augment_ops.blur, 0.0),),
    (("solarize", augment_ops.solarize, math.inf),),
)
_JITTER = [name for name, _, _ in _STAGES[0]]
_INEXACT = ("hue", "blur")  # with the neutral value the other operations return their argument bit for bit


class Parameters(NamedTuple):
    """Augmentation parameters of n views, each field (n,) on the CPU; the neutral value skips an operation."""

    top: Tensor  # the crop, in whole pixels
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor  # bool
    brightness: Tensor  # factors
    contrast: Tensor
    saturation: Tensor
    hue: Tensor  # turns of the color circle, in [-0.5, 0.5]
    grayscale: Tensor  # remaining saturation: 0 or 1
    blur: Tensor  # sigma in pixels
    solarize: Tensor  # threshold


FIELDS = (*Parameters._fields, "turned", "skipped")  # rows of a tensor of fields, see view_fields


def make_views(
    source: Source, config: ViewsConfig, *, seed: int, step: int, batch: slice, global_batch: int
) -> list[Tensor]:
    """The normalised views of this rank's images: view_fields, then apply_views.

    Args:
        source: N images, with lengths if whole pictures: the positions `batch` of the global batch.

    Returns:
        As apply_views: float32, on the device of the images.
    """
    fields = view_fields([source.shapes] * 2, config, seed=seed, step=step, batch=batch, global_batch=global_batch)
    return apply_views([source] * 2, [to_device(part, source.pixels.device) for part in fields], config)


def view_fields(
    shapes: Sequence[Shapes], config: ViewsConfig, *, seed: int, step: int, batch: slice, global_batch: int
) -> list[Tensor]:
    """Parameters of this rank's views of one step; the host part of making them.

    They are drawn from (seed, step, view, position in the global batch), on the CPU, and so depend neither on the
    number of ranks nor on the device.

    Args:
        shapes: of the N images that global views are cropped from, and of those for local views.
        batch: their positions in the global batch.

    Returns:
        [global views], or [global views, local views]: (fields, N * V_r) float32 on the CPU, a row for each of FIELDS
        and the views of an image side by side; the shape depends on the config and N alone. Crops are in pixels as they
        are stored: turned is 1 where rows are the picture's columns, and top counts from the first of Shapes.lines
        lines that are gathered, which lie behind the skipped ones.
    """
    views = config.num_global + config.num_local
    draws = torch.rand(views, global_batch, _DRAWS, generator=generator(seed, step, "views"), dtype=torch.float64)
    draws = draws[:, batch]
    assert all(draws.shape[1] == len(each.heights) for each in shapes), (draws.shape, shapes)
    scales = (config.global_scale_min, config.global_scale_max), (config.local_scale_min, config.local_scale_max)
    fields = []
    for each, part, scale in zip(shapes, draws.split([config.num_global, config.num_local]), scales, strict=True):
        if len(part):
            sides = [side.repeat_interleave(len(part)) for side in (each.heights, each.widths)]
            values = parameters(part.transpose(0, 1).flatten(0, 1), config, scale=scale, sides=sides)
            fields.append(to_fields(values, sides, each.lines))
    return fields


def apply_views(
    sources: Sequence[Source],
    fields: Sequence[Tensor],
    config: ViewsConfig,
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> list[Tensor]:
    """Make the views with these fields; the device part.

    On a GPU every call has the same operations and shapes, never waits for the device and copies nothing to it, so that
    a CUDA graph can hold it.

    Args:
        sources: the N images that global views are cropped from, and those for local views.
        fields: of view_fields, on the device of the sources.
        dtype: of the views; computed in float32.
        channels_last: memory format of the views (V_r * N, C, s, s).

    Returns:
        Per resolution (V_r, N, C, s, s), normalised by Source.norm, on the device of the sources.
    """
    operations, results = occurring(config), []
    order = torch.channels_last if channels_last else torch.contiguous_format
    for source, part, size in zip(sources, fields, (config.global_size, config.local_size), strict=False):
        device = source.pixels.device
        shape = (part.shape[1], source.pixels.shape[1], size, size)
        out = torch.empty(shape, dtype=dtype, device=device, memory_format=order)
        out = out.unflatten(0, (-1, len(source.first)))
        with torch.no_grad(), _without_autocast(device):
            if runs_kernels(source.pixels) and _is_small(source, operations, size):
                from jepa_train.data.augment_triton import fused_views  # start-up time; Triton may be missing

                fused_views(source, part, out)
            else:
                torch_views(source, part, operations, out, choose=device.type == "cpu")
        results.append(out)
    return results


def to_input(source: Source, size: int, *, fov: float = 1.0) -> Tensor:
    """The middle of the images without augmentation, normalised as the views are.

    Args:
        source: N images, with lengths if whole pictures.
        fov: side of the middle square as a share of the shorter side.

    Returns:
        (N, C, size, size) float32.
    """
    pixels = center_of(source, fov)
    x = pixels.float().div_(torch.iinfo(pixels.dtype).max)
    if x.shape[-1] != size:
        x = functional.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    factor, offset = source.norm[..., None, None]
    return torch.addcmul(offset, x, factor)


def parameters(
    draws: Tensor, config: ViewsConfig, *, scale: tuple[float, float], sides: Sequence[Tensor]
) -> Parameters:
    """Map uniform numbers (n, draws) to parameters, for crops within the area scale.

    Args:
        sides: heights and widths of the images in pixels, (n,) each.
    """
    crop, rest = draws[:, : 2 * _ATTEMPTS + 2], draws[:, 2 * _ATTEMPTS + 2 :]
    flip, jitter, brightness, contrast, saturation, hue, grayscale, blur, sigma, solarize = rest.unbind(1)

    def factor(draw: Tensor, strength: float) -> Tensor:
        return torch.where(jitter < config.jitter, 1 + strength * (2 * draw - 1), 1.0)

    return Parameters(
        *_crops(crop, scale, *sides),
        flip=flip < config.flip,
        brightness=factor(brightness, config.brightness),
        contrast=factor(contrast, config.contrast),
        saturation=factor(saturation, config.saturation),
        hue=factor(hue, config.hue) - 1,
        grayscale=torch.where(grayscale < config.grayscale, 0.0, 1.0),
        blur=torch.where(blur < config.blur, _SIGMA[0] + (_SIGMA[1] - _SIGMA[0]) * sigma, 0.0),
        solarize=torch.where(solarize < config.solarize, _THRESHOLD, math.inf),
    )


def to_fields(values: Parameters, sides: Sequence[Tensor], lines: int) -> Tensor:
    """The parameters of n views as rows (fields, n); see view_fields.

    Args:
        sides: heights and widths of the images in pixels, (n,) each.
        lines: as in Shapes.
    """
    top, left, height, width = values[:4]
    turned = skipped = torch.zeros_like(top)
    if lines:
        heights, widths = sides
        turned = widths > heights
        crops = torch.stack(values[:4])
        top, left, height, width = torch.where(turned, crops[[1, 0, 3, 2]], crops)
        skipped = torch.minimum(top, (torch.maximum(heights, widths) - lines).clamp_min(0))
    rows = (top - skipped, left, height, width, *values[4:], turned, skipped)
    return torch.stack([row.float() for row in rows])


def occurring(config: ViewsConfig) -> frozenset[str]:
    """Names of the operations that the recipe applies to some views, besides crop and flip."""
    names = {name for stage in _STAGES for name, _, _ in stage if getattr(config, name) > 0}
    return frozenset(names if config.jitter > 0 else names.difference(_JITTER))


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    has_it = torch.amp.is_autocast_available(device.type)  # not so the meta device
    return torch.autocast(device.type, enabled=False) if has_it else nullcontext()


def _is_small(source: Source, operations: Collection[str], size: int) -> bool:
    """True if the Triton kernel makes such views: it holds a square image and a view in registers, and cannot blur."""
    return not source.lines and max(source.pixels.shape[-1], size) <= 64 and "blur" not in operations


def torch_views(
    source: Source, fields: Tensor, operations: Collection[str], out: Tensor, *, choose: bool = False
) -> None:
    """Write the views: crop, resize, flip, change and normalise in chunks of a few images.

    The chunks change no view: intermediate tensors stay in a CPU's cache and take a small share of a GPU's memory.

    Args:
        fields: (fields, N * V) of view_fields, on the device of the source.
        operations: those that occur.
        out: (V, N, C, s, s), of any dtype and strides.
        choose: compute each operation for the views that it changes, which costs nothing on a CPU; else for all, so
            that no operation, shape or copy depends on the fields. The views are the same.
    """
    change = _change_chosen if choose else _change_all
    num_views, num, channels, size, _ = out.shape
    device = out.device
    factor, offset = source.norm[..., None, None]
    area = source.pixels.shape[-1] * (source.lines or source.pixels.shape[-1])
    budget = _AT_ONCE["cpu"] * torch.get_num_threads() if device.type == "cpu" else _AT_ONCE["gpu"]
    at_once = max(1, budget // (num_views * channels * max(size * size, area)))
    for start in range(0, num, at_once):
        some = slice(start, start + at_once)
        of_views = slice(start * num_views, (start + at_once) * num_views)
        values = dict(zip(FIELDS, fields[:, of_views], strict=True))
        x = _crop_and_resize(_pixels(source, some, values["skipped"]), values, size)
        if source.lines:
            x = torch.where(values["turned"][:, None, None] == 0, x, x.mT)  # the first one's strides
        x = change(x, values, operations)
        x = x.unflatten(1, (-1, num_views)).permute(2, 1, 0, 3, 4)  # (V, n, C, size, size)
        torch.addcmul(offset, x, factor, out=out[:, some])


def _pixels(source: Source, some: slice, skipped: Tensor) -> Tensor:
    """Pixels that views are resampled from: (m, C, H, W), for each image if squares, else for each view."""
    first = source.first[some]
    if not source.lines:
        return source.pixels.index_select(0, first)
    first = first[:, None] + skipped.long().view(len(first), -1)
    return gather(source.pixels, first.flatten(), source.lines).transpose(1, 2)


def _crop_and_resize(images: Tensor, values: Mapping[str, Tensor], size: int) -> Tensor:
    """Crop, resize and flip: (n, C, H, W) -> planes (C, n * V, size, size) in [0, 1]."""
    flip, turned = values["flip"], values["turned"]
    rows, columns = (
        augment_ops.resampling_matrices(values[start], values[length], flipped, size_in=size_in, size_out=size)
        for start, length, flipped, size_in in (
            ("top", "height", flip * turned, images.shape[-2]),
            ("left", "width", flip * (1 - turned), images.shape[-1]),
        )
    )
    return augment_ops.resample(augment_ops.to_unit_range(images), rows, columns)


def _change_chosen(x: Tensor, values: Mapping[str, Tensor], operations: Collection[str]) -> Tensor:
    """Apply the operations in place to planes (C, n, size, size), each stage to the views that it changes."""
    for stage in _STAGES:
        changes = {name: values[name] != neutral for name, _, neutral in stage if name in operations}
        if not changes:
            continue
        where = torch.stack(list(changes.values())).any(0).nonzero().flatten()
        if not len(where):
            continue
        y = x.index_select(1, where)
        for name, operation, _ in stage:
            if name in changes and changes[name].any():
                operation(y, values[name].index_select(0, where))
        x.index_copy_(1, where, y)
    return x


def _change_all(x: Tensor, values: Mapping[str, Tensor], operations: Collection[str]) -> Tensor:
    """Apply the operations to all planes (C, n, size, size); a view for which one is neutral stays as it is."""
    for name, operation, neutral in (each for stage in _STAGES for each in stage if each[0] in operations):
        value = values[name]
        if name in _INEXACT:
            changed = operation(x.clone(), value)  # not a number where blur has no width
            x = torch.where((value != neutral)[:, None, None], changed, x)
        else:
            operation(x, value)
    return x


def _crops(
    draws: Tensor, scale: tuple[float, float], heights: Tensor, widths: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(top, left, height, width) as in torchvision's RandomResizedCrop: all attempts at once, the first that fits.

    If none fits, the middle of the image at the aspect ratio that is nearest to its own.
    """
    area, aspect, (top, left) = draws[:, :_ATTEMPTS], draws[:, _ATTEMPTS : 2 * _ATTEMPTS], draws[:, -2:].unbind(1)
    area = (heights * widths)[:, None] * (scale[0] + (scale[1] - scale[0]) * area)
    aspect = (math.log(ASPECT) * (2 * aspect - 1)).exp()
    width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()  # (n, attempts)
    fits = (width > 0) & (width <= widths[:, None]) & (height > 0) & (height <= heights[:, None])
    first = fits.byte().argmax(1, keepdim=True)
    any_fits = fits.any(1)
    middle = torch.minimum(heights, (widths * ASPECT).round()), torch.minimum(widths, (heights * ASPECT).round())
    height, width = (
        torch.where(any_fits, side.gather(1, first)[:, 0], most)
        for side, most in zip((height, width), middle, strict=True)
    )
    top, left = (
        torch.where(any_fits, draw * (side - crop + 1), (side - crop) / 2).floor()
        for draw, side, crop in ((top, heights, height), (left, widths, width))
    )
    return top, left, height, width
