"""What a plan costs before it runs: hours of its cells, and money where the cluster's file says what a node costs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import ray
import torch

from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten
from sweeps.engine.cluster.nodes import autoscaling, nodes_to_use
from sweeps.engine.cluster.resources import Node, Request, packed, room, this_machine
from sweeps.engine.cluster.session import cluster_address, ray_session
from sweeps.engine.plan.plan import Plan
from sweeps.engine.run.calibration import NOT_UP, Estimate, calibrated, kind_of, name_of, ran, unmeasured
from sweeps.engine.run.money import rate
from sweeps.engine.spec.cells import Cell, changed


@dataclass(frozen=True)
class Price:
    """What the cells that a plan lacks will take, in the request's unit. Early stopping is not counted on.

    Args:
        at_once: trials that fit the cluster.
        estimates: by name (calibration.name_of), for every kind of cell that is known beforehand.
        rate: dollars per hour of the unit, None where nobody said.
    """

    plan: Plan
    request: Request
    at_once: int
    estimates: Mapping[str, Estimate]
    rate: float | None

    def hours(self, cell: Cell) -> float:
        """Of one cell, without the epochs that it has behind it."""
        entry = self.plan.entries.get(cell.key)
        return self._hours(cell.config, begun=0 if entry is None or entry.done else entry.epoch)

    @cached_property
    def unnamed(self) -> tuple[float, float, float]:
        """Hours of a cell that a search has still to name: least, mean and most over the ends of the space."""
        hours = [self._hours(config) for config in ends(self.plan)] or [0.0]
        return min(hours), sum(hours) / len(hours), max(hours)

    @cached_property
    def total(self) -> float:
        """Hours of all that is left to run; a cell not named yet counts as the mean of the space's ends."""
        named = sum(self.hours(cell) for cell in self.plan.missing)
        return named + (self.plan.todo - len(self.plan.missing)) * self.unnamed[1]

    @property
    def dollars(self) -> float | None:
        """What the total costs."""
        return None if self.rate is None else self.rate * self.total

    @property
    def wall_hours(self) -> float:
        """By the clock, with as many trials at once as fit; never less than the longest cell."""
        longest = max([self.hours(cell) for cell in self.plan.missing] + [self.unnamed[2]])
        return max(longest, self.total / max(1, min(self.at_once, self.plan.todo))) / self.request.devices

    def lines(self) -> list[str]:
        """The price, to be read; [] when nothing is left to run."""
        plan, unit = self.plan, self.request.unit
        if not plan.todo:
            return []
        at_once = min(self.at_once, plan.todo)
        lines = [f"price of {plan.todo} cells, {at_once} at once, each on {self.request}:", *self._rows()]
        unnamed = plan.todo - len(plan.missing)
        least, _, most = self.unnamed
        if unnamed:
            lines.append(f"  {unnamed} still to be proposed, each {span(least, most)} {unit}: the ends of the space")
        money = "" if self.dollars is None else f", {self.dollars:,.2f} dollars"
        least_of_all = "at least " if any(one.problem for one in self.estimates.values()) else ""
        bound = " at most, for early stopping ends some" if plan.sweep.early_stopping else ""
        wall = f"about {clock(self.wall_hours)} by the clock"
        lines.append(f"  in all {least_of_all}{self.total:.2g} {unit}{bound}{money}; {wall}")
        return lines

    def _rows(self) -> list[str]:
        """One line per kind of cell: what tells it from the others, its speed, its hours."""
        cells: dict[str, list[TrainConfig]] = {}
        for config in (*(cell.config for cell in self.plan.missing), *ends(self.plan)):
            cells.setdefault(name_of(config, self.request), []).append(config)
        flat = {name: kind_of(flatten(configs[0])) for name, configs in cells.items()}
        common = set.intersection(*(set(kind.items()) for kind in flat.values()))
        rows = []
        for name, configs in cells.items():
            estimate = self.estimates[name]
            hours = [self._hours(config) for config in configs]
            what = " ".join(f"{key}={text}" for key, text in flat[name].items() if (key, text) not in common)
            known = f"{estimate.images_per_s:,.0f} images/s" if not estimate.problem else f"({estimate.problem})"
            told = f"{span(min(hours), max(hours))} {self.request.unit} each, {estimate.source}"
            rows.append(f"  {known}, {told}" + (f": {what}" if what else ""))
        return rows

    def _hours(self, config: TrainConfig, begun: int = 0) -> float:
        """Of a kind that was not foreseen, as a search may propose, or not measured: the slowest that is known."""
        estimate = self.estimates.get(name_of(config, self.request))
        known = [one for one in self.estimates.values() if one.known]
        known = [estimate] if estimate is not None and estimate.known else known
        seconds = max((one.seconds(config.epochs - begun) for one in known), default=0.0)
        return seconds * self.request.devices / 3600


