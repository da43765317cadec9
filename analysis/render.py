"""One frame of numbers as Markdown, LaTeX, HTML or CSV."""

import csv
import html
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from analysis.aggregate import Cell

Formats = Mapping[str, str]  # header of a column, or label of a row or block of rows -> format spec

_STYLE = """<style>
table.sweep {border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; font: 14px sans-serif}
table.sweep caption {text-align: left; font-weight: bold; padding: 4px 0}
table.sweep th, table.sweep td {text-align: right; white-space: nowrap; padding: 3px 9px}
table.sweep .l {text-align: left}
table.sweep .span {text-align: center; border-bottom: 1px solid}
table.sweep tbody th {font-weight: normal}
table.sweep tbody, table.sweep .block > * {border-top: 1px solid}
p.sweep {font: 12px sans-serif; margin: 4px 0 24px}
</style>"""
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A frame as texts. Every row and every header has one text per column; the first len(stub) are row labels."""

    stub: list[str]  # names of the row labels
    headers: list[tuple[str, ...]]  # of the other columns, outermost level first
    labels: list[list[str]]  # per row; repeated outer labels are blank
    cells: list[list[str]]
    blocks: set[int]  # rows at which the outermost of several labels changes
    align: str  # l or r per column

    def rows(self) -> Iterator[list[str]]:
        """Labels and cells of each row."""
        return (labels + cells for labels, cells in zip(self.labels, self.cells, strict=True))


def to_markdown(frame: pd.DataFrame, *, title: str = "", formats: Formats | None = None, note: str = "") -> str:
    """A pipe table that lines up in a terminal; header levels are joined, and "p \\ mu" names rows and columns."""
    layout = layout_of(frame, formats or {})
    stub = [*layout.stub]
    headers = [" ".join(header) for header in layout.headers]
    if frame.columns.name:
        stub[-1] = f"{stub[-1]} \\ {frame.columns.name}"
        headers = [header[-1] for header in layout.headers]
    rows = [[text.replace("|", "\\|") for text in row] for row in ([*stub, *headers], *layout.rows())]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    columns = [*zip(layout.align, widths, strict=True)]
    rule = "|".join(f":{'-' * (width + 1)}" if side == "l" else f"{'-' * (width + 1)}:" for side, width in columns)
    lines = [
        " | ".join(
            f"{text:{'<' if side == 'l' else '>'}{width}}" for text, (side, width) in zip(row, columns, strict=True)
        )
        for row in rows
    ]
    table = "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])
    return "\n\n".join(filter(None, [title and f"**{title}**", table, note]))


def to_latex(frame: pd.DataFrame, *, title: str = "", formats: Formats | None = None, note: str = "") -> str:
    """A booktabs table: an outer header spans its columns, a rule parts blocks of rows."""
    layout = layout_of(frame, formats or {})
    depth = len(layout.headers[0])
    header = []
    for level in range(depth - 1):
        texts, rules, column = [""] * len(layout.stub), [], len(layout.stub) + 1
        for text, span in _spans(layout.headers, level):
            texts.append(f"\\multicolumn{{{span}}}{{c}}{{{_latex(text)}}}")
            rules.append(f"\\cmidrule(lr){{{column}-{column + span - 1}}}")
            column += span
        header += [" & ".join(texts) + r" \\", " ".join(rules)]
    names = [*layout.stub, *(header[-1] for header in layout.headers)]
    body = []
    for number, row in enumerate(layout.rows()):
        body += [r"\midrule"] * (number in layout.blocks)
        body.append(" & ".join(map(_latex, row)) + r" \\")
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            *(r"\begin{table}", r"\centering"),
            *([f"\\caption{{{_latex(title)}}}"] if title else []),
            *(f"\\begin{{tabular}}{{{layout.align}}}", r"\toprule"),
            *header,
            *(" & ".join(map(_latex, names)) + r" \\", r"\midrule"),
            *body,
            *(r"\bottomrule", r"\end{tabular}"),
            *([f"\\par\\smallskip{{\\small {_latex(note)}}}"] if note else []),
            r"\end{table}",
        ]
    )


def to_html(frame: pd.DataFrame, *, title: str = "", formats: Formats | None = None, note: str = "") -> str:
    """A fragment that brings its style, in ASCII: right in a notebook and as a file of any encoding."""
    layout = layout_of(frame, formats or {})
    depth = len(layout.headers[0])
    sides = [*layout.align]
    header = []
    for level in range(depth - 1):
        spans = "".join(_tag("th", text, "span", span) for text, span in _spans(layout.headers, level))
        header.append(f"<tr>{'<th></th>' * len(layout.stub)}{spans}</tr>")
    names = [*layout.stub, *(header[-1] for header in layout.headers)]
    header.append(f"<tr>{''.join(_tag('th', name, side) for name, side in zip(names, sides, strict=True))}</tr>")
    body = []
    for number, row in enumerate(layout.rows()):
        kinds = ["th"] * len(layout.stub) + ["td"] * len(layout.headers)
        entries = "".join(_tag(kind, text, side) for kind, text, side in zip(kinds, row, sides, strict=True))
        start = '<tr class="block">' if number in layout.blocks else "<tr>"
        body.append(f"{start}{entries}</tr>")
    lines = [
        *(_STYLE, '<table class="sweep">'),
        *([f"<caption>{html.escape(title)}</caption>"] if title else []),
        *("<thead>", *header, "</thead>", "<tbody>", *body, "</tbody>"),
        "</table>",
        *([_tag("p", note, "sweep")] if note else []),
    ]
    return "\n".join(lines).encode("ascii", "xmlcharrefreplace").decode()


def to_csv(frame: pd.DataFrame, *, title: str = "", formats: Formats | None = None, note: str = "") -> str:
    """Tidy, in full precision: a grid has one line per cell (mean, std, n, status), a list one line per row.

    What is not a number is empty. Title, formats and note have no place here.
    """
    del title, formats, note
    stub = [str(name or "quantity") for name in frame.index.names]
    is_grid = frame.columns.name is not None or frame.columns.nlevels > 1
    lines: list[list[Any]]
    if is_grid:
        names = [str(name or f"column{level}") for level, name in enumerate(frame.columns.names)]
        lines = [[*stub, *names, "mean", "std", "n", "status"]]
        for label, row in zip(frame.index, frame.itertuples(index=False, name=None), strict=True):
            for column, value in zip(frame.columns, row, strict=True):
                cell = value if isinstance(value, Cell) else Cell((value,))
                status = cell.status or ("finished" if cell.n else "missing")
                lines.append([*_levels(label), *_levels(column), _exact(cell.mean), _exact(cell.std), cell.n, status])
    else:
        lines = [[*stub, *frame.columns]]
        for label, row in zip(frame.index, frame.itertuples(index=False, name=None), strict=True):
            lines.append([*_levels(label), *map(_exact, row)])
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[..., str]] = {"md": to_markdown, "latex": to_latex, "html": to_html, "csv": to_csv}


def layout_of(frame: pd.DataFrame, formats: Formats) -> Layout:
    """The frame's texts; a named level of columns becomes an outer header above its values."""
    headers = [tuple(map(_label, _levels(column))) for column in frame.columns]
    if frame.columns.name:
        headers = [(str(frame.columns.name), *header) for header in headers]
    full = [[*map(_label, _levels(label))] for label in frame.index]
    values = [[*row] for row in frame.itertuples(index=False, name=None)]
    cells = [
        [_text(value, _spec(formats, labels, header)) for value, header in zip(row, headers, strict=True)]
        for row, labels in zip(values, full, strict=True)
    ]
    words = [all(isinstance(row[k], str) for row in values) and bool(values) for k in range(len(headers))]
    changes = [k for k, labels in enumerate(full) if k and labels[0] != full[k - 1][0]]
    return Layout(
        stub=[str(name or "") for name in frame.index.names],
        headers=headers,
        labels=[_without_repeats(full[k - 1] if k else [], labels) for k, labels in enumerate(full)],
        cells=cells,
        blocks=set(changes) if frame.index.nlevels > 1 else set(),
        align="l" * frame.index.nlevels + "".join("l" if word else "r" for word in words),
    )


