"""Which runs count: by the list of cells, and in a store from before it by base, grid, seeds and references."""

import json
import subprocess
import sys

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
        ({"grid": {"method.lamb": [0.1, ""]}, "references": ["g"]}, "aceg"),
        ({"grid": [{"method.lamb": ["0.2"]}, {"method.lamb": [1e-1]}], "seeds": [1], "references": []}, "c"),
    ],
)
def test_without_a_list_the_description_of_the_sweep_decides(tags: dict[str, object], keys: str) -> None:
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


def test_the_engine_needs_no_pandas_for_it() -> None:
    script = "import sys, analysis.select.current; assert not {'pandas', 'numpy', 'torch'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", script], check=True)
