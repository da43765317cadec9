"""Which numbers are the best: against scipy's paired test, and Holm's correction done by hand."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.table.cells import Quantity, TableCell
from analysis.table.render import layout_of
from analysis.table.significance import embolden, holm, paired_p, seed_count_note

UP = Quantity(label="top-1", metric="test/x", direction="max")
DOWN = Quantity(label="L0", metric="test/l0", direction="min")


def cell(*values: float, seeds: tuple[int, ...] | None = None, quantity: Quantity = UP) -> TableCell:
    return TableCell(values, seeds=seeds or tuple(range(len(values))), quantity=quantity)


def bold_in(rows: list[list[TableCell]], within: tuple[str, ...] = ()) -> tuple[list[list[bool]], str]:
    index = pd.Index([f"r{k}" for k in range(len(rows))], name="row")
    columns = pd.Index([f"c{k}" for k in range(len(rows[0]))], name="column")
    frame, note = embolden(pd.DataFrame(rows, index=index, columns=columns, dtype=object), within)
    return [[one.bold for one in row] for row in frame.to_numpy()], note


def test_the_test_is_paired_by_seed_whatever_the_order() -> None:
    ours, others = {0: 0.91, 1: 0.95, 2: 0.93, 3: 0.96}, {3: 0.95, 1: 0.93, 0: 0.90, 2: 0.925, 9: 0.1}
    expected = stats.ttest_rel([0.91, 0.95, 0.93, 0.96], [0.90, 0.93, 0.925, 0.95]).pvalue
    assert paired_p(ours, others) == pytest.approx(expected)
    differences = [0.01, 0.02, 0.005, 0.01]  # the same by the formula: mean / (std / sqrt(n)), n - 1 degrees
    mean = sum(differences) / 4
    std = math.sqrt(sum((one - mean) ** 2 for one in differences) / 3)
    assert paired_p(ours, others) == pytest.approx(2 * stats.t.sf(mean / (std / 2), 3))


def test_too_few_seeds_or_no_spread_are_no_test() -> None:
    assert paired_p({0: 1.0, 1: 2.0}, {0: 0.5, 1: 0.7}) is None
    assert paired_p({0: 1.0, 1: 2.0, 2: 3.0}, {0: 0.5, 1: 0.7, 3: 0.9}) is None  # two in common
    assert paired_p({0: 0.1, 1: 0.2, 2: 0.3}, {0: 0.0, 1: 0.1, 2: 0.2}) is None  # always 0.1, up to rounding
    assert paired_p({0: 0.1, 1: 0.2, 2: 0.3}, {0: 0.1, 1: 0.2, 2: 0.3}) == 1.0


def test_holm_multiplies_the_smallest_by_all_and_never_reverses_an_order() -> None:
    # Sorted .01 .02 .03 .04: times 4, 3, 2, 1 is .04 .06 .06 .04, of which the last is lifted to .06.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    rejected = set()
    for rank, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[number] * (len(p_values) - rank) > 0.05:
            break
        rejected.add(number)
    assert {number for number, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


def test_the_best_and_what_cannot_be_told_from_it_are_bold() -> None:
    best = cell(0.90, 0.92, 0.94, 0.96)
    close = cell(0.91, 0.90, 0.95, 0.94)  # differences -.01 .02 -.01 .02: p = .6
    worse = cell(0.80, 0.819, 0.842, 0.86)  # .1 on every seed, nearly
    bold, note = bold_in([[worse, best], [close, TableCell((), ("running",), quantity=UP)]])
    assert bold == [[False, True], [True, False]]
    assert note == (
        "bold: the best mean, and what a seed-paired t test (Holm-corrected, 5%) cannot tell from it; "
        "4 seeds tell only large differences apart"
    )


def test_correcting_for_more_comparisons_tells_less_apart() -> None:
    best = cell(0.90, 0.92, 0.94, 0.96)
    other = cell(0.892, 0.908, 0.933, 0.945)  # p = .0117: times 5 it is above .05
    assert paired_p(dict(enumerate(best.values)), dict(enumerate(other.values))) == pytest.approx(0.0117, abs=1e-3)
    assert bold_in([[best, other]])[0] == [[True, False]]
    assert bold_in([[best, *[other] * 5]])[0] == [[True] * 6]


def test_small_numbers_are_the_best_where_lower_is_better_each_quantity_by_itself() -> None:
    rows = [[cell(0.5), cell(0.9, quantity=DOWN)], [cell(0.7), cell(0.1, quantity=DOWN)]]
    bold, note = bold_in(rows)
    assert bold == [[False, False], [True, True]]
    assert note == "bold: the best mean; too few seeds for a test (n=1, 3 in common are needed)"


def test_equal_means_are_all_bold_and_what_was_not_tested_is_said() -> None:
    three, two = cell(0.9, 0.92, 0.94), cell(0.93, 0.90, seeds=(0, 1))
    bold, note = bold_in([[three, cell(0.92), two, cell(0.4, 0.43, 0.44)]])
    assert bold == [[True, True, False, False]]  # 0.92 twice, if one of them by one seed
    assert note.endswith("; 2 of 3 comparisons untested: fewer than 3 seeds in common, or no spread")


def test_within_a_level_each_value_has_its_best_and_alone_nothing_is_best() -> None:
    rows = [[cell(0.5), cell(0.6)], [cell(0.9), TableCell()]]
    bold, note = bold_in(rows, ("row",))
    assert bold == [[False, True], [False, False]]
    assert note.startswith("bold: the best mean at each value of row; too few seeds")
    assert bold_in([[cell(0.5)]]) == ([[False]], "")


def test_what_has_no_direction_is_never_best() -> None:
    theory = Quantity(label="theory", metric="target/x")
    assert bold_in([[cell(0.5, quantity=theory), cell(0.6, quantity=theory)]]) == ([[False, False]], "")


def test_the_usual_number_of_seeds_is_told_once_and_another_in_its_cell() -> None:
    three, theory = cell(1.0, 2.0, 3.0), cell(0.5, quantity=Quantity(label="theory", metric="target/nonzero_fraction"))
    frame = pd.DataFrame([[three, three], [cell(1.0, 2.0), theory]], columns=["a", "b"], dtype=object)
    assert seed_count_note(frame) == "mean ± standard deviation over 3 seeds, unless a cell says otherwise"
    texts = [[entry.text for entry in entries] for entries in layout_of(frame).cells]
    assert texts == [["2 ± 1", "2 ± 1"], ["1.5 ± 0.7071 (n=2)", "0.5"]]
    single = pd.DataFrame([[cell(1.0)]], dtype=object)
    assert seed_count_note(single) == ""


def test_times_have_repetitions_and_no_seeds() -> None:
    times, one = TableCell((1.0, 2.0, 3.0)), TableCell((0.1,))  # the other a setting, say
    assert seed_count_note(pd.DataFrame([[times]], dtype=object)) == "mean ± standard deviation over 3 repetitions"
    unknown = TableCell((1.0, 2.0, 3.0), seeds=(-1, -1, -1))
    frame = pd.DataFrame([[times, times, unknown, unknown, one, cell(1.0, 2.0)]], dtype=object)
    assert seed_count_note(frame) == "mean ± standard deviation over 2 seeds"  # of the one cell that has any


def test_enough_seeds_without_spread_are_not_called_too_few() -> None:
    _, note = bold_in([[cell(0.2, 0.3, 0.4), cell(0.1, 0.2, 0.3)]])  # always .1
    assert note == "bold: the best mean; no comparison could be tested: fewer than 3 seeds in common, or no spread"
