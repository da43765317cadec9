"""The page of a sweep: contents, independence of other files, and equal bytes for the same store.

Run: python -m pytest tests/unit/analysis/test_report.py
"""

import re
from pathlib import Path

import pytest

from analysis.html_report import write_report
from analysis.runs import NothingToShow


def rows(page: str, title: str) -> list[list[str]]:
    """The texts of a section's table, row by row, without its header."""
    section = page.split(f"<h2>{title}</h2>")[1].split("<h2>")[0]
    body = section.split("<tbody>")[1].split("</tbody>")[0]
    return [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in body.split("</tr>") if row.strip()]


def test_a_page_has_all_sections_and_needs_no_other_file(papers: str, tmp_path: Path):
    page = write_report("lejepa_lambda_views", papers, tmp_path).read_text("ascii")
    assert "<p>What lejepa_lambda_views expects to find.</p>" in page
    assert "Its table" not in page  # the part of the description below the purpose
    assert "<li>varies method.lamb: 0.005, 0.01, 0.02, 0.05, 0.1</li>" in page
    assert "41 finished, 1 diverged (loss is nan at step 7)" in page
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page)
    shown = re.findall(r"<code>(\w+)</code></figcaption>", page)
    assert shown[0] == "lambda_views"  # the sweep's own figure
    assert {"curves", "label_free_alpha", "label_free_scatter", "loss_plane"} == {*shown[1:]}
    ((cell, state, reason, epoch, _),) = rows(page, "Runs that ended badly")
    assert (cell, state, reason, epoch) == ("num_global=8 lamb=0.1 seed=2", "diverged", "loss is nan at step 7", "1")
    assert "0.42 CPU-worker-hours, 0.01 CPU-worker-hours of them in runs that ended badly." in page  # 42 runs of 36 s
    names = {row[0] for row in rows(page, "Selection without labels")}
    assert {"num_global=2: 12 finished", "num_global=8: 14 finished, 1 failed"} <= names


def test_the_same_store_gives_the_same_page(papers: str, tmp_path: Path):
    first = write_report("searched_mini", papers, tmp_path / "a").read_bytes()
    assert first == write_report("searched_mini", papers, tmp_path / "b").read_bytes()
    assert b"<code>study</code>" in first
    page = first.decode("ascii")
    shares = {axis: [*map(float, both)] for axis, *both in rows(page, "Importance of the searched settings")}
    assert [*shares] == ["method.lamb", "method.num_slices"]
    assert shares["method.lamb"][0] > 0.8  # by fANOVA: the accuracy depends on nothing else
    assert [sum(column) for column in zip(*shares.values(), strict=True)] == pytest.approx([1, 1])
    assert "12 finished trials, few for 2 axes: the importance is only a hint" in page


def test_a_store_without_times_has_a_page(store: str, tmp_path: Path):
    assert "0 CPU-worker-seconds, 0 CPU" in write_report("seeds", store, tmp_path).read_text("ascii")
    with pytest.raises(NothingToShow, match=r"sweep lejepa_dims has no runs in .*; python sweeps/lejepa_dims.py fills"):
        write_report("lejepa_dims", store, tmp_path)
