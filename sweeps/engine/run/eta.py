"""Estimated time left of a sweep, from the time that its cells have taken so far."""

import math


def duration(seconds: float) -> str:
    """An approximate time for display: "40 s", "12 min", "3 h 05 min"."""
    if seconds < 60:
        return f"{5 * math.ceil(seconds / 5)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Pace:
    """Lane-seconds per cell since the first report of a launch; a running cell counts by its epochs.

    The estimate is made at every report and counted down in between: recomputed from the clock it would grow until the
    next report, and jump back.
    """

    def __init__(self) -> None:
        self.reported = False  # True once any cell has reported
        self._fractions: dict[str, float] = {}  # trained fraction of each running cell
        self._starting: set[str] = set()  # cells whose first report includes the start of the workers
        self._since = self._lane_seconds = self._work = 0.0
        self._most = 1  # cells that ran at once
        self._estimate: tuple[float, float] | None = None  # time, seconds per cell

    def started(self, key: str, now: float, begun: float) -> None:
        """Start a cell, of which an earlier launch trained this fraction: it reports that part again, at once."""
        self._advance(now)
        self._fractions[key] = begun
        if not self.reported:
            self._starting.add(key)
        self._most = max(self._most, len(self._fractions))

    def progressed(self, key: str, now: float, fraction: float) -> None:
        """Take the report of a cell."""
        self._advance(now)
        before = self._fractions[key]
        self._fractions[key] = max(before, fraction)
        if key not in self._starting:
            self._work += self._fractions[key] - before
        self._starting.discard(key)
        self.reported = True
        self._measure(now)

    def ended(self, key: str, now: float, *, counts: bool) -> None:
        """End a cell; one that trained nothing does not count."""
        self._advance(now)
        rest = 1 - self._fractions.pop(key, 1.0)
        self._work += rest * (counts and self.reported)
        self._measure(now)

    def seconds_left(self, now: float, remaining: float) -> float | None:
        """Time for the cells that have not ended, running ones included; None while it is unknown."""
        if self._estimate is None:
            return None
        at, each = self._estimate
        cells = remaining - sum(self._fractions.values())
        return max(0.0, each * cells / max(1, min(self._most, remaining)) - (now - at))

    def _advance(self, now: float) -> None:
        self._lane_seconds += len(self._fractions) * (now - self._since) * self.reported
        self._since = now

    def _measure(self, now: float) -> None:
        if self._work and self._lane_seconds:
            self._estimate = now, self._lane_seconds / self._work
