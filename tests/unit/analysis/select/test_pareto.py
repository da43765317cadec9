"""Pareto sets, hypervolumes and knees against their definitions and against shapes with known values.

Run: python -m pytest tests/unit/analysis/select/test_pareto.py
"""

import itertools
import math

import numpy as np
import pytest

from analysis.select.pareto import hypervolume, knee, pareto_set, worst

UP = ("max", "max", "max", "max")
TRIALS = [*itertools.product((1, 2, 3, 4), range(3))]


def drawn(seed: int, count: int, goals: int, values: int) -> np.ndarray:
    """Points on a coarse grid, so that ties and equal points occur."""
    return np.random.default_rng(seed).integers(1, values, size=(count, goals)).astype(float)


@pytest.mark.parametrize(("goals", "seed"), TRIALS)
def test_the_set_has_the_points_that_no_other_dominates(goals: int, seed: int) -> None:
    points = drawn(seed, 40, goals, 6)
    expected = [not any((other >= point).all() and (other > point).any() for other in points) for point in points]
    assert pareto_set(points, UP[:goals]).tolist() == expected


def test_directions_and_points_without_numbers() -> None:
    points = [(0.9, 0.8), (0.9, 0.7), (0.5, 0.9), (math.nan, 0.0), (math.inf, 0.1), (0.9, 0.7)]
    assert pareto_set(points, ("max", "min")).tolist() == [False, True, False, False, False, True]
    assert pareto_set(points, ("min", "max")).tolist() == [False, False, True, False, False, False]
    assert worst(points, ("max", "min")) == [0.5, 0.9]


@pytest.mark.parametrize(("goals", "seed"), TRIALS)
def test_the_hypervolume_is_the_number_of_unit_cubes_below_the_points(goals: int, seed: int) -> None:
    points = drawn(seed, 12, goals, 8)
    cubes = np.array([*itertools.product(range(8), repeat=goals)])  # by their lower corners
    covered = (cubes[:, None, :] + 1 <= points).all(axis=2).any(axis=1).sum()
    assert hypervolume(points, [0.0] * goals, UP[:goals]) == covered


@pytest.mark.parametrize(
    ("points", "directions", "index"),
    [
        ([(0.0, 10.0), (0.8, 9.0), (1.0, 0.0)], ("max", "max"), 1),
        ([(0.0, 0.0), (0.8, 1.0), (0.7, 4.0), (1.0, 10.0)], ("max", "min"), 1),  # (0.7, 4.0) is dominated
        ([(0.0, 1.0), (0.2, 0.2), (1.0, 0.0)], ("max", "max"), None),  # it bends the other way
        ([(0.0, 1.0), (1.0, 0.0)], ("max", "max"), None),
        ([(1.0, 1.0), (0.5, 0.5)], ("max", "max"), None),  # one point dominates all
        ([(1.0, 2.0, 3.0), (3.0, 2.0, 1.0), (2.5, 3.0, 2.5)], ("max", "max", "max"), None),
        ([], ("max", "max"), None),
    ],
)
def test_the_knee_is_farthest_from_the_chord(points: list, directions: tuple, index: int | None) -> None:
    assert knee(points, directions) == index
