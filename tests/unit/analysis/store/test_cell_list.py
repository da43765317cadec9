"""Recorded list of cells: read back as written; an incomplete list counts as none.

Run: python -m pytest tests/unit/analysis/store/test_cell_list.py
"""

import pytest

from analysis.store.cell_list import recorded_cells, to_tags


def keys(number: int, first: int = 0) -> list[str]:
    return [f"{key:016x}" for key in range(first, first + number)]


@pytest.mark.parametrize("number", [0, 1, 250, 251, 10_000])
def test_a_list_is_read_in_its_order_each_key_once_from_tags_that_mlflow_accepts(number: int):
    tags = to_tags([*keys(number)[::-1], *keys(number)])
    assert recorded_cells(tags) == tuple(keys(number)[::-1])
    assert max(map(len, tags.values())) <= 5000
    assert list(tags)[-1] == "sweep.cells", "the first tag is written last"
    longer = to_tags(keys(10_500, first=5000))
    assert recorded_cells(longer | tags) == tuple(keys(number)[::-1]), "tags of a longer list are not read"


@pytest.mark.parametrize(
    ("after", "meanwhile"), [(keys(700), tuple(keys(300))), (keys(700, first=5000), None)], ids=["longer", "another"]
)
def test_a_half_written_list_is_the_old_one_or_none(after: list[str], meanwhile: tuple[str, ...] | None):
    *others, first = to_tags(after).items()
    tags = to_tags(keys(300)) | dict(others)
    assert recorded_cells(tags) == meanwhile
    assert recorded_cells(tags | dict([first])) == tuple(after)


@pytest.mark.parametrize("text", ["", "3", "two " + "0" * 16, "1 0000000000000000 00000000000000aa"])
def test_a_damaged_list_counts_as_none(text: str):
    assert recorded_cells({"sweep.cells": text} if text else {}) is None
