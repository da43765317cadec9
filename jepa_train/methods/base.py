"""Interface of the methods: frozen dataclasses of hyper-parameters whose call is the training objective."""

from typing import ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor

from jepa_train.base.errors import require

Objective = tuple[Tensor, dict[str, Tensor]]  # the loss and its unweighted terms, detached
Activation = Literal["none", "relu", "rep_relu"]  # "rep_relu" is ReLU forward, with the gradient of GELU backward


class Step(NamedTuple):
    """Inputs of an objective besides z.

    Args:
        num_global: number of global views, which come first in z.
        number: of the training step; with seed it decides slices and targets, the same on every rank.
        center: (N, D), of each image, from an averaged network; None, and always where uses_center is false: the
            method's own.
        predicted: (V, N, D), a predictor's estimate of the center from each view; None: z itself.
    """

    num_global: int
    number: int
    seed: int
    center: Tensor | None = None
    predicted: Tensor | None = None


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
