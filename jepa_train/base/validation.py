"""Declaration of a config's fields, and validation of frozen dataclasses by their annotations.

Not pydantic's dataclasses: their import takes longer than `python -m jepa_train --help`, they drop the fields' metadata
(cell, schema), and a union gives one error per member, so that the one-line messages would need as much code as this.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from jepa_train.base.errors import check_utf8, nearest, require, short_repr

SCHEMA = 4  # of the config. To add a field: raise it once a release, and write `name: type = later(default, schema=4)`


def later(default: Any, *, schema: int) -> Any:
    """Declare a config field added after schema 1: part of a cell's key only where it differs from its default.

    The default must be the value with which older cells were trained, and never changes.

    Args:
        default: a value, or a field with a rule, as not_negative returns.
        schema: the first version of SCHEMA that has the field.
    """
    ruled_field = default if isinstance(default, dataclasses.Field) else dataclasses.field(default=default)
    return dataclasses.field(default=ruled_field.default, metadata={**ruled_field.metadata, "schema": schema})


def ruled(default: Any, holds: Callable[[Any], bool], rule: str, remedy: str, *, sets: str = "") -> Any:
    """Declare a config field with a rule; conform raises "<name> <rule>, got <value>; <remedy>" unless it holds.

    Args:
        sets: another field of the class, which follows from this one unless it has its default: in the cell key there
            is only that other field.
    """
    return dataclasses.field(
        default=default, metadata={"rule": (holds, rule, remedy)} | ({"sets": sets} if sets else {})
    )


def at_least(least: int, default: int, remedy: str) -> Any:
    """Declare a config field with a lower bound."""
    return ruled(default, lambda value: value >= least, f"must be at least {least}", remedy)


def not_negative(default: float, remedy: str = "0 turns it off") -> Any:
    """Declare a config field that must be 0 or more."""
    return ruled(default, lambda value: value >= 0, "must not be negative", remedy)


def positive(default: float, remedy: str) -> Any:
    """Declare a config field that must be above 0."""
    return ruled(default, lambda value: value > 0, "must be positive", remedy)


def conform(config: Any, *, remedies: Mapping[str, str] = {}) -> None:
    """Convert every field of a frozen dataclass to its declared type, then check the rules. Call it in __post_init__.

    Args:
        remedies: by field, the end of the message about its type.

    Raises:
        ValueError: a field of another type, or one whose rule does not hold.
    """
    fields, hints = dataclasses.fields(config), field_hints(config.__class__)
    for field in fields:
        try:
            value = conformed(field.name, getattr(config, field.name), hints[field.name])
        except ValueError as error:
            remedy = f"; {remedies[field.name]}" if field.name in remedies else ""
            raise ValueError(f"{error}{remedy}") from None
        object.__setattr__(config, field.name, value)
    for field in fields:
        if "rule" in field.metadata:
            (holds, rule, remedy), value = field.metadata["rule"], getattr(config, field.name)
            require(holds(value), f"{field.name} {rule}, got {value}; {remedy}")


@functools.cache  # resolving a class's annotations takes longer than checking its values
def field_hints(kind: type) -> Mapping[str, Any]:
    """The types of a dataclass's fields, by name."""
    return typing.get_type_hints(kind)


def conformed(key: str, value: Any, kind: Any) -> Any:
    """Convert a value to its field's type: an int to a float, so that equal cells have equal keys; see also plain.

    Sequences become tuples and mappings dicts, with each element converted. A Protocol admits everything.

    Raises:
        ValueError: another type, a number that is not finite or beyond 63 bits, a string that is not in a Literal.
    """
    value, origin, parts = plain(value), typing.get_origin(kind) or kind, typing.get_args(kind)
    if type(value) is int and value.bit_length() > 63:
        raise ValueError(f"{key} must be below 2**63, got a number of {value.bit_length()} bits; write a smaller one")
    if origin is Literal:
        if type(value) is not str or value not in parts:
            near = nearest(value, parts) if type(value) is str else ""
            raise ValueError(f"{key} must be one of {', '.join(parts)}, got {short_repr(value)}{near}")
        return value
    if _has_elements(value, kind):
        if origin is not Mapping:
            return tuple(conformed(f"{key}[{index}]", each, parts[0]) for index, each in enumerate(value))
        names = [conformed(f"a key of {key}", name, parts[0]) for name in value]
        return {name: conformed(f"{key}[{name!r}]", value[name], parts[1]) for name in names}
    inside: list[ValueError] = []  # of members that have the value's own type: more specific than "must be A or B"
    for part in parts if origin in _UNIONS else ():
        try:
            return conformed(key, value, part)
        except ValueError as error:
            inside += [error] if type(value) is part or _has_elements(value, part) else []
    if inside:
        raise inside[0]
    if type(value) is str:
        check_utf8(value, named=key)
    if kind is float and type(value) is int:
        value = float(value)
    if not _fits(value, origin):
        raise ValueError(f"{key} must be {_named(kind)}, got {short_repr(value)} ({type(value).__name__})")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{key} must be a finite number, got {value}")
    return value


def plain(value: Any) -> Any:
    """Scalars and arrays of numpy, pandas and torch as Python's numbers, texts and lists; other values unchanged.

    A number of fewer bits than Python's becomes the one that it prints as: float32(0.1) is 0.1.
    """
    if not hasattr(value, "tolist"):
        return value
    if getattr(value, "ndim", 1):
        return [plain(each) for each in (value.to_numpy() if hasattr(value, "to_numpy") else value)]
    scalar: Any = value if isinstance(value, str) else value[()]  # of a 0-d array
    if getattr(getattr(scalar, "dtype", None), "kind", "") == "f":
        return float(str(scalar) if scalar.dtype.itemsize < 8 else scalar)
    return scalar.item() if hasattr(scalar, "item") else scalar


NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_CONTAINERS = {tuple: "a tuple", Sequence: "a list", Mapping: "a dict"}
_UNIONS = (types.UnionType, typing.Union)


def _has_elements(value: Any, kind: Any) -> bool:
    """True if the value is a container of the kind's sort; text and bytes are not."""
    origin = typing.get_origin(kind)
    return origin in _CONTAINERS and isinstance(value, Mapping if origin is Mapping else (list, tuple, range))


def _fits(value: Any, origin: Any) -> bool:
    if origin in NAMES:
        return type(value) is origin  # bool is an int, and numpy's float64 a float
    is_protocol = getattr(origin, "_is_protocol", False)
    return is_protocol or (origin not in (*_CONTAINERS, *_UNIONS) and isinstance(value, origin))


def _named(kind: Any) -> str:
    origin = typing.get_origin(kind) or kind
    if origin in _UNIONS:
        return " or ".join(dict.fromkeys(_named(part) for part in typing.get_args(kind)))
    if origin is Literal:
        return " or ".join(repr(word) for word in typing.get_args(kind))
    names = NAMES | _CONTAINERS | {types.NoneType: "None"}
    return names.get(origin) or f"{kind.__name__}(...)"
