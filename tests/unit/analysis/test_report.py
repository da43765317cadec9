"""The page of a sweep: what it says, that it needs nothing else, and that the same store gives the same bytes."""

import re
from pathlib import Path

import pytest

from analysis.html_report import write_report
from analysis.store.runs import NothingToShow


def rows(page: str, title: str) -> list[list[str]]:
    """The texts of a section's table, row by row, without its header."""
    section = page.split(f"<h2>{title}</h2>")[1].split("<h2>")[0]
    body = section.split("<tbody>")[1].split("</tbody>")[0]
    return [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in body.split("</tr>") if row.strip()]


@pytest.fixture(scope="module")
def views(papers: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report("lejepa_lambda_views", papers, tmp_path_factory.mktemp("page")).read_text("ascii")


def test_a_page_says_what_the_sweep_is_and_how_far(views: str):
    assert "<p>What lejepa_lambda_views expects to find.</p>" in views
    assert "Its table" not in views  # of the description only what stands above the table
    assert "<li>varies method.lamb: 0.005, 0.01, 0.02, 0.05, 0.1</li>" in views
    assert "<li>scale: mini</li>" in views
    assert "<li>seeds: 0, 1, 2</li>" in views
    assert "41 finished, 1 diverged (loss is nan at step 7)" in views


def test_a_page_needs_nothing_from_elsewhere_and_its_own_figures_come_first(views: str):
    assert set(re.findall(r'src="(.{10})', views)) == {"data:image"}
    assert set(re.findall(r"<(\w+)[^>]* href=", views)) == {"a"}  # links to runs are followed by people alone
    assert "http" not in re.sub(r'src="data:[^"]*"', "", views).replace("http://127.0.0.1:5000", "")
    shown = re.findall(r"<code>(\w+)</code></figcaption>", views)
    assert shown[0] == "lambda_views"
    assert {"curves", "label_free_alpha", "label_free_scatter", "loss_plane"} == {*shown[1:]}


def test_failures_have_their_reason_and_costs_add_up(views: str):
    ((cell, state, reason, epoch, run),) = rows(views, "Runs that ended badly")
    assert (cell, state, reason, epoch) == ("num_global=8 lamb=0.1 seed=2", "diverged", "loss is nan at step 7", "1")
    assert len(run) == 32
    costs = {row[0]: row[1:] for row in rows(views, "Cost")}
    assert costs["finished"] == ["41", "0.41", "97.6"]  # 36 s each
    assert costs["all"] == ["42", "0.42", "100"]
    assert "0.01 of 0.42 device-hours" in views


def test_selection_without_labels_is_told_per_number_of_views(views: str):
    names = {row[0] for row in rows(views, "Selection without labels")}
    assert {"num_global=2: 12 finished", "num_global=8: 14 finished, 1 failed"} <= names


def test_provenance_names_code_people_and_machines(views: str):
    assert ["commit", "c0ffee"] in rows(views, "Provenance")
    assert ["user", "ada"] in rows(views, "Provenance")
    assert "42 MLflow runs, 42 cells." in views


def test_the_same_store_gives_the_same_page(papers: str, tmp_path: Path):
    first = write_report("searched_mini", papers, tmp_path / "a")
    assert first.read_bytes() == write_report("searched_mini", papers, tmp_path / "b").read_bytes()
    assert b"<code>study</code>" in first.read_bytes()


def test_an_old_store_or_one_without_a_finished_run_has_a_page_as_well(store: str, tmp_path: Path):
    page = write_report("seeds", store, tmp_path).read_text("ascii")
    assert "<p>No run says how long it took.</p>" in page
    assert "lr" in write_report("fair", store, tmp_path).read_text("ascii")


def test_no_such_sweep_is_one_line(papers: str, tmp_path: Path):
    with pytest.raises(
        NothingToShow, match=r"sweep lejepa_dims has no runs in .*; python sweeps/lejepa_dims.py fills it"
    ):
        write_report("lejepa_dims", papers, tmp_path)
