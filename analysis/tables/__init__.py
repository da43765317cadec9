"""One paper table per file, found by looking into this folder.

A table file has a docstring whose first line describes it, TITLE and `build(runs) -> DataFrame`; it may have FORMATS
(label -> format spec) and SWEEPS (the sweeps that it reads; by default the one of its own name).
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis.render import FORMATS, Formats
from analysis.runs import NothingToShow, load_runs, store_uri, sweeps_in
from analysis.summary import summary

GENERIC = "trials"  # the table of every sweep that has none of its own


class UnknownTable(ValueError):
    """Neither a table nor a sweep of the store; the message is one line that names the nearest."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table file."""

    name: str
    description: str
    title: str
    sweeps: tuple[str, ...]
    formats: Formats
    build: Callable[[pd.DataFrame], pd.DataFrame]

    def load(self, store: str | None = None) -> pd.DataFrame:
        """The runs of the table's sweeps, one below the other, told apart by the column `sweep`.

        Raises:
            NothingToShow: one of the sweeps has no runs in the store.
        """
        return pd.concat([load_runs(sweep, store) for sweep in self.sweeps], ignore_index=True)

    def render(self, runs: pd.DataFrame, format: str = "md") -> str:
        """The table of these runs as md, latex, html or csv, with what it rests on below it."""
        return FORMATS[format](self.build(runs), title=self.title, formats=self.formats, note=summary(runs))


def names() -> list[str]:
    """The tables that have a file, but for the generic one."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != GENERIC)


def find(name: str, store: str | None = None) -> Table:
    """The table of that name, or the generic one for a sweep of the store.

    Raises:
        UnknownTable: neither.
    """
    if name in names():
        return _table(name)
    try:
        sweeps = [*sweeps_in(store or store_uri())]
    except NothingToShow:
        sweeps = []
    if name in sweeps:
        return _table(GENERIC, sweep=name)
    known = sorted({*names(), *sweeps})
    close = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(known)}"
    raise UnknownTable(f"{name!r} is neither a table nor a sweep of the store; {remedy}")


def table(name: str, store: str | None = None, format: str = "md") -> str:
    """A table, or any sweep of the store, as md, latex, html or csv.

    Raises:
        UnknownTable: no table and no sweep of that name.
        NothingToShow: nothing to build it from yet.
    """
    found = find(name, store)
    return found.render(found.load(store), format)


def _table(name: str, *, sweep: str = "") -> Table:
    module = importlib.import_module(f"{__name__}.{name}")
    return Table(
        name=sweep or name,
        description=str(module.__doc__).partition("\n")[0],
        title=f"{sweep}: {module.TITLE}" if sweep else module.TITLE,
        sweeps=(sweep,) if sweep else getattr(module, "SWEEPS", (name,)),
        formats=getattr(module, "FORMATS", {}),
        build=module.build,
    )
