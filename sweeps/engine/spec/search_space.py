"""Domains of a search space, some of them conditional: membership, size and points."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from analysis.select.tags import canonical
from jepa_train.base.errors import config_errors
from jepa_train.base.validation import conform
from jepa_train.config import TrainConfig
from jepa_train.config.flat import Scalar, parse

COUNTABLE = 10_000  # points of a space that can be listed


@dataclass(frozen=True)
class Domain:
    """Domain of a key that is searched only where other keys have certain values; elsewhere it has the base's value.

    Args:
        values: a distribution, or a list of values.
        when: axis of the grid, or earlier key of the space -> its value, or several of them. All must hold.
    """

    values: BaseDistribution | Sequence[Scalar]
    when: Mapping[str, Scalar | Sequence[Scalar]] = field(default_factory=dict, kw_only=True)

    @config_errors("Domain: ")
    def __post_init__(self) -> None:
        conform(self)

    def holds(self, values: Mapping[str, Any]) -> bool:
        """True where the conditions hold. A key of the space without a value fulfils none."""
        pairs = ((values.get(key), wanted) for key, wanted in self.conditions.items())
        return all(canonical(value) in map(canonical, wanted) for value, wanted in pairs)

    @property
    def conditions(self) -> dict[str, Sequence[Scalar]]:
        """The conditions, each with a sequence of values."""
        return {key: wanted if isinstance(wanted, tuple) else (wanted,) for key, wanted in self.when.items()}

    @property
    def ends(self) -> list[Any]:
        """The values of a list, or the two ends of a range."""
        domain: Any = self.values
        return list(domain.choices) if isinstance(domain, CategoricalDistribution) else [domain.low, domain.high]

    @property
    def size(self) -> float:
        """Number of values."""
        domain: Any = self.values
        if isinstance(domain, CategoricalDistribution):
            return len(domain.choices)
        if domain.step is None:
            return 1 if domain.single() else math.inf
        return math.floor((domain.high - domain.low) / domain.step + 1e-9) + 1

    @property
    def listed(self) -> list[Any]:
        """Every value of a finite domain."""
        domain: Any = self.values
        if isinstance(domain, CategoricalDistribution):
            return self.ends
        return [min(domain.low + number * (domain.step or 0), domain.high) for number in range(int(self.size))]

    def contains(self, value: Any) -> bool:
        """Membership of a value, whether the conditions hold or not."""
        domain: Any = self.values
        if isinstance(domain, CategoricalDistribution):
            return value in domain.choices
        if not domain.low <= value <= domain.high:
            return False
        places = (value - domain.low) / (domain.step or math.inf)
        return bool(abs(places - round(places)) < 1e-8)


Space = Mapping[str, Any]  # dotted key -> Domain of a distribution


def conditions_of(space: Space) -> dict[str, dict[str, Sequence[Scalar]]]:
    """Key -> its conditions, of the domains that have some."""
    return {key: domain.conditions for key, domain in space.items() if domain.when}


def space_at(space: Space, values: Mapping[str, Any]) -> Space:
    """The domains that some point has, with their conditions on each other: those on keys outside the space hold.

    Args:
        values: of the keys outside the space.
    """
    if not conditions_of(space):
        return space
    found: dict[str, Domain] = {}
    for key, domain in space.items():
        inside = {other: wanted for other, wanted in domain.when.items() if other in space}
        outside = {other: wanted for other, wanted in domain.when.items() if other not in space}
        if inside.keys() <= found.keys() and Domain(domain.values, when=outside).holds(values):
            found[key] = Domain(domain.values, when=inside)
    return found


def point_by(space: Space, choose: Callable[[str, Domain], Scalar]) -> dict[str, Scalar]:
    """The point of a space that a function of key and domain chooses, asked in order, where conditions hold."""
    point: dict[str, Scalar] = {}
    for key, domain in space.items():
        if domain.holds(point):
            point[key] = choose(key, domain)
    return point


def point_of(space: Space, params: Mapping[str, str], base: TrainConfig) -> dict[str, Scalar] | None:
    """The point of a cell's logged parameters, or None where it lies outside the space. base: any valid config."""
    fields = parse((f"{key}={params[key]}" for key in {"method", *space} & params.keys()), base=base)
    point = point_by(space_at(space, params), lambda key, _: fields.get(key, ""))
    return point if all(key in fields and space[key].contains(value) for key, value in point.items()) else None


def size(space: Space) -> float:
    """Number of different points of a space; infinite with a continuous domain, an upper bound with many conditions."""
    whole = math.prod(domain.size for domain in space.values())
    return len(all_points(space)) if conditions_of(space) and whole <= COUNTABLE else whole


def all_points(space: Space) -> list[dict[str, Scalar]]:
    """Every point of a finite space."""
    points: list[dict[str, Scalar]] = [{}]
    for key, domain in space.items():
        listed: list[dict[str, Scalar]] = [{key: value} for value in domain.listed]
        points = [point | own for point in points for own in (listed if domain.holds(point) else [{}])]
    return points
