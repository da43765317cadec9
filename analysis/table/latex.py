"""LaTeX of a table: booktabs rules, Greek letters, remarks as footnote marks, and a hint where it exceeds a page."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import count
from string import ascii_lowercase

import pandas as pd

from analysis.table.layout import CellText, Layout, layout_of

_SYMBOLS = {"lamb": "lambda", "mu": "mu", "sigma": "sigma", "alpha": "alpha"}  # words of configs and notes
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi"
_GREEK += " omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
_MATH = {
    **{"<": "<", ">": ">", "|": "|", "±": r"\pm", "\N{MINUS SIGN}": "-", "†": r"\dagger", "‡": r"\ddagger"},
    **{"≤": r"\leq", "≥": r"\geq", "≈": r"\approx", "≠": r"\neq", "∞": r"\infty", "∈": r"\in"},
    **{"↑": r"\uparrow", "↓": r"\downarrow", "→": r"\to", "\N{MICRO SIGN}": r"\mu"},
    **dict(zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩ", (f"\\{name}" for name in _GREEK.split()), strict=True)),
}
_TEXT = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
}
_TOKEN = re.compile(
    r"(?P<target>(?P<kind>R?GN)_(?P<p>[\d.]+)\((?P<mu>-?[\d.]+), sigma_(?P<sigma>R?GN)\))"  # as the paper writes it
    r"|(?P<symbol>(?<![\w.])(?:\w+\.)*(?:lamb(?:_(?P<term>[a-z]+))?|(?P<greek>mu|sigma|alpha))"
    r"(?:\^(?P<power>alpha|-?[\d.]*\d))?(?!\w|\.\w))"
    r"|(?P<scientific>(?<![\w.])(?P<mantissa>-?\d+(?:\.\d+)?)e(?P<exponent>[+-]\d{2,3})(?![\w.]))"
    r"|(?P<negative>(?<![\w.)\]-])-\d+(?:\.\d+)?(?!\w))"  # a minus, not a hyphen
    r"|(?P<dashes>--+)"
    r"|(?P<character>[^\w\s]|_|[^\x00-\x7f])"
)
_BOLD, _ALPHA = "\\boldmath ", "\\alpha"
_CHARACTER = 4.8  # mean width in points at 10 pt
_GAP = 12.0  # between columns: twice \tabcolsep
_WIDE, _HIGH = 345, 45  # text of LaTeX's article class at 10 pt: points, lines


def to_latex(
    frame: pd.DataFrame,
    *,
    title: str = "",
    notes: Sequence[str] = (),
    bookkeeping: Sequence[str] = (),
    label: str = "",
    bare: bool = False,
) -> str:
    """A booktabs table: an outer header spans its columns, a rule separates blocks of rows.

    Remarks of cells, such as "n=2, 1 diverged", are letters that the first line below the table explains.

    Args:
        notes: lines below the table; bookkeeping: lines that become comments after it.
        label: \\label{tab:<label>}, for a table with a title.
        bare: the tabular without its float; title and notes are comments.
    """
    layout = layout_of(frame)
    remarks = dict.fromkeys(cell.remark for row in layout.cells for cell in row if cell.remark)
    marks = {remark: ascii_lowercase[k % 26] * (k // 26 + 1) for remark, k in zip(remarks, count(), strict=False)}
    tabular = _tabular(layout, marks)
    explained = "; ".join(f"\\textsuperscript{{{mark}}} {_typeset(remark)}" for remark, mark in marks.items())
    below = [*filter(None, [explained]), *map(_typeset, notes)]
    comments = [r"needs \usepackage{booktabs}", *_hints(tabular, below, title)]
    if bare:
        comments += [title] if title else []
        tabular += _comments([*(f"{mark}: {remark}" for remark, mark in marks.items()), *notes])
    else:
        tabular = _float(tabular, below, title, label)
    return "\n".join([*_comments(comments), *tabular, *_comments(bookkeeping)])


def _tabular(layout: Layout, marks: Mapping[str, str]) -> list[str]:
    lines = [f"\\begin{{tabular}}{{{layout.align}}}", r"\toprule"]
    for stub, spans in layout.upper():
        texts, rules, column = [*map(_typeset, stub)], [], len(layout.stub) + 1
        for text, span in spans:
            texts.append(f"\\multicolumn{{{span}}}{{c}}{{{_typeset(text)}}}")
            rules.append(f"\\cmidrule(lr){{{column}-{column + span - 1}}}")
            column += span
        lines += [" & ".join(texts) + r" \\", " ".join(rules)]
    lines += [" & ".join(map(_typeset, layout.lowest())) + r" \\", r"\midrule"]
    for number, (labels, cells) in enumerate(zip(layout.labels, layout.cells, strict=True)):
        lines += [r"\midrule"] * (number in layout.blocks)
        lines.append(" & ".join([*map(_typeset, labels), *(_cell(cell, marks) for cell in cells)]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _cell(cell: CellText, marks: Mapping[str, str]) -> str:
    """A number with its mark, which takes no width, so that numbers stay aligned."""
    text = _typeset(cell.number or ("-" if cell.remark else ""))
    if cell.bold:
        text = f"\\textbf{{{_BOLD if '$' in text else ''}{text}}}"
    return text + (f"\\rlap{{\\textsuperscript{{{marks[cell.remark]}}}}}" if cell.remark else "")


def _float(tabular: Sequence[str], below: Sequence[str], title: str, label: str) -> list[str]:
    head = [r"\begin{table}", r"\centering"]
    if title:
        head.append(f"\\caption{{{_typeset(title)}}}")
    if title and label:
        name = re.sub(r"[^\w.:+-]", "-", label, flags=re.ASCII)
        head.append(f"\\label{{tab:{name}}}")
    notes = [f"{note}\\par" for note in below]
    if notes:
        notes = [r"\par\smallskip", r"\parbox{\linewidth}{\footnotesize\raggedright", *notes, "}"]
    return [*head, *tabular, *notes, r"\end{table}"]


def _hints(tabular: Sequence[str], below: Sequence[str], title: str) -> list[str]:
    """Lines on a table that is wider or higher than a page, and on characters that pdfLaTeX lacks."""
    found, rows = [], [line for line in tabular if line.endswith(r"\\")]
    if (wide := _width(rows)) > _WIDE:
        found.append(
            f"about {wide / 72:.1f} in wide, the text of article has {_WIDE / 72:.1f} in, of NeurIPS 5.5 in: "
            r"print fewer metrics, use \small, or \resizebox{\textwidth}{!}{...} around the tabular (graphicx)"
        )
    if (high := len(rows) + sum(1 + len(note) // 90 for note in below)) > _HIGH:
        found.append(f"about {high} lines, a page has {_HIGH}: print fewer rows, or use longtable in place of table")
    if unknown := {one for line in [*tabular, *below, _typeset(title)] for one in line if not _has_letter(one)}:
        found.append(f"needs LuaLaTeX or XeLaTeX, with a font for {''.join(sorted(unknown))}")
    return found


def _width(rows: Sequence[str]) -> float:
    """Estimate in points at 10 pt. A header that is wider than its columns widens the last of them."""
    cells = []
    for row in rows:
        column = 0
        for text in row.removesuffix(r" \\").split(" & "):
            match = re.match(r"\\multicolumn\{(\d+)\}\{c\}", text)
            span = int(match[1]) if match else 1
            plain = re.sub(r"\\rlap\{.*\}$|\\(?:textbf|boldmath|mathrm)|[{}$]", "", text[match.end() if match else 0 :])
            cells.append((span, column, _CHARACTER * len(re.sub(r"\\(?:[a-zA-Z]+ ?|.)", "x", plain))))
            column += span
    widths = [0.0] * (1 + max(column for _, column, _ in cells))
    for span, column, width in sorted(cells):
        last = column + span - 1
        widths += [0.0] * (last + 1 - len(widths))
        widths[last] = max(widths[last], width - sum(widths[column:last]) - _GAP * (span - 1))
    return sum(widths) + _GAP * len(widths)


def _typeset(text: str) -> str:
    """A text with its symbols, signs and special characters. A leading bracket or star would be an argument of \\\\."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if text == "-":
        return "--"
    found = _TOKEN.sub(_token, text)
    return f"{{{found[0]}}}{found[1:]}" if found[:1] in ("[", "*") else found


