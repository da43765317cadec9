"""Comparison of a table with the paper's: the published number, ours, the difference, and a verdict.

The numbers are data, published/<table>.csv, one per line. Columns with the names of the table's levels give its place
(`*` matches anything, `|` separates alternatives), `quantity` its quantity where there are several; then `published`,
`tolerance` (by default 1 point), `source`; `protocol`, by which an accuracy was measured, as analysis.select.metrics
names it; and `at:KEY`, a condition: a field of the config, `data` for the name of the images, or a level of the table.
Conditions that the paper does not state are empty.

LeJEPA's tables say "linear probe", not when it was trained. The headline and MINIMAL.md say online, and the README
trains every probe on the schedule of pre-training. So its numbers count as online, except those with few labels or on
another data set than that of pre-training. Rectified LpJEPA's are online (solo/methods/base.py: val_acc1 and
val_proj_acc1).
"""

import fnmatch
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.select.labels import dataset_label, encoder_label
from analysis.select.metrics import protocol_of
from analysis.select.selection import records_of
from analysis.select.tags import canonical
from analysis.table.cells import Quantity, TableCell
from analysis.table.layout import FinishedTable
from analysis.table.render import render
from analysis.table.significance import cells_of
from analysis.tables import comparable_frame

FOLDER = Path(__file__).parent / "published"
_ABSENT = "not in our table"
_NAMED = {"data": dataset_label, "model.encoder": encoder_label}
_FACTS = {"quantity", "published", "tolerance", "protocol", "source"}  # columns that are not part of the place
_COLUMNS = ["published", "ours", "difference", "verdict"]


class NothingPublished(LookupError):
    """No published number of this table; the message is one line."""


def against_paper(name: str, built: FinishedTable, format: str = "md", *, bare: bool = False) -> str:
    """The comparison as md, latex (bare: without its float), html or csv.

    Reasons are notes below the table, in CSV part of its lines.
    Published numbers at places that our table lacks, and numbers measured under other conditions at places where
    another one compares, are counted; CSV lists them.

    Raises:
        NothingPublished: no data file of that name.
    """
    file = FOLDER / f"{name}.csv"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.csv")))
        raise NothingPublished(f"no published number of {name} is known; there are some of {known}")
    ours = replace(built, frame=comparable_frame(name, built))
    found = pairs(pd.read_csv(file, dtype=str, keep_default_na=False), ours)
    if format == "csv":
        return render(FinishedTable(frame=_frame(found)), format)
    judged = {id(pair["ours"]) for pair in found if pair["difference"].n}
    compared = [pair for pair in found if pair["difference"].n or id(pair["ours"]) not in judged]
    frame = _frame([pair for pair in compared if pair["verdict"] != _ABSENT])
    counts = Counter(pair["verdict"].partition(":")[0] for pair in found)
    verdict_counts = "; ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    notes = [f"{len(found)} published numbers: {verdict_counts}"]
    for number, reason in enumerate(dict.fromkeys(verdict for verdict in frame["verdict"] if ":" in verdict), 1):
        kind, _, why = reason.partition(": ")
        frame["verdict"] = frame["verdict"].replace(reason, f"{kind} ({number})")
        notes.append(f"({number}) {why}")
    notes += [f"published: {source}" for source in dict.fromkeys(pair["source"] for pair in found)]
    title, label = f"{built.title}: paper against ours", f"{built.label}-against-paper"
    return render(FinishedTable(frame=frame, title=title, label=label, about_numbers=notes), format, bare=bare)


