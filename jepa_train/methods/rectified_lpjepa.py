"""Rectified LpJEPA (arXiv 2602.01456): invariance of two views, and RDMReg towards a rectified generalized Gaussian."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from jepa_train.base.errors import require
from jepa_train.base.validation import at_least, conform, later, not_negative, ruled
from jepa_train.distributed.collectives import at_least_fp32, fair_slice, gather_over_ranks, mean_over_ranks, world_size
from jepa_train.losses.matmul import is_half
from jepa_train.losses.rgg import RGG, SigmaMode, mu_of_fraction
from jepa_train.losses.sliced_wasserstein import sliced_wasserstein
from jepa_train.losses.slices import singular_slices, unit_slices
from jepa_train.methods.base import Activation, Objective, Step


@dataclass(frozen=True, kw_only=True)
class RectifiedLpJEPA:
    """lamb_inv * mse(z1, z2) + lamb_reg * RDMReg, for exactly two global views.

    mse is the mean over images and dimensions of (z1 - z2)^2: exactly four times LeJEPA's invariance. The target
    "rgg" is ReLU(mu + sigma * G), "gg" the same before ReLU; with rectified the projector ends in ReLU. The two
    together are the paper's 2x2 ablation. The paper's recipes use 8192 slices; its authors report 512 to suffice.
    slice_kind "svd" puts each view's singular vectors first among its slices, "svd_bottom_half" those of the smaller
    values (App. I): see singular_slices.

    nonzero_target sets mu so that the target has this share of non-zeros, for any p and sigma_mode.
    """

    p: float = 1.0
    mu: float = 0.0
    sigma_mode: SigmaMode = "gn"
    num_slices: int = at_least(1, 1024, "the paper uses 8192")
    slice_kind: Literal["random", "svd", "svd_bottom_half"] = "random"
    lamb_inv: float = not_negative(25.0, "the paper uses 25")
    lamb_reg: float = not_negative(125.0, "the paper uses 125")
    target: Literal["rgg", "gg"] = "rgg"
    rectified: bool = True
    nonzero_target: float = later(
        ruled(
            0.0, lambda share: share == 0 or 1e-9 <= share < 1, "must lie in [1e-9, 1)", "0 leaves it to mu", sets="mu"
        ),
        schema=4,
    )

    name: ClassVar[str] = "rectified_lpjepa"
    only_pairs: ClassVar[str] = "its loss is mse(z1, z2)"
    uses_center: ClassVar[bool] = False

    def __post_init__(self) -> None:
        conform(self)
        if self.nonzero_target:
            self._set_mu()
        _ = self.target_distribution  # checks p, mu and sigma_mode

    def _set_mu(self) -> None:
        RGG(p=self.p, mu=0.0)  # checks p
        rule = "nonzero_target needs the rectified target, of which it is a share, got target='gg'; set mu"
        require(self.target == "rgg", rule)
        mu = mu_of_fraction(self.nonzero_target, p=self.p, sigma_mode=self.sigma_mode)
        if self.mu == 0:
            object.__setattr__(self, "mu", mu)
        rule = f"mu follows from nonzero_target={self.nonzero_target:g}, which makes it {mu:g}, got {self.mu:g}"
        require(math.isclose(self.mu, mu, rel_tol=1e-5), f"{rule}; set one of the two")

    @property
    def output_activation(self) -> Activation:
        """Output activation of the projector."""
        return "relu" if self.rectified else "none"

    @property
    def target_distribution(self) -> RGG:
        """Target distribution; target "gg" is this before rectification."""
        return RGG(p=self.p, mu=self.mu, sigma_mode=self.sigma_mode)

    def expected(self) -> dict[str, float]:
        """Standard deviation and fraction of non-zeros of the target, even where the projector cannot match it."""
        distribution = self.target_distribution
        if self.target == "gg":
            return {"std": distribution.gn_variance**0.5, "nonzero_fraction": 1.0}
        return {"std": distribution.variance**0.5, "nonzero_fraction": distribution.nonzero_fraction}

    def __call__(self, z: Tensor, step: Step) -> Objective:
        """The loss and its unweighted terms `invariance` and `rdmreg`: see Method. z: (2, N, D).

        Random slices are shared by the two views and each view has its own target sample, as in the authors' code.
        """
        shape = (len(z), z.shape[1] * world_size(), z.shape[2])  # the global batch, drawn alike on every rank
        rectified = self.target == "rgg"
        target = self.target_distribution.target(shape, *step.draws("target"), rectified=rectified, device=z.device)
        wide = at_least_fp32(z)
        invariance = mean_over_ranks((wide[0] - wide[1]).square().mean())
        everyone = gather_over_ranks(wide.transpose(0, 1)).transpose(0, 1)  # (2, world_size * N, D)
        slices = self._slices(everyone.detach(), *step.draws("slices"))
        regularizer = rdmreg(everyone, target, slices, tf32=is_half(z))
        loss = self.lamb_inv * invariance + self.lamb_reg * regularizer
        return loss, {"invariance": invariance.detach(), "rdmreg": regularizer.detach()}

    def _slices(self, z: Tensor, seed: int, count: Tensor | None) -> Tensor:
        """(D, num_slices), or (V, D, num_slices), equal on all ranks. z: (V, N, D) of the global batch."""
        if self.slice_kind == "random":
            return unit_slices(z.shape[-1], self.num_slices, seed, count, device=z.device)
        return singular_slices(z, self.num_slices, seed, count, bottom_half=self.slice_kind == "svd_bottom_half")


def rdmreg(z: Tensor, target: Tensor, slices: Tensor, *, tf32: bool = False) -> Tensor:
    """RDMReg: sliced_wasserstein of each view's global batch to the target, mean over views.

    The slices are divided among the ranks; each rank projects all samples on its share.

    Args:
        z: (V, N, D), the global batch's N samples in V views, gathered over the ranks: equal on all of them.
        target: (N, D), one sample for all views, or (V, N, D); equal on all ranks.
        slices: (D, K), unit columns, or (V, D, K), those of each view; equal on all ranks.
        tf32: see sliced_wasserstein.

    Returns:
        Scalar, in fp32 at least, under autocast too. Equal on all ranks.
    """
    share = slices[..., fair_slice(slices.shape[-1])]  # may be empty, with distance 0
    weight = share.shape[-1] * world_size() / slices.shape[-1]
    if slices.ndim == 2:
        distance = sliced_wasserstein(z, target, share, tf32=tf32)
    else:
        views = zip(z, target.expand_as(z), share, strict=True)
        distance = torch.stack([sliced_wasserstein(*view, tf32=tf32) for view in views]).mean()
    return mean_over_ranks(distance if weight == 1 else distance * weight)
