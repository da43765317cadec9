"""One frame of numbers as Markdown, LaTeX, HTML or CSV."""

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd

from analysis.table.cells import Cell, levels
from analysis.table.layout import Entry, layout_of
from analysis.table.render_html import Links, to_html

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
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
# "RGN_1.0(0, sigma_GN)", as Rectified LpJEPA writes a target
_TARGET = re.compile(r"(R?GN)_([\d.]+)\((-?[\d.]+), sigma_(R?GN)\)(.*)")


def to_markdown(frame: pd.DataFrame, *, title: str = "", notes: Sequence[str] = ()) -> str:
    """A pipe table that lines up in a terminal; header levels are joined, and "p \\ mu" names rows and columns."""
    layout = layout_of(frame)
    names = [*filter(None, frame.columns.names)]
    joint = " / " if len(names) > 1 else " "
    first = 1 if frame.columns.nlevels == 1 and names else 0
    headers = [joint.join(header[first:]) for header in layout.headers]
    corner = " \\ ".join(filter(None, [layout.stub[-1], " / ".join(map(str, names))]))
    body = [[*labels, *map(_markdown, entries)] for labels, entries in layout.rows()]
    table = [[*layout.stub[:-1], corner, *headers], *body]
    rows = [[text.replace("|", "\\|") for text in row] for row in table]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    columns = [*zip(layout.align, widths, strict=True)]
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
    """A booktabs table: an outer header spans its columns, a rule parts blocks of rows."""
    layout = layout_of(frame)
    header = []
    for stub, spans in layout.upper():
        texts, rules, column = [*map(_latex, stub)], [], len(layout.stub) + 1
        for text, span in spans:
            texts.append(f"\\multicolumn{{{span}}}{{c}}{{{_latex(text)}}}")
            rules.append(f"\\cmidrule(lr){{{column}-{column + span - 1}}}")
            column += span
        header += [" & ".join(texts) + r" \\", " ".join(rules)]
    body = []
    for number, (labels, entries) in enumerate(layout.rows()):
        body += [r"\midrule"] * (number in layout.blocks)
        texts = [f"\\textbf{{{_latex(one.text)}}}" if one.bold else _latex(one.text) for one in entries]
        body.append(" & ".join([*map(_latex, labels), *texts]) + r" \\")
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            *(r"\begin{table}", r"\centering"),
            *([f"\\caption{{{_latex(title)}}}"] if title else []),
            *(f"\\begin{{tabular}}{{{layout.align}}}", r"\toprule"),
            *header,
            *(" & ".join(map(_latex, layout.lowest())) + r" \\", r"\midrule"),
            *body,
            *(r"\bottomrule", r"\end{tabular}"),
            *(f"\\par\\smallskip{{\\small {_latex(note)}}}" for note in notes),
            r"\end{table}",
        ]
    )


def to_csv(frame: pd.DataFrame) -> str:
    """Tidy, in full precision: a grid has one line per cell (mean, std, n, status, runs), a list one line per row.

    What is not a number is empty.
    """
    stub = [str(name or "quantity") for name in frame.index.names]
    lines: list[list[Any]]
    if frame.columns.names != [None]:
        names = [
            str(name or ("quantity" if name is not None else f"column{k}"))
            for k, name in enumerate(frame.columns.names)
        ]
        lines = [[*stub, *names, "mean", "std", "n", "status", "run_ids"]]
        for label, row in zip(frame.index, frame.itertuples(index=False, name=None), strict=True):
            for column, value in zip(frame.columns, row, strict=True):
                cell = value if isinstance(value, Cell) else Cell((value,))
                status = cell.status or ("finished" if cell.n else "none")
                numbers = [_exact(cell.mean), _exact(cell.std), cell.n, status, " ".join(cell.run_ids)]
                lines.append([*levels(label), *levels(column), *numbers])
    else:
        lines = [[*stub, *frame.columns]]
        for label, row in zip(frame.index, frame.itertuples(index=False, name=None), strict=True):
            lines.append([*levels(label), *map(_exact, row)])
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue().rstrip("\n")


FORMATS = ("md", "latex", "html", "csv")


def render(
    frame: pd.DataFrame, format: str, *, title: str = "", notes: Sequence[str] = (), links: Links | None = None
) -> str:
    """A frame in one of FORMATS; only HTML has links, and CSV neither title nor notes."""
    formats: dict[str, Callable[[], str]] = {
        "md": partial(to_markdown, frame, title=title, notes=notes),
        "latex": partial(to_latex, frame, title=title, notes=notes),
        "html": partial(to_html, frame, title=title, notes=notes, links=links),
        "csv": partial(to_csv, frame),
    }
    return formats[format]()


def _markdown(entry: Entry) -> str:
    return f"**{entry.text}**" if entry.bold else entry.text


def _latex(text: str) -> str:
    if text == "-":
        return "--"
    if re.fullmatch(r"-[\d.]+(e[+-]?\d+)?", text):
        return f"${text}$"  # a minus, not a hyphen
    if target := _TARGET.fullmatch(text):
        kind, p, mu, sigma, rest = target.groups()
        return f"$\\mathrm{{{kind}}}_{{{p}}}({mu}, \\sigma_{{\\mathrm{{{sigma}}}}})${_latex(rest)}"
    return "".join(_LATEX.get(character, character) for character in text)


def _exact(value: Any) -> Any:
    value = value.mean if isinstance(value, Cell) else value
    return "" if isinstance(value, float) and math.isnan(value) else value
