"""Markdown, LaTeX, HTML and CSV of the same frames."""

import csv
import io

import pandas as pd

from analysis import tables
from analysis.aggregate import Cell
from analysis.render import to_csv, to_html, to_latex, to_markdown


def columns_of(markdown_row: str) -> list[str]:
    return [text.strip() for text in markdown_row.strip("| ").split("|")]


def example() -> pd.DataFrame:
    columns = pd.MultiIndex.from_tuples([("1024", "a_b"), ("1024", "50 %"), ("4096", "a_b")])
    rows = [[0.25, Cell((0.5, 0.75)), Cell()], [-1.5, Cell((), ("diverged",)), Cell((0.1,), ("running",))]]
    return pd.DataFrame(rows, index=pd.Index(["x|y", "z & z"], name="proj"), columns=columns, dtype=object)


def test_markdown_lines_up_joins_header_levels_and_escapes_pipes() -> None:
    lines = to_markdown(example(), formats={"a_b": ".2f"}, title="T", note="N").splitlines()
    assert (lines[0], lines[-1]) == ("**T**", "N")
    rows = lines[2:6]
    assert len({len(row) for row in rows}) == 1
    assert columns_of(rows[0]) == ["proj", "1024 a_b", "1024 50 %", "4096 a_b"]
    assert columns_of(rows[3]) == ["z & z", "-1.50", "diverged", "0.10 (n=1, 1 running)"]
    assert "| x\\|y " in rows[2]
    assert "0.625 ± 0.1768 (n=2)" in rows[2]


def test_latex_spans_outer_headers_and_escapes() -> None:
    lines = to_latex(example(), formats={"a_b": ".2f"}, title="100 %").splitlines()
    assert "\\caption{100 \\%}" in lines
    assert "\\begin{tabular}{lrrr}" in lines
    start = lines.index("\\toprule")
    assert lines[start + 1 :] == [
        " & \\multicolumn{2}{c}{1024} & \\multicolumn{1}{c}{4096} \\\\",
        "\\cmidrule(lr){2-3} \\cmidrule(lr){4-4}",
        "proj & a\\_b & 50 \\% & a\\_b \\\\",
        "\\midrule",
        "x|y & 0.25 & 0.625 $\\pm$ 0.1768 (n=2) & -- \\\\",
        "z \\& z & $-1.50$ & diverged & 0.10 (n=1, 1 running) \\\\",
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]


def test_latex_parts_the_blocks_of_a_grid(store: str) -> None:
    text = tables.table("demo_rectified_lpjepa", store, "latex")
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    assert body.count("\\midrule") == 4  # below the header, and between four quantities
    assert " &  & \\multicolumn{3}{c}{mu} \\\\\n\\cmidrule(lr){3-5}\n & p & $-1$ & 0 & 0.5 \\\\" in body
    widths = [line.count(" & ") for line in body.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
    assert widths == [4] * 9


def test_html_is_ascii_and_escaped() -> None:
    text = to_html(example(), note="<3")
    assert text.isascii()
    assert '<th colspan="2" class="span">1024</th>' in text
    assert "<td>0.625 &#177; 0.1768 (n=2)</td>" in text
    assert '<th class="l">z &amp; z</th>' in text
    assert text.endswith('<p class="sweep">&lt;3</p>')


def test_csv_of_a_grid_is_long_and_exact(store: str) -> None:
    text = tables.table("demo_rectified_lpjepa", store, "csv")
    rows = {(row["quantity"], row["p"], row["mu"]): row for row in csv.DictReader(io.StringIO(text))}
    assert len(rows) == 4 * 2 * 3
    assert rows["non-zero, measured", "1.0", "0.0"] == {
        **{"quantity": "non-zero, measured", "p": "1.0", "mu": "0.0"},
        **{"mean": "0.61234", "std": "", "n": "1", "status": "finished"},
    }
    assert rows["non-zero, measured", "1.0", "-1.0"]["mean"] == ""
    assert rows["non-zero, measured", "1.0", "-1.0"]["status"] == "1 diverged"
    assert rows["non-zero, measured", "2.0", "0.5"]["status"] == "missing"


def test_csv_of_a_list_has_one_line_per_row() -> None:
    frame = pd.DataFrame({"lr": [1e-5], "top-1": [Cell((1 / 3,))], "none": [Cell()]}, index=pd.Index([1], name="rank"))
    assert to_csv(frame) == f"rank,lr,top-1,none\n1,1e-05,{1 / 3!r},"
