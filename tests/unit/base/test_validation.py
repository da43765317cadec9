"""Values of numpy, pandas and torch become Python's own; names that are not UTF-8 are refused.

Run: python -m pytest tests/unit/base/test_validation.py
"""

import numpy as np
import pandas as pd
import pytest
import torch

from jepa_train.base.errors import ConfigError
from jepa_train.base.validation import conformed, plain

VALUES = [
    (np.float64(0.1), 0.1),
    (np.float32(0.1), 0.1),  # not 0.10000000149011612
    (np.longdouble(0.5), 0.5),
    (np.int8(-3), -3),
    (np.uint64(3), 3),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (np.array(3), 3),
    (np.array("a"), "a"),
    (np.array(0.1, dtype=np.float16), 0.1),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    (np.array([0.1, 0.7], dtype=np.float32), [0.1, 0.7]),
    (np.array([1, None, "a"], dtype=object), [1, None, "a"]),
    (np.array([]), []),
    (pd.Series([0.1], dtype="float32"), [0.1]),
    (pd.Series(["a", "b"]), ["a", "b"]),
    (pd.Categorical(["a"]), ["a"]),
    (pd.Index([1, 2]), [1, 2]),
    (pd.array([1, 2]), [1, 2]),
    (torch.tensor(2), 2),
    (torch.tensor([0.5, 1.5]), [0.5, 1.5]),
    ((1, "a", None), (1, "a", None)),
]


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=lambda value: " ".join(repr(value).split())[:40])
def test_values_of_other_libraries_become_plain(value: object, expected: object) -> None:
    found = plain(value)
    assert repr(found) == repr(expected)  # 1, 1.0 and True are equal


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (np.float64(3.5), int, "x must be a whole number, got 3.5 (float)"),
        (np.array([1, 2]), int, "x must be a whole number, got [1, 2] (list)"),
        (np.float32("nan"), float, "x must be a finite number, got nan"),
        (np.bool_(True), int, "x must be a whole number, got True (bool)"),
        (np.array(3), tuple[int, ...], "x must be a tuple, got 3 (int)"),
        (np.uint64(2**63), int, "x must be below 2**63, got a number of 64 bits"),
    ],
)
def test_wrong_values_are_refused_like_pythons(value: object, kind: object, words: str) -> None:
    with pytest.raises(ValueError, match=r"^x must ") as error:
        conformed("x", value, kind)
    assert str(error.value).startswith(words)


def test_text_must_be_utf8() -> None:
    with pytest.raises(ConfigError, match=r"data.path must be UTF-8, got '/data/\\udcff'"):
        conformed("data.path", "/data/\udcff", str)
