"""Runs that a sweep asks for: by the recorded list of cells, else by base, grid, seeds and references.

Run: python -m pytest tests/unit/analysis/select/test_current.py
"""

import json

import pytest

from analysis.select.current import CellRun, are_current, canonical
from analysis.store.cell_list import to_tags

RUNS = [
    CellRun("a", "cell", True, {"method.lamb": "0.10", "seed": "0"}),
    CellRun("b", "cell", True, {"method.lamb": 0.2, "seed": 0}),
    CellRun("c", "cell", True, {"method.lamb": 0.1, "seed": 1}),
    CellRun("d", "cell", False, {"method.lamb": 0.1, "seed": 0}),
    CellRun("e", "cell", True, {"seed": 0}),
    CellRun("f", "reference", False, {}),
    CellRun("g", "reference", True, {"method.lamb": 0.1, "seed": 0}),
    CellRun("h", "plan", True, {"method.lamb": 0.1, "seed": 0}),
]


@pytest.mark.parametrize(
    ("tags", "keys"),
    [
        ({}, "abcefg"),
        ({"grid": [{"method.lamb": [0.1]}], "seeds": [0]}, "afg"),
        ({"grid": [{"method.lamb": [0.1, ""]}], "references": ["g"]}, "aceg"),
        ({"grid": [{"method.lamb": ["0.2"]}, {"method.lamb": [1e-1]}], "seeds": [1], "references": []}, "c"),
    ],
)
def test_without_a_list_the_tags_of_the_sweep_decide(tags: dict[str, object], keys: str) -> None:
    texts = {f"sweep.{name}": json.dumps(value) for name, value in tags.items()}
    assert [run.key for run, kept in zip(RUNS, are_current(texts, RUNS), strict=True) if kept] == [*keys]


@pytest.mark.parametrize("keys", ["", "bdf", "xdy"])
def test_with_a_list_nothing_else_decides(keys: str) -> None:
    tags = {"sweep.grid": '[{"method.lamb": [0.1]}]', "sweep.seeds": "[0]"} | to_tags(keys)
    assert are_current(tags, RUNS) == [run.key in keys for run in RUNS]


def test_values_are_equal_as_numbers_or_as_words() -> None:
    assert canonical(1) == canonical("1.0") == canonical(1.0) == 1.0
    assert canonical(None) == canonical(float("nan")) == canonical("") == ""
    assert canonical(True) == canonical("True") != canonical(1)
