"""Price of the cells that a plan lacks, in device-hours: by the finished cells of their kind."""

import functools
import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten
from sweeps.engine.cluster.resources import Request
from sweeps.engine.plan.plan import Plan
from sweeps.engine.run.eta import duration
from sweeps.engine.spec.cells import Cell, changed
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
        return self._hours(cell.config, epochs_left(self.plan, cell))

    @property
    def unnamed(self) -> list[float]:
        """Device-hours of cells that a search has still to propose: those at the ends of the space."""
        return [self._hours(config, config.epochs) for config in space_ends(self.plan)]

    @property
    def total(self) -> float:
        """Device-hours of all that is left to run; a cell to be proposed counts as the mean of the space's ends."""
        named, unnamed = self.plan.missing, self.unnamed
        return sum(map(self.hours, named)) + (self.plan.todo - len(named)) * sum(unnamed) / max(1, len(unnamed))

    @property
    def dollars(self) -> float | None:
        """Cost of the total."""
        return None if self.rate is None else self.rate * self.total

    def lines(self) -> list[str]:
        """The price as text; [] when nothing is left to run."""
        plan, unit, unnamed = self.plan, self.request.unit, self.unnamed
        if not plan.todo:
            return []
        at_once = min(self.at_once, plan.todo)
        lines = [f"price of {plan.todo} cells, {at_once} at once, each on {self.request}:", *self._rows()]
        if unnamed:
            proposed = plan.todo - len(plan.missing)
            lines.append(f"  {proposed} still to be proposed, each {_span(unnamed)} {unit}: the ends of the space")
        if not self.total:  # nothing is known
            return lines
        dollars = "" if self.dollars is None else f", {self.dollars:,.2f} dollars"
        bound = " at most, for early stopping ends some" if plan.sweep.early_stopping else ""
        longest = max([*map(self.hours, plan.missing), *unnamed])
        wall = duration(3600 * max(longest, self.total / at_once) / self.request.devices)
        return [*lines, f"  in all {self.total:.2g} {unit}{bound}{dollars}; about {wall} by the clock"]

    def _rows(self) -> list[str]:
        """One line per kind of cell: its hours, and the fields in which it differs from the others."""
        kinds: dict[str, list[float]] = {}
        for config in configs_left(self.plan):
            kinds.setdefault(kind_of_config(config, self.request), []).append(self._hours(config, config.epochs))
        fields = {kind: json.loads(kind)[0].items() for kind in kinds}
        common = set.intersection(*map(set, fields.values()))
        rows = []
        for kind, hours in kinds.items():
            source = self.estimates[kind].source if kind in self.estimates else "like the slowest known kind"
            own = "".join(f" {key}={text}" for key, text in fields[kind] if (key, text) not in common)
            rows.append(f"  {_span(hours)} {self.request.unit} each, {source}" + (f":{own}" if own else ""))
        return rows

    def _hours(self, config: TrainConfig, epochs: int) -> float:
        slowest = max((estimate.epoch_s for estimate in self.estimates.values()), default=0.0)
        estimate = self.estimates.get(kind_of_config(config, self.request))
        return epochs * (estimate.epoch_s if estimate else slowest) * self.request.devices / 3600


def space_ends(plan: Plan) -> list[TrainConfig]:
    """Configs for the cells that searches have still to propose: each value of the grid, both ends of each domain."""
    return [changed(plan.base, point) for point in plan.sweep.corners()] if plan.todo > len(plan.missing) else []


def configs_left(plan: Plan) -> list[TrainConfig]:
    """Configs of the known cells that a plan lacks, and of the ends of its space."""
    return [cell.config for cell in plan.missing] + space_ends(plan)


def epochs_left(plan: Plan, cell: Cell) -> int:
    """Epochs that a launch has to train of a cell."""
    entry = plan.entries.get(cell.key)
    return cell.config.epochs - (0 if entry is None or entry.done else entry.epoch)


def kind_of(params: Mapping[str, Any], resources: str) -> str:
    """The fields of a flat config, or of a run's parameters, that decide its speed, and the resources; as JSON.

    Numbers such as lr, lamb or mu do not, outside images, views and model.
    """
    flat = {key: str(params[key]) for key in sorted(params.keys() - _FREE)}
    sizes = ("data.", "views.", "model.")
    decisive = {key: text for key, text in flat.items() if key.startswith(sizes) or not _FLOAT.fullmatch(text)}
    return json.dumps([decisive, resources])


@functools.lru_cache(maxsize=50_000)
def kind_of_config(config: TrainConfig, request: Request) -> str:
    """The kind of a config's cells with these resources."""
    return kind_of(flatten(config), str(request))


def finished_estimates(entries: Iterable[Entry], request: Request) -> dict[str, Estimate]:
    """Median of the finished cells of each kind; start and final evaluation are spread over the epochs."""
    seconds: dict[str, list[float]] = {}
    for entry in entries:
        epochs = int(entry.params.get("epochs", 0))
        if entry.status == "finished" and entry.resources == str(request) and entry.device_seconds > 0 and epochs:
            each = entry.device_seconds / request.devices / epochs
            seconds.setdefault(kind_of(entry.params, entry.resources), []).append(each)
    return {kind: Estimate(statistics.median(of), f"as in {len(of)} finished cells") for kind, of in seconds.items()}


def _span(hours: Sequence[float]) -> str:
    """A range for display: "0.25", or "0.25 to 1"."""
    low, high = min(hours), max(hours)
    return f"{low:.2g}" if high <= low * 1.05 else f"{low:.2g} to {high:.2g}"
