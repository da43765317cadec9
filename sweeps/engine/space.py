"""Domains of a search space: what lies in them, and how many points they have."""

import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from jepa_train.flat import Scalar

Space = Mapping[str, BaseDistribution]


def contains(domain: Any, value: Scalar) -> bool:
    """Whether a value lies in a domain."""
    if isinstance(domain, CategoricalDistribution):
        return value in domain.choices
    return bool(domain.low <= value <= domain.high)


def point_of(space: Space, params: Mapping[str, str]) -> dict[str, Scalar] | None:
    """The point of a cell's logged parameters, or None where it lies outside the space."""
    point: dict[str, Scalar] = {}
    for key, domain in space.items():
        values = [value for value in _readings(params[key], domain) if contains(domain, value)]
        if not values:
            return None
        point[key] = values[0]
    return point


def size(space: Space) -> float:
    """How many different points a space has; infinite with a continuous domain."""
    return math.prod(_size(domain) for domain in space.values())


def _readings(text: str, domain: BaseDistribution) -> list[Scalar]:
    if isinstance(domain, CategoricalDistribution):
        return [choice for choice in domain.choices if choice is not None and str(choice) == text]
    return [int(text) if isinstance(domain, IntDistribution) else float(text)]


def _size(domain: BaseDistribution) -> float:
    if isinstance(domain, CategoricalDistribution):
        return len(domain.choices)
    if isinstance(domain, FloatDistribution) and domain.step is None:
        return 1 if domain.single() else math.inf
    assert isinstance(domain, FloatDistribution | IntDistribution)
    step = domain.step
    assert step is not None
    return math.floor((domain.high - domain.low) / step + 1e-9) + 1
