"""Markdown, LaTeX and HTML of the same frames. tests/unit/test_golden.py has CSV.

Run: python -m pytest tests/unit/analysis/table/test_render.py
"""

import pandas as pd
import pytest
from latex import check_latex

from analysis.table.cells import Quantity, TableCell
from analysis.table.render import to_html, to_latex, to_markdown

TWO = Quantity(label="a_b", metric="test/x", direction="max", spec=".2f")


def columns_of(markdown_row: str) -> list[str]:
    return [text.strip() for text in markdown_row.strip("| ").split("|")]


def example() -> pd.DataFrame:
    columns = pd.MultiIndex.from_tuples([("1024", "a_b"), ("1024", "50 %"), ("4096", "a_b")])
    first = TableCell((-1.5,), (), ("r1",), (0,), quantity=TWO)
    half = TableCell((0.1,), ("running",), ("r2",), (0,), ("r3",), quantity=TWO)
    pair = TableCell((0.5, 0.75), (), ("r4", "r5"), (0, 1), quantity=TWO, bold=True)
    rows = [[0.25, pair, TableCell()], [first, TableCell((), ("diverged",), state_ids=("r6",)), half]]
    return pd.DataFrame(rows, index=pd.Index(["x|y", "z & z"], name="proj"), columns=columns, dtype=object)


def leveled() -> pd.DataFrame:
    """Two named levels of columns, as in LeJEPA's Table 1 d, and two of rows."""
    columns = pd.MultiIndex.from_product([[1024, 4096], [512, 2048]], names=["num_slices", "embed_dim"])
    index = pd.MultiIndex.from_tuples([("ours", "RGN_1.0(-3, sigma_GN)"), ("dense", "LeJEPA")], names=["group", "row"])
    return pd.DataFrame([[TableCell((1.0,), quantity=TWO)] * 4] * 2, index=index, columns=columns, dtype=object)


def test_markdown_is_aligned_joins_header_levels_and_escapes_pipes() -> None:
    lines = to_markdown(example(), title="T", notes=["M", "N"]).splitlines()
    assert (lines[0], lines[-3], lines[-1]) == ("**T**", "M", "N")
    rows = lines[2:6]
    assert len({len(row) for row in rows}) == 1
    assert columns_of(rows[0]) == ["proj", "1024 a_b", "1024 50 %", "4096 a_b"]
    assert columns_of(rows[3]) == ["z & z", "-1.50", "diverged", "0.10 (n=1, 1 running)"]
    assert "| x\\|y " in rows[2]
    assert "| **0.62 ± 0.18 (n=2)** |" in rows[2]  # 0.625 to the even digit
    levels = ["1024 / 512", "1024 / 2048", "4096 / 512", "4096 / 2048"]
    header = to_markdown(leveled()).splitlines()[0]
    assert columns_of(header) == ["group", "row \\ num_slices / embed_dim", *levels]


def test_latex_spans_outer_headers_escapes_and_sets_the_best_bold() -> None:
    lines = to_latex(example(), title="100 %").splitlines()
    assert "\\caption{100 \\%}" in lines
    assert "\\begin{tabular}{lrrr}" in lines
    start = lines.index("\\toprule")
    assert lines[start + 1 :] == [
        " & \\multicolumn{2}{c}{1024} & \\multicolumn{1}{c}{4096} \\\\",
        "\\cmidrule(lr){2-3} \\cmidrule(lr){4-4}",
        "proj & a\\_b & 50 \\% & a\\_b \\\\",
        "\\midrule",
        "x$|$y & 0.25 & \\textbf{0.62 $\\pm$ 0.18 (n=2)} & -- \\\\",
        "z \\& z & $-1.50$ & diverged & 0.10 (n=1, 1 running) \\\\",
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]


def test_latex_has_the_papers_names_of_targets_and_a_rule_between_blocks() -> None:
    lines = to_latex(leveled()).splitlines()
    start = lines.index("\\toprule")
    assert lines[start + 1] == " & num\\_slices & \\multicolumn{2}{c}{1024} & \\multicolumn{2}{c}{4096} \\\\"
    assert lines[start + 3] == "group & row \\textbackslash{} embed\\_dim & 512 & 2048 & 512 & 2048 \\\\"
    assert lines[start + 5].startswith("ours & $\\mathrm{RGN}_{1.0}(-3, \\sigma_{\\mathrm{GN}})$ & 1.00 & ")
    assert lines[start + 6] == "\\midrule"


@pytest.mark.parametrize("frame", [example(), leveled()])
def test_latex_is_balanced_and_every_row_has_all_columns(frame: pd.DataFrame) -> None:
    text = to_latex(frame, title="a_b {50 %} ~^\\ <&> # $", notes=["100 % of 3 & more", "_"])
    check_latex(text)


def test_html_is_ascii_and_escaped() -> None:
    text = to_html(example(), notes=["<3"])
    assert text.isascii()
    assert '<th colspan="2" class="span">1024</th>' in text
    assert "<td><b>0.62 &#177; 0.18 (n=2)</b></td>" in text
    assert "<td>diverged</td><td>0.10 (n=1, 1 running)</td>" in text
    assert '<th class="l">z &amp; z</th>' in text
    assert text.endswith('<p class="sweep">&lt;3</p>')
