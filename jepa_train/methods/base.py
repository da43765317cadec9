"""Interface of the methods: frozen dataclasses of hyper-parameters whose call is the training objective."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

from jepa_train.base.errors import require

Objective = tuple[Tensor, dict[str, Tensor]]  # the loss and its unweighted terms, detached
Activation = Literal["none", "relu", "rep_relu"]  # "rep_relu" is ReLU forward, with the gradient of GELU backward


class Method(Protocol):
    """The fields are the searchable hyper-parameters (`method.<field>` everywhere); the call is the objective."""

    name: ClassVar[str]
    uses_center: ClassVar[bool]  # the target is the mean of the global views: an EMA may give it, a predictor learn it

    @property
    def output_activation(self) -> Activation:
        """Output activation of the projector."""
        ...

    def check_views(self, num_global: int, num_local: int) -> None:
        """Raise ValueError if the objective is not defined for these numbers of views."""
        ...

    def expected(self) -> dict[str, float]:
        """Closed-form statistics of z in the target distribution: {"std": .., "nonzero_fraction": ..} where known.

        A run whose z has less than a twentieth of "std" (metrics.UNSCALED_STD, without it) counts as collapsed.
        """
        ...

    def __call__(
        self,
        z: Tensor,
        *,
        num_global: int,
        step: int,
        seed: int,
        center: Tensor | None = None,
        predicted: Tensor | None = None,
    ) -> Objective:
        """The loss of the global batch, equal on all ranks, and its unweighted terms, detached.

        Args:
            z: (V, N, D), the N local images of this rank; the num_global global views come first.
            step: the training step; with seed it decides slices and targets, the same on every rank.
            center: (N, D), of each image, from an averaged network; None, and always where uses_center is false: the
                method's own.
            predicted: (V, N, D), a predictor's estimate of the center from each view; None: z itself.
        """
        ...


def require_two_global_views(num_global: int, num_local: int, *, name: str, reason: str) -> None:
    """Raise ValueError, with the method's name and the reason, unless there are two global views and no local one."""
    require(num_global == 2, f"views.num_global must be 2 for {name}, got {num_global}; {reason}")
    require(num_local == 0, f"views.num_local must be 0 for {name}, got {num_local}; {reason}")


def objective_of_pair(loss: Callable[[Any, Tensor], Objective]) -> Callable[..., Objective]:
    """Decorate the call of a method whose loss depends on z of two global views alone: no draws and no center."""

    @functools.wraps(loss)
    def call(
        method: Any,
        z: Tensor,
        *,
        num_global: int,
        step: int,  # noqa: ARG001 (nothing is random)
        seed: int,  # noqa: ARG001
        center: Tensor | None = None,
        predicted: Tensor | None = None,
    ) -> Objective:
        assert len(z) == num_global == 2, "check_views admits two global views only"
        assert center is predicted is None, "TrainConfig refuses both for a method without a center"
        return loss(method, z)

    return call