def _token(match: re.Match[str]) -> str:
    part = match.groupdict()
    if match.lastgroup == "target":
        return "$\\mathrm{{{kind}}}_{{{p}}}({mu}, \\sigma_{{\\mathrm{{{sigma}}}}})$".format(**part)
    if match.lastgroup == "symbol":
        term = f"_{{\\mathrm{{{part['term']}}}}}" if part["term"] else ""
        power = f"^{{{part['power'].replace('alpha', _ALPHA)}}}" if part["power"] else ""
        return f"$\\{_SYMBOLS[part['greek'] or 'lamb']}{term}{power}$"
    if match.lastgroup == "scientific":
        factor = {"1": "", "-1": "-"}.get(part["mantissa"], f"{part['mantissa']} \\times ")
        return f"${factor}10^{{{int(part['exponent'])}}}$"
    if match.lastgroup == "negative":
        return f"${match[0]}$"
    if match.lastgroup == "dashes":
        return "{}".join(match[0])  # no ligature
    return f"${_MATH[match[0]]}$" if match[0] in _MATH else _TEXT.get(match[0], match[0])


def _has_letter(character: str) -> bool:
    """True if pdfLaTeX's own fonts have the character: those of western and central European encodings."""
    return any(character.encode(encoding, "ignore") for encoding in ("cp1252", "iso8859-2"))


def _comments(lines: Sequence[str]) -> list[str]:
    return [f"% {' '.join(line.split())}" for line in lines]
