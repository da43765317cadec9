"""LaTeX of a table: booktabs rules, Greek letters, remarks as footnote marks, and a hint where it is too wide."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from string import ascii_lowercase

from analysis.table.layout import CellText, FinishedTable, Layout, layout_of

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
    r"|(?P<character>[^\w\s]|_|[^\x00-\x7f])"
)
_BOLD, _ALPHA = "\\boldmath ", "\\alpha"
_CHARACTER = 4.8  # mean width in points at 10 pt
_GAP = 12.0  # between columns: twice \tabcolsep
_WIDE = 345  # width in points of the text of LaTeX's article class at 10 pt


def to_latex(table: FinishedTable, *, bare: bool = False) -> str:
    """A booktabs table: an outer header spans its columns, a rule separates blocks of rows.

    Remarks of cells, such as "n=2, 1 diverged", are letters that the first line below the table explains. Bookkeeping
    becomes comments after the table. A table with a title has the label tab:<label>.

    Args:
        bare: the tabular without its float; title and notes are comments.
    """
    layout = layout_of(table.frame)
    remarks = dict.fromkeys(cell.remark for row in layout.cells for cell in row if cell.remark)
    marks = {remark: ascii_lowercase[k % 26] * (k // 26 + 1) for k, remark in enumerate(remarks)}
    comments, tabular = [r"needs \usepackage{booktabs}", *_width_hint(layout)], _tabular(layout, marks)
    if bare:
        comments += [table.title] if table.title else []
        tabular += _comments([*(f"{mark}: {remark}" for remark, mark in marks.items()), *table.about_numbers])
    else:
        tabular = _float(table, tabular, marks)
    return "\n".join([*_comments(comments), *tabular, *_comments(table.about_runs)])


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


def _float(table: FinishedTable, tabular: Sequence[str], marks: Mapping[str, str]) -> list[str]:
    head = [r"\begin{table}", r"\centering"]
    if table.title:
        head.append(f"\\caption{{{_typeset(table.title)}}}")
    if table.title and table.label:
        name = re.sub(r"[^\w.:+-]", "-", table.label, flags=re.ASCII)
        head.append(f"\\label{{tab:{name}}}")
    explained = "; ".join(f"\\textsuperscript{{{mark}}} {_typeset(remark)}" for remark, mark in marks.items())
    notes = [f"{note}\\par" for note in [*filter(None, [explained]), *map(_typeset, table.about_numbers)]]
    if notes:
        notes = [r"\par\smallskip", r"\parbox{\linewidth}{\footnotesize\raggedright", *notes, "}"]
    return [*head, *tabular, *notes, r"\end{table}"]


def _width_hint(layout: Layout) -> list[str]:
    """A line on a table that is wider than a page, by an estimate at 10 pt; outer headers count for nothing."""
    rows = [layout.lowest()]
    for labels, cells in zip(layout.labels, layout.cells, strict=True):
        rows.append([*labels, *(cell.number for cell in cells)])
    wide = sum(_GAP + _CHARACTER * max(map(_printed_length, column)) for column in zip(*rows, strict=True))
    if wide <= _WIDE:
        return []
    return [
        f"about {wide / 72:.1f} in wide, the text of article has {_WIDE / 72:.1f} in, of NeurIPS 5.5 in: "
        r"print fewer metrics, use \small, or \resizebox{\textwidth}{!}{...} around the tabular (graphicx)"
    ]


def _printed_length(text: str) -> int:
    return len(re.sub(r"\\(?:[a-zA-Z]+ ?|.)", "x", re.sub(r"\\mathrm|[{}$]", "", _typeset(text))))


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
    return f"${_MATH[match[0]]}$" if match[0] in _MATH else _TEXT.get(match[0], match[0])


def _comments(lines: Sequence[str]) -> list[str]:
    return [f"% {' '.join(line.split())}" for line in lines]
