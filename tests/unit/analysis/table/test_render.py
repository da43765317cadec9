"""Markdown and HTML of the same frames. tests/unit/test_golden.py has CSV, test_latex.py LaTeX.

Run: python -m pytest tests/unit/analysis/table/test_render.py
"""

from made_frames import example, leveled

from analysis.table.layout import FinishedTable
from analysis.table.render import render


def columns_of(markdown_row: str) -> list[str]:
    return [text.strip() for text in markdown_row.strip("| ").split("|")]


def test_markdown_is_aligned_joins_header_levels_and_escapes_pipes() -> None:
    lines = render(FinishedTable(frame=example(), title="T", about_numbers=["M"], about_runs=["N"])).splitlines()
    assert (lines[0], lines[-3], lines[-1]) == ("**T**", "M", "N")
    rows = lines[2:6]
    assert len({len(row) for row in rows}) == 1
    assert columns_of(rows[0]) == ["proj", "1024 a_b", "1024 50 %", "4096 a_b"]
    assert columns_of(rows[3]) == ["z & z", "-1.50", "diverged", "0.10 (n=1, 1 running)"]
    assert "| x\\|y " in rows[2]
    assert "| **0.62 ± 0.18 (n=2)** |" in rows[2]  # 0.625 to the even digit
    levels = ["1024 / 512", "1024 / 2048", "4096 / 512", "4096 / 2048"]
    header = render(FinishedTable(frame=leveled())).splitlines()[0]
    assert columns_of(header) == ["group", "row \\ num_slices / embed_dim", *levels]


def test_html_is_ascii_and_escaped() -> None:
    text = render(FinishedTable(frame=example(), about_numbers=["<3"]), "html")
    assert text.isascii()
    assert '<th colspan="2" class="span">1024</th>' in text
    assert "<td><b>0.62 &#177; 0.18 (n=2)</b></td>" in text
    assert "<td>diverged</td><td>0.10 (n=1, 1 running)</td>" in text
    assert '<th class="l">z &amp; z</th>' in text
    assert text.endswith('<p class="sweep">&lt;3</p>')
