"""Rendering of a table as Markdown, LaTeX, HTML or CSV.

pandas writes the CSV alone: its Styler knows no rule between blocks of rows and none below a header that spans columns,
no notes, and names column levels in a row of their own; its to_markdown needs another package for the same text.
"""

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd

from analysis.table.cells import TableCell, levels

FORMATS = ("md", "latex", "html", "csv")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
# "RGN_1.0(0, sigma_GN)", as Rectified LpJEPA writes a target
_TARGET = re.compile(r"(R?GN)_([\d.]+)\((-?[\d.]+), sigma_(R?GN)\)(.*)")
_STYLE = """<style>
table.sweep {border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; font: 14px sans-serif}
table.sweep caption {text-align: left; font-weight: bold; padding: 4px 0}
table.sweep th, table.sweep td {text-align: right; white-space: nowrap; padding: 3px 9px}
table.sweep .l {text-align: left}
table.sweep .span {text-align: center; border-bottom: 1px solid}
table.sweep tbody th {font-weight: normal}
table.sweep tbody, table.sweep .block > * {border-top: 1px solid}
p.sweep {font: 12px sans-serif; margin: 4px 0; max-width: 110ch}
</style>"""


class CellText(NamedTuple):
    """Text of one cell."""

    text: str
    bold: bool = False


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


def render(frame: pd.DataFrame, format: str, *, title: str = "", notes: Sequence[str] = ()) -> str:
    """A frame in one of FORMATS; CSV has neither title nor notes."""
    if format == "csv":
        return to_csv(frame)
    return {"md": to_markdown, "latex": to_latex, "html": to_html}[format](frame, title=title, notes=notes)


def to_markdown(frame: pd.DataFrame, *, title: str = "", notes: Sequence[str] = ()) -> str:
    """A pipe table that lines up in a terminal; header levels are joined, and "p \\ mu" names rows and columns."""
    layout = layout_of(frame)
    names = [*filter(None, frame.columns.names)]
    first = 1 if frame.columns.nlevels == 1 and names else 0  # the level's name is in the corner
    headers = [(" / " if len(names) > 1 else " ").join(header[first:]) for header in layout.headers]
    corner = " \\ ".join(filter(None, [layout.stub[-1], " / ".join(map(str, names))]))
    table = [[*layout.stub[:-1], corner, *headers]]
    for labels, cells in zip(layout.labels, layout.cells, strict=True):
        table.append([*labels, *(f"**{cell.text}**" if cell.bold else cell.text for cell in cells)])
    rows = [[text.replace("|", "\\|") for text in row] for row in table]
    columns = [
        (side, max(3, *map(len, texts))) for side, texts in zip(layout.align, zip(*rows, strict=True), strict=True)
    ]
    rule = "|".join(f":{'-' * (width + 1)}" if side == "l" else f"{'-' * (width + 1)}:" for side, width in columns)
    lines = [
        " | ".join(
            f"{text:{'<' if side == 'l' else '>'}{width}}" for text, (side, width) in zip(row, columns, strict=True)
        )
        for row in rows
    ]
    text = "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])
    return "\n\n".join(filter(None, [title and f"**{title}**", text, *notes]))


