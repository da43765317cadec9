"""Whoever keeps the machines that a run is on: asked whether they stay, told what is safe."""

from typing import Protocol

from jepa_train.distributed import collectives

NOTICE_S = 5.0  # of training, about, between two questions: of the 30 s to 2 min that a notice gives


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


class Watch:
    """When to ask a host between two looks, which may lie a minute apart: by steps, on which all ranks agree."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._every = 1  # until the first look tells how long a step takes
        self._asked = 0

    def pace(self, steps_per_s: float) -> None:
        """How fast rank 0 trains, by a look. All ranks call this together."""
        self._every = collectives.broadcast_int(max(1, int(min(NOTICE_S * steps_per_s, 1e9))))

    def due(self, step: int) -> bool:
        """Whether the host was not asked for NOTICE_S. It costs nothing and is the same on all ranks."""
        return step >= self._asked + self._every

    def leaving(self, step: int) -> bool:
        """Whether a machine of the run is about to be taken away. All ranks ask together, and hear the same."""
        self._asked = step
        return self._host.leaving()
