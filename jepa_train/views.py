"""Batched multi-crop augmentation on the training device: no loop over images, no transform object per image.

Order of the operations, fixed (torchvision shuffles the four of the jitter): random resized crop, flip, brightness,
contrast, saturation, hue, grayscale, blur, solarise. Each agrees with torchvision.transforms.v2.functional on the same
parameters, in float. A probability or strength of 0 skips its operation and changes no other operation's draws.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from jepa_train import pixels
from jepa_train.config import ViewsConfig
from jepa_train.randomness import generator

_MEAN, _STD = 0.5, 0.25  # one normalisation for every dataset: [0, 1] -> [-2, 2]
_ASPECT = 4 / 3  # width / height of a crop lies in [1 / _ASPECT, _ASPECT], log-uniform
_ATTEMPTS = 10  # to draw a crop that fits, as torchvision; then the whole image
_SIGMA = (0.1, 2.0)  # of the blur, in pixels, uniform
_THRESHOLD = 0.5  # of the solarisation: what rounds to 128 of 255 or more
_DRAWS = 2 * _ATTEMPTS + 12  # uniform numbers per view of an image

# in order of application; the value is the one that changes nothing
_OPERATIONS = (
    ("brightness", pixels.brightness, 1.0),
    ("contrast", pixels.contrast, 1.0),
    ("saturation", pixels.saturation, 1.0),
    ("hue", pixels.hue, 0.0),
    ("grayscale", pixels.saturation, 1.0),
    ("blur", pixels.blur, 0.0),
    ("solarize", pixels.solarize, math.inf),
)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What happens to n views, each field (n,) on the CPU; an operation that a view is spared has its neutral value."""

    top: Tensor  # the crop, in whole pixels
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor  # bool
    brightness: Tensor  # factors
    contrast: Tensor
    saturation: Tensor
    hue: Tensor  # turns of the colour circle, in [-0.5, 0.5]
    grayscale: Tensor  # the saturation that is left: 0 or 1
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
        x = pixels.unpacked(images)
        return [
            augmented(x, parameters(part.flatten(0, 1), config, scale=scale, size=x.shape[1]), size=size)
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
    """The parameters that uniform numbers (n, draws) stand for, on images of size x size, crops of that area scale."""
    crop, (flip, jitter, brightness, contrast, saturation, hue, grayscale, blur, sigma, solarize) = (
        draws[:, : 2 * _ATTEMPTS + 2],
        draws[:, 2 * _ATTEMPTS + 2 :].unbind(1),
    )

    def factor(draw: Tensor, strength: float) -> Tensor:
        return torch.where(jitter < config.jitter, 1 + strength * (2 * draw - 1), 1.0)

    top, left, height, width = _crops(crop, scale, size)
    return Parameters(
        top=top,
        left=left,
        height=height,
        width=width,
        flip=flip < config.flip,
        brightness=factor(brightness, config.brightness),
        contrast=factor(contrast, config.contrast),
        saturation=factor(saturation, config.saturation),
        hue=factor(hue, config.hue) - 1,
        grayscale=torch.where(grayscale < config.grayscale, 0.0, 1.0),
        blur=torch.where(blur < config.blur, _SIGMA[0] + (_SIGMA[1] - _SIGMA[0]) * sigma, 0.0),
        solarize=torch.where(solarize < config.solarize, _THRESHOLD, math.inf),
    )


def augmented(x: Tensor, values: Parameters, *, size: int) -> Tensor:
    """The views of the images (N, S, 3, S), in [0, 1], with parameters of V * N views -> (V, N, 3, size, size)."""
    device, num = x.device, len(x)

    def on_device(tensor: Tensor) -> Tensor:
        return tensor.to(device, torch.float32, non_blocking=True)

    def matrices(start: Tensor, length: Tensor, flip: Tensor) -> Tensor:  # (V, N, size, S)
        matrix = pixels.resampling(
            on_device(start), on_device(length), on_device(flip), size_in=x.shape[1], size_out=size
        )
        return matrix.unflatten(0, (-1, num))

    rows = matrices(values.top, values.height, torch.zeros_like(values.flip))
    columns = matrices(values.left, values.width, values.flip)
    y = pixels.resampled(x, rows, columns).flatten(0, 1)  # (V * N, size, 3, size)
    for name, operation, neutral in _OPERATIONS:
        value = getattr(values, name)
        where = (value != neutral).nonzero().flatten()  # on the CPU: no synchronisation with the device
        if len(where):
            chosen = on_device(value[where])
            where = where.to(device, non_blocking=True)
            y[where] = operation(y[where], chosen)
    return pixels.packed(y, mean=_MEAN, std=_STD).unflatten(0, (-1, num))


def _crops(draws: Tensor, scale: tuple[float, float], size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(top, left, height, width): torchvision's RandomResizedCrop, all attempts at once and the first that fits."""
    area, aspect, (top, left) = draws[:, :_ATTEMPTS], draws[:, _ATTEMPTS : 2 * _ATTEMPTS], draws[:, -2:].unbind(1)
    area = size * size * (scale[0] + (scale[1] - scale[0]) * area)
    aspect = (math.log(_ASPECT) * (2 * aspect - 1)).exp()
    width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()  # (n, attempts)
    fits = (width > 0) & (width <= size) & (height > 0) & (height <= size)
    first = fits.byte().argmax(1, keepdim=True)
    any_fits = fits.any(1)
    height, width = (torch.where(any_fits, side.gather(1, first)[:, 0], size) for side in (height, width))
    return (top * (size - height + 1)).floor(), (left * (size - width + 1)).floor(), height, width
