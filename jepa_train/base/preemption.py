"""Preemption interface: reports whether the run should stop early, and which checkpoint has been saved."""

from typing import Protocol

from jepa_train.distributed import collectives

NOTICE_S = 5.0  # of training, about, between two questions: of the 30 s to 2 min that a notice gives


class Host(Protocol):
    """Interface of a run to its machines. A Ray worker has one that knows of machines about to be taken away."""

    def saved(self, age_s: float) -> None:
        """A checkpoint is safe, of the state so many seconds ago. Called on the writing rank, in another thread."""

    def leaving(self) -> bool:
        """True if a machine of the run is about to be taken away. All ranks call this together; equal on all."""


class Home:
    """The host of a run whose machine stays."""

    def saved(self, age_s: float) -> None:
        """Nobody counts."""

    def leaving(self) -> bool:
        """Never."""
        return False


class Watch:
    """Schedule of questions to a host between two looks, a minute apart perhaps: by steps, equal on all ranks."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._every = 1  # until the first look tells how long a step takes
        self._asked = 0

    def pace(self, steps_per_s: float) -> None:
        """Set the speed of training, by rank 0's look. All ranks call this together."""
        self._every = collectives.broadcast_int(max(1, int(min(NOTICE_S * steps_per_s, 1e9))))

    def due(self, step: int) -> bool:
        """True if the host was not asked for NOTICE_S. Costs nothing; equal on all ranks."""
        return step >= self._asked + self._every

    def leaving(self, step: int) -> bool:
        """True if a machine of the run is about to be taken away. All ranks call this together; equal on all."""
        self._asked = step
        return self._host.leaving()
