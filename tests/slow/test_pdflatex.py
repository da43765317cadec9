"""LaTeX tables in pdflatex: every table compiles, and the estimate of its width holds.

Run: python -m pytest tests/slow/test_pdflatex.py
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from golden_files import DEMO
from made_frames import example, leveled

from analysis.against_paper import NothingPublished, against_paper
from analysis.store.runs import NothingToShow
from analysis.table.layout import FinishedTable
from analysis.table.render import render
from analysis.tables import find_table, table_names

EXPORTS = "docs/results/store"
HEAD = r"""\documentclass{article}
\usepackage{booktabs}
\newsavebox{\tablebox}
\begin{document}
"""
TEXT_WIDTH = 345.0  # points, of the article class
LABELS = ["[-1, 1]", "*", "-2.5e+03", "a_b {50 %} ~^\\ <&> # $", "lamb_reg=0.1", "λ µ Σ ± ≤ ∞ → †", "Łódź é … ² °"]


def tables(papers: str, store: str) -> Iterator[tuple[str, str]]:
    """Name, and LaTeX with and without the float, one after the other."""
    wide = pd.DataFrame([["0.123 ± 0.004"] * 14] * 3, columns=[f"test/m{k}_top1" for k in range(14)])
    odd = pd.DataFrame([["x"] * 2] * len(LABELS), index=LABELS, columns=["a", "b"])
    for name, frame in {"example": example(), "leveled": leveled(), "wide": wide, "odd": odd}.items():
        table = FinishedTable(frame=frame, title="; ".join(LABELS), about_numbers=LABELS, label=name)
        for bare in (False, True):
            yield name, render(table, "latex", bare=bare)
    places = [(name, papers, "") for name in table_names()] + [(name, store, "") for name in DEMO]
    places += [(name, EXPORTS, scale) for name in table_names() for scale in ("mini", "small")]
    for name, where, scale in places:
        found = find_table(name, where, scale)
        try:
            built = found.finish(found.load(where))
        except NothingToShow:
            continue
        for bare in (False, True):
            yield found.label, render(built, "latex", bare=bare)
            try:
                yield found.label, against_paper(name, built, "latex", bare=bare)
            except NothingPublished:
                continue


@pytest.mark.skipif(
    shutil.which("kpsewhich") is None or not subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).stdout,
    reason="no pdflatex with booktabs: apt-get install --no-install-recommends texlive-latex-recommended",
)
def test_every_table_compiles_and_its_width_is_estimated(papers: str, store: str, tmp_path: Path) -> None:
    made, parts = [*tables(papers, store)], [HEAD]
    for number, (_, text) in enumerate(made):
        if "\\begin{table}" in text:
            parts += [re.sub(r"\\label\{tab:", f"\\\\label{{{number}:", text), r"\clearpage"]  # labels occur once
        else:
            parts.append(f"\\sbox{{\\tablebox}}{{%\n{text}\n}}\\typeout{{WIDTH {number} \\the\\wd\\tablebox}}")
    (tmp_path / "tables.tex").write_text("\n".join([*parts, r"\end{document}"]), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    widths = {int(number): float(points) for number, points in re.findall(r"WIDTH (\d+) ([\d.]+)pt", done.stdout)}
    assert len(widths) == len(made) // 2 > 20
    for number, points in widths.items():
        name, text = made[number]
        hint = re.search(r"^% about ([\d.]+) in wide", text, re.M)
        if hint:
            assert 72 * float(hint[1]) == pytest.approx(points, rel=0.15), name
        assert (points > TEXT_WIDTH) == bool(hint) or points == pytest.approx(TEXT_WIDTH, rel=0.15), name
