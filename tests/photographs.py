"""Made-up photographs, and torchvision's blur of them with the kernel that the recipes use."""

import torch
from torchvision.transforms.v2 import functional as tv

from jepa_train.base.seeds import generator


def photos(num: int, size: int = 32) -> torch.Tensor:
    """Smooth random colour images with black, white and grey areas, (num, 3, size, size) uint8."""
    coarse = torch.rand(num, 3, 6, 6, generator=generator(0, "photos")) * 2.2 - 0.6
    coarse[:, :, :2, :2] = coarse[:, :1, :2, :2]  # grey: the hue is undefined there
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return smooth.clamp(0, 1).mul(255).round().to(torch.uint8)


def as_float(images: torch.Tensor) -> torch.Tensor:
    return tv.to_dtype(images, torch.float32, scale=True)


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Kernel: a tenth of the image, odd, and at least 3."""
    kernel = {32: 3, 40: 5, 96: 9, 224: 23}[image.shape[-1]]
    return tv.gaussian_blur(image, [kernel, kernel], [sigma, sigma])
