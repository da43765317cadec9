"""Estimated time left of a sweep, from the cells that it has trained so far."""

import math


def duration(seconds: float) -> str:
    """An approximate time for display: "40 s", "12 min", "3 h 05 min"."""
    if seconds < 60:
        return f"{5 * math.ceil(seconds / 5)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Pace:
    """Estimate of the time left, by the first and the latest report of a launch.

    The start of the worker groups, before the first report, does not count. Between reports the estimate is counted
    down: recomputed from the clock it would grow until the next report, and jump back.
    """

    def __init__(self) -> None:
        self._reports: list[tuple[float, float]] = []  # time, cells left

    @property
    def reported(self) -> bool:
        """True once any cell has reported."""
        return bool(self._reports)

    def report(self, now: float, left: float) -> None:
        """Take the number of cells that are left, in fractions of a cell."""
        self._reports[1:] = [(now, left)]

    def change(self, cells: int) -> None:
        """Take that the cells to run are more by this number, or fewer, without any being trained."""
        self._reports = [(now, left + cells) for now, left in self._reports]

    def seconds_left(self, now: float) -> float | None:
        """Time for the cells that are left; None while it is unknown."""
        if len(self._reports) < 2:
            return None
        (began, before), (at, left) = self._reports
        if at == began or left == before:
            return None
        return max(0.0, (at - began) / (before - left) * left - (now - at))