def silent(_: str = "") -> None:
    """Tells nobody and does nothing."""


def price(
    plan: Plan,
    *,
    note: Callable[[str], object] = silent,
    free: Callable[[], object] = silent,
    start: bool = True,
) -> Price:
    """The plan's price. What neither the store nor results/calibration.json knows is measured now, in Ray.

    Args:
        note: told what happens.
        free: called before something is measured, to end what occupies the cluster.
        start: whether the cluster may start machines for a measurement.

    Raises:
        ConfigError: a trial that cannot be placed; prices in the cluster's file that are wrong.
    """
    with ExitStack() as stack:
        if plan.todo and not ray.is_initialized() and (cluster_address() or torch.cuda.device_count()):
            stack.enter_context(ray_session())  # knows the nodes and what GPUs they have
        nodes = nodes_to_use(note) if ray.is_initialized() else this_machine()
        request = request_for(plan, nodes, note=note, free=free, start=start)
        known = ran(plan.entries.values(), request)
        others = [config for config in kinds(plan) if name_of(config, request) not in known]
        return Price(
            plan=plan,
            request=request,
            at_once=room(nodes, request),
            estimates=known | _calibrated(others, request, nodes, note, free, start=start),
            rate=rate(autoscaling(), request),  # none on one's own machine
        )


def request_for(
    plan: Plan,
    nodes: Sequence[Node],
    *,
    note: Callable[[str], object] = silent,
    free: Callable[[], object] = silent,
    start: bool = True,
) -> Request:
    """What each of the plan's trials asks for; the share of a GPU is measured where the sweep says so. See price.

    Raises:
        ConfigError: a trial that does not fit a GPU, or could not be measured.
    """
    sweep = plan.sweep
    asked = -1.0 if isinstance(sweep.gpus_per_worker, str) else sweep.gpus_per_worker
    request = Request.of(nodes, workers=sweep.workers, cpus=sweep.cpus_per_worker, gpus=asked)
    if sweep.gpus_per_worker != "measured":
        return request
    if not request.gpus:
        note("gpus_per_worker='measured' finds no GPU here: trials run on CPUs")
        return request
    found = _calibrated(kinds(plan), request, nodes, note, free, start=start).values()
    if any(estimate.problem == NOT_UP for estimate in found):
        note(f"how many trials share a GPU is measured at the launch: {NOT_UP}; here each has its own")
        return request
    for estimate in found:
        if estimate.problem:
            raise ConfigError(
                f"gpus_per_worker='measured' needs the memory of a trial, but it could not be measured: "
                f"{estimate.problem}; set gpus_per_worker=1"
            )
    if not found:  # nothing is left to run
        return request
    largest = max(found, key=lambda estimate: estimate.peak_gb)
    gpus = packed(nodes, cpus=request.cpus, peak_gb=largest.peak_gb, device_gb=largest.device_gb)
    note(f"{round(1 / gpus)} trials share a GPU: each takes {largest.peak_gb:.1f} of {largest.device_gb:.0f} GB")
    return dataclasses.replace(request, gpus=gpus)


def kinds(plan: Plan) -> list[TrainConfig]:
    """Configs that stand for all cells that are left to run."""
    return [cell.config for cell in plan.missing] + ends(plan)


def ends(plan: Plan) -> list[TrainConfig]:
    """What cells that a search has still to name may be: every value of the grid, both ends of every domain."""
    if plan.todo == len(plan.missing):
        return []
    return [changed(plan.base, point) for point in plan.sweep.corners()]


def span(low: float, high: float) -> str:
    """ "0.25", or "0.25 to 1"."""
    return f"{low:.2g}" if high <= low * 1.05 else f"{low:.2g} to {high:.2g}"


def clock(hours: float) -> str:
    """ "40 s", "12 min", "3.5 h"."""
    if hours < 1:
        return f"{hours * 3600:.0f} s" if hours < 1 / 60 else f"{hours * 60:.0f} min"
    return f"{hours:.1f} h"


def _calibrated(
    configs: Sequence[TrainConfig],
    request: Request,
    nodes: Sequence[Node],
    note: Callable[[str], object],
    free: Callable[[], object],
    *,
    start: bool,
) -> dict[str, Estimate]:
    with ExitStack() as stack:
        if unmeasured(configs, request):
            free()
            if not ray.is_initialized():
                stack.enter_context(ray_session())
        return calibrated(configs, request, nodes, note=note, start=start)
