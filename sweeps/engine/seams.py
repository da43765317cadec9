"""What launching needs of modules that are not here yet: one place to take it from, to be replaced by their imports."""

import importlib
import importlib.util
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from sweeps.engine.cells import Cell
from sweeps.engine.plan import Plan


@dataclass(frozen=True)
class Row:
    """A known cell of a plan, as people are shown it."""

    cell: Cell
    state: str
    note: str
    due: bool


def rows_of(plan: Plan, *, held: bool) -> list[Row]:
    """Every known cell with its state: plan.rows()."""
    from sweeps.engine.status import state_of

    found = [Cell(config=entry.config(plan.base), label=entry.label) for entry in plan.points]
    due = {cell.key for cell in plan.missing}
    entries = plan.entries
    return [Row(cell, *state_of(entries.get(cell.key), held=held), cell.key in due) for cell in (*plan.fixed, *found)]


def _module(name: str) -> Any:
    there = importlib.util.find_spec(f"sweeps.engine.{name}") is not None
    return importlib.import_module(f"sweeps.engine.{name}") if there else None


def hold(sweep: str) -> AbstractContextManager[Any]:
    """The sweep, held by this launch: holding.hold."""
    holding = _module("holding")
    return holding.hold(sweep) if holding else nullcontext()


def holder_of(sweep: str) -> Any:
    """Who holds the sweep and lives, or None: holding.holder_of."""
    holding = _module("holding")
    return holding.holder_of(sweep) if holding else None


def price(plan: Plan) -> Any:
    """What the plan costs, or None: price.price."""
    pricing = _module("price")
    return pricing.price(plan) if pricing else None
