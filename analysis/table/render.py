"""Rendering of a table as Markdown, LaTeX, HTML or CSV.

pandas writes the CSV alone: its Styler knows no rule between blocks of rows and none below a header that spans columns,
no notes, and names column levels in a row of their own; its to_markdown needs another package for the same text.
"""

import html
from typing import Any

import pandas as pd

from analysis.table.cells import TableCell, levels
from analysis.table.latex import to_latex
from analysis.table.layout import FinishedTable, layout_of

FORMATS = ("md", "latex", "html", "csv")
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


def render(table: FinishedTable, format: str = "md", *, bare: bool = False) -> str:
    """A table in one of FORMATS; CSV has neither title nor notes.

    Args:
        bare: LaTeX without its float, see to_latex.
    """
    if format == "csv":
        return _to_csv(table.frame)
    if format == "latex":
        return to_latex(table, bare=bare)
    return (_to_html if format == "html" else _to_markdown)(table)


def _to_markdown(table: FinishedTable) -> str:
    """A pipe table that lines up in a terminal; header levels are joined, and "p \\ mu" names rows and columns."""
    layout, columns = layout_of(table.frame), table.frame.columns
    names = [*filter(None, columns.names)]
    first = 1 if columns.nlevels == 1 and names else 0  # the level's name is in the corner
    headers = [(" / " if len(names) > 1 else " ").join(header[first:]) for header in layout.headers]
    corner = " \\ ".join(filter(None, [layout.stub[-1], " / ".join(map(str, names))]))
    rows = [[*layout.stub[:-1], corner, *headers]]
    for labels, cells in zip(layout.labels, layout.cells, strict=True):
        rows.append([*labels, *(f"**{cell.text}**" if cell.bold else cell.text for cell in cells)])
    rows = [[text.replace("|", "\\|") for text in row] for row in rows]
    padded, rule = [], ""
    for side, texts in zip(layout.align, zip(*rows, strict=True), strict=True):
        width = max(3, *map(len, texts))
        padded.append([text.ljust(width) if side == "l" else text.rjust(width) for text in texts])
        rule += f":{'-' * (width + 1)}|" if side == "l" else f"{'-' * (width + 1)}:|"
    first_line, *lines = [f"| {' | '.join(row)} |" for row in zip(*padded, strict=True)]
    text = "\n".join([first_line, f"|{rule}", *lines])
    return "\n\n".join(filter(None, [table.title and f"**{table.title}**", text, *table.notes]))


def _to_html(table: FinishedTable) -> str:
    """A fragment with its style, in ASCII: right in a notebook and as a file of any encoding."""
    layout, caption = layout_of(table.frame), [_tag("caption", table.title)] if table.title else []
    lines = [_STYLE, '<table class="sweep">', *caption, "<thead>"]
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
    lines += ["</tbody>", "</table>", *(_tag("p", note, "sweep") for note in table.notes)]
    return "\n".join(lines).encode("ascii", "xmlcharrefreplace").decode()


def _to_csv(frame: pd.DataFrame) -> str:
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


def _tag(kind: str, text: str, style: str = "", span: int = 1, *, bold: bool = False) -> str:
    """An HTML element with an escaped text; the style "r" is the default of a cell."""
    attributes = (f' colspan="{span}"' if span > 1 else "") + (f' class="{style}"' if style not in ("", "r") else "")
    content = f"<b>{html.escape(text)}</b>" if bold else html.escape(text)
    return f"<{kind}{attributes}>{content}</{kind}>"
