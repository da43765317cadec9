"""NCL (Wang et al. 2024, arXiv 2403.12459): SimCLR on non-negative features."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from jepa_train.base.validation import conform, positive
from jepa_train.methods.base import Activation, Objective, Step
from jepa_train.methods.simclr import nt_xent


@dataclass(frozen=True, kw_only=True)
class NCL:
    """SimCLR's nt_xent on features made non-negative by "relu" or the authors' "rep_relu" (gradient of GELU).

    Rectified LpJEPA's rows NCL-ReLU and NCL-RepReLU; temperature 0.2 and rep_relu in scripts/pretrain/cifar/ncl.yaml.
    Here z is the output of the ReLU; the authors probe its input.
    """

    temperature: float = positive(0.2, "the papers use 0.2")
    nonneg: Literal["relu", "rep_relu"] = "relu"

    name: ClassVar[str] = "ncl"
    only_pairs: ClassVar[str] = "each view has one positive"
    uses_center: ClassVar[bool] = False

    def __post_init__(self) -> None:
        conform(self)

    @property
    def output_activation(self) -> Activation:
        """Output activation of the projector."""
        return self.nonneg

    def expected(self) -> dict[str, float]:
        """Empty: the loss has no target distribution."""
        return {}

    def __call__(self, z: Tensor, _step: Step) -> Objective:
        """The loss, without terms: see Method. z: (2, N, D), non-negative."""
        return nt_xent(z, temperature=self.temperature), {}