def to_latex(frame: pd.DataFrame, *, title: str = "", notes: Sequence[str] = ()) -> str:
    """A booktabs table: an outer header spans its columns, a rule separates blocks of rows."""
    layout = layout_of(frame)
    lines = [r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering"]
    lines += [f"\\caption{{{_latex(title)}}}"] if title else []
    lines += [f"\\begin{{tabular}}{{{layout.align}}}", r"\toprule"]
    for stub, spans in layout.upper():
        texts, rules, column = [*map(_latex, stub)], [], len(layout.stub) + 1
        for text, span in spans:
            texts.append(f"\\multicolumn{{{span}}}{{c}}{{{_latex(text)}}}")
            rules.append(f"\\cmidrule(lr){{{column}-{column + span - 1}}}")
            column += span
        lines += [" & ".join(texts) + r" \\", " ".join(rules)]
    lines += [" & ".join(map(_latex, layout.lowest())) + r" \\", r"\midrule"]
    for number, (labels, cells) in enumerate(zip(layout.labels, layout.cells, strict=True)):
        lines += [r"\midrule"] * (number in layout.blocks)
        texts = [f"\\textbf{{{_latex(cell.text)}}}" if cell.bold else _latex(cell.text) for cell in cells]
        lines.append(" & ".join([*map(_latex, labels), *texts]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(f"\\par\\smallskip{{\\small {_latex(note)}}}" for note in notes), r"\end{table}"])


def to_html(frame: pd.DataFrame, *, title: str = "", notes: Sequence[str] = ()) -> str:
    """A fragment with its style, in ASCII: right in a notebook and as a file of any encoding."""
    layout = layout_of(frame)
    lines = [_STYLE, '<table class="sweep">', *([_tag("caption", title)] if title else []), "<thead>"]
    for stub, spans in layout.upper():
        names = [_tag("th", name, "l") for name in stub]
        lines.append("".join(["<tr>", *names, *(_tag("th", text, "span", span) for text, span in spans), "</tr>"]))
    lowest = zip(layout.lowest(), layout.align, strict=True)
    lines += ["".join(["<tr>", *(_tag("th", name, side) for name, side in lowest), "</tr>"]), "</thead>", "<tbody>"]
    sides = layout.align[len(layout.stub) :]
    for number, (labels, cells) in enumerate(zip(layout.labels, layout.cells, strict=True)):
        texts = [_tag("th", label, "l") for label in labels]
        texts += [_tag("td", cell.text, side, bold=cell.bold) for cell, side in zip(cells, sides, strict=True)]
        lines.append("".join(['<tr class="block">' if number in layout.blocks else "<tr>", *texts, "</tr>"]))
    lines += ["</tbody>", "</table>", *(_tag("p", note, "sweep") for note in notes)]
    return "\n".join(lines).encode("ascii", "xmlcharrefreplace").decode()


def to_csv(frame: pd.DataFrame) -> str:
    """Tidy, in full precision: a grid has one line per cell (mean, std, n, status, runs), a list one line per row.

    Missing numbers are empty.
    """
    names = [str(name or "quantity") for name in frame.index.names]
    rows = [*zip(frame.index, frame.itertuples(index=False, name=None), strict=True)]
    lines: list[list[Any]] = []
    if frame.columns.names == [None]:
        names += map(str, frame.columns)
        lines = [[*levels(label), *(v.mean if isinstance(v, TableCell) else v for v in row)] for label, row in rows]
    else:
        names += [
            f"column{k}" if name is None else str(name or "quantity") for k, name in enumerate(frame.columns.names)
        ]
        names += ["mean", "std", "n", "status", "run_ids"]
        for label, row in rows:
            for column, value in zip(frame.columns, row, strict=True):
                cell = value if isinstance(value, TableCell) else TableCell((value,))
                status = cell.status or ("finished" if cell.n else "none")
                numbers = [cell.mean, cell.std, cell.n, status, " ".join(cell.run_ids)]
                lines.append([*levels(label), *levels(column), *numbers])
    text = pd.DataFrame(lines, columns=names, dtype=object).to_csv(index=False, lineterminator="\n")
    return str(text).rstrip("\n")


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
        return CellText(value.text(usual=usual), value.bold)
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


def _latex(text: str) -> str:
    if text == "-":
        return "--"
    if re.fullmatch(r"-[\d.]+(e[+-]?\d+)?", text):
        return f"${text}$"  # a minus, not a hyphen
    if target := _TARGET.fullmatch(text):
        kind, p, mu, sigma, rest = target.groups()
        return f"$\\mathrm{{{kind}}}_{{{p}}}({mu}, \\sigma_{{\\mathrm{{{sigma}}}}})${_latex(rest)}"
    return "".join(_LATEX.get(character, character) for character in text)


def _tag(kind: str, text: str, style: str = "", span: int = 1, *, bold: bool = False) -> str:
    """An HTML element with an escaped text; the style "r" is the default of a cell."""
    attributes = (f' colspan="{span}"' if span > 1 else "") + (f' class="{style}"' if style not in ("", "r") else "")
    content = f"<b>{html.escape(text)}</b>" if bold else html.escape(text)
    return f"<{kind}{attributes}>{content}</{kind}>"
