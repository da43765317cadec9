"""Estimated time left of a sweep, from the time that its cells have taken so far."""

import math
from dataclasses import dataclass


def seconds_left(each: float, remaining: float, lanes: float) -> float:
    """The time for the remaining cells, fractions of running ones included.

    Args:
        each: seconds per cell.
        lanes: cells that run at once.
    """
    return each * remaining / lanes


def duration(seconds: float) -> str:
    """A time that need not be exact: "40 s", "12 min", "3 h 05 min"."""
    if seconds < 60:
        return f"{5 * math.ceil(seconds / 5)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass
class _PacedCell:
    """A cell in flight. Its pace is measured from `since`, when it stood at `base`."""

    since: float | None  # None: its worker group may be starting, so that the first report begins the measurement
    base: float  # fraction of the cell
    begun: float  # fraction that an earlier launch did: reports up to there repeat its own, at once
    seen: float = 0.0
    fraction: float = 0.0


class Pace:
    """Seconds per cell, a running one counted by its epochs.

    The estimate is made anew at every report and counted down in between: recomputed from the clock it would grow until
    the next report, and jump back.
    """

    def __init__(self, now: float) -> None:
        self.reported = False  # whether any cell has
        self._started = now
        self._running: dict[str, _PacedCell] = {}
        self._spent = self._work = 0.0  # lane-seconds, and cells done in them, of the cells that ended
        self._most = 1  # cells that ran at once
        self._each: tuple[float, float] | None = None  # when the estimate was made, seconds per cell

    def waited(self, now: float) -> float:
        """Seconds since the launch."""
        return now - self._started

    def started(self, key: str, now: float, begun: float) -> None:
        """A cell starts, of which an earlier launch did this fraction."""
        self._running[key] = _PacedCell(since=now if self.reported and not begun else None, base=begun, begun=begun)
        self._most = max(self._most, len(self._running))

    def progressed(self, key: str, now: float, fraction: float) -> None:
        """A cell has come so far."""
        self.reported = True
        cell = self._running[key]
        cell.seen, cell.fraction = now, fraction
        if cell.since is None or fraction <= cell.begun:
            cell.since, cell.base = now, fraction
        self._measure(now)

    def ended(self, key: str, now: float, *, counts: bool) -> None:
        """A cell is over; one that trained nothing does not count."""
        cell = self._running.pop(key, None)
        if cell is not None and cell.since is not None and counts:
            self._spent += now - cell.since
            self._work += 1 - cell.base
        self._measure(now)

    def seconds_left(self, now: float, remaining: float) -> float | None:
        """For the cells that have not ended, the running ones among them; None while that cannot be known."""
        if self._each is None:
            return None
        at, each = self._each
        cells = remaining - sum(cell.fraction for cell in self._running.values())
        lanes = max(1, min(self._most, remaining))
        return max(0.0, seconds_left(each, cells, lanes) - (now - at))

    def _measure(self, now: float) -> None:
        measured = [cell for cell in self._running.values() if cell.since is not None]
        spent = self._spent + sum(cell.seen - cell.since for cell in measured if cell.since is not None)
        work = self._work + sum(cell.fraction - cell.base for cell in measured if cell.seen)
        if work > 0 and spent > 0:
            self._each = now, spent / work
