"""Finished tables, and their texts in header levels, row labels and cells: the input of Markdown, LaTeX and HTML."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd

from analysis.table.cells import TableCell, levels, with_remark


@dataclass(frozen=True, kw_only=True)
class FinishedTable:
    """A table with its title and notes, before any format.

    Args:
        label: stem of its files, and its label in LaTeX.
        about_numbers: notes that explain the numbers: choices, seeds, bold.
        about_runs: bookkeeping: commands, code versions, runs left out, progress.
        runs: all that were read.
    """

    frame: pd.DataFrame
    title: str = ""
    label: str = ""
    about_numbers: Sequence[str] = ()
    about_runs: Sequence[str] = ()
    runs: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def notes(self) -> list[str]:
        """All lines below the table."""
        return [*self.about_numbers, *self.about_runs]


class CellText(NamedTuple):
    """Text of one cell: its number or word, and the remark on runs without a number."""

    number: str
    remark: str = ""
    bold: bool = False

    @property
    def text(self) -> str:
        """Number and remark in one."""
        return with_remark(self.number, self.remark)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Texts of a table. Every header and every row has one text per column; the first len(stub) are row labels.

    Args:
        stub: names of the row labels.
        names: of the header's levels, "" where a level has none.
        headers: of the other columns, outermost level first.
        labels: per row; repeated outer labels are blank.
        blocks: rows at which the outermost of several labels changes.
        align: l or r per column.
    """

    stub: list[str]
    names: list[str]
    headers: list[tuple[str, ...]]
    labels: list[list[str]]
    cells: list[list[CellText]]
    blocks: set[int]
    align: str

    def upper(self) -> list[tuple[list[str], list[tuple[str, int]]]]:
        """The header's rows but the last: texts of the stub, of which the last is the level's name; and each text of
        the level with the number of columns that it spans."""
        blank, rows = [""] * (len(self.stub) - 1), []
        for level in range(len(self.headers[0]) - 1):
            groups = groupby(header[: level + 1] for header in self.headers)
            rows.append(([*blank, self.names[level]], [(outer[-1], len([*columns])) for outer, columns in groups]))
        return rows

    def lowest(self) -> list[str]:
        """The header's last row; "p \\ mu" names rows and columns at once."""
        corner = " \\ ".join(filter(None, [self.stub[-1], self.names[-1]]))
        return [*self.stub[:-1], corner, *(header[-1] for header in self.headers)]


def layout_of(frame: pd.DataFrame) -> Layout:
    """The frame's texts; the name of a single level of columns becomes an outer header above its values.

    Cells state their number of seeds unless it is frame.attrs["n"], by default 1.
    """
    headers = [tuple(map(_header_text, levels(column))) for column in frame.columns]
    names = [str(name or "") for name in frame.columns.names]
    if len(names) == 1 and names[0]:
        headers, names = [(names[0], *header) for header in headers], ["", ""]
    full = [[*map(_header_text, levels(label))] for label in frame.index]
    values = [[*row] for row in frame.itertuples(index=False, name=None)]
    words = [all(isinstance(row[k], str) for row in values) and bool(values) for k in range(len(headers))]
    changes = [k for k, labels in enumerate(full) if k and labels[0] != full[k - 1][0]]
    return Layout(
        stub=[str(name or "") for name in frame.index.names],
        names=names,
        headers=headers,
        labels=[_without_repeats(full[k - 1] if k else [], labels) for k, labels in enumerate(full)],
        cells=[[_cell_text(value, frame.attrs.get("n", 1)) for value in row] for row in values],
        blocks=set(changes) if frame.index.nlevels > 1 else set(),
        align="l" * frame.index.nlevels + "".join("l" if word else "r" for word in words),
    )


def _cell_text(value: Any, usual: int) -> CellText:
    if isinstance(value, TableCell):
        number, remark = value.number(), value.remark(usual)
        return CellText(number or ("" if remark else "-"), remark, value.bold)
    if isinstance(value, float):
        return CellText("-" if math.isnan(value) else f"{value:.4g}")
    return CellText(str(value))


def _header_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _without_repeats(previous: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Labels of a row; those equal to the row above up to there are blank, the innermost never."""
    same = 0
    while same < len(labels) - 1 and previous and labels[same] == previous[same]:
        same += 1
    return [""] * same + [*labels[same:]]
