"""Whoever keeps the machines that a run is on: asked whether they stay, told what is safe."""

from typing import Protocol


class Host(Protocol):
    """What a run asks and tells. A Ray worker has one that knows of machines which are about to be taken away."""

    def saved(self, age_s: float) -> None:
        """A checkpoint is safe, of the state so many seconds ago. On the rank that wrote it, in another thread."""

    def leaving(self) -> bool:
        """Whether a machine of the run is about to be taken away. All ranks ask together, and hear the same."""


class Home:
    """The host of a run whose machine stays."""

    def saved(self, age_s: float) -> None:
        """Nobody counts."""

    def leaving(self) -> bool:
        """Never."""
        return False