def pairs(published: pd.DataFrame, built: FinishedTable) -> list[dict[str, Any]]:
    """Every published number with each of our cells at its place: the place, _COLUMNS and the source."""
    cells = [(replace(cell, bold=False), place) for _, _, cell, place in cells_of(built.frame) if cell.n or cell.states]
    settings = {run["run_id"]: run for run in records_of(built.runs)}
    names = [str(name) for name in [*built.frame.index.names, *built.frame.columns.names] if name]
    own = [name for name in published if name in names and name not in _FACTS]
    several = "at:data" in published and published["at:data"].nunique() > 1
    found = []
    for line in records_of(published):
        hits = [(cell, place) for cell, place in cells if _at(line, own, cell, place)]
        alike = [(cell, place) for cell, place in hits if _protocol(cell) == line.get("protocol", "")]
        for cell, place in alike or hits or [(TableCell(), {})]:
            where = {name: _first(line[name]) for name in own}
            where |= {name: str(place.get(name, "-")) for name in names if name not in own}
            where |= {"quantity": line["quantity"]} if line.get("quantity") else {}
            where |= {"published on": _first(line["at:data"])} if several else {}
            run = settings.get(next(iter(cell.run_ids), ""), {})
            found.append(where | _compared(line, cell, {**run, **place}))
    return found


def _at(line: Mapping[str, str], own: list[str], cell: TableCell, place: Mapping[str, Any]) -> bool:
    """True if a cell is at the place of a published number."""
    if cell.quantity is not None and line.get("quantity", "") not in ("", cell.quantity.label):
        return False
    return all(name in place and _matches(place[name], line[name]) for name in own)


def _compared(line: Mapping[str, str], cell: TableCell, setting: Mapping[str, Any]) -> dict[str, Any]:
    """A published number with our cell, which is empty if our table lacks the place."""
    quantity = cell.quantity or Quantity(label="", metric="", factor=100)
    tolerance = float(line.get("tolerance") or (1.0 if quantity.factor == 100 else 0.01))
    published = TableCell((float(line["published"]),), quantity=replace(quantity, direction=""))
    difference = TableCell()
    if not cell.n:
        verdict = "no number yet" if cell.states else _ABSENT
    elif reasons := "; ".join(_reasons(line, cell, setting)):
        verdict = f"not comparable: {reasons}"
    else:
        gap = cell.mean - published.mean
        difference = TableCell((gap,), quantity=replace(quantity, direction="", spec=f"+{quantity.spec}"))
        verdict = f"{'inside' if abs(gap) <= tolerance else 'outside'} ±{tolerance:g}"
    source = ", ".join(filter(None, [line.get("source", ""), line.get("protocol", "")]))
    return dict(zip(_COLUMNS, (published, cell, difference, verdict), strict=True)) | {"source": source}


def _protocol(cell: TableCell) -> str:
    return protocol_of(cell.quantity.metric) if cell.quantity is not None else ""


def _reasons(line: Mapping[str, str], cell: TableCell, setting: Mapping[str, Any]) -> Iterator[str]:
    """Protocol and conditions in which our number differs from the paper's."""
    asked, ours = line.get("protocol", ""), _protocol(cell)
    if asked != ours:
        yield f"{ours or 'another quantity'} instead of {asked or 'another quantity'}"
    for column, asked in line.items():
        name = column.removeprefix("at:")
        if column == name or not asked:
            continue
        ours = _NAMED[name](setting) if name in _NAMED and "data.name" in setting else setting.get(name, "")
        if ours == "" or pd.isna(ours):
            yield f"{name} unknown instead of {_first(asked)}"
        elif not _matches(ours, asked):
            yield f"{name} {f'{ours:g}' if isinstance(ours, float) else ours} instead of {_first(asked)}"


def _matches(ours: Any, asked: str) -> bool:
    if canonical(ours) == canonical(asked):
        return True
    return any(fnmatch.fnmatchcase(str(ours), one) for one in asked.split("|")) and isinstance(ours, str)


def _first(asked: str) -> str:
    """The first alternative, as a name."""
    return asked.partition("|")[0].rstrip("*_")


def _frame(found: list[dict[str, Any]]) -> pd.DataFrame:
    nothing = dict(zip(_COLUMNS, (*[TableCell()] * 3, "nothing of ours to compare"), strict=True))
    found = found or [{"place": "-"} | nothing]
    names = [name for name in found[0] if name not in (*_COLUMNS, "source")] or ["place"]
    return pd.DataFrame(found, columns=[*names, *_COLUMNS], dtype=object).set_index(names)
