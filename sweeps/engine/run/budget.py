"""Budget: what a launch may still begin. A cell in flight is never killed, so real hours are counted as they run."""

import math
import time
from collections.abc import Callable

from jepa_train.base.errors import ConfigError
from sweeps.engine.plan.plan import Plan
from sweeps.engine.run.price import Price
from sweeps.engine.spec.cells import Cell


class Budget:
    """Admits cells while used + running + the next one stay within the limit.

    Args:
        limit_hours: of the whole sweep, in the price's unit.
        used_hours: what the sweep's cells took before this launch.
        now: a clock in seconds.

    Raises:
        ConfigError: no limit at all, no cell whose price is known, or not even the cheapest one fits.
    """

    def __init__(
        self, limit_hours: float, price: Price, used_hours: float, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit_hours = limit_hours
        self._price = price
        self._ended = used_hours  # of cells that are over
        self._now = now
        self._expected: dict[str, float] = {}  # hours of the cells admitted and not yet over, by key
        self._began: dict[str, float] = {}
        self.refused: set[str] = set()  # keys of cells that there was no budget for
        self._check()

    @property
    def used_hours(self) -> float:
        """Really used so far, by running cells too."""
        return self._ended + sum(self._spent(key) for key in self._began)

    @property
    def left(self) -> float:
        """Hours that the sweep may still use."""
        return self.limit_hours - self.used_hours

    def admits(self, cell: Cell) -> bool:
        """Whether the cell may begin; if so, its hours are set aside for it."""
        cost, key = self._price.hours(cell), cell.key
        others = sum(max(hours, self._spent(name)) for name, hours in self._expected.items() if name != key)
        fits = self._ended + others + cost <= self.limit_hours
        if fits:
            self._expected[key] = cost
            self.refused.discard(key)
        else:
            self.refused.add(key)
        return fits

    def started(self, key: str) -> None:
        """A cell has begun, or goes on after its trial was lost."""
        self._expected.setdefault(key, 0.0)
        self._began.setdefault(key, self._now())

    def idled(self, key: str, seconds: float) -> None:
        """A running cell had no device for so long."""
        self._began[key] += seconds

    def ended(self, key: str) -> None:
        """A cell is over: what it took replaces what was expected."""
        self._ended += self._spent(key)
        self._expected.pop(key, None)
        self._began.pop(key, None)

    def _spent(self, key: str) -> float:
        """Hours of a running cell so far."""
        began = self._began.get(key)
        return 0.0 if began is None else (self._now() - began) * self._price.request.devices / 3600

    def _check(self) -> None:
        unit, plan = self._price.request.unit, self._price.plan
        if not (0 < self.limit_hours < math.inf):
            raise ConfigError(f"--max-gpu-hours must be a positive number, got {self.limit_hours:g}; try 10")
        estimates = self._price.estimates.values()
        if plan.todo and not any(one.known for one in estimates):
            why = next((one.problem for one in estimates), "nothing is measured")
            raise ConfigError(
                f"--max-gpu-hours needs the price of a cell, got none ({why}); "
                "launch without it until a cell has finished, which gives the price"
            )
        costs = [self._price.hours(cell) for cell in plan.missing]
        if plan.todo > len(plan.missing):
            costs.append(self._price.unnamed[0])
        if costs and self._ended + min(costs) > self.limit_hours:
            raise ConfigError(
                f"--max-gpu-hours must allow one more cell, got {self.limit_hours:g} {unit}: {plan.sweep.name} has "
                f"used {self._ended:.3g}, and its cheapest cell takes {min(costs):.3g}; "
                f"raise it to {1.01 * (self._ended + min(costs)):.3g}"
            )


def hours_used(plan: Plan) -> float:
    """By all cells of the sweep that the store has, in all their attempts."""
    return sum(entry.device_seconds for entry in plan.entries.values()) / 3600
