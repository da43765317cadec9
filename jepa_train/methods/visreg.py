"""VISReg (Wu et al. 2026, arXiv 2606.02572): invariance, and scale, shape and center of the distribution of z."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from jepa_train.base.device import wide_dtype
from jepa_train.base.validation import at_least, conform, not_negative, ruled
from jepa_train.distributed.collectives import at_least_fp32, gather_over_ranks
from jepa_train.losses.matmul import is_half
from jepa_train.losses.slices import unit_slices
from jepa_train.methods.base import Activation, Objective, Step
from jepa_train.methods.lejepa import invariance_to_center
from jepa_train.methods.rectified_lpjepa import rdmreg

_SMALLEST_STD = 1e-6  # by which a constant dimension is divided, as in the authors' code


@dataclass(frozen=True, kw_only=True)
class VISReg:
    """(1 - lamb) * invariance + lamb * (lamb_scale * scale + lamb_shape * shape + lamb_center * center) (Eqs. 7, 9).

    For any number of views from two on. Per view, over the global batch, and averaged over the views:

    - scale: mean over dimensions of (1 - std)^2 (Eq. 1), whose gradient does not vanish as z shrinks;
    - shape: see shape_distance, of z without its mean and divided by its std, through which no gradient flows (Eq. 2);
    - center: mean over dimensions of the squared mean (Eq. 6).

    invariance is LeJEPA's (Eq. 8). The text sums over the dimensions in Eqs. 6 and 8 and over the images in Eq. 5; the
    authors' code, followed here, takes means (HaiyuWu/visreg, visreg/losses/visreg.py:24-40, train.py:229). Its ranks
    draw slices of their own; here num_slices are those of all ranks together.
    """

    lamb: float = ruled(0.6, lambda lamb: 0 <= lamb <= 1, "is a convex weight in [0, 1]", "the paper starts at 0.6")
    num_slices: int = at_least(1, 4096, "the paper uses 4096")
    lamb_scale: float = not_negative(1.0, "the paper uses 1")
    lamb_shape: float = not_negative(1.0, "the paper uses 1")
    lamb_center: float = not_negative(1.0, "the paper uses 1")

    name: ClassVar[str] = "visreg"
    only_pairs: ClassVar[str] = ""
    uses_center: ClassVar[bool] = True
    output_activation: ClassVar[Activation] = "none"

    def __post_init__(self) -> None:
        conform(self)

    def expected(self) -> dict[str, float]:
        """Standard deviation and fraction of non-zeros of a standard normal."""
        return {"std": 1.0, "nonzero_fraction": 1.0}

    def __call__(self, z: Tensor, step: Step) -> Objective:
        """The loss and its unweighted terms `invariance`, `scale`, `shape` and `center`: see Method. z: (V, N, D)."""
        slices = unit_slices(z.shape[-1], self.num_slices, *step.draws("slices"), device=z.device)
        wide = at_least_fp32(z)
        invariance = invariance_to_center(wide, step)
        everyone = gather_over_ranks(wide.transpose(0, 1)).transpose(0, 1)  # (V, world_size * N, D)
        mean = everyone.mean(dim=1, keepdim=True)
        centered = everyone - mean
        std = torch.linalg.vector_norm(centered, dim=1, keepdim=True) / everyone.shape[1] ** 0.5  # (V, 1, D)
        scale, center = (1 - std).square().mean(), mean.square().mean()
        shape = shape_distance(centered / std.detach().clamp_min(_SMALLEST_STD), slices, tf32=is_half(z))
        regularizer = self.lamb_scale * scale + self.lamb_shape * shape + self.lamb_center * center
        loss = (1 - self.lamb) * invariance + self.lamb * regularizer
        terms = {"invariance": invariance, "scale": scale, "shape": shape, "center": center}
        return loss, {name: term.detach() for name, term in terms.items()}


def shape_distance(z: Tensor, slices: Tensor, *, tf32: bool = False) -> Tensor:
    """Sliced W2^2 to N(0, I) by quantiles: mean over N, K and V of (sort(z @ c) - q)^2 (VISReg, Eqs. 4 and 5).

    q_i is the standard normal's quantile at i / (N + 1), as in the authors' code; the text names none. The slices are
    divided among the ranks, as rdmreg does.

    Args:
        z: (V, N, D), the global batch, equal on all ranks.
        slices: (D, K), unit columns, equal on all ranks.
        tf32: see sliced_wasserstein.

    Returns:
        Scalar, in fp32 at least. Equal on all ranks.
    """
    count = z.shape[1]
    levels = torch.arange(1, count + 1, dtype=wide_dtype(z.device), device=z.device) / (count + 1)
    return rdmreg(z, torch.special.ndtri(levels), slices, tf32=tf32)
