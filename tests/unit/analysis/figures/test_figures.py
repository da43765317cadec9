"""Figures against the formulas of tests/paper_store.py; their style and files; the fraction of non-zeros in theory.

Run: python -m pytest tests/unit/analysis/figures/test_figures.py
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from paper_store import BEST_LAMB, LAMBS, accuracy_of, nonzero_of
from PIL import Image
from scipy.stats import spearmanr

from analysis import figures
from analysis.__main__ import main
from analysis.figures import UnknownFigure
from analysis.figures.style import series
from analysis.runs import NothingToShow, load_runs, sweeps_in
from analysis.tables import UnknownTable


def drawn(name: str, store: str, sweep: str = "") -> Figure:
    drawing = figures.find(name)
    return drawing.draw(load_runs(f"{sweep or drawing.sweep}_mini", store), store)


def lines(axes: Axes) -> dict[str, np.ndarray]:
    """Label -> (points, 2)."""
    return {str(line.get_label()): np.column_stack(line.get_data()) for line in axes.get_lines()}


def errorbars(axes: Axes) -> dict[str, np.ndarray]:
    return {str(bars.get_label()): np.column_stack(bars.lines[0].get_data()) for bars in axes.containers}


def test_lambda_views_has_a_line_of_means_per_number_of_views_and_a_ring_at_the_best(papers: str):
    (axes,) = drawn("lambda_views", papers).axes
    found = lines(axes)
    rings = [line.get_data() for line in axes.get_lines() if line.get_fillstyle() == "none"]
    for views, best in BEST_LAMB.items():
        lambs = [lamb for lamb in LAMBS if views > 2 or lamb < 0.1]
        seeds = {lamb: (0, 1) if (views, lamb) == (8, 0.1) else (0, 1, 2) for lamb in lambs}  # one diverged
        means = [100 * np.mean([accuracy_of(views, lamb, seed) for seed in seeds[lamb]]) for lamb in lambs]
        assert found[f"{views} views"] == pytest.approx(np.column_stack([lambs, means]))
        assert any(x[0] == best and y[0] == pytest.approx(max(means)) for x, y in rings)
    assert axes.get_title() == "ring: best on val; mean ± std, n=2 to 3"


def test_accuracy_sparsity_has_a_point_per_target_and_their_pareto_set(papers: str):
    (axes,) = drawn("accuracy_sparsity", papers).axes
    cells = [(p, mu) for p in (1.0, 2.0) for mu in (-2.0, -1.0, 0.0, 1.0)]
    nonzero = {cell: [nonzero_of(*cell, seed) for seed in (0, 1)] for cell in cells}
    points = {
        (p, mu): (1 - np.mean(found), 100 * np.mean([0.9 - 0.2 * (1 - one) ** 4 + 0.01 * p for one in found]))
        for (p, mu), found in nonzero.items()
    }
    for p in (1.0, 2.0):
        expected = sorted(points[cell] for cell in cells if cell[0] == p)
        assert np.array(sorted(map(tuple, errorbars(axes)[f"p={p:g}"]))) == pytest.approx(np.array(expected))
    front = sorted(
        one for one in points.values() if not any(a >= one[0] and b > one[1] for a, b in points.values() if a != one[0])
    )
    assert lines(axes)["Pareto set"] == pytest.approx(np.array(front))
    theory = sorted(1 - 0.9 * np.mean(found) for found in nonzero.values())
    assert sorted(lines(axes)["fraction of zeros in theory"][:, 0]) == pytest.approx(theory)


def test_nonzero_theory_draws_the_recorded_targets_and_the_measured_means(papers: str):
    (axes,) = drawn("nonzero_theory", papers).axes
    curves = [line.get_data() for line in axes.get_lines() if line.get_linestyle() != "None"]
    for p, (mu, fraction) in zip((1.0, 2.0), curves, strict=True):
        assert mu.tolist() == [-2, -1, 0, 1]
        measured = [nonzero_of(p, mu, 0.5) for mu in mu]
        assert fraction == pytest.approx([0.9 * one for one in measured])  # as tests/paper_store.py records it
        assert errorbars(axes)[f"p={p:g}"][:, 1] == pytest.approx(measured)


def test_features_bars_stand_where_their_target_is(papers: str):
    encoder, projector, nonzero = drawn("features", papers).axes
    heights = {(round(bar.get_x() + bar.get_width() / 2, 1)): bar.get_height() for bar in encoder.patches}
    assert heights == pytest.approx({-0.2: 91, 0.2: 71, 0.8: 61, 1.2: 89})  # mean of two seeds, 2 points apart
    assert max(bar.get_height() for bar in projector.patches) == pytest.approx(80)
    assert sorted(bar.get_height() for bar in nonzero.patches) == [0.5, 0.5, 1, 1]


def test_dependence_has_entropy_hsic_and_sparsity_per_method(papers: str):
    plane, dependence, sparsity = drawn("dependence", papers).axes
    assert sorted(errorbars(plane)["vicreg"][:, 0]) == pytest.approx([0, 0.3])
    names = [text.get_text() for text in dependence.get_yticklabels()]
    assert names == ["rectified_lpjepa mu=-1", "rectified_lpjepa mu=0", "vicreg nonneg=none", "vicreg nonneg=relu"]
    assert [bar.get_width() for bar in dependence.patches] == pytest.approx([0.5, 0.2, 0.1, 0.1 / 0.7])
    assert [bar.get_width() for bar in sparsity.patches] == pytest.approx([0.8, 0.5, 0, 0.3])


def test_samples_leave_a_gap_for_classes_with_too_few_images(papers: str):
    frozen, tuned = drawn("samples", papers).axes
    expected = [[0, 26], [1, 36], [2, 46], [3, 56], [6, 80]]  # 100 and 1000 were not measured
    assert errorbars(frozen)["resnet18"] == pytest.approx(np.array(expected))
    assert errorbars(tuned)["levit_128"] == pytest.approx(np.array([[0, 10], [6, 90]]))
    low, high = frozen.get_ylim()
    assert tuned.get_ylim() == (low, high)
    assert low < 10
    assert high > 90


def test_curves_are_means_over_seeds_and_name_the_best_that_finished(papers: str):
    accuracy, loss, *terms = drawn("curves", papers, "lejepa_lambda_views").axes
    assert [axes.get_ylabel() for axes in terms] == ["train/invariance", "train/sigreg"]
    found = lines(accuracy)
    best = [[1, 0.5], [2, 0.7], [3, accuracy_of(8, 0.05, 1) - 0.02]]
    assert found["num_global=8 lamb=0.05"] == pytest.approx(np.array(best))
    assert len([name for name in found if not name.startswith("_")]) == 6
    assert len(found) == 14  # of a diverged seed's setting the others
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == ("val/probe_top1", "train/loss")


def test_study_has_optunas_importance_and_a_slice_per_axis(papers: str):
    importance, *slices, _ = drawn("study", papers, "searched").axes
    names = [text.get_text() for text in importance.get_yticklabels()]
    widths = dict(zip(names, (bar.get_width() for bar in importance.patches), strict=True))
    assert widths["lamb"] > 0.8  # the accuracy depends on nothing else
    assert sum(widths.values()) == pytest.approx(1)
    assert [axes.get_xscale() for axes in slices] == ["log", "linear"]
    assert [len(axes.collections[0].get_offsets()) for axes in slices] == [12, 12]


def test_label_free_figures_keep_failed_runs_hollow_and_print_the_correlation(papers: str):
    runs = load_runs("lejepa_label_free_mini", papers)
    panels = [axes for axes in drawn("label_free_scatter", papers).axes if "Spearman" in axes.get_title()]
    loss = np.where(runs["status"] == "diverged", np.inf, runs["train/loss"])
    top = runs["test/probe_top1"].fillna(runs["val/probe_top1"])
    for axes, alpha in zip(panels[:2], (0.0, 0.4), strict=True):
        expected = spearmanr(-loss / runs["method.lamb"] ** alpha, top).statistic
        assert axes.get_title() == f"Spearman {100 * expected:.1f} %, n=12"
        filled, hollow = axes.collections
        assert (len(filled.get_offsets()), len(hollow.get_offsets())) == (10, 2)
        assert len(hollow.get_facecolor()) == 0
    (plane, _) = drawn("loss_plane", papers).axes
    assert [len(points.get_offsets()) for points in plane.collections] == [10, 1]
    assert plane.get_title() == "n=11; 1 without finite losses not drawn"


def test_a_figure_without_data_has_a_reason(papers: str, store: str):
    """Every figure on every sweep while nothing has finished."""
    for sweep in sweeps_in(papers):
        running = load_runs(sweep, papers).assign(status="running")
        drawings = map(figures.find, {*figures.names()} - {"curves"})
        assert all(drawing.lacks(running) for drawing in drawings), sweep
    assert drawn("accuracy_sparsity", papers, "rectified_targets").axes
    with pytest.raises(NothingToShow, match=r"study has nothing to draw of seeds: it is no search"):
        figures.find("study").draw(load_runs("seeds", store), store)


def test_files_have_the_same_undated_bytes_and_the_name_of_the_sweep(papers: str, tmp_path: Path):
    with mpl.rc_context({"font.size": 30}):  # the user's settings do not count
        files = figures.write_figure("nonzero_theory", papers, tmp_path / "a", scale="mini")
    again = figures.write_figure("nonzero_theory", papers, tmp_path / "b")
    assert [file.name for file in files] == [f"nonzero_theory-rectified_sparsity_mini.{end}" for end in ("pdf", "png")]
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]
    pdf = files[0].read_bytes()
    assert b"CreationDate" not in pdf
    assert b"/FontFile2" in pdf  # TrueType, embedded
    assert b"/Type3" not in pdf
    assert Image.open(files[1]).info["dpi"] == pytest.approx((200, 200), abs=0.1)


def test_an_unknown_figure_or_sweep_is_an_error_of_one_line(papers: str, tmp_path: Path):
    with pytest.raises(UnknownFigure, match=r"'lambda_view' is no figure; did you mean 'lambda_views'\?"):
        figures.write_figure("lambda_view", papers, tmp_path)
    with pytest.raises(UnknownFigure, match=r"curves draws any sweep; say which with --sweep"):
        figures.write_figure("curves", papers, tmp_path)
    with pytest.raises(NothingToShow, match=r"sweep lejepa_lambda_views_lab is not in the exports"):
        figures.write_figure("lambda_views", papers, tmp_path, scale="lab")
    with pytest.raises(UnknownTable, match=r"the scales mini, small"):
        figures.write_figure("accuracy_sparsity", "docs/results/store", tmp_path)


def test_the_command_line_lists_the_figures(papers: str, capsys: pytest.CaptureFixture[str]):
    assert main(["figure", "--store", papers]) == 0
    rows = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == figures.names()
    assert ["lambda_views", "lejepa_lambda_views"] in [row[:2] for row in rows]
    with pytest.raises(SystemExit):
        main(["figure", "curves", "study"])
    assert "figure needs one name, got curves study" in capsys.readouterr().err


def test_series_differ_in_grey_and_by_marker():
    looks = series(5)
    grey = [float(np.dot(to_rgb(look["color"]), (0.299, 0.587, 0.114))) for look in looks]
    assert min(abs(np.diff(grey))) > 0.09
    assert max(grey) < 0.8  # visible on white
    assert len({look["marker"] for look in looks}) == len({str(look["linestyle"]) for look in looks}) == 5
