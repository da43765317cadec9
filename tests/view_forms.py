"""The forms in which views are made, with given parameters."""

import torch
from torch import Tensor

from jepa_train.data import augment
from jepa_train.data.augment import Parameters, to_fields, torch_views
from jepa_train.data.pictures import RGB_NORM, Pictures, shapes_of, source_of

COLORS = {"saturation", "hue", "grayscale"}
OPERATIONS = frozenset(name for stage in augment._STAGES for name, _, _ in stage)


def augmented(
    images: Tensor | Pictures,
    values: Parameters,
    *,
    size: int,
    form: str = "chosen",
    dtype: torch.dtype = torch.float32,
    order: torch.memory_format = torch.contiguous_format,
    norm: Tensor = RGB_NORM,
) -> Tensor:
    """V views (V, N, C, size, size) of N images, whose N * V parameters lie side by side for each image."""
    operations = OPERATIONS if source_of(images).pixels.shape[1] == 3 else OPERATIONS - COLORS
    fields = to_fields(values, shapes_of(images)).to(images.device)
    source = source_of(images, norm)
    shape = len(values.flip), source.pixels.shape[1], size, size
    out = torch.empty(shape, dtype=dtype, device=images.device, memory_format=order)
    out = out.unflatten(0, (-1, len(images)))
    if form == "fused":
        from jepa_train.data.augment_triton import fused_views

        fused_views(source, fields, out)
    else:
        torch_views(source, fields, operations, out, choose=form == "chosen")
    return out
