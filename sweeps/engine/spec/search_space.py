"""Domains of a search space: membership, size and points."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution

from jepa_train.config import TrainConfig
from jepa_train.config.flat import Scalar, parse

Space = Mapping[str, Any]  # dotted key -> distribution


def contains(domain: Any, value: Scalar) -> bool:
    """Membership of a value in a domain."""
    if isinstance(domain, CategoricalDistribution):
        return value in domain.choices
    if not domain.low <= value <= domain.high:
        return False
    places = (value - domain.low) / (domain.step or math.inf)
    return bool(abs(places - round(places)) < 1e-8)


def point_of(space: Space, params: Mapping[str, str], base: TrainConfig) -> dict[str, Scalar] | None:
    """The point of a cell's logged parameters, or None where it lies outside the space. base: any valid config."""
    if not space.keys() <= params.keys():
        return None
    fields = parse((f"{key}={params[key]}" for key in {"method", *space}), base=base)
    return {key: fields[key] for key in space} if all(contains(space[key], fields[key]) for key in space) else None


def size(space: Space) -> float:
    """Number of different points of a space; infinite with a continuous domain."""
    return math.prod(_size(domain) for domain in space.values())


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
