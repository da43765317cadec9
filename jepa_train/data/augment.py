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


def make_views(
    images: Tensor, config: ViewsConfig, *, seed: int, step: int, batch: slice, global_batch: int
) -> list[Tensor]:
    """The normalised views of this rank's images: [global views], or [global views, local views].

    Every view's parameters are drawn from (seed, step, view, position in the global batch), on the CPU: they depend
    neither on the number of ranks nor on the device.

    Args:
        images: (N, 3, S, S) uint8, the positions `batch` of the global batch.

    Returns:
        Per resolution (V_r, N, 3, s, s) float32, (x - 0.5) / 0.25, on the device of the images.
    """
    assert images.dtype == torch.uint8, images.dtype
    assert images.shape[-1] == images.shape[-2], images.shape
    views = config.num_global + config.num_local
    draws = torch.rand(views, global_batch, _DRAWS, generator=generator(seed, step, "views"), dtype=torch.float64)
    draws = draws[:, batch]
    assert draws.shape[1] == len(images), (draws.shape, images.shape)
    resolutions = (
        (draws[: config.num_global], config.global_size, (config.global_scale_min, config.global_scale_max)),
        (draws[config.num_global :], config.local_size, (config.local_scale_min, config.local_scale_max)),
    )
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        return [
            augment_images(
                images,
                parameters(part.transpose(0, 1).flatten(0, 1), config, scale=scale, size=images.shape[-1]),
                size=size,
            )
            for part, size, scale in resolutions
            if len(part)
        ]


def to_input(images: Tensor, size: int) -> Tensor:
    """Images without augmentation, normalised as the views are: (N, 3, S, S) uint8 -> (N, 3, size, size) float32."""
    x = images.float().div_(255)
    if x.shape[-1] != size:
        x = functional.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    return x.sub_(_MEAN).div_(_STD)


def parameters(draws: Tensor, config: ViewsConfig, *, scale: tuple[float, float], size: int) -> Parameters:
    """Map uniform numbers (n, draws) to parameters, for images of size x size and crops within the area scale."""
    crop, rest = draws[:, : 2 * _ATTEMPTS + 2], draws[:, 2 * _ATTEMPTS + 2 :]
    flip, jitter, brightness, contrast, saturation, hue, grayscale, blur, sigma, solarize = rest.unbind(1)

    def factor(draw: Tensor, strength: float) -> Tensor:
        return torch.where(jitter < config.jitter, 1 + strength * (2 * draw - 1), 1.0)

    return Parameters(
        *_crops(crop, scale, size),
        flip=flip < config.flip,
        brightness=factor(brightness, config.brightness),
        contrast=factor(contrast, config.contrast),
        saturation=factor(saturation, config.saturation),
        hue=factor(hue, config.hue) - 1,
        grayscale=torch.where(grayscale < config.grayscale, 0.0, 1.0),
        blur=torch.where(blur < config.blur, _SIGMA[0] + (_SIGMA[1] - _SIGMA[0]) * sigma, 0.0),
        solarize=torch.where(solarize < config.solarize, _THRESHOLD, math.inf),
    )


def augment_images(images: Tensor, values: Parameters, *, size: int) -> Tensor:
    """V views of each of N images.

    Works in chunks of a few images, which changes no view: intermediate tensors stay in a CPU's cache and take a small
    share of a GPU's memory. Never synchronizes with the device.

    Args:
        images: (N, 3, S, S) uint8.
        values: of N * V views, those of an image adjacent.

    Returns:
        (V, N, 3, size, size) float32, normalised, on the device of the images.
    """
    num, num_views, device = len(images), len(values.flip) // len(images), images.device
    views = torch.empty(num_views, num, 3, size, size, device=device)
    offset = torch.full((), -_MEAN / _STD, device=device)
    fields = to_device(torch.stack([value.float() for value in values]), device)  # one transfer instead of one each
    budget = _AT_ONCE["cpu"] * torch.get_num_threads() if device.type == "cpu" else _AT_ONCE["gpu"]
    at_once = max(1, budget // (num_views * 3 * max(size, images.shape[-1]) ** 2))
    for start in range(0, num, at_once):
        some = slice(start, start + at_once)
        of_views = slice(start * num_views, (start + at_once) * num_views)
        there = dict(zip(values._fields, fields[:, of_views], strict=True))
        x = _crop_and_resize(images[some], there, size)
        for stage in _STAGES:
            here = {name: getattr(values, name)[of_views] for name, _, _ in stage}
            _change(x, stage, here, there)
        x = x.unflatten(1, (-1, num_views)).permute(2, 1, 0, 3, 4)  # (V, n, 3, size, size)
        torch.add(offset, x, alpha=1 / _STD, out=views[:, some])
    return views


def _crop_and_resize(images: Tensor, values: Mapping[str, Tensor], size: int) -> Tensor:
    """Crop, resize and flip: (n, 3, S, S) uint8 -> planes (3, n * V, size, size) in [0, 1]."""
    flip = values["flip"]
    rows, columns = (
        augment_ops.resampling_matrices(values[start], values[length], flipped, size_in=images.shape[-1], size_out=size)
        for start, length, flipped in (("top", "height", torch.zeros_like(flip)), ("left", "width", flip))
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


def _crops(draws: Tensor, scale: tuple[float, float], size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(top, left, height, width) as in torchvision's RandomResizedCrop: all attempts at once, the first that fits."""
    area, aspect, (top, left) = draws[:, :_ATTEMPTS], draws[:, _ATTEMPTS : 2 * _ATTEMPTS], draws[:, -2:].unbind(1)
    area = size * size * (scale[0] + (scale[1] - scale[0]) * area)
    aspect = (math.log(_ASPECT) * (2 * aspect - 1)).exp()
    width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()  # (n, attempts)
    fits = (width > 0) & (width <= size) & (height > 0) & (height <= size)
    first = fits.byte().argmax(1, keepdim=True)
    any_fits = fits.any(1)
    height, width = (torch.where(any_fits, side.gather(1, first)[:, 0], size) for side in (height, width))
    return (top * (size - height + 1)).floor(), (left * (size - width + 1)).floor(), height, width
