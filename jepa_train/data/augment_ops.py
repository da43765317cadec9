"""Batched image operations with one parameter per image, each equal to torchvision's functional form in float.

Images are planes (C, n, H, W) float32 in [0, 1]: a channel of all images is contiguous, which makes the color
operations fast. Saturation and hue need three colors; the others take any number of channels. Operations with a
parameter work in place and return their argument; none reads a value back from the device.
"""

import functools

import torch
from torch import Tensor

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision rounds it


def to_unit_range(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 or uint16 -> (N, H, C, W) float32 in [0, 1], the input of resample()."""
    most = torch.iinfo(images.dtype).max
    return images.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(most)


def resampling_matrices(start: Tensor, length: Tensor, flip: Tensor, *, size_in: int, size_out: int) -> Tensor:
    """Matrices (n, size_out, size_in) of antialiased bilinear resampling of pixels [start, start + length).

    Row i holds the triangle filter around the center of output pixel i, as wide as an output pixel if that is more than
    one input pixel, truncated at the ends of the range and normalized.

    Args:
        start, length: (n,) float32, whole pixels.
        flip: (n,) float32, 1 to reverse the output, else 0.
    """
    scale = (length / size_out)[:, None]
    index = torch.arange(size_out, device=start.device) + 0.5
    center = scale * torch.where(flip[:, None] > 0, size_out - index, index)  # (n, size_out)
    pixel = torch.arange(size_in, device=start.device) + 0.5 - start[:, None]  # (n, size_in), relative to the range
    pixel = torch.where((pixel > 0) & (pixel < length[:, None]), pixel, torch.inf)  # outside: no weight
    slope = scale.clamp_min(1).reciprocal_().neg_()
    weight = (pixel[:, None] - center[:, :, None]).abs_()
    torch.addcmul(weight.new_ones(()), weight, slope[:, :, None], out=weight).clamp_min_(0)
    return weight.div_(weight.sum(-1, keepdim=True))


def resample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """V views of each of N images: (N, H, C, W), (N * V, h, H), (N * V, w, W) -> planes (C, N * V, h, w)."""
    num, height, channels, width = x.shape
    x = torch.bmm(rows.view(num, -1, height), x.flatten(2))  # (N, V * h, C W)
    x = torch.bmm(x.view(len(columns), -1, width), columns.mT)  # (N * V, h * C, w)
    x = x.unflatten(1, (-1, channels)).movedim(2, 0)
    return torch.clamp(x, 0, 1, out=torch.empty_like(x, memory_format=torch.contiguous_format))


def luma(x: Tensor) -> Tensor:
    """(3, n, H, W) -> (n, H, W)."""
    return (x[0] * _LUMA[0]).add_(x[1], alpha=_LUMA[1]).add_(x[2], alpha=_LUMA[2])


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply by the factor."""
    return x.mul_(factor[:, None, None]).clamp_(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance from the image's mean luma by the factor; of other than 3 channels, from each one's mean.

    With one channel that is torchvision's for gray images. Channels of different brightness keep their means.
    """
    mean = x.mean((2, 3))  # (C, n)
    if len(x) == 3:
        red, green, blue = mean
        mean = (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
    return x.mul_(factor[:, None, None]).add_((mean * (1 - factor))[..., None, None]).clamp_(0, 1)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance from the pixel's luma by the factor; 0 gives gray."""
    factor = factor[:, None, None]
    grey = luma(x).mul_(1 - factor)
    return x.mul_(factor).add_(grey).clamp_(0, 1)


def hue(x: Tensor, turns: Tensor) -> Tensor:
    """Shift the hue of HSV by turns of the color circle; saturation and value stay."""
    red, green, blue = x  # (n, H, W) each
    low, high = torch.minimum(red, green), torch.maximum(red, green)
    low, high = torch.minimum(low, blue, out=low), torch.maximum(high, blue, out=high)
    chroma = high - low
    at = (red - green).add_(chroma, alpha=4)  # the hue from red on, in sixths of a turn, times the chroma
    at.lerp_((blue - red).add_(chroma, alpha=2), _equal(high, green)).lerp_(green - blue, _equal(high, red))
    at.div_(chroma.clamp_min(1e-12).mul_(6))  # gray: all differences are 0, any hue will do
    at.add_((turns + 1)[:, None, None]).frac_().mul_(6)  # + 1: frac_ keeps the sign
    share = high  # its memory
    for channel, (center, sign, offset) in zip(x, ((3, 1, -1), (2, -1, 2), (4, -1, 2)), strict=True):
        torch.sub(at, center, out=share).abs_().mul_(sign).add_(offset).clamp_(0, 1)
        torch.addcmul(low, chroma, share, out=channel)
    return x


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, reflected at the border; the kernel is a tenth of the image wide (SimCLR), at least 3 pixels."""
    size = x.shape[-1]
    kernel = max(3, size // 10 | 1)
    offset = torch.arange(kernel, device=x.device) - kernel // 2
    weight = (-0.5 * (offset / sigma[:, None]).square()).softmax(1)  # (n, kernel)
    matrix = (weight @ _shifts(kernel, size, x.device)).unflatten(1, (size, size))
    between = torch.empty_like(x[0])
    for channel in x:  # (n, H, W)
        torch.bmm(torch.bmm(matrix, channel, out=between), matrix.mT, out=channel)
    return x.clamp_(0, 1)


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Invert values at or above the threshold."""
    return x.lerp_(1 - x, x.clone().ge_(threshold[:, None, None]))


def _equal(x: Tensor, y: Tensor) -> Tensor:
    """1 where equal, else 0, as weights for lerp_: on a CPU 20 times as fast as torch.where."""
    return x.clone().eq_(y)


@functools.lru_cache(maxsize=8)
def _shifts(kernel: int, size: int, device: torch.device) -> Tensor:
    """(kernel, size * size): row k flattens the matrix that shifts by k - kernel // 2 with reflection at the border."""
    index = torch.arange(size)
    shifted = index + torch.arange(kernel)[:, None] - kernel // 2  # (kernel, size)
    reflected = size - 1 - (size - 1 - shifted.abs()).abs()
    return torch.nn.functional.one_hot(reflected, size).float().flatten(1).to(device)
