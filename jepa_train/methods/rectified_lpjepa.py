"""Rectified LpJEPA (arXiv 2602.01456): invariance of two views, and RDMReg towards a rectified generalized Gaussian."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from jepa_train.checks import conform
from jepa_train.distributed import at_least_fp32, gather_over_ranks, mean_over_ranks, world_size
from jepa_train.randomness import derive_seed, generator
from jepa_train.rgg import RGG, SigmaMode
from jepa_train.slices import unit_slices


@dataclass(frozen=True, kw_only=True)
class RectifiedLpJEPA:
    """lamb_inv * mse(z1, z2) + lamb_reg * RDMReg, for exactly two global views.

    mse is the mean over images and dimensions of (z1 - z2)^2: exactly four times LeJEPA's invariance. The target
    "rgg" is ReLU(mu + sigma * G), "gg" the same before ReLU; rectified says whether the projector ends in ReLU. The
    two together are the paper's 2x2 ablation. The paper's recipes use 8192 slices; its authors report 512 to suffice.
    """

    p: float = 1.0
    mu: float = 0.0
    sigma_mode: SigmaMode = "gn"
    num_slices: int = 1024
    lamb_inv: float = 25.0
    lamb_reg: float = 125.0
    target: Literal["rgg", "gg"] = "rgg"
    rectified: bool = True

    name: ClassVar[str] = "rectified_lpjepa"
    centred: ClassVar[bool] = False

    def __post_init__(self) -> None:
        conform(self)
        RGG(p=self.p, mu=self.mu, sigma_mode=self.sigma_mode)  # checks p, mu and sigma_mode
        if self.num_slices < 1:
            raise ValueError(f"num_slices must be at least 1, got {self.num_slices}; the paper uses 8192")
        if self.lamb_inv < 0:
            raise ValueError(f"lamb_inv must not be negative, got {self.lamb_inv}; the paper uses 25")
        if self.lamb_reg < 0:
            raise ValueError(f"lamb_reg must not be negative, got {self.lamb_reg}; the paper uses 125")

    @property
    def rectify(self) -> bool:
        """Whether the projector ends in ReLU."""
        return self.rectified

    @property
    def law(self) -> RGG:
        """The target's law; target "gg" is this before rectification."""
        return RGG(p=self.p, mu=self.mu, sigma_mode=self.sigma_mode)

    def check_views(self, num_global: int, num_local: int) -> None:
        """Raise ValueError unless there are exactly two global views and no local one."""
        if num_global != 2:
            raise ValueError(
                f"views.num_global must be 2 for rectified_lpjepa, got {num_global}; its loss is mse(z1, z2)"
            )
        if num_local:
            raise ValueError(
                f"views.num_local must be 0 for rectified_lpjepa, got {num_local}; its loss is mse(z1, z2)"
            )

    def expected(self) -> dict[str, float]:
        """The target law's standard deviation and fraction of non-zeros, whether or not the projector can match it."""
        if self.target == "gg":
            return {"std": self.law.gn_variance**0.5, "nonzero_fraction": 1.0}
        return {"std": self.law.variance**0.5, "nonzero_fraction": self.law.nonzero_fraction}

    def __call__(
        self, z: Tensor, *, num_global: int, step: int, seed: int, centre: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its unweighted terms `invariance` and `rdmreg`: see Method. z: (2, N, D).

        The slices are shared by the two views and each view has its own target sample, as in the authors' code.
        """
        assert len(z) == num_global == 2, "check_views admits two global views only"
        assert centre is None, "a config with an averaged network is refused: mse(z1, z2) has no centre"
        draws = generator(seed, step, "target", device=z.device)
        shape = (len(z), z.shape[1] * world_size(), z.shape[2])  # the global batch, drawn alike on every rank
        target = self.law.sample(shape, draws) if self.target == "rgg" else self.law.gn_sample(shape, draws)
        slices = unit_slices(z.shape[-1], self.num_slices, derive_seed(seed, step, "slices"), device=z.device)
        wide = at_least_fp32(z)
        invariance = mean_over_ranks((wide[0] - wide[1]).square().mean())
        regularizer = rdmreg(z, target, slices)
        loss = self.lamb_inv * invariance + self.lamb_reg * regularizer
        return loss, {"invariance": invariance.detach(), "rdmreg": regularizer.detach()}


def sliced_wasserstein(z: Tensor, target: Tensor, slices: Tensor) -> Tensor:
    """Two-sample sliced W2^2: mean over N and K of (sort(z @ c) - sort(target @ c))^2, over the columns c of slices.

    Args:
        z: (N, D); leading batch dimensions are averaged over.
        target: (N, D), or with z's leading dimensions; takes no gradient.
        slices: (D, K), unit columns.

    Returns:
        Scalar of these samples alone, in fp32 at least, under autocast too. No communication between ranks.
    """
    assert z.shape[-2:] == target.shape[-2:], f"as many targets as samples: {tuple(z.shape)}, {tuple(target.shape)}"
    with torch.autocast(z.device.type, enabled=False):
        wide = at_least_fp32(z)
        rows = slices.to(wide.dtype).mT  # (K, D): the projections come out as (..., K, N), sorted along contiguous rows
        with torch.no_grad():
            wanted = (rows @ target.to(wide.dtype).mT).sort(dim=-1).values
        return ((rows @ wide.mT).sort(dim=-1).values - wanted).square().mean()


def rdmreg(z: Tensor, target: Tensor, slices: Tensor) -> Tensor:
    """RDMReg: sliced_wasserstein of each view's global batch to the target, mean over views.

    Args:
        z: (V, N, D), the N samples of this rank in V views.
        target: (world_size * N, D), one sample for all views, or (V, world_size * N, D); equal on all ranks.
        slices: (D, K), unit columns, equal on all ranks.

    Returns:
        Scalar, in fp32 at least, under autocast too. Equal on all ranks.
    """
    everyone = gather_over_ranks(z.transpose(0, 1)).transpose(0, 1)  # (V, world_size * N, D)
    return sliced_wasserstein(everyone, target, slices)
