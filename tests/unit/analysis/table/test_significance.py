"""Bold numbers against scipy's paired test, and Holm's correction by hand and by its definition.

Run: python -m pytest tests/unit/analysis/table/test_significance.py
"""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.table.cells import Quantity, TableCell
from analysis.table.layout import layout_of
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


def test_the_t_test_is_paired_by_seed() -> None:
    ours, others = {0: 0.91, 1: 0.95, 2: 0.93, 3: 0.96}, {3: 0.95, 1: 0.93, 0: 0.90, 2: 0.925, 9: 0.1}
    expected = stats.ttest_rel([0.91, 0.95, 0.93, 0.96], [0.90, 0.93, 0.925, 0.95]).pvalue
    assert paired_p(ours, others) == pytest.approx(expected)
    assert paired_p({0: 1.0, 1: 2.0, 2: 3.0}, {0: 0.5, 1: 0.7, 3: 0.9}) is None  # two in common
    assert paired_p({0: 0.1, 1: 0.2, 2: 0.3}, {0: 0.0, 1: 0.1, 2: 0.2}) is None  # always 0.1, up to rounding
    assert paired_p({0: 0.1, 1: 0.2, 2: 0.3}, {0: 0.1, 1: 0.2, 2: 0.3}) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_the_same_as_the_step_down_procedure(p_values: list[float]) -> None:
    rejected = set()
    for rank, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[number] * (len(p_values) - rank) > 0.05:
            break
        rejected.add(number)
    assert {number for number, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


def test_the_best_and_those_not_significantly_worse_are_bold() -> None:
    best = cell(0.90, 0.92, 0.94, 0.96)
    close = cell(0.91, 0.90, 0.95, 0.94)  # differences -.01 .02 -.01 .02: p = .6
    worse = cell(0.80, 0.819, 0.842, 0.86)  # .1 on every seed, nearly
    bold, note = bold_in([[worse, best], [close, TableCell((), ("running",), quantity=UP)]])
    assert bold == [[False, True], [True, False]]
    assert note == (
        "bold: the best mean, and what a seed-paired t test (Holm-corrected, 5%) cannot tell from it; "
        "4 seeds tell only large differences apart"
    )


def test_each_quantity_has_its_best_by_its_direction() -> None:
    rows = [[cell(0.5), cell(0.9, quantity=DOWN)], [cell(0.7), cell(0.1, quantity=DOWN)]]
    bold, note = bold_in(rows)
    assert bold == [[False, False], [True, True]]
    assert note == "bold: the best mean; too few seeds for a test (n=1, 3 in common are needed)"


def test_equal_means_are_all_bold_and_untested_comparisons_are_counted() -> None:
    three, two = cell(0.9, 0.92, 0.94), cell(0.93, 0.90, seeds=(0, 1))
    bold, note = bold_in([[three, cell(0.92), two, cell(0.4, 0.43, 0.44)]])
    assert bold == [[True, True, False, False]]  # 0.92 twice, if one of them by one seed
    assert note.endswith("; 2 of 3 comparisons untested: fewer than 3 seeds in common, or no spread")


def test_each_value_of_a_level_has_its_best_unless_it_is_alone() -> None:
    rows = [[cell(0.5), cell(0.6)], [cell(0.9), TableCell()]]
    bold, note = bold_in(rows, ("row",))
    assert bold == [[False, True], [False, False]]
    assert note.startswith("bold: the best mean at each value of row; too few seeds")
    assert bold_in([[cell(0.5)]]) == ([[False]], "")
    theory = Quantity(label="theory", metric="target/x")
    assert bold_in([[cell(0.5, quantity=theory), cell(0.6, quantity=theory)]]) == ([[False, False]], "")


def test_the_usual_number_of_seeds_is_a_note_and_another_is_in_its_cell() -> None:
    three, theory = cell(1.0, 2.0, 3.0), cell(0.5, quantity=Quantity(label="theory", metric="target/nonzero_fraction"))
    frame = pd.DataFrame([[three, three], [cell(1.0, 2.0), theory]], columns=["a", "b"], dtype=object)
    assert seed_count_note(frame) == "mean ± standard deviation over 3 seeds, unless a cell says otherwise"
    texts = [[entry.text for entry in entries] for entries in layout_of(frame).cells]
    assert texts == [["2 ± 1", "2 ± 1"], ["1.5 ± 0.7 (n=2)", "0.5"]]
    assert seed_count_note(pd.DataFrame([[cell(1.0)]], dtype=object)) == ""
