"""Runs that a sweep asks for: by the recorded list of cells, else by base, grid, seeds and references.

Run: python -m pytest tests/unit/analysis/select/test_current.py
"""

import json

import pandas as pd
import pytest

from analysis.select.selection import requested
from analysis.select.tags import canonical
from analysis.store.cell_list import to_tags

ROWS = [
    ("a", "cell", "present", "0.10", "0"),
    ("b", "cell", "present", 0.2, 0),
    ("c", "cell", "present", 0.1, 1),
    ("d", "cell", "former", 0.1, 0),
    ("e", "cell", "present", None, 0),
    ("f", "reference", "former", None, None),
    ("g", "reference", "present", 0.1, 0),
    ("h", "plan", "present", 0.1, 0),
]


def current_keys(tags: dict[str, str]) -> str:
    runs = pd.DataFrame(ROWS, columns=["cell_key", "role", "base", "method.lamb", "seed"], dtype=object)
    return "".join(requested(runs.assign(**tags | {"sweep.base": "present"}))["cell_key"])


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
    assert current_keys(texts) == keys


@pytest.mark.parametrize(("keys", "found"), [("", ""), ("bdf", "bdf"), ("xdy", "d")])
def test_with_a_list_nothing_else_decides(keys: str, found: str) -> None:
    tags = {"sweep.grid": '[{"method.lamb": [0.1]}]', "sweep.seeds": "[0]"} | to_tags(keys)
    assert current_keys(tags) == found


def test_values_are_equal_as_numbers_or_as_words() -> None:
    assert canonical(1) == canonical("1.0") == canonical(1.0) == 1.0
    assert canonical(None) == canonical(float("nan")) == canonical("") == ""
    assert canonical(True) == canonical("True") != canonical(1)
