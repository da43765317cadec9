"""Sweeps: plan the cells, read the ledger, train the missing ones, publish the table."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.engine.cli.main import main
    from sweeps.engine.spec.objective import Asha, LabelFree
    from sweeps.engine.spec.search_space import Domain
    from sweeps.engine.spec.sweep import BestOf, Sweep
    from sweeps.engine.spec.table import Table

__all__ = ["Asha", "BestOf", "Domain", "LabelFree", "Sweep", "Table", "main"]

_HOME = {
    "Asha": "spec.objective",
    "BestOf": "spec.sweep",
    "Domain": "spec.search_space",
    "LabelFree": "spec.objective",
    "Sweep": "spec.sweep",
    "Table": "spec.table",
    "main": "cli.main",
}


def __getattr__(name: str) -> Any:
    """Import a public name when a sweep file asks for it: modules here that train nothing start without torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sweeps.engine.parser import report_config_errors

    report_config_errors()
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__]
