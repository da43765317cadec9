"""Slices: the random unit directions along which both methods compare laws."""

import torch
from torch import Tensor

from jepa_train.randomness import generator


def unit_slices(dim: int, num: int, seed: int, *, device: torch.device | str = "cpu") -> Tensor:
    """(dim, num) fp32 unit columns, uniform on the sphere; a function of the arguments, so equal on all ranks.

    Drawn and normalised in fp32 whatever the training precision: in bf16 a norm can round to zero, and its
    column to NaN.
    """
    directions = torch.randn(
        dim, num, generator=generator(seed, "slices", device=device), device=device, dtype=torch.float32
    )
    directions[0] += (directions == 0).all(dim=0)  # about one draw in 2**24 is exactly 0: at dim 1, a norm of 0
    return directions / directions.norm(dim=0)
