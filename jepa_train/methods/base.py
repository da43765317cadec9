"""Interface of the methods: frozen dataclasses of hyper-parameters whose call is the training objective."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from jepa_train.base.errors import require
from jepa_train.base.seeds import derive_seed

Objective = tuple[Tensor, dict[str, Tensor]]  # the loss and its unweighted terms, detached
Activation = Literal["none", "relu", "rep_relu"]  # "rep_relu" is ReLU forward, with the gradient of GELU backward


@dataclass(frozen=True)
class Step:
    """Inputs of an objective besides z.

    Args:
        num_global: number of global views, which come first in z.
        number: of the training step. On a GPU it is a constant of a captured step, so methods draw by draws() instead.
        seed: of the run.
        center: (N, D), of each image, from an averaged network; None, and always where uses_center is false: the
            method's own.
        predicted: (V, N, D), a predictor's estimate of the center from each view; None: z itself.
        count: the number of the step as a 0-dim int64 tensor on z's device, in [0, 2^32); None on a CPU.
    """

    num_global: int
    number: int
    seed: int
    center: Tensor | None = None
    predicted: Tensor | None = None
    count: Tensor | None = None

    def draws(self, purpose: str) -> tuple[int, Tensor | None]:
        """Seed and count for the random draws of one purpose in this step; the same on every rank.

        Without Step.count the seed is another one in each step, and the count is None. With it the seed is that of the
        run and the count advances on the device, so that a captured step draws anew at each replay.
        """
        if self.count is None:
            return derive_seed(self.seed, self.number, purpose), None
        return derive_seed(self.seed, purpose), self.count


class Method(Protocol):
    """The fields are the searchable hyper-parameters (`method.<field>` everywhere); the call is the objective."""

    name: ClassVar[str]
    only_pairs: ClassVar[str]  # reason why there must be two global views and no local one; "": any number from two on
    uses_center: ClassVar[bool]  # the target is the mean of the global views: an EMA may give it, a predictor learn it

    @property
    def output_activation(self) -> Activation:
        """Output activation of the projector."""
        ...

    def expected(self) -> dict[str, float]:
        """Closed-form statistics of z in the target distribution: {"std": .., "nonzero_fraction": ..} where known.

        A run whose z has less than a twentieth of "std" (metrics.UNSCALED_STD, without it) counts as collapsed.
        """
        ...

    def __call__(self, z: Tensor, step: Step, /) -> Objective:
        """The loss of the global batch, equal on all ranks, and its unweighted terms, detached.

        Args:
            z: (V, N, D), the N local images of this rank.
        """
        ...


def check_views(method: Method, num_global: int, num_local: int) -> None:
    """Raise ValueError if the objective is not defined for these numbers of views."""
    name, reason = method.name, method.only_pairs
    if reason:
        require(num_global == 2, f"views.num_global must be 2 for {name}, got {num_global}; {reason}")
        require(num_local == 0, f"views.num_local must be 0 for {name}, got {num_local}; {reason}")
    rule = f"views.num_global + views.num_local must be at least 2 for {name}"
    require(num_global + num_local >= 2, f"{rule}, got {num_global} + {num_local}; the papers start at 2 global views")
