"""Domains of a search space: membership, size and points."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from jepa_train.config.flat import Scalar

Space = Mapping[str, BaseDistribution]


def contains(domain: Any, value: Scalar) -> bool:
    """Membership of a value in a domain."""
    if isinstance(domain, CategoricalDistribution):
        return value in domain.choices
    if not domain.low <= value <= domain.high:
        return False
    places = (value - domain.low) / (domain.step or math.inf)
    return bool(abs(places - round(places)) < 1e-8)


def point_of(space: Space, params: Mapping[str, str]) -> dict[str, Scalar] | None:
    """The point of a cell's logged parameters, or None where it lies outside the space."""
    point: dict[str, Scalar] = {}
    for key, domain in space.items():
        values = [value for value in _readings(params[key], domain) if contains(domain, value)] if key in params else []
        if not values:
            return None
        point[key] = values[0]
    return point


def size(space: Space) -> float:
    """Number of different points of a space; infinite with a continuous domain."""
    return math.prod(_size(domain) for domain in space.values())


def _readings(text: str, domain: BaseDistribution) -> list[Scalar]:
    if isinstance(domain, CategoricalDistribution):
        return [choice for choice in domain.choices if choice is not None and _matches(text, choice)]
    return [int(text) if isinstance(domain, IntDistribution) else float(text)]


def _matches(text: str, choice: Scalar) -> bool:
    """Match of a logged parameter and a choice: a whole number is logged as 1.0 where the field is a float."""
    if isinstance(choice, bool | str):
        return text == str(choice)
    try:
        return float(text) == choice
    except ValueError:
        return False


def all_points(space: Space) -> list[dict[str, Scalar]]:
    """Every point of a finite space."""
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*map(_values, space.values()))]


def _values(domain: Any) -> Sequence[Any]:
    if isinstance(domain, CategoricalDistribution):
        return domain.choices
    return [min(domain.low + number * (domain.step or 0), domain.high) for number in range(int(_size(domain)))]


def _size(domain: Any) -> float:
    if isinstance(domain, CategoricalDistribution):
        return len(domain.choices)
    if domain.step is None:
        return 1 if domain.single() else math.inf
    return math.floor((domain.high - domain.low) / domain.step + 1e-9) + 1
