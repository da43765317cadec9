"""Whoever keeps the machines that a run is on: asked whether they stay, told what is safe."""

from typing import Protocol


class Host(Protocol):
    """What a run asks and tells. A Ray worker has one that knows of machines which are about to be taken away."""

    def saved(self) -> None:
        """A checkpoint was written; called on the rank that wrote it."""

    def leaving(self) -> bool:
        """Whether a machine of the run is about to be taken away. All ranks ask together, and hear the same."""


class Home:
    """The host of a run whose machine stays."""

    def saved(self) -> None:
        """Nobody counts."""

    def leaving(self) -> bool:
        """Never."""
        return False
