"""The recorded list of cells: it comes back as it was written, and a list that is not whole counts as none."""

import pytest

from analysis.store.cell_list import recorded_cells, to_tags


def keys(number: int, first: int = 0) -> list[str]:
    return [f"{key:016x}" for key in range(first, first + number)]


@pytest.mark.parametrize("number", [0, 1, 250, 251, 1000, 10_000])
def test_a_list_comes_back_in_its_order_each_key_once_in_tags_that_mlflow_takes(number: int):
    tags = to_tags([*keys(number)[::-1], *keys(number)])
    assert recorded_cells(tags) == tuple(keys(number)[::-1])
    assert max(map(len, tags.values())) <= 5000
    assert list(tags)[-1] == "sweep.cells", "the first tag is written last"


def test_tags_of_a_longer_list_that_stay_are_not_read():
    assert recorded_cells(to_tags(keys(1000)) | to_tags(keys(300, first=5000))) == tuple(keys(300, first=5000))
    assert recorded_cells(to_tags(keys(1000)) | to_tags([])) == ()


@pytest.mark.parametrize(
    ("after", "until_then"), [(keys(700), tuple(keys(300))), (keys(700, first=5000), None)], ids=["longer", "another"]
)
def test_a_list_that_is_half_written_is_the_old_one_or_none(after: list[str], until_then: tuple[str, ...] | None):
    tags = to_tags(keys(300))
    *others, first = to_tags(after).items()
    tags |= dict(others)
    assert recorded_cells(tags) == until_then
    assert recorded_cells(tags | dict([first])) == tuple(after)


@pytest.mark.parametrize("text", ["", "3", "two " + "0" * 16, "1 0000000000000000 00000000000000aa"])
def test_what_is_no_list_counts_as_none(text: str):
    assert recorded_cells({"sweep.cells": text} if text else {}) is None
