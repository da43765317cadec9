"""Estimated time left of a sweep, from the cells that it has trained so far."""

import math


def duration(seconds: float) -> str:
    """An approximate time for display: "40 s", "12 min", "3 h 05 min"."""
    if seconds < 60:
        return f"{5 * math.ceil(seconds / 5)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Pace:
    """Cells trained per second since the first report of a launch; a running cell counts by its epochs.

    The estimate is made at every report and counted down in between: recomputed from the clock it would grow until the
    next report, and jump back.
    """

    def __init__(self) -> None:
        self._fractions: dict[str, float] = {}  # trained fraction of each running cell
        self._starting: set[str] = set()  # cells whose first report includes the start of the workers
        self._first: float | None = None  # time of the first report
        self._work = 0.0  # cells trained since
        self._estimate: tuple[float, float] | None = None  # time, seconds per cell

    @property
    def reported(self) -> bool:
        """True once any cell has reported."""
        return self._first is not None

    def started(self, key: str, begun: float) -> None:
        """Start a cell, of which an earlier launch trained this fraction: it reports that part again, at once."""
        self._fractions[key] = begun
        if not self.reported:
            self._starting.add(key)

    def progressed(self, key: str, now: float, fraction: float) -> None:
        """Take the report of a cell."""
        before = self._fractions[key]
        self._fractions[key] = max(before, fraction)
        if not self.reported:
            self._first = now
        self._count(now, 0.0 if key in self._starting else self._fractions[key] - before)
        self._starting.discard(key)

    def ended(self, key: str, now: float, *, counts: bool) -> None:
        """End a cell; one that trained nothing does not count."""
        self._count(now, (1 - self._fractions.pop(key, 1.0)) * counts)

    def seconds_left(self, now: float, remaining: float) -> float | None:
        """Time for the cells that have not ended, running ones included; None while it is unknown."""
        if self._estimate is None:
            return None
        at, each = self._estimate
        return max(0.0, each * (remaining - sum(self._fractions.values())) - (now - at))

    def _count(self, now: float, work: float) -> None:
        self._work += work * self.reported
        if self._work and self._first is not None and now > self._first:
            self._estimate = now, (now - self._first) / self._work
