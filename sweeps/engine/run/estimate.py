"""Price of the cells that a plan lacks, in device-hours: by the finished cells of their kind."""

import functools
import json
import re
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from analysis.device_time import device_time
from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten
from sweeps.engine.cluster.resources import Request
from sweeps.engine.plan.plan import Plan
from sweeps.engine.run.eta import duration
from sweeps.engine.spec.cells import Cell
from sweeps.engine.store.reader import Entry

_FLOAT = re.compile(r"-?\d+(\.\d+|(\.\d+)?e[+-]?\d+)")  # as str() writes one: an int has neither point nor exponent
_FREE = {"seed", "epochs", "data.path", "data.download", "data.on_corrupt"}  # fields that change no step's time


class Estimate(NamedTuple):
    """Speed of one kind of cell."""

    epoch_s: float  # seconds per epoch, with its evaluation on val; 0 where unknown
    source: str  # for display


@dataclass(frozen=True)
class Price:
    """Device-hours of the cells that a plan lacks. Early stopping is not counted on.

    A cell of a kind without an estimate takes as long as one of the slowest kind; 0 while none is known.

    Args:
        estimates: by kind_of_config. A budget adds to them.
        at_once: trials that fit the cluster.
        rate: dollars per device-hour, None where the cluster's file has no prices.
    """

    plan: Plan
    request: Request
    estimates: dict[str, Estimate]
    at_once: int = 1
    rate: float | None = None

    def hours(self, cell: Cell) -> float:
        """Device-hours of a cell's remaining epochs."""
        slowest = max((estimate.epoch_s for estimate in self.estimates.values()), default=0.0)
        estimate = self.estimates.get(kind_of_config(cell.config))
        epoch_s = estimate.epoch_s if estimate else slowest
        return epochs_left(self.plan, cell) * epoch_s * self.request.devices / 3600

    @property
    def each(self) -> list[float]:
        """Device-hours of each cell that is left to run."""
        return [self.hours(cell) for cell in (*self.plan.missing, *self.plan.stand_ins)]

    @property
    def total(self) -> float:
        """Device-hours of all that is left to run."""
        return sum(self.each)

    @property
    def dollars(self) -> float | None:
        """Cost of the total."""
        return None if self.rate is None else self.rate * self.total

    def lines(self) -> list[str]:
        """The price as text; [] when nothing is left to run."""
        plan, total = self.plan, self.total
        if not plan.todo:
            return []
        at_once = min(self.at_once, plan.todo)
        sources = ", ".join(dict.fromkeys(estimate.source for estimate in self.estimates.values()))
        line = f"price of {plan.todo} cells, {at_once} at once, each on {self.request}, {sources}"
        if not total:  # nothing is known
            return [line]
        dollars = "" if self.dollars is None else f", {self.dollars:,.2f} dollars"
        bound = " at most, for early stopping ends some" if plan.sweep.early_stopping else ""
        wall = duration(3600 * max(*self.each, total / at_once) / self.request.devices)
        return [line, f"  in all {device_time(total, self.request.unit)}{bound}{dollars}; about {wall} by the clock"]


def epochs_left(plan: Plan, cell: Cell) -> int:
    """Epochs that a launch has to train of a cell."""
    entry = plan.entries.get(cell.key)
    return cell.config.epochs - (0 if entry is None or entry.done else entry.epoch)


def kind_of(params: Mapping[str, Any]) -> str:
    """The fields of a flat config, or of a run's parameters, that decide its speed, as JSON.

    Numbers such as lr, lamb or mu do not, outside images, views and model.
    """
    flat = {key: str(params[key]) for key in sorted(params.keys() - _FREE)}
    sizes = ("data.", "views.", "model.")
    return json.dumps({key: text for key, text in flat.items() if key.startswith(sizes) or not _FLOAT.fullmatch(text)})


@functools.lru_cache(maxsize=50_000)
def kind_of_config(config: TrainConfig) -> str:
    """The kind of a config's cells."""
    return kind_of(flatten(config))


def finished_estimates(entries: Iterable[Entry], request: Request) -> dict[str, Estimate]:
    """Median of each kind's finished cells with these resources; start and evaluation are spread over the epochs."""
    seconds: dict[str, list[float]] = {}
    for entry in entries:
        epochs = int(entry.params.get("epochs", 0))
        if entry.status == "finished" and entry.resources == str(request) and entry.device_seconds > 0 and epochs:
            seconds.setdefault(kind_of(entry.params), []).append(entry.device_seconds / request.devices / epochs)
    return {kind: Estimate(statistics.median(of), f"as in {len(of)} finished cells") for kind, of in seconds.items()}
