"""A frame of numbers as texts, before any format."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd

from analysis.table.cells import Cell, levels


class Entry(NamedTuple):
    """One text of a table, and the runs behind it."""

    text: str
    bold: bool = False
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Every row and every header has one text per column; the first len(stub) are row labels."""

    stub: list[str]  # names of the row labels
    names: list[str]  # of the header's levels, "" where a level has none
    headers: list[tuple[str, ...]]  # of the other columns, outermost level first
    labels: list[list[str]]  # per row; repeated outer labels are blank
    cells: list[list[Entry]]
    blocks: set[int]  # rows at which the outermost of several labels changes
    align: str  # l or r per column

    def rows(self) -> Iterator[tuple[list[str], list[Entry]]]:
        """Labels and cells of each row."""
        return zip(self.labels, self.cells, strict=True)

    def spans(self, level: int) -> list[tuple[str, int]]:
        """The texts of one header level with the number of columns that each spans."""
        groups = groupby(self.headers, key=lambda header: header[: level + 1])
        return [(outer[-1], len([*columns])) for outer, columns in groups]

    def upper(self) -> list[tuple[list[str], list[tuple[str, int]]]]:
        """The header's rows but the last: texts of the stub, of which the last is the level's name, and the spans."""
        blank = [""] * (len(self.stub) - 1)
        return [([*blank, self.names[level]], self.spans(level)) for level in range(len(self.headers[0]) - 1)]

    def lowest(self) -> list[str]:
        """The header's last row; "p \\ mu" names rows and columns at once."""
        corner = " \\ ".join(filter(None, [self.stub[-1], self.names[-1]]))
        return [*self.stub[:-1], corner, *(header[-1] for header in self.headers)]


def layout_of(frame: pd.DataFrame) -> Layout:
    """The frame's texts; the name of a single level of columns becomes an outer header above its values.

    frame.attrs["n"] is the number of seeds that goes without saying.
    """
    headers = [tuple(map(_label, levels(column))) for column in frame.columns]
    names = [str(name or "") for name in frame.columns.names]
    if len(names) == 1 and names[0]:
        headers, names = [(names[0], *header) for header in headers], ["", ""]
    full = [[*map(_label, levels(label))] for label in frame.index]
    values = [[*row] for row in frame.itertuples(index=False, name=None)]
    words = [all(isinstance(row[k], str) for row in values) and bool(values) for k in range(len(headers))]
    changes = [k for k, labels in enumerate(full) if k and labels[0] != full[k - 1][0]]
    return Layout(
        stub=[str(name or "") for name in frame.index.names],
        names=names,
        headers=headers,
        labels=[_without_repeats(full[k - 1] if k else [], labels) for k, labels in enumerate(full)],
        cells=[[_entry(value, frame.attrs.get("n", 1)) for value in row] for row in values],
        blocks=set(changes) if frame.index.nlevels > 1 else set(),
        align="l" * frame.index.nlevels + "".join("l" if word else "r" for word in words),
    )


def _entry(value: Any, usual: int) -> Entry:
    if isinstance(value, Cell):
        return Entry(value.text(usual=usual), value.bold, tuple(filter(None, value.run_ids or value.state_ids)))
    if isinstance(value, float):
        return Entry("-" if math.isnan(value) else f"{value:.4g}")
    return Entry(str(value))


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _without_repeats(previous: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Blank what the row above says already, as far as all outer labels agree; the innermost always stands."""
    same = 0
    while same < len(labels) - 1 and previous and labels[same] == previous[same]:
        same += 1
    return [""] * same + [*labels[same:]]
