"""What a method is: a frozen dataclass of hyper-parameters whose call is the training objective."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

from jepa_train.base.errors import require

Objective = tuple[Tensor, dict[str, Tensor]]  # the loss and its unweighted terms, detached
Link = Literal["none", "relu", "rep_relu"]  # forward "rep_relu" is ReLU, backward the gradient of GELU


class Method(Protocol):
    """The fields are the searchable hyper-parameters (`method.<field>` everywhere); the call is the objective."""

    name: ClassVar[str]
    centred: ClassVar[bool]  # is the invariance to a centre? An averaged network may give it, a predictor aim at it

    @property
    def link(self) -> Link:
        """What the projector ends in."""
        ...

    def check_views(self, num_global: int, num_local: int) -> None:
        """Raise ValueError when the objective is not defined for so many views."""
        ...

    def expected(self) -> dict[str, float]:
        """What z should show, in closed form: {"std": ..} and {"nonzero_fraction": ..}, as far as theory says so.

        A run whose z spreads less than a twentieth of "std" (metrics.UNSCALED_STD, without it) counts as collapsed.
        """
        ...

    def __call__(
        self,
        z: Tensor,
        *,
        num_global: int,
        step: int,
        seed: int,
        centre: Tensor | None = None,
        predicted: Tensor | None = None,
    ) -> Objective:
        """The loss of the global batch, equal on all ranks, and its unweighted terms, detached.

        Args:
            z: (V, N, D), the N local images of this rank; the num_global global views come first.
            step: the training step; with seed it decides slices and targets, the same on every rank.
            centre: (N, D), of each image, from an averaged network; without it, and always where the method is not
                centred, what the method says.
            predicted: (V, N, D), of the centre from each view, by a predictor; without it z itself.
        """
        ...


def require_two_global_views(num_global: int, num_local: int, *, name: str, reason: str) -> None:
    """Raise ValueError unless there are exactly two global views and no local one.

    Args:
        name: the method's.
        reason: why, for the end of the message.
    """
    require(num_global == 2, f"views.num_global must be 2 for {name}, got {num_global}; {reason}")
    require(num_local == 0, f"views.num_local must be 0 for {name}, got {num_local}; {reason}")


def objective_of_pair(loss: Callable[[Any, Tensor], Objective]) -> Callable[..., Objective]:
    """Decorate the call of a method whose loss depends on z of two global views alone: no draws and no centre."""

    @functools.wraps(loss)
    def call(
        method: Any,
        z: Tensor,
        *,
        num_global: int,
        step: int,  # noqa: ARG001 (nothing is random)
        seed: int,  # noqa: ARG001
        centre: Tensor | None = None,
        predicted: Tensor | None = None,
    ) -> Objective:
        require_pair(z, num_global, centre, predicted)
        return loss(method, z)

    return call


def require_pair(z: Tensor, num_global: int, centre: Tensor | None, predicted: Tensor | None) -> None:
    """Assert what a config has been checked for: two global views, and neither an averaged network nor a predictor."""
    assert len(z) == num_global == 2, "check_views admits two global views only"
    assert centre is predicted is None, "configs with either are refused: the loss has no centre"
