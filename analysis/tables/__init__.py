"""One paper table per file, found by looking into this folder.

A table file has a docstring whose first line describes it, TITLE, and either TABLE, a PivotTable, or
`build(runs) -> DataFrame` of TableCell (see analysis.table.cells). It may have SWEEPS (the sweeps that it reads, by
default the one of its name; empty: no store), WITHIN (levels of rows or columns: the best number of each of their
values is bold; by default the best of each quantity) and `compared(runs)`, the frame to compare with the paper's
numbers if it is not the table. A sweep's own table file may also lie next to the sweep's, as NAME_table.py.
"""

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.store.runs import NothingToShow, store_uri, sweeps_in
from analysis.store.sources import RunSource, open_source
from analysis.table.build import TableSpec
from analysis.table.build import UnknownTable as UnknownTable
from analysis.table.layout import FinishedTable
from analysis.table.render import render

DEFAULT, TRIALS = "default", "trials"  # tables of any sweep, not of one


def table_names() -> list[str]:
    """The tables with a file, except those of any sweep."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in (DEFAULT, TRIALS))


def describe_table(name: str) -> tuple[str, tuple[str, ...]]:
    """Description of a table file, and the sweeps that it reads, without scale."""
    return str(_module(name).__doc__).partition("\n")[0], _sweeps(_module(name), name)


def find_table(
    name: str,
    store: str | RunSource | None = None,
    scale: str = "",
    *,
    trials: bool = False,
    metrics: Sequence[str] = (),
) -> TableSpec:
    """The table of that name; for a sweep of the store the one of the file next to its own, or the default one.

    Args:
        name: a table file, or an experiment with or without its scale ("lejepa_views_mini", "lejepa_views").
        scale: by default the only one in the store.
        trials: the individual runs of the sweep of that name, also where it has a table file.
        metrics: the default table with these metrics, also where there is a table file.

    Raises:
        UnknownTable: neither, or not at one scale; or the file next to the sweep is no table file.
        NothingToShow: the store cannot be used.
    """
    known = _known(store)
    if name not in table_names() and "sweep.name" in known.get(name, {}):
        name, scale = known[name]["sweep.name"], known[name]["sweep.scale"]
    of_sweep = trials or bool(metrics) or name not in table_names()
    scale = scale or _only_scale(name, [name] if of_sweep else _sweeps(_module(name), name), known)
    if not of_sweep:
        return _spec(_module(name), name, scale)
    sweep = f"{name}_{scale}" if scale else name
    if sweep not in known:
        kind, tables = ("no sweep", ()) if trials or metrics else ("neither a table nor a sweep", table_names())
        raise _unknown(sweep, kind, {*tables, *known}, store)
    file, note = file_beside(Path(known[sweep].get("sweep.file", "") or "-")), ""
    if file.is_file() and not (trials or metrics):
        return _spec(load_table_file(file), name, scale)
    if known[sweep].get("sweep.table_file") and not (trials or metrics):
        note = f"{file.name}, which builds this sweep's table, is not on this machine: this is the default table"
    module = _module(TRIALS if trials else DEFAULT)
    build = partial(module.build, metrics=metrics, **({} if trials else {"note": note}))
    title, label = f"{sweep}: {module.TITLE}", f"{name}_{TRIALS}" if trials else name
    return TableSpec(name=label, scale=scale, title=title, sweeps=(sweep,), within=(), build=build)


def file_beside(sweep_file: Path) -> Path:
    """The place of a sweep's own table file, whether or not there is one: NAME_table.py next to NAME.py."""
    return sweep_file.with_name(f"{sweep_file.stem}_table.py")


def load_table_file(file: Path) -> Any:
    """The module of a table file outside this folder, which imports only pandas and analysis.

    Raises:
        UnknownTable: it lacks a part of a table file.
    """
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not (hasattr(module, "TITLE") and (hasattr(module, "TABLE") or hasattr(module, "build"))):
        raise UnknownTable(f"{file} must define TITLE, and TABLE or build(runs); docs/extending.md has an example")
    return module


def _spec(module: Any, name: str, scale: str) -> TableSpec:
    """The table of a table file at a scale."""
    return TableSpec(
        name=name,
        scale=scale,
        title=f"{module.TITLE} ({scale})" if scale else module.TITLE,
        sweeps=tuple(f"{sweep}_{scale}" if scale else sweep for sweep in _sweeps(module, name)),
        within=getattr(module, "WITHIN", ()),
        build=module.TABLE.build if hasattr(module, "TABLE") else module.build,
    )


def table(
    name: str,
    store: str | None = None,
    format: str = "md",
    *,
    scale: str = "",
    trials: bool = False,
    metrics: Sequence[str] = (),
) -> str:
    """A table, or any sweep of the store, as md, latex, html or csv; options as in find_table.

    Raises:
        UnknownTable: see find_table.
        NothingToShow: nothing to build it from yet.
    """
    source: str | RunSource = store or store_uri()
    with suppress(NothingToShow):  # which load raises again
        source = open_source(source)  # once, for both
    found = find_table(name, source, scale, trials=trials, metrics=metrics)
    return render(found.finish(found.load(source)), format)


def experiment_of(sweep: str, store: str | RunSource, scale: str = "") -> str:
    """The experiment of a sweep at a scale, by default the only one in the store; an experiment's own name stays.

    Raises:
        UnknownTable: the store has several scales, and none is named; or it has no such sweep, and no table is of it.
    """
    known = _known(store)
    scale = scale or _only_scale(sweep, [sweep], known)
    name = f"{sweep}_{scale}" if scale else sweep
    if known and name not in known and sweep not in table_names():
        raise _unknown(name, "no sweep", known, store)
    return name


def comparable_frame(name: str, built: FinishedTable) -> pd.DataFrame:
    """The frame to compare with the paper's numbers: the table's, unless its file has `compared`."""
    module = _module(name if name in table_names() else DEFAULT)
    return module.compared(built.runs) if hasattr(module, "compared") else built.frame


def _known(store: str | RunSource | None) -> dict[str, dict[str, str]]:
    """The sweeps of the store with their tags; none where there is no store."""
    try:
        return {name: experiment.tags for name, experiment in sweeps_in(store or store_uri()).items()}
    except NothingToShow:
        return {}


def _unknown(name: str, kind: str, known: Collection[str], store: str | RunSource | None) -> UnknownTable:
    """The error on an unknown name: the nearest one, or all. Raises NothingToShow where there is no store."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    if not close:
        sweeps_in(store or store_uri())
    remedy = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(sorted(known))}"
    return UnknownTable(f"{name!r} is {kind} of the store; {remedy}")


def _only_scale(name: str, sweeps: Sequence[str], known: Mapping[str, Mapping[str, str]]) -> str:
    """The only scale of a table's sweeps in the store; "" for sweeps without scale, or without any run."""
    if any(sweep in known for sweep in sweeps):
        return ""
    scales = sorted({tags["sweep.scale"] for tags in known.values() if tags.get("sweep.name") in sweeps})
    if len(scales) > 1:
        several = f"the store has {name} at the scales {', '.join(scales)}, which never mix"
        raise UnknownTable(f"{several}; choose one with --scale")
    return scales[0] if scales else ""


def _sweeps(module: Any, name: str) -> tuple[str, ...]:
    return getattr(module, "SWEEPS", (name,))


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
