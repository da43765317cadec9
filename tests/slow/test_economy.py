"""The economy benchmark: recorded curves are whole, replays count steps, and a search that stops early is cheaper."""

import pytest

from benchmarks import economy
from benchmarks.curves import VAL_FRACTIONS, Curves, points, read, record, synthetic
from benchmarks.economy import DRAWN, RESULTS, Economy, Strategy, drawn, quartiles, replayed
from sweeps.engine.spec.objective import Asha


@pytest.mark.parametrize("images", VAL_FRACTIONS)
def test_recorded_curves_are_of_the_whole_grid(images: int):
    curves = read(images, RESULTS)
    assert list(curves.curves) == points()
    assert len(points()) == 48
    for curve in curves.curves.values():
        assert 1 < len(curve) <= curves.base.epochs
        correct = [value * images for value in curve]
        assert correct == pytest.approx([round(value) for value in correct], abs=0.01)  # of so many images


def test_what_is_recorded_is_not_trained_again(tmp_path):
    curves = read(216, RESULTS)
    said: list[str] = []
    (tmp_path / "economy-curves-216.json").write_bytes((RESULTS / "economy-curves-216.json").read_bytes())
    assert record(216, tmp_path, said.append).curves == curves.curves
    assert said == []


def test_random_search_takes_the_steps_of_the_cells_before_the_best():
    curves = synthetic()
    found = replayed(Strategy(name="random", sampler="random"), curves, 2)
    for reached, whole, course in zip(found.reached, found.whole, found.course, strict=True):
        assert whole == 1.0
        assert reached * 48 == pytest.approx(round(reached * 48))  # whole cells
        assert course[-1] == (reached, curves.best)
        assert [best for _, best in course] == sorted({best for _, best in course})


def test_early_stopping_saves_steps_and_finds_the_best_of_curves_that_do_not_cross():
    flat = {point: [value / 48] * 50 for value, point in enumerate(points())}
    curves = Curves(216, flat)
    stopping = Asha(first=1, eta=48)
    stopped = replayed(Strategy(name="", sampler="random", stopping=stopping), curves, 3)
    whole = replayed(Strategy(name="", sampler="random"), curves, 3)
    assert max(stopped.whole) < 0.3
    assert all(few < many for few, many in zip(stopped.reached, whole.reached, strict=True))


def test_quartiles_of_searches_that_missed():
    inf = float("inf")
    assert quartiles([0.1, 0.2, 0.3, 0.4, inf]) == (0.2, 0.3, 0.4)
    assert quartiles([0.1, inf, inf]) == (inf, inf, inf)


def test_the_curve_is_a_step_function():
    course = [[(0.0, 0.0), (0.25, 0.5), (0.5, 0.75)], [(0.0, 0.0), (0.5, 0.25)]]
    one = Economy(strategy=DRAWN[0], val_images=216, reached=[0.5, 0.75], whole=[1.0, 1.0], course=course)
    (axes,) = drawn([one], best=0.75).axes
    line = axes.lines[0]
    at = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert (at[0.2], at[0.25], at[0.5]) == (0.0, 25.0, 50.0)  # medians of two
    assert one.cells()[3:6] == ("62 %", "56 % to 69 %", "2 of 2")


def test_the_quick_form_writes_nothing(monkeypatch, capsys):
    monkeypatch.setattr(economy, "RESULTS", None)
    assert economy.main(["--quick"]) == 0
    text = capsys.readouterr().out
    assert "| random " in text
    assert "Target: TPE + early stopping by 30 % of the grid's steps, median: met." in text