def _spec(formats: Formats, labels: Sequence[str], header: Sequence[str]) -> str:
    return next((formats[label] for label in (*header, *labels) if label in formats), ".4g")


def _text(value: Any, spec: str) -> str:
    if isinstance(value, Cell):
        return value.text(spec)
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:{spec}}"
    return str(value)


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _levels(label: Any) -> tuple[Any, ...]:
    return label if isinstance(label, tuple) else (label,)


def _without_repeats(previous: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Blank what the row above says already, as far as all outer labels agree; the innermost always stands."""
    same = 0
    while same < len(labels) - 1 and previous and labels[same] == previous[same]:
        same += 1
    return [""] * same + [*labels[same:]]


def _spans(headers: Sequence[tuple[str, ...]], level: int) -> list[tuple[str, int]]:
    """The texts of one header level with the number of columns that each spans."""
    groups = groupby(headers, key=lambda header: header[: level + 1])
    return [(outer[-1], len([*columns])) for outer, columns in groups]


def _tag(kind: str, text: str, style: str, span: int = 1) -> str:
    attributes = (f' colspan="{span}"' if span > 1 else "") + (f' class="{style}"' if style not in ("", "r") else "")
    return f"<{kind}{attributes}>{html.escape(text)}</{kind}>"


def _latex(text: str) -> str:
    if text == "-":
        return "--"
    if re.fullmatch(r"-[\d.]+(e[+-]?\d+)?", text):
        return f"${text}$"  # a minus, not a hyphen
    return "".join(_LATEX.get(character, character) for character in text)


def _exact(value: Any) -> Any:
    value = value.mean if isinstance(value, Cell) else value
    return "" if isinstance(value, float) and math.isnan(value) else value
