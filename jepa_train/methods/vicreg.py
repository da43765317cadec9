"""VICReg (Bardes et al. 2022, arXiv 2105.04906): variance, invariance and covariance of two views."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from jepa_train.base.validation import conform, not_negative
from jepa_train.distributed.collectives import at_least_fp32, gather_over_ranks, mean_over_ranks
from jepa_train.methods.base import Activation, Objective, Step

_VARIANCE_FLOOR = 1e-4  # added under the root, as in the authors' code


@dataclass(frozen=True, kw_only=True)
class VICReg:
    """lamb_inv * mse(z1, z2) + lamb_var * variance + lamb_cov * covariance, for exactly two global views.

    The conventions are the authors' code's (facebookresearch/vicreg): mse is the mean over images and dimensions;
    `variance` is the mean over dimensions of max(0, 1 - std), averaged over the two views; `covariance` is the sum of
    the squared off-diagonal covariances divided by D, summed over the views. solo-learn, on which Rectified LpJEPA's
    baselines run, sums the variance over the views too: its 25 / 25 / 1 is 25 / 50 / 1 here.

    nonneg is the output activation of the projector: with "relu" or "rep_relu" this is Rectified LpJEPA's NVICReg.
    """

    lamb_inv: float = not_negative(25.0, "the paper uses 25")
    lamb_var: float = not_negative(25.0, "the paper uses 25")
    lamb_cov: float = not_negative(1.0, "the paper uses 1")
    nonneg: Activation = "none"

    name: ClassVar[str] = "vicreg"
    only_pairs: ClassVar[str] = "its loss is of a pair z1, z2"
    uses_center: ClassVar[bool] = False

    def __post_init__(self) -> None:
        conform(self)

    @property
    def output_activation(self) -> Activation:
        """Output activation of the projector."""
        return self.nonneg

    def expected(self) -> dict[str, float]:
        """Standard deviation of the hinge; the fraction of non-zeros is unknown behind a rectifier."""
        return {"std": 1.0} | ({"nonzero_fraction": 1.0} if self.nonneg == "none" else {})

    def __call__(self, z: Tensor, _step: Step) -> Objective:
        """The loss and its unweighted terms `invariance`, `variance` and `covariance`: see Method. z: (2, N, D)."""
        wide = at_least_fp32(z)
        invariance = mean_over_ranks((wide[0] - wide[1]).square().mean())
        everyone = gather_over_ranks(wide.transpose(0, 1)).transpose(0, 1)  # (2, world_size * N, D)
        variance, covariance = variance_hinge(everyone).mean(), covariance_penalty(everyone).sum()
        loss = self.lamb_inv * invariance + self.lamb_var * variance + self.lamb_cov * covariance
        terms = {"invariance": invariance, "variance": variance, "covariance": covariance}
        return loss, {name: term.detach() for name, term in terms.items()}


def variance_hinge(z: Tensor) -> Tensor:
    """The mean over dimensions of max(0, 1 - sqrt(var + 1e-4)), var unbiased. (..., N, D) -> (...)."""
    return functional.relu(1 - (z.var(dim=-2) + _VARIANCE_FLOOR).sqrt()).mean(dim=-1)


def covariance_penalty(z: Tensor) -> Tensor:
    """The sum of the squared off-diagonal entries of the unbiased covariance (D, D), over D. (..., N, D) -> (...)."""
    centered = z - z.mean(dim=-2, keepdim=True)
    with torch.autocast(z.device.type, enabled=False):
        covariance = centered.mT @ centered / (z.shape[-2] - 1)  # (..., D, D)
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    return (covariance.square().sum(dim=(-2, -1)) - diagonal.square().sum(dim=-1)) / z.shape[-1]
