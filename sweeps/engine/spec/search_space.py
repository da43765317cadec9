"""Domains of a search space, some of them conditional: membership, size and points."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from analysis.select.tags import canonical
from jepa_train.base.errors import config_errors, require
from jepa_train.base.validation import conform
from jepa_train.config import TrainConfig
from jepa_train.config.flat import Scalar, parse

COUNTABLE = 10_000  # points of a space that can be listed
Values = Scalar | Sequence[Scalar]


@dataclass(frozen=True)
class Domain:
    """Domain of a key that is searched only where other keys have certain values; elsewhere it has the base's value.

    Args:
        values: a distribution, or a list of values.
        when: axis of the grid, or earlier key of the space -> its value, or several of them. All must hold.
    """

    values: BaseDistribution | Sequence[Scalar]
    when: Mapping[str, Values] = field(kw_only=True)

    @config_errors("Domain: ")
    def __post_init__(self) -> None:
        conform(self)
        require(bool(self.when), "when must name a key and its values, got {}; write the values without Domain")

    def holds(self, values: Mapping[str, Any]) -> bool:
        """True where the conditions hold. A key of the space without a value fulfils none."""
        pairs = ((values.get(key), wanted) for key, wanted in self.conditions.items())
        return all(canonical(value) in map(canonical, wanted) for value, wanted in pairs)

    @property
    def conditions(self) -> dict[str, Sequence[Scalar]]:
        """The conditions, each with a sequence of values."""
        return {key: wanted if isinstance(wanted, tuple) else (wanted,) for key, wanted in self.when.items()}


Space = Mapping[str, Any]  # dotted key -> distribution, or Domain with one


def distribution_of(entry: Any) -> Any:
    """The distribution of an entry of a space."""
    return entry.values if isinstance(entry, Domain) else entry


def conditions_of(space: Space) -> dict[str, dict[str, Sequence[Scalar]]]:
    """Key -> its conditions, of the entries that have some."""
    return {key: entry.conditions for key, entry in space.items() if isinstance(entry, Domain)}


def point_by(space: Space, at: Mapping[str, Any], choose: Callable[[str, Any], Scalar]) -> dict[str, Scalar]:
    """The point of a space that a function of key and distribution chooses, asked in order, where conditions hold.

    Args:
        at: the values of keys outside the space to which conditions refer.
    """
    point: dict[str, Scalar] = {}
    for key, entry in space.items():
        if not isinstance(entry, Domain) or entry.holds({**at, **point}):
            point[key] = choose(key, distribution_of(entry))
    return point


def contains(entry: Any, value: Scalar) -> bool:
    """Membership of a value in a domain."""
    domain = distribution_of(entry)
    if isinstance(domain, CategoricalDistribution):
        return value in domain.choices
    if not domain.low <= value <= domain.high:
        return False
    places = (value - domain.low) / (domain.step or math.inf)
    return bool(abs(places - round(places)) < 1e-8)


def point_of(space: Space, params: Mapping[str, str], base: TrainConfig) -> dict[str, Scalar] | None:
    """The point of a cell's logged parameters, or None where it lies outside the space. base: any valid config."""
    fields = parse((f"{key}={params[key]}" for key in {"method", *space} & params.keys()), base=base)
    at = {key: text for key, text in params.items() if key not in space}
    point = point_by(space, at, lambda key, _: fields.get(key, ""))
    inside = all(key in fields and contains(space[key], value) for key, value in point.items())
    return point if inside else None


def size(space: Space, at: Mapping[str, Any]) -> float:
    """Number of different points of a space; infinite with a continuous domain, an upper bound with many conditions."""
    whole = math.prod(num_values(entry) for entry in space.values())
    return len(all_points(space, at)) if conditions_of(space) and whole <= COUNTABLE else whole


def all_points(space: Space, at: Mapping[str, Any]) -> list[dict[str, Scalar]]:
    """Every point of a finite space."""
    points: list[dict[str, Scalar]] = [{}]
    for key, entry in space.items():
        open_points = [not isinstance(entry, Domain) or entry.holds({**at, **point}) for point in points]
        points = [
            further
            for point, is_open in zip(points, open_points, strict=True)
            for further in ([{**point, key: value} for value in _values(entry)] if is_open else [point])
        ]
    return points


def num_values(entry: Any) -> float:
    """Number of values of a domain."""
    domain = distribution_of(entry)
    if isinstance(domain, CategoricalDistribution):
        return len(domain.choices)
    if domain.step is None:
        return 1 if domain.single() else math.inf
    return math.floor((domain.high - domain.low) / domain.step + 1e-9) + 1


def ends(entry: Any) -> list[Any]:
    """The values of a list, or the two ends of a range."""
    domain = distribution_of(entry)
    return list(domain.choices) if isinstance(domain, CategoricalDistribution) else [domain.low, domain.high]


def _values(entry: Any) -> Sequence[Any]:
    domain = distribution_of(entry)
    if isinstance(domain, CategoricalDistribution):
        return domain.choices
    return [min(domain.low + number * (domain.step or 0), domain.high) for number in range(int(num_values(domain)))]
