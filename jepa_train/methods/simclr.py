"""SimCLR (Chen et al. 2020, arXiv 2002.05709): each view identifies the other view of its image among all others."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from jepa_train.base.validation import conform, positive
from jepa_train.distributed.collectives import at_least_fp32, gather_over_ranks, mean_over_ranks, rank, world_size
from jepa_train.methods.base import Activation, Objective, Step


@dataclass(frozen=True, kw_only=True)
class SimCLR:
    """NT-Xent over the 2 N views of exactly two global ones, both directions: see nt_xent.

    The baseline of Rectified LpJEPA, temperature 0.2 (scripts/pretrain/cifar/simclr.yaml). NCL is the same on
    non-negative features.
    """

    temperature: float = positive(0.2, "the papers use 0.2")

    name: ClassVar[str] = "simclr"
    only_pairs: ClassVar[str] = "each view has one positive"
    uses_center: ClassVar[bool] = False
    output_activation: ClassVar[Activation] = "none"

    def __post_init__(self) -> None:
        conform(self)

    def expected(self) -> dict[str, float]:
        """Empty: the loss has no target distribution."""
        return {}

    def __call__(self, z: Tensor, _step: Step) -> Objective:
        """The loss, without terms: see Method. z: (2, N, D)."""
        return nt_xent(z, temperature=self.temperature), {}


def nt_xent(z: Tensor, *, temperature: float) -> Tensor:
    """Mean over all 2 N views of -log softmax(cosines / temperature) at the other view of the same image.

    The softmax is over the 2 N - 1 other views of the global batch (SimCLR, Eq. 1 and Alg. 1); each rank takes the
    views of its own images. A view whose z is all zeros (a dead ReLU) has cosine 0 with all others.

    Args:
        z: (2, N, D), the N images of this rank; the same N on every rank.

    Returns:
        Scalar, in fp32 at least, under autocast too. Equal on all ranks.
    """
    count, shift = z.shape[1], rank() * z.shape[1]
    total = count * world_size()
    unit = _directions(at_least_fp32(z))
    everyone = gather_over_ranks(unit.transpose(0, 1)).transpose(0, 1).flatten(0, 1)  # (2 * total, D), view by view
    with torch.autocast(z.device.type, enabled=False):
        logits = unit.flatten(0, 1) @ everyone.mT / temperature  # (2 * N, 2 * total)
    image = torch.arange(count, device=z.device) + shift
    own, other = torch.cat([image, image + total]), torch.cat([image + total, image])
    logits = logits.scatter(1, own[:, None], -torch.inf)
    return mean_over_ranks(functional.cross_entropy(logits, other))


def _directions(z: Tensor) -> Tensor:
    """Rows of unit length; rows of zeros stay, as functional.normalize would divide their gradient by 1e-12."""
    norm = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    return z / torch.where(norm > 0, norm, 1)
