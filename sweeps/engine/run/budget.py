"""Budget of a launch: admission of cells within --max-gpu-hours. A cell in flight is never killed."""

import math
import time
from collections.abc import Callable

from jepa_train.base.errors import ConfigError
from sweeps.engine.run.estimate import Estimate, Price, epochs_left, kind_of_config
from sweeps.engine.spec.cells import Cell


class Budget:
    """Admits cells while used hours, those of running cells and those of the next one stay within the limit.

    While no price is known, one cell runs at a time: the first that finishes sets the price of its kind.

    Args:
        limit_hours: device-hours of all runs of the sweep, of any launch; infinite admits every cell.
        price: by finished cells alone.
        now: a clock in seconds.

    Raises:
        ConfigError: not even the cheapest cell fits.
    """

    def __init__(self, limit_hours: float, price: Price, *, now: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._price, self._now = limit_hours, price, now
        self._ended = sum(entry.device_seconds for entry in price.plan.stored.runs) / 3600
        self._admitted: dict[str, Cell] = {}  # cells that have not ended, by key
        self._began: dict[str, float] = {}
        cheapest = min(price.each, default=0.0) if price.estimates else 0.0
        if price.plan.todo and self._ended + cheapest > limit_hours:
            raise ConfigError(
                f"--max-gpu-hours must allow one more cell, got {limit_hours:g} {price.request.unit}: "
                f"{price.plan.sweep.name} has used {self._ended:.3g}, and its cheapest cell takes {cheapest:.3g}; "
                f"raise it to {1.01 * (self._ended + cheapest):.3g}"
            )

    @property
    def left(self) -> float:
        """Device-hours that the sweep may still use."""
        return self._limit - self._ended - sum(map(self._spent, self._began))

    @property
    def awaits_price(self) -> bool:
        """True while the cell runs that sets the first price."""
        return self._limit < math.inf and bool(self._admitted) and not self._price.estimates

    def admits(self, cell: Cell) -> bool:
        """True where the cell may begin; its hours are then reserved."""
        reserved = sum(max(self._price.hours(other), self._spent(key)) for key, other in self._admitted.items())
        fits = self._ended + reserved + self._price.hours(cell) <= self._limit
        if fits:
            self._admitted[cell.key] = cell
        return fits

    def started(self, cell: Cell) -> None:
        """Begin an admitted cell, or continue it after its trial was lost."""
        self._began.setdefault(cell.key, self._now())

    def idled(self, cell: Cell, seconds: float) -> None:
        """Take time without a device off a running cell."""
        self._began[cell.key] += seconds

    def ended(self, cell: Cell, *, finished: bool) -> None:
        """Replace the expected hours of a cell by those it took."""
        hours, epochs, request = self._spent(cell.key), epochs_left(self._price.plan, cell), self._price.request
        self._ended += hours
        self._admitted.pop(cell.key, None)
        self._began.pop(cell.key, None)
        if finished and epochs:
            estimate = Estimate(3600 * hours / request.devices / epochs, "as in this launch")
            self._price.estimates.setdefault(kind_of_config(cell.config), estimate)

    def _spent(self, key: str) -> float:
        """Device-hours of a running cell so far."""
        began = self._began.get(key)
        return 0.0 if began is None else (self._now() - began) * self._price.request.devices / 3600
