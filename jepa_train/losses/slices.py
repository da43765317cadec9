"""Slices: unit directions along which LeJEPA and Rectified LpJEPA compare distributions."""

import torch
from torch import Tensor

from jepa_train.base.seeds import generator
from jepa_train.distributed.collectives import broadcast


def unit_slices(dim: int, num: int, seed: int, *, device: torch.device | str = "cpu") -> Tensor:
    """(dim, num) fp32 unit columns, uniform on the sphere; a function of the arguments, so equal on all ranks.

    Each column is contiguous, which makes the products fast. Drawn and normalised in fp32 whatever the training
    precision: in bf16 a norm can round to zero, and its column to NaN.
    """
    directions = torch.randn(
        num, dim, generator=generator(seed, "slices", device=device), device=device, dtype=torch.float32
    )
    directions[:, 0] += (directions == 0).all(dim=1)  # about one draw in 2**24 is exactly 0: at dim 1, a norm of 0
    return (directions / directions.norm(dim=1, keepdim=True)).mT


def singular_slices(z: Tensor, num: int, seed: int) -> Tensor:
    """(D, num) unit columns: z's right singular vectors, the largest first, then unit_slices to make up num.

    z is not centered, so the first direction is mostly its mean unless that is 0. A vector counts as singular if its
    value exceeds the largest one times max(M, D) fp32 roundings; none does if z is zero or not finite. Rectified
    LpJEPA's App. I and its code ("torch_svd_and_random") combine singular vectors of the batch with random ones; the
    number of each, the matrix (centered or not, of one view or both) and the interval are not published.

    Args:
        z: (M, D), the global batch, equal on all ranks; takes no gradient.

    Returns:
        In fp32 at least, equal on all ranks. The decomposition synchronises with the GPU.
    """
    slices = unit_slices(z.shape[1], num, seed, device=z.device)
    vectors, values = _right_singular(z.detach())
    counts = (values > values[0] * (max(z.shape) * torch.finfo(torch.float32).eps))[:num, None]
    rows = slices.mT.to(torch.promote_types(z.dtype, torch.float32))
    rows[: len(counts)] = torch.where(counts, vectors[:num].to(rows.dtype), rows[: len(counts)])
    return broadcast(rows).mT  # eigenvectors may differ between processors


def _right_singular(z: Tensor) -> tuple[Tensor, Tensor]:
    """(min(M, D), D) rows and (min(M, D),) singular values, both in float64, descending; arbitrary rows at value 0.

    By the smaller Gram matrix, several times as fast as the decomposition of z itself and in float64 precise enough.
    """
    wide = (z.double() / z.abs().amax()).nan_to_num(0, 0, 0)  # a zero z too: 0 / 0
    wide_is_tall = len(z) >= z.shape[1]
    squares, vectors = torch.linalg.eigh(wide.mT @ wide if wide_is_tall else wide @ wide.mT)  # ascending
    values, columns = squares.clamp_min(0).sqrt().flip(0), vectors.flip(1)
    if wide_is_tall:
        return columns.mT, values
    rows = columns.mT @ wide
    return rows / rows.norm(dim=1, keepdim=True), values  # at value 0 this may be NaN
