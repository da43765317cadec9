"""Layout of runs over the axes of a sweep, as in the papers' tables: several levels of rows and of columns."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from analysis.select.compared import cells
from analysis.select.labels import labelled
from analysis.select.selection import axes, column, is_fair, searched
from analysis.table.cells import CellBuilder, Quantity, TableCell, percent, short

Key = tuple[Any, ...]


TOP1 = percent("top-1 (%)", "test/probe_top1")


@dataclass(frozen=True, kw_only=True)
class PivotTable:
    """A table as data: the axes of rows and columns, and the quantities of its cells.

    Args:
        rows, columns: column of the runs, or of labels.LABELS -> header, the outermost level first.
        quantities: several become the outermost level of rows or columns.
    """

    rows: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    quantities: Sequence[Quantity] = (TOP1,)
    quantities_in: Literal["rows", "columns"] = "rows"

    def build(self, runs: pd.DataFrame) -> pd.DataFrame:
        """The table of the cells that the sweep asks for."""
        return self.of(cells(runs))

    def of(self, found: pd.DataFrame, *, free: Sequence[str] = (), notes: Sequence[str] = ()) -> pd.DataFrame:
        """Cells over seeds. Places that the sweep does not ask for are "-", those that have not begun "missing".

        An axis of the sweep that is neither row nor column becomes a further level of the rows where cells of one place
        differ in it: a number is an average over seeds and nothing else. Numbers are in ascending order, words in that
        of the sweep's file.

        Args:
            found: the result of compared.cells.
            free: axes over which a winner was chosen for each place.
            notes: lines below the table.
        """
        found = labelled(found, [*self.rows, *self.columns])
        fixed = {*self.rows, *self.columns, *free, *(searched(found) if len(found) and is_fair(found) else ())}
        further = [axis for axis in (axes(found) if len(found) else []) if axis not in fixed]
        further = that_differ(found, [*self.rows, *self.columns], further)
        row_keys = [*further, *self.rows]
        at: dict[Key, list[int]] = defaultdict(list)
        for position, place in enumerate(_places(found, [*row_keys, *self.columns])):
            at[place].append(position)
        measured, depth = CellBuilder(found, self.quantities), len(row_keys)
        row_places, column_places = _in_order(place[:depth] for place in at), _in_order(place[depth:] for place in at)
        several: list[Quantity | None] = [*self.quantities]
        outer_rows, outer_columns = (several, [None]) if self.quantities_in == "rows" else ([None], several)
        table = [
            [
                measured.cell(at[row + place], quantity) if row + place in at else TableCell(quantity=quantity)
                for other in outer_columns
                for place in column_places
                if (quantity := one or other)
            ]
            for one in outer_rows
            for row in row_places
        ]
        frame = pd.DataFrame(
            table,
            index=_labels(outer_rows, row_places, [*map(short, further), *self.rows.values()]),
            columns=_labels(outer_columns, column_places, [*self.columns.values()]),
            dtype=object,
        )
        frame.attrs["notes"] = [*notes]
        return frame


def transfer(
    runs: pd.DataFrame, *, rows: Mapping[str, str], protocols: Mapping[Any, str], names: Sequence[str]
) -> pd.DataFrame:
    """Tables of transfer: a block of rows for each protocol, a column for each data set that the runs were tested on.

    Cells are top-1 accuracies; the last column is their mean, for runs that have all of them. The metrics are named
    transfer/<data set>/<protocol>.

    Args:
        protocols: labels of a block -> the end of the metric's name.
        names: of those labels.
    """
    found = cells(runs)
    matches = [re.fullmatch(r"transfer/(?!avg/)([^/]+)/(.+)", str(name)) for name in found]
    datasets = sorted({match[1] for match in matches if match and match[2] in protocols.values()})
    blocks = []
    for protocol in protocols.values():
        scores = found.reindex(columns=[f"transfer/{name}/{protocol}" for name in datasets]).astype(float)
        own = found.assign(**{f"transfer/avg/{protocol}": scores.mean(axis=1, skipna=False)})
        quantities = {name: percent(name, f"transfer/{name}/{protocol}") for name in [*datasets, "avg"]}
        block = PivotTable(rows=rows, quantities=[*quantities.values()], quantities_in="columns").of(own)
        blocks.append(block.set_axis(pd.Index([*quantities], name="data set"), axis=1))
    frame = pd.concat(blocks, keys=[*protocols], names=[*names])
    how = "the sweep's file with --evaluate probe.transfer=NAME=FOLDER,... does it"
    frame.attrs["commands"] = [] if datasets else [f"no other data set was judged yet: {how}"]
    return frame


def that_differ(found: pd.DataFrame, fixed: Sequence[str], others: Sequence[str]) -> list[str]:
    """Those of the other axes that the fixed ones do not determine, unlike a batch size that depends on the views."""
    places, kept = _places(found, fixed), []
    for axis in others:
        first: dict[Key, Any] = {}
        pairs = zip(places, _filled(found, axis), strict=True)
        if any(first.setdefault(place, value) != value for place, value in pairs):
            kept.append(axis)
    return kept


def _places(found: pd.DataFrame, keys: Sequence[str]) -> list[Key]:
    return [*zip(*(_filled(found, key) for key in keys), strict=True)] if keys else [()] * len(found)


def _filled(found: pd.DataFrame, key: str) -> list[Any]:
    """The values along an axis, as floats if one is; "-" for methods that do not have it."""
    values = ["-" if pd.isna(value) or value == "" else value for value in column(found, key).astype(object)]
    if any(isinstance(value, float) for value in values):
        return [value if isinstance(value, str | bool) else float(value) for value in values]
    return values


def _in_order(places: Iterable[Key]) -> list[Key]:
    """The distinct places: level by level, numbers in ascending order before words in order of appearance."""
    unique, ranks = [*dict.fromkeys(places)], []
    for level in zip(*unique, strict=True):
        values = [*dict.fromkeys(level)]
        numbers = sorted(value for value in values if not isinstance(value, str))
        ranks.append({value: rank for rank, value in enumerate(numbers + [v for v in values if isinstance(v, str)])})
    return sorted(unique, key=lambda place: [rank[value] for rank, value in zip(ranks, place, strict=True)])


def _labels(quantities: Sequence[Quantity | None], places: Sequence[Key], names: Sequence[str]) -> pd.Index:
    """Rows or columns: several quantities outermost; before the first cell one empty place."""
    heads: list[Key] = [() if one is None else (one.header,) for one in quantities]
    if len(heads) == 1 and names:
        heads = [()]
    labels = [(*head, *place) for head in heads for place in places or [("-",) * len(names)]]
    names = [*([""] if heads[0] or not names else []), *names]
    labels = labels if labels[0] else [("",)]
    if len(names) == 1:
        return pd.Index([label[0] for label in labels], name=names[0], dtype=None)
    return pd.MultiIndex.from_tuples(labels, names=names)
