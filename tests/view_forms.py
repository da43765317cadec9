"""The forms in which views are made, with given parameters."""

from typing import Any

import torch
from torch import Tensor

from jepa_train.config import ViewsConfig
from jepa_train.data import augment
from jepa_train.data.augment import Parameters, to_fields, torch_views
from jepa_train.data.pictures import RGB_NORM, Source

COLORS = {"saturation", "hue", "grayscale"}
OPERATIONS = frozenset(name for stage in augment._STAGES for name, _, _ in stage)


def source_of(images: Tensor | Source, norm: Tensor = RGB_NORM) -> Source:
    """All of some squares (n, C, S, S), or a batch as it is."""
    if isinstance(images, Source):
        return images
    first = torch.arange(len(images), device=images.device)
    return Source(pixels=images.contiguous(), first=first, norm=norm.to(images.device))


def make_views(
    images: Tensor | Source, config: ViewsConfig, *, norm: Tensor = RGB_NORM, seed: int = 0, step: int = 0, **place: Any
) -> list[Tensor]:
    return augment.make_views(source_of(images, norm), config, seed=seed, step=step, **place)


def to_input(images: Tensor | Source, size: int, *, fov: float = 1.0, norm: Tensor = RGB_NORM) -> Tensor:
    return augment.to_input(source_of(images, norm), size, fov=fov)


def augmented(
    images: Tensor | Source,
    values: Parameters,
    *,
    size: int,
    form: str = "chosen",
    dtype: torch.dtype = torch.float32,
    order: torch.memory_format = torch.contiguous_format,
    norm: Tensor = RGB_NORM,
) -> Tensor:
    """V views (V, N, C, size, size) of N images, whose N * V parameters lie side by side for each image."""
    source = source_of(images, norm)
    channels, device = source.pixels.shape[1], source.pixels.device
    operations = OPERATIONS if channels == 3 else OPERATIONS - COLORS
    shapes, num_views = source.shapes, len(values.flip) // len(source)
    sides = [side.repeat_interleave(num_views) for side in (shapes.heights, shapes.widths)]
    fields = to_fields(values, sides, source.lines).to(device)
    shape = len(values.flip), channels, size, size
    out = torch.empty(shape, dtype=dtype, device=device, memory_format=order)
    out = out.unflatten(0, (-1, len(images)))
    if form == "fused":
        from jepa_train.data.augment_triton import fused_views

        fused_views(source, fields, out)
    else:
        torch_views(source, fields, operations, out, choose=form == "chosen")
    return out
