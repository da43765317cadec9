"""Preemption interface: reports whether the run should stop early, and which checkpoint has been saved."""

from typing import Protocol

from jepa_train.distributed import collectives

NOTICE_S = 5.0  # of training between two checks, roughly; a notice leaves 30 s to 2 min


class Host(Protocol):
    """Interface of a run to its machines. Ray workers implement it for preemptible machines."""

    def saved(self, age_s: float) -> None:
        """Acknowledge a checkpoint of the state age_s seconds ago. Called on the writing rank, in another thread."""

    def leaving(self) -> bool:
        """True if a machine of the run is about to be taken away. All ranks call this together; equal on all."""


class NoPreemption:
    """Host of a run on machines that stay."""

    def saved(self, age_s: float) -> None:
        """Do nothing."""

    def leaving(self) -> bool:
        """Return False."""
        return False


class Watch:
    """Schedule of preemption checks, counted in steps, so that all ranks check at the same time."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._every = 1  # until pace is known
        self._last = 0

    def pace(self, steps_per_s: float) -> None:
        """Set the speed of training, as rank 0 measures it. All ranks call this together."""
        self._every = collectives.broadcast_int(max(1, int(min(NOTICE_S * steps_per_s, 1e9))))

    def due(self, step: int) -> bool:
        """True if the last check is NOTICE_S ago. Free of cost; equal on all ranks."""
        return step >= self._last + self._every

    def leaving(self, step: int) -> bool:
        """Check the host at this step. All ranks call this together; equal on all."""
        self._last = step
        return self._host.leaving()
