"""Slices: unit directions along which LeJEPA and Rectified LpJEPA compare distributions."""

import torch
from torch import Tensor

from jepa_train.base.device import wide_dtype
from jepa_train.base.seeds import generator
from jepa_train.distributed.collectives import broadcast


def unit_slices(
    dim: int, num: int, seed: int, count: Tensor | None = None, *, device: torch.device | str = "cpu"
) -> Tensor:
    """(dim, num) fp32 unit columns, uniform on the sphere; a function of the arguments, so equal on all ranks.

    Each column is contiguous, which makes the products fast. Drawn and normalised in fp32 whatever the training
    precision: in bf16 a norm can round to zero, and its column to NaN.

    Args:
        seed, count: of Step.draws("slices"). With a count, a counter-based kernel draws (draws_triton.py): one launch,
            the same numbers on every model of GPU, and columns that do not depend on num. Without one, torch's
            generator of the device.
    """
    if count is not None:
        from jepa_train.losses.draws_triton import unit_rows  # start-up time; Triton may be missing

        return unit_rows(num, dim, seed, count).mT
    directions = torch.randn(
        num, dim, generator=generator(seed, "slices", device=device), device=device, dtype=torch.float32
    )
    directions[:, 0] += (directions == 0).all(dim=1)  # about one draw in 2**24 is exactly 0: at dim 1, a norm of 0
    return (directions / directions.norm(dim=1, keepdim=True)).mT


def singular_slices(
    z: Tensor, num: int, seed: int, count: Tensor | None = None, *, bottom_half: bool = False
) -> Tensor:
    """(V, D, num) unit columns: each view's own right singular vectors, then unit_slices, the same for all views.

    Each view is centered, and all its min(N, D) right singular vectors are taken, the largest first, or the half with
    the smallest values; num cuts them off if they are more. This is the authors' public code (rectified-lp-jepa,
    solo/methods/rectified_lpjepa.py:38-115, "torch_svd_and_random" and "torch_svd_bottom_half_eigen_and_random"), but
    for the batch: they decompose each rank's share of it, and draw other random slices on each rank; here it is the
    global batch, so that the number of ranks changes nothing.

    Args:
        z: (V, N, D), the global batch, equal on all ranks; takes no gradient.
        seed, count: see unit_slices.

    Returns:
        In fp32 at least, equal on all ranks. The decomposition synchronises with the GPU.
    """
    vectors = _right_singular(z.detach(), seed, count)
    vectors = vectors[:, vectors.shape[1] // 2 if bottom_half else 0 :][:, :num]
    rows = unit_slices(z.shape[-1], num, seed, count, device=z.device).mT
    rows = rows.to(torch.promote_types(z.dtype, torch.float32)).repeat(len(z), 1, 1)
    rows[:, : vectors.shape[1]] = vectors.to(rows.dtype)
    return broadcast(rows).mT  # eigenvectors may differ between processors


def _right_singular(z: Tensor, seed: int, count: Tensor | None) -> Tensor:
    """(V, min(N, D), D) orthonormal rows in float64, by descending singular value of the centered views of z.

    By the smaller Gram matrix, several times as fast as the decomposition of z itself and in float64 precise enough.
    Rows without a singular value complete the others, as LAPACK's do: from the seed where there are fewer samples than
    dimensions. The rows are orthonormal also if z is not finite.
    """
    wide = z.to(wide_dtype(z.device))
    wide = wide - wide.mean(dim=1, keepdim=True)
    wide = (wide / wide.abs().amax(dim=(1, 2), keepdim=True)).nan_to_num(0, 0, 0)  # a constant view too: 0 / 0
    if z.shape[1] >= z.shape[2]:
        return torch.linalg.eigh(wide.mT @ wide).eigenvectors.flip(-1).mT
    rows = torch.linalg.eigh(wide @ wide.mT).eigenvectors.flip(-1).mT @ wide  # (V, N, D), as long as the values
    values = rows.norm(dim=-1, keepdim=True)
    exist = values > values[:, :1] * (z.shape[2] * torch.finfo(torch.float32).eps)
    others = unit_slices(z.shape[2], z.shape[1], seed, count, device=z.device).mT.to(wide.dtype)
    return torch.linalg.qr(torch.where(exist, rows / values, others).mT).Q.mT
