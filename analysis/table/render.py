"""A table as Markdown, LaTeX, HTML or CSV."""

import csv
import html
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple
from urllib.parse import quote

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
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
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
table.sweep a {color: inherit; text-decoration: none}
table.sweep a:hover {text-decoration: underline}
p.sweep {font: 12px sans-serif; margin: 4px 0; max-width: 110ch}
</style>"""


class CellText(NamedTuple):
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
    cells: list[list[CellText]]
    blocks: set[int]  # rows at which the outermost of several labels changes
    align: str  # l or r per column

    def rows(self) -> Iterator[tuple[list[str], list[CellText]]]:
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


@dataclass(frozen=True, kw_only=True)
class Links:
    """Where the MLflow UI shows a run, or several side by side.

    Args:
        ui: its address.
        experiments: run id -> experiment id; a run that is not in it has no link.
    """

    ui: str = ""
    experiments: Mapping[str, str] = field(default_factory=dict)

    def to(self, run_ids: Sequence[str]) -> str:
        """The address for these runs, "" where there is none."""
        known = [run_id for run_id in run_ids if run_id in self.experiments]
        if not self.ui or not known:
            return ""
        places = sorted({self.experiments[run_id] for run_id in known})
        if len(known) == 1:
            return f"{self.ui}/#/experiments/{places[0]}/runs/{known[0]}"
        runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (known, places))
        return f"{self.ui}/#/compare-runs?runs={runs}&experiments={experiments}"


def render(
    frame: pd.DataFrame, format: str, *, title: str = "", notes: Sequence[str] = (), links: Links | None = None
) -> str:
    """A frame in one of FORMATS; only HTML has links, and CSV neither title nor notes."""
    if format == "csv":
        return to_csv(frame)
    if format == "html":
        return to_html(frame, title=title, notes=notes, links=links)
    return {"md": to_markdown, "latex": to_latex}[format](frame, title=title, notes=notes)


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


def to_html(frame: pd.DataFrame, *, title: str = "", notes: Sequence[str] = (), links: Links | None = None) -> str:
    """A fragment that brings its style, in ASCII: right in a notebook and as a file of any encoding."""
    layout = layout_of(frame)
    header = []
    for stub, spans in layout.upper():
        names = "".join(_tag("th", html.escape(name), "l") for name in stub)
        header.append(f"<tr>{names}{''.join(_tag('th', html.escape(text), 'span', span) for text, span in spans)}</tr>")
    sides = [*layout.align]
    lowest = "".join(_tag("th", html.escape(name), side) for name, side in zip(layout.lowest(), sides, strict=True))
    header.append(f"<tr>{lowest}</tr>")
    body = []
    for number, (labels, entries) in enumerate(layout.rows()):
        texts = "".join(_tag("th", html.escape(label), "l") for label in labels)
        texts += "".join(
            _tag("td", _linked(entry, links or Links()), side)
            for entry, side in zip(entries, sides[len(labels) :], strict=True)
        )
        start = '<tr class="block">' if number in layout.blocks else "<tr>"
        body.append(f"{start}{texts}</tr>")
    lines = [
        *(_STYLE, '<table class="sweep">'),
        *([f"<caption>{html.escape(title)}</caption>"] if title else []),
        *("<thead>", *header, "</thead>", "<tbody>", *body, "</tbody>"),
        "</table>",
        *(_tag("p", html.escape(note), "sweep") for note in notes),
    ]
    return "\n".join(lines).encode("ascii", "xmlcharrefreplace").decode()


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
                cell = value if isinstance(value, TableCell) else TableCell((value,))
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


def layout_of(frame: pd.DataFrame) -> Layout:
    """The frame's texts; the name of a single level of columns becomes an outer header above its values.

    frame.attrs["n"] is the number of seeds that goes without saying.
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
        return CellText(value.text(usual=usual), value.bold, tuple(filter(None, value.run_ids or value.state_ids)))
    if isinstance(value, float):
        return CellText("-" if math.isnan(value) else f"{value:.4g}")
    return CellText(str(value))


def _header_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _without_repeats(previous: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Blank what the row above says already, as far as all outer labels agree; the innermost always stands."""
    same = 0
    while same < len(labels) - 1 and previous and labels[same] == previous[same]:
        same += 1
    return [""] * same + [*labels[same:]]


def _markdown(entry: CellText) -> str:
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
    value = value.mean if isinstance(value, TableCell) else value
    return "" if isinstance(value, float) and math.isnan(value) else value


def _linked(entry: CellText, links: Links) -> str:
    text = html.escape(entry.text)
    address = links.to(entry.run_ids)
    text = f'<a href="{html.escape(address)}">{text}</a>' if address else text
    return f"<b>{text}</b>" if entry.bold else text


def _tag(kind: str, content: str, style: str, span: int = 1) -> str:
    attributes = (f' colspan="{span}"' if span > 1 else "") + (f' class="{style}"' if style not in ("", "r") else "")
    return f"<{kind}{attributes}>{content}</{kind}>"
