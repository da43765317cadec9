"""One paper table per file, found by looking into this folder.

A table file has a docstring whose first line describes it, TITLE, and either TABLE, a PivotTable, or
`build(runs) -> DataFrame` of TableCell (see analysis.table.cells). It may have SWEEPS (the sweeps that it reads, by
default the one of its name; empty: no store), WITHIN (levels of rows or columns: the best number of each of their
values is bold; by default the best of each quantity) and `compared(runs)`, the frame to compare with the paper's
numbers if it is not the table.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pandas as pd

from analysis.store.runs import NothingToShow, store_uri, sweeps_in
from analysis.store.sources import RunSource, open_source
from analysis.store.uri import OneLineError
from analysis.table.build import FinishedTable, TableSpec

GENERIC = "trials"  # the table of every sweep that has none of its own


class UnknownTable(OneLineError, ValueError):
    """No such table, sweep or scale, or several scales; the message is one line with the remedy."""


def table_names() -> list[str]:
    """The tables with a file, except the generic one."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != GENERIC)


def describe_table(name: str) -> tuple[str, tuple[str, ...]]:
    """Description of a table file, and the sweeps that it reads, without scale."""
    return str(_module(name).__doc__).partition("\n")[0], _sweeps(name)


def find_table(name: str, store: str | RunSource | None = None, scale: str = "") -> TableSpec:
    """The table of that name, or the generic one for a sweep of the store.

    Args:
        name: a table file, or an experiment with or without its scale ("lejepa_views_mini", "lejepa_views").
        scale: by default the only one in the store.

    Raises:
        UnknownTable: neither, or not at one scale. NothingToShow: the store cannot be used.
    """
    known = _known(store)
    if name not in table_names() and "sweep.name" in known.get(name, {}):
        name, scale = known[name]["sweep.name"], known[name]["sweep.scale"]
    sweep = f"{name}_{scale}" if scale else name
    if name in table_names():
        module, scale = _module(name), scale or _only_scale(name, _sweeps(name), known)
        sweeps = tuple(f"{sweep}_{scale}" if scale else sweep for sweep in _sweeps(name))
        title = f"{module.TITLE} ({scale})" if scale else module.TITLE
    elif sweep in known:
        module, sweeps = _module(GENERIC), (sweep,)
        title = f"{sweep}: {module.TITLE}"
    else:
        everything = sorted({*table_names(), *known})
        close = difflib.get_close_matches(sweep, everything, n=1)
        if not close:
            sweeps_in(store or store_uri())  # raises where there is no store to look in
        remedy = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(everything)}"
        raise UnknownTable(f"{sweep!r} is neither a table nor a sweep of the store; {remedy}")
    within, build = getattr(module, "WITHIN", ()), module.TABLE.build if hasattr(module, "TABLE") else module.build
    return TableSpec(name=name, scale=scale, title=title, sweeps=sweeps, within=within, build=build)


def table(name: str, store: str | None = None, format: str = "md", *, scale: str = "") -> str:
    """A table, or any sweep of the store, as md, latex, html or csv.

    Raises:
        UnknownTable: see find_table.
        NothingToShow: nothing to build it from yet.
    """
    source: str | RunSource = store or store_uri()
    with suppress(NothingToShow):  # which load raises again
        source = open_source(source)  # once, for both
    found = find_table(name, source, scale)
    return found.finish(found.load(source)).render(format)


def experiment_of(sweep: str, store: str | RunSource, scale: str = "") -> str:
    """The experiment of a sweep at a scale, by default the only one in the store; an experiment's own name stays.

    Raises:
        UnknownTable: the store has several scales, and none is named.
    """
    scale = scale or _only_scale(sweep, [sweep], _known(store))
    return f"{sweep}_{scale}" if scale else sweep


def comparable_frame(name: str, built: FinishedTable) -> pd.DataFrame:
    """The frame to compare with the paper's numbers: the table's, unless its file has `compared`."""
    module = _module(name)
    return module.compared(built.runs) if hasattr(module, "compared") else built.frame


def _known(store: str | RunSource | None) -> dict[str, dict[str, str]]:
    """The sweeps of the store with their tags; none where there is no store."""
    try:
        return {name: experiment.tags for name, experiment in sweeps_in(store or store_uri()).items()}
    except NothingToShow:
        return {}


def _only_scale(name: str, sweeps: Sequence[str], known: dict[str, dict[str, str]]) -> str:
    """The only scale of a table's sweeps in the store; "" for sweeps without scale, or without any run."""
    if any(sweep in known for sweep in sweeps):
        return ""
    scales = sorted({tags["sweep.scale"] for tags in known.values() if tags.get("sweep.name") in sweeps})
    if len(scales) > 1:
        several = f"the store has {name} at the scales {', '.join(scales)}, which never mix"
        raise UnknownTable(f"{several}; choose one with --scale")
    return scales[0] if scales else ""


def _sweeps(name: str) -> tuple[str, ...]:
    return getattr(_module(name), "SWEEPS", (name,))


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
