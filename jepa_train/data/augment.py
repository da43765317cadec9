"""Batched multi-crop augmentation on the training device: no loop over images, no transform object per image.

Order of the operations, fixed (torchvision shuffles the four of the jitter): random resized crop, flip, brightness,
contrast, saturation, hue, grayscale, blur, solarize. Each agrees with torchvision.transforms.v2.functional on the same
parameters, in float. A probability or strength of 0 skips its operation and changes no other operation's draws.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from jepa_train.base.seeds import generator
from jepa_train.config import ViewsConfig
from jepa_train.data import augment_ops
from jepa_train.data.device_transfer import to_device
from jepa_train.data.pictures import Pictures, center_of, gather, sides_of

_MEAN, _STD = 0.5, 0.25  # one normalization for every data set: [0, 1] -> [-2, 2]
_ASPECT = 4 / 3  # width / height of a crop lies in [1 / _ASPECT, _ASPECT], log-uniform
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
    turned: Tensor  # bool: the rows of the stored pixels are the image's columns


def make_views(
    images: Tensor | Pictures,
    config: ViewsConfig,
    *,
    seed: int,
    step: int,
    batch: slice,
    global_batch: int,
    for_local: Tensor | Pictures | None = None,
) -> list[Tensor]:
    """The normalised views of this rank's images: [global views], or [global views, local views].

    Every view's parameters are drawn from (seed, step, view, position in the global batch), on the CPU: they depend
    neither on the number of ranks nor on the device.

    Args:
        images: (N, 3, S, S) uint8, or N whole pictures: the positions `batch` of the global batch.
        for_local: the same images at another resolution, for the local views.

    Returns:
        Per resolution (V_r, N, 3, s, s) float32, (x - 0.5) / 0.25, on the device of the images.
    """
    views = config.num_global + config.num_local
    draws = torch.rand(views, global_batch, _DRAWS, generator=generator(seed, step, "views"), dtype=torch.float64)
    draws = draws[:, batch]
    assert draws.shape[1] == len(images), (draws.shape, len(images))
    local = images if for_local is None else for_local
    resolutions = (
        (images, draws[: config.num_global], config.global_size, (config.global_scale_min, config.global_scale_max)),
        (local, draws[config.num_global :], config.local_size, (config.local_scale_min, config.local_scale_max)),
    )
    results = []
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        for source, part, size, scale in resolutions:
            if len(part):
                sides = [side.repeat_interleave(len(part)) for side in sides_of(source)]
                values = parameters(part.transpose(0, 1).flatten(0, 1), config, scale=scale, sides=sides)
                results.append(augment_images(source, values, size=size))
    return results


def to_input(images: Tensor | Pictures, size: int, *, fov: float = 1.0) -> Tensor:
    """The middle of the images without augmentation, normalised as the views are.

    Args:
        images: (N, 3, S, S) uint8, or N whole pictures.
        fov: side of the middle square as a share of the shorter side.

    Returns:
        (N, 3, size, size) float32.
    """
    x = center_of(images, fov).float().div_(255)
    if x.shape[-1] != size:
        x = functional.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    return x.sub_(_MEAN).div_(_STD)


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
        turned=torch.zeros_like(flip, dtype=torch.bool),
    )


def augment_images(images: Tensor | Pictures, values: Parameters, *, size: int) -> Tensor:
    """V views of each of N images.

    Works in chunks of a few images, which changes no view: intermediate tensors stay in a CPU's cache and take a small
    share of a GPU's memory. Never synchronizes with the device.

    Args:
        images: (N, 3, S, S) uint8, or N whole pictures.
        values: of N * V views, those of an image adjacent.

    Returns:
        (V, N, 3, size, size) float32, normalised, on the device of the images.
    """
    num, num_views, device = len(images), len(values.flip) // len(images), images.device
    views = torch.empty(num_views, num, 3, size, size, device=device)
    offset = torch.full((), -_MEAN / _STD, device=device)
    pixels, area, values = _source(images, values)
    fields = to_device(torch.stack([value.float() for value in values]), device)  # one transfer, not one each
    budget = _AT_ONCE["cpu"] * torch.get_num_threads() if device.type == "cpu" else _AT_ONCE["gpu"]
    at_once = max(1, budget // (num_views * 3 * max(size * size, area)))
    for start in range(0, num, at_once):
        some = slice(start, start + at_once)
        of_views = slice(start * num_views, (start + at_once) * num_views)
        there = dict(zip(values._fields, fields[:, of_views], strict=True))
        x = _crop_and_resize(pixels(some, of_views), there, size)
        if isinstance(images, Pictures):
            x = torch.where(there["turned"][:, None, None] > 0, x.mT, x)
        for stage in _STAGES:
            here = {name: getattr(values, name)[of_views] for name, _, _ in stage}
            _change(x, stage, here, there)
        x = x.unflatten(1, (-1, num_views)).permute(2, 1, 0, 3, 4)  # (V, n, 3, size, size)
        torch.add(offset, x, alpha=1 / _STD, out=views[:, some])
    return views


def _source(images: Tensor | Pictures, values: Parameters) -> tuple[Callable[[slice, slice], Tensor], int, Parameters]:
    """Pixels that views are resampled from.

    Returns:
        A function (images, their views) -> (m, 3, H, W) uint8, one for each image or each view; the area H * W; and the
        values, with crops in these pixels.
    """
    if isinstance(images, Tensor):
        return lambda some, _: images[some], images[0, 0].numel(), values
    count, num_views = images.crop_lines(_ASPECT), len(values.flip) // len(images)
    of_views = (images.first, images.lengths.abs(), images.is_wide)
    first, lengths, turned = (each.repeat_interleave(num_views) for each in of_views)
    crops = torch.stack(values[:4])  # top, left, height, width
    top, left, height, width = torch.where(turned, crops[[1, 0, 3, 2]], crops)
    skipped = torch.minimum(top, (lengths - count).clamp_min(0))  # lines before those that are gathered
    first = first + skipped.long()
    values = values._replace(top=top - skipped, left=left, height=height, width=width, turned=turned)
    area = count * images.lines.shape[-1]
    return lambda _, views: gather(images.lines, first[views], count).transpose(1, 2), area, values


def _crop_and_resize(images: Tensor, values: Mapping[str, Tensor], size: int) -> Tensor:
    """Crop, resize and flip: (n, 3, H, W) uint8 -> planes (3, n * V, size, size) in [0, 1]."""
    flip, turned = values["flip"], values["turned"]
    rows, columns = (
        augment_ops.resampling_matrices(values[start], values[length], flipped, size_in=size_in, size_out=size)
        for start, length, flipped, size_in in (
            ("top", "height", flip * turned, images.shape[-2]),
            ("left", "width", flip * (1 - turned), images.shape[-1]),
        )
    )
    return augment_ops.resample(augment_ops.to_unit_range(images), rows, columns)


def _change(x: Tensor, stage: Sequence[_Operation], here: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> None:
    """Apply the operations of a stage in place to the views (3, n, size, size) that one of them changes.

    Args:
        here: (n,) parameters on the CPU, for selecting views without synchronization.
        there: the same on the device.
    """
    changes = {name: here[name] != neutral for name, _, neutral in stage}
    where = torch.stack(list(changes.values())).any(0).nonzero().flatten()
    if not len(where):
        return
    where = to_device(where, x.device)
    y = x.index_select(1, where)
    for name, operation, _ in stage:
        if changes[name].any():
            operation(y, there[name].index_select(0, where))
    x.index_copy_(1, where, y)


def _crops(
    draws: Tensor, scale: tuple[float, float], heights: Tensor, widths: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(top, left, height, width) as in torchvision's RandomResizedCrop: all attempts at once, the first that fits.

    If none fits, the middle of the image at the aspect ratio that is nearest to its own.
    """
    area, aspect, (top, left) = draws[:, :_ATTEMPTS], draws[:, _ATTEMPTS : 2 * _ATTEMPTS], draws[:, -2:].unbind(1)
    area = (heights * widths)[:, None] * (scale[0] + (scale[1] - scale[0]) * area)
    aspect = (math.log(_ASPECT) * (2 * aspect - 1)).exp()
    width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()  # (n, attempts)
    fits = (width > 0) & (width <= widths[:, None]) & (height > 0) & (height <= heights[:, None])
    first = fits.byte().argmax(1, keepdim=True)
    any_fits = fits.any(1)
    middle = torch.minimum(heights, (widths * _ASPECT).round()), torch.minimum(widths, (heights * _ASPECT).round())
    height, width = (
        torch.where(any_fits, side.gather(1, first)[:, 0], most)
        for side, most in zip((height, width), middle, strict=True)
    )
    top, left = (
        torch.where(any_fits, draw * (side - crop + 1), (side - crop) / 2).floor()
        for draw, side, crop in ((top, heights, height), (left, widths, width))
    )
    return top, left, height, width
