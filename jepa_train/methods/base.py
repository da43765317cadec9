"""What a method is: a frozen dataclass of hyper-parameters whose call is the training objective."""

from typing import ClassVar, Literal, Protocol

from torch import Tensor

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
    ) -> tuple[Tensor, dict[str, Tensor]]:
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
    if num_global != 2:
        raise ValueError(f"views.num_global must be 2 for {name}, got {num_global}; {reason}")
    if num_local:
        raise ValueError(f"views.num_local must be 0 for {name}, got {num_local}; {reason}")
