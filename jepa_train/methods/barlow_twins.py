"""Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230): cross-correlation of two views close to the identity."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from jepa_train.base.validation import conform, not_negative
from jepa_train.distributed.collectives import at_least_fp32, gather_over_ranks
from jepa_train.methods.base import Activation, Objective, Step

_VARIANCE_FLOOR = 1e-5  # added under the root: the authors normalise by nn.BatchNorm1d(affine=False)


@dataclass(frozen=True, kw_only=True)
class BarlowTwins:
    """sum_i (1 - C_ii)^2 + lamb_off * sum_{i != j} C_ij^2 (Eq. 1), for exactly two global views.

    C (D, D) is the correlation, over the images of the global batch, of the dimensions of one view with those of the
    other (Eq. 2). The conventions are the authors' code's (facebookresearch/barlowtwins, main.py:205-223), whose weight
    is 0.0051; solo-learn multiplies the loss by 0.025, lightly divides by the unbiased deviation.
    """

    lamb_off: float = not_negative(0.005, "the paper uses 0.005")

    name: ClassVar[str] = "barlow_twins"
    only_pairs: ClassVar[str] = "its loss is of a pair z1, z2"
    uses_center: ClassVar[bool] = False
    output_activation: ClassVar[Activation] = "none"

    def __post_init__(self) -> None:
        conform(self)

    def expected(self) -> dict[str, float]:
        """Empty: the loss does not depend on the scale of z."""
        return {}

    def __call__(self, z: Tensor, _step: Step) -> Objective:
        """The loss and its unweighted terms `invariance` and `redundancy`: see Method. z: (2, N, D)."""
        both = gather_over_ranks(at_least_fp32(z).transpose(0, 1)).transpose(0, 1)  # (2, world_size * N, D)
        centered = both - both.mean(dim=1, keepdim=True)
        normal = centered / (centered.square().mean(dim=1, keepdim=True) + _VARIANCE_FLOOR).sqrt()
        with torch.autocast(z.device.type, enabled=False):
            correlation = normal[0].mT @ normal[1] / both.shape[1]  # (D, D)
        diagonal = correlation.diagonal()
        invariance = (1 - diagonal).square().sum()
        redundancy = correlation.square().sum() - diagonal.square().sum()
        terms = {"invariance": invariance.detach(), "redundancy": redundancy.detach()}
        return invariance + self.lamb_off * redundancy, terms
