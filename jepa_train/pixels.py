"""Batched image operations with one parameter per image, each equal to torchvision's functional form in float.

Images are (n, H, 3, W) float32 in [0, 1]: with the channels between the axes, resampling by one matrix per image is two
batched matrix products without a copy, (h, H) @ (H, 3 W) and then (3 h, W) @ (W, w). The operations with a
factor work in place and return their argument.
"""

import functools

import torch
from torch import Tensor


def unpacked(images: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 -> (N, H, 3, W) float32 in [0, 1]."""
    return images.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def packed(x: Tensor, *, mean: float, std: float) -> Tensor:
    """(n, H, 3, W) -> (n, 3, H, W), (x - mean) / std."""
    n, height, _, width = x.shape
    out = x.new_empty(n, 3, height, width)
    return torch.sub(x.transpose(1, 2), mean, out=out).div_(std)


def resampling(start: Tensor, length: Tensor, flip: Tensor, *, size_in: int, size_out: int) -> Tensor:
    """Antialiased bilinear resampling of pixels [start, start + length), as matrices (n, size_out, size_in).

    Row i holds the triangle filter around the centre of output pixel i, as wide as an output pixel where that is more
    than one input pixel, cut off at the ends of the range and normalised.

    Args:
        start, length: (n,) float32, whole pixels.
        flip: (n,) float32, 1 where the output runs backwards, else 0.
    """
    scale = (length / size_out)[:, None]
    index = torch.arange(size_out, device=start.device) + 0.5
    centre = scale * torch.where(flip[:, None] > 0, size_out - index, index)  # (n, size_out)
    pixel = torch.arange(size_in, device=start.device) + 0.5 - start[:, None]  # (n, size_in), relative to the range
    weight = (pixel[:, None] - centre[:, :, None]).abs_().div_(-scale.clamp_min(1)[:, :, None]).add_(1).clamp_min_(0)
    weight.mul_(((pixel > 0) & (pixel < length[:, None]))[:, None])
    return weight.div_(weight.sum(-1, keepdim=True))


def resampled(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(n, H, 3, W), (..., n, h, H), (..., n, w, W) -> (..., n, h, 3, w)."""
    x = (rows @ x.flatten(-2)).unflatten(-1, (3, -1))  # (..., n, h, 3, W)
    return (x.flatten(-3, -2) @ columns.mT).unflatten(-2, (-1, 3)).clamp_(0, 1)


def luma(x: Tensor) -> Tensor:
    """(n, H, 3, W) -> (n, H, 1, W), the weights of ITU-R 601."""
    red, green, blue = x.split(1, dim=2)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Times the factor."""
    return x.mul_(factor[:, None, None, None]).clamp_(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Away from (or to, below 1) the image's mean luma."""
    mean = luma(x).mean((1, 2, 3), keepdim=True)
    return x.lerp_(mean, 1 - factor[:, None, None, None]).clamp_(0, 1)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Away from (or to, below 1) the pixel's luma; 0 makes it grey."""
    return x.lerp_(luma(x), 1 - factor[:, None, None, None]).clamp_(0, 1)


def hue(x: Tensor, turns: Tensor) -> Tensor:
    """The hue of HSV moved by so many turns of the colour circle; saturation and value stay."""
    red, green, blue = x.unbind(2)  # (n, H, W) each
    low, high = x.amin(2), x.amax(2)
    chroma = high - low
    divisor = chroma.clamp_min(1e-12)  # grey: all differences are 0, any hue will do
    sixth = torch.where(high == green, (blue - red).div_(divisor).add_(2), (red - green).div_(divisor).add_(4))
    sixth = torch.where(high == red, (green - blue).div_(divisor), sixth)  # the hue in sixths of a turn, from red
    sixth = sixth.add_(turns[:, None, None], alpha=6).remainder_(6)
    for channel, (at, sign, offset) in enumerate(((3, 1, -1), (2, -1, 2), (4, -1, 2))):  # red, green, blue
        share = (sixth - at).abs_().mul_(sign).add_(offset).clamp_(0, 1)
        torch.addcmul(low, chroma, share, out=x[:, :, channel])
    return x


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, reflected at the border; the kernel is a tenth of the image wide (SimCLR), at least 3 pixels."""
    size = x.shape[1]
    kernel = max(3, size // 10 | 1)
    offset = torch.arange(kernel, device=x.device) - kernel // 2
    weight = (-0.5 * (offset / sigma[:, None]).square()).softmax(1)  # (n, kernel)
    matrix = (weight @ _shifts(kernel, size, x.device)).unflatten(1, (size, size))
    return x.copy_(resampled(x, matrix, matrix))


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Inverted from the threshold on."""
    return torch.where(x >= threshold[:, None, None, None], 1 - x, x, out=x)


@functools.lru_cache(maxsize=8)
def _shifts(kernel: int, size: int, device: torch.device) -> Tensor:
    """(kernel, size * size): row k flattens the matrix that shifts by k - kernel // 2 with reflection at the border."""
    index = torch.arange(size)
    shifted = index + torch.arange(kernel)[:, None] - kernel // 2  # (kernel, size)
    reflected = size - 1 - (size - 1 - shifted.abs()).abs()
    return torch.nn.functional.one_hot(reflected, size).float().flatten(1).to(device)
