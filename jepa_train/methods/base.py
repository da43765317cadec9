"""What a method is: a frozen dataclass of hyper-parameters whose call is the training objective."""

from typing import ClassVar, Protocol

from torch import Tensor


class Method(Protocol):
    """The fields are the searchable hyper-parameters (`method.<field>` everywhere); the call is the objective."""

    name: ClassVar[str]
    centred: ClassVar[bool]  # is the invariance to a centre? An averaged network may give it, a predictor aim at it

    @property
    def rectify(self) -> bool:
        """Whether the projector ends in ReLU."""
        ...

    def check_views(self, num_global: int, num_local: int) -> None:
        """Raise ValueError when the objective is not defined for so many views."""
        ...

    def expected(self) -> dict[str, float]:
        """What the target distribution says z should show: {"std": ..., "nonzero_fraction": ...}, in closed form."""
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
