"""LaTeX of tables: float and bare tabular, symbols, footnote marks, size. tests/slow/test_pdflatex.py compiles it.

Run: python -m pytest tests/unit/analysis/table/test_latex.py
"""

from typing import Any

import pandas as pd
import pytest
from latex import check_latex
from made_frames import example, leveled

from analysis.__main__ import main
from analysis.table.layout import FinishedTable
from analysis.table.render import render

TITLE = "a_b {50 %} ~^\\ <&> # $"
NOTES = ["100 % of 3 & more", "_"]
EXPORTS = "docs/results/store"


def latex(frame: pd.DataFrame, *, bare: bool = False, **about: Any) -> str:
    return render(FinishedTable(frame=frame, **about), "latex", bare=bare)


def body(text: str) -> list[str]:
    """The lines between the outer rules."""
    return text.split("\\toprule\n")[1].split("\n\\bottomrule")[0].splitlines()


def typeset(label: str) -> str:
    """A row label in LaTeX."""
    frame = pd.DataFrame([["x"]], index=[label], columns=["y"])
    return body(latex(frame))[-1].removesuffix(r" & x \\")


def test_a_float_has_caption_label_and_notes_and_bookkeeping_follows_as_comments() -> None:
    text = latex(example(), title="100 %", about_numbers=["N"], about_runs=["2 running\nof 4"], label="a b_c-mini")
    assert text.splitlines()[:6] == [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        "\\caption{100 \\%}",
        "\\label{tab:a-b_c-mini}",
        "\\begin{tabular}{lrrr}",
    ]
    assert text.split("\\end{tabular}\n")[1].splitlines() == [
        "\\par\\smallskip",
        "\\parbox{\\linewidth}{\\footnotesize\\raggedright",
        "\\textsuperscript{a} n=2; \\textsuperscript{b} diverged; \\textsuperscript{c} n=1, 1 running\\par",
        "N\\par",
        "}",
        "\\end{table}",
        "% 2 running of 4",
    ]


def test_a_bare_table_is_the_tabular_with_everything_else_in_comments() -> None:
    lines = latex(example(), title="100 %", about_numbers=["N"], about_runs=["B"], label="x", bare=True).splitlines()
    code = [line for line in lines if not line.startswith("% ")]
    assert (code[0], code[-1]) == ("\\begin{tabular}{lrrr}", "\\end{tabular}")
    comments = ["needs \\usepackage{booktabs}", "100 %", "a: n=2", "b: diverged", "c: n=1, 1 running", "N", "B"]
    assert [line[2:] for line in lines if line.startswith("% ")] == comments


def test_outer_headers_span_remarks_are_marks_and_the_best_is_bold() -> None:
    assert body(latex(example())) == [
        " & \\multicolumn{2}{c}{1024} & \\multicolumn{1}{c}{4096} \\\\",
        "\\cmidrule(lr){2-3} \\cmidrule(lr){4-4}",
        "proj & a\\_b & 50 \\% & a\\_b \\\\",
        "\\midrule",
        "x$|$y & 0.25 & \\textbf{\\boldmath 0.62 $\\pm$ 0.18}\\rlap{\\textsuperscript{a}} & -- \\\\",
        "z \\& z & $-1.50$ & --\\rlap{\\textsuperscript{b}} & 0.10\\rlap{\\textsuperscript{c}} \\\\",
    ]


def test_levels_have_a_rule_between_blocks() -> None:
    lines = body(latex(leveled()))
    assert lines[0] == " & num\\_slices & \\multicolumn{2}{c}{1024} & \\multicolumn{2}{c}{4096} \\\\"
    assert lines[2] == "group & row \\textbackslash{} embed\\_dim & 512 & 2048 & 512 & 2048 \\\\"
    assert lines[4].startswith("ours & $\\mathrm{RGN}_{1.0}(-3, \\sigma_{\\mathrm{GN}})$ & 1.00 & ")
    assert lines[5] == "\\midrule"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("method.lamb", r"$\lambda$"),
        ("lamb=0.05 mu=-0.5", r"$\lambda$=0.05 $\mu$=$-0.5$"),
        ("method.lamb_reg", r"$\lambda_{\mathrm{reg}}$"),
        ("train/loss / lamb^0.4", r"train/loss / $\lambda^{0.4}$"),
        ("λ, μ and Σ", r"$\lambda$, $\mu$ and $\Sigma$"),
        ("lejepa_lambda_views", r"lejepa\_lambda\_views"),  # a name, not a symbol
        ("method.sigma_mode", r"method.sigma\_mode"),
        ("[-1, 1]", r"{[}$-1$, 1]"),  # else the length of the line break before it
        ("*", "{*}"),
        ("1e-05", "$10^{-5}$"),
        ("-2.5e+03", r"$-2.5 \times 10^{3}$"),
        ("7351e24", "7351e24"),  # a commit
        ("2026-01-02 vit-8", "2026-01-02 vit-8"),
        ("two\n\nlines", "two lines"),
        ("0.5†", r"0.5$\dagger$"),
    ],
)
def test_symbols_signs_and_special_characters(label: str, expected: str) -> None:
    assert typeset(label) == expected


@pytest.mark.parametrize("frame", [example(), leveled()])
@pytest.mark.parametrize("bare", [False, True])
def test_latex_is_balanced_and_every_row_has_all_columns(frame: pd.DataFrame, bare: bool) -> None:
    check_latex(latex(frame, title=TITLE, about_numbers=NOTES, about_runs=NOTES, label=TITLE, bare=bare))


@pytest.mark.parametrize(
    ("columns", "second"),
    [
        (3, "\\begin{table}"),
        (14, "% about 7.2 in wide, the text of article has 4.8 in, of NeurIPS 5.5 in: print fewer metrics"),
    ],
)
def test_a_table_that_is_wider_than_a_page_has_a_hint(columns: int, second: str) -> None:
    frame = pd.DataFrame([["0.123"] * columns] * 3, columns=[f"m{k}" for k in range(columns)])
    assert latex(frame).splitlines()[1].startswith(second)


def test_the_command_line_prints_bare_tables(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["lejepa_lambda_views", "--scale", "mini", "--store", EXPORTS]
    assert main([*words, "--format", "latex"]) == 0
    text = capsys.readouterr().out
    assert "\\label{tab:lejepa_lambda_views-mini}" in text
    assert "\\multicolumn{7}{c}{$\\lambda$}" in text
    assert "\n% lejepa_lambda_views_mini: 45 finished" in text.split("\\end{table}")[1]
    check_latex(text)
    for more in ([], ["--against-paper"]):
        assert main([*words, *more, "--format", "latex", "--bare"]) == 0
        assert "\\begin{table}" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--bare"])
    assert "--bare is for LaTeX; add --format latex" in capsys.readouterr().err
