"""Runs over the axes of a sweep, as the papers lay their tables out: several levels of rows and of columns."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from analysis.select.selection import axes, column, is_fair, searched
from analysis.table.cells import CellBuilder, Quantity, TableCell, short

Key = tuple[Any, ...]


def pivot(
    found: pd.DataFrame,
    *,
    rows: Mapping[str, str],
    columns: Mapping[str, str],
    quantities: Sequence[Quantity],
    quantities_in: Literal["rows", "columns"] = "rows",
    free: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> pd.DataFrame:
    """Cells over seeds. What the sweep's file does not ask for is "-", what it asks for and nobody has run "missing".

    An axis of the sweep that is neither row nor column becomes a further level of the rows where cells of one place
    differ in it: no number is ever an average over anything but seeds. Numbers are in ascending order, words in that
    of the sweep's file.

    Args:
        found: what selection.cells gave, perhaps with columns that the table derives.
        rows, columns: column of the runs -> header, the outermost level first.
        quantities: several become the outermost level of rows or columns.
        free: axes over which a winner was chosen for each place.
        notes: lines below the table.
    """
    fixed = {*rows, *columns, *free, *(searched(found) if len(found) and is_fair(found) else ())}
    further = [axis for axis in (axes(found) if len(found) else []) if axis not in fixed]
    further = that_differ(found, [*rows, *columns], further)
    row_keys, column_keys = [*further, *rows], [*columns]
    places = [*zip(*(_filled(found, key) for key in [*row_keys, *column_keys]), strict=True)]
    at: dict[Key, list[int]] = defaultdict(list)
    for position, place in enumerate(places or [()] * len(found)):
        at[place].append(position)
    measured, depth = CellBuilder(found, quantities), len(row_keys)
    row_places, column_places = _in_order(place[:depth] for place in at), _in_order(place[depth:] for place in at)
    several_rows: list[Quantity | None] = [*quantities] if quantities_in == "rows" else [None]
    several_columns: list[Quantity | None] = [*quantities] if quantities_in == "columns" else [None]
    table = [
        [
            measured.cell(at[row + place], quantity) if row + place in at else TableCell(quantity=quantity)
            for other in several_columns
            for place in column_places
            if (quantity := one or other)
        ]
        for one in several_rows
        for row in row_places
    ]
    row_names = [*map(short, further), *rows.values()]
    frame = pd.DataFrame(
        table,
        index=_labels(several_rows, row_places, row_names),
        columns=_labels(several_columns, column_places, [*columns.values()]),
        dtype=object,
    )
    frame.attrs["notes"] = [*notes]
    return frame


def that_differ(found: pd.DataFrame, shown: Sequence[str], others: Sequence[str]) -> list[str]:
    """Those of the other axes that the shown ones do not determine: batches that co-vary with views say nothing new."""
    shown_values = [*zip(*(_filled(found, key) for key in shown), strict=True)] or [()] * len(found)
    kept = []
    for axis in others:
        first: dict[Key, Any] = {}
        pairs = zip(shown_values, _filled(found, axis), strict=True)
        if any(first.setdefault(place, value) != value for place, value in pairs):
            kept.append(axis)
    return kept


def _filled(found: pd.DataFrame, key: str) -> list[Any]:
    """The values along an axis, as floats if one is; what a method does not have is "-"."""
    values = ["-" if pd.isna(value) or value == "" else value for value in column(found, key).astype(object)]
    if any(isinstance(value, float) for value in values):
        return [value if isinstance(value, str | bool) else float(value) for value in values]
    return values


def _in_order(places: Iterable[Key]) -> list[Key]:
    """Every place once: level by level, numbers ascending before words as they come."""
    unique = [*dict.fromkeys(places)]
    if not unique:
        return []
    ranks = []
    for level in zip(*unique, strict=True):
        values = [*dict.fromkeys(level)]
        numbers = sorted(value for value in values if not isinstance(value, str))
        ranks.append({value: rank for rank, value in enumerate(numbers + [v for v in values if isinstance(v, str)])})
    return sorted(unique, key=lambda place: [rank[value] for rank, value in zip(ranks, place, strict=True)])


def _labels(quantities: Sequence[Quantity | None], places: Sequence[Key], names: Sequence[str]) -> pd.Index:
    """Rows or columns: the quantities outermost, if there are several; before the first cell one empty place."""
    places = places or [("-",) * len(names)]
    heads: list[Key] = [() if one is None else (one.header,) for one in quantities]
    if len(heads) == 1 and names:
        heads = [()]
    names = [*([""] if heads[0] or not names else []), *names]
    labels = [(*head, *place) for head in heads for place in places]
    if not labels[0]:
        labels = [("",)]
    if len(names) == 1:
        return pd.Index([label[0] for label in labels], name=names[0], dtype=None)
    return pd.MultiIndex.from_tuples(labels, names=names)
