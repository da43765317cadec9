"""What launching needs of modules that are not here yet: one place to take them from."""

import importlib
import importlib.util
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def _module(name: str) -> Any:
    there = importlib.util.find_spec(f"sweeps.engine.{name}") is not None
    return importlib.import_module(f"sweeps.engine.{name}") if there else None


def hold(sweep: str) -> AbstractContextManager[Any]:
    """The sweep, held by this launch."""
    holding = _module("holding")
    return holding.hold(sweep) if holding else nullcontext()


def holder_of(sweep: str) -> Any:
    """Who holds the sweep and lives, or None."""
    holding = _module("holding")
    return holding.holder_of(sweep) if holding else None


def price(plan: Any) -> Any:
    """What the plan costs, or None."""
    pricing = _module("price")
    return pricing.price(plan) if pricing else None
