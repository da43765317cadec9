"""Declaration of a config's fields, and validation of frozen dataclasses by their annotations."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from jepa_train.base.errors import nearest, require, short_repr

SCHEMA = 1  # of the config. To add a field: raise it once a release, and write `name: type = later(default, schema=2)`


def later(default: Any, *, schema: int) -> Any:
    """A config field added after schema 1: part of a cell's key only where it differs from its default.

    The default is what cells without the field were trained with, and never changes.

    Args:
        schema: the version of SCHEMA that has the field first.
    """
    return dataclasses.field(default=default, metadata={"schema": schema})


def ruled(default: Any, holds: Callable[[Any], bool], rule: str, remedy: str) -> Any:
    """A config field with a rule that conform checks: "<name> <rule>, got <value>; <remedy>" where it does not hold."""
    return dataclasses.field(default=default, metadata={"rule": (holds, rule, remedy)})


def at_least(least: int, default: int, remedy: str) -> Any:
    """A config field that must be at least so much."""
    return ruled(default, lambda value: value >= least, f"must be at least {least}", remedy)


def not_negative(default: float, remedy: str = "0 turns it off") -> Any:
    """A config field that must be 0 or more."""
    return ruled(default, lambda value: value >= 0, "must not be negative", remedy)


def positive(default: float, remedy: str) -> Any:
    """A config field that must be above 0."""
    return ruled(default, lambda value: value > 0, "must be positive", remedy)


def conform(config: Any, *, remedies: Mapping[str, str] = {}) -> None:
    """Give every field of a frozen dataclass its declared type, then check the rules: for __post_init__.

    Args:
        remedies: by field, how the message about its type ends.

    Raises:
        ValueError: a field of another type, or one whose rule does not hold.
    """
    hints = field_hints(config.__class__)
    for field in dataclasses.fields(config):
        try:
            value = conformed(field.name, getattr(config, field.name), hints[field.name])
        except ValueError as error:
            remedy = f"; {remedies[field.name]}" if field.name in remedies else ""
            raise ValueError(f"{error}{remedy}") from None
        object.__setattr__(config, field.name, value)
    for field in dataclasses.fields(config):
        if "rule" in field.metadata:
            (holds, rule, remedy), value = field.metadata["rule"], getattr(config, field.name)
            require(holds(value), f"{field.name} {rule}, got {value}; {remedy}")


@functools.cache  # resolving a class's annotations takes longer than checking its values
def field_hints(kind: type) -> Mapping[str, Any]:
    """The types of a dataclass's fields, by name."""
    return typing.get_type_hints(kind)


def conformed(key: str, value: Any, kind: Any) -> Any:
    """The value in its field's type: an int serves as a float, so that equal cells have equal keys; nothing else does.

    Sequences come back as tuples and mappings as dicts, each element conformed. A Protocol admits everything.

    Raises:
        ValueError: another type, a number that is not finite, a word that is no choice of a Literal.
    """
    origin, parts = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is Literal:
        if type(value) is not str or value not in parts:
            near = nearest(value, parts) if type(value) is str else ""
            raise ValueError(f"{key} must be one of {', '.join(parts)}, got {short_repr(value)}{near}")
        return value
    if origin in (tuple, Sequence) and isinstance(value, _SEQUENCES):
        return tuple(conformed(f"{key}[{place}]", part, parts[0]) for place, part in enumerate(value))
    if origin is Mapping and isinstance(value, Mapping):
        names = [conformed(f"a key of {key}", name, parts[0]) for name in value]
        return {name: conformed(f"{key}[{name!r}]", value[name], parts[1]) for name in names}
    if origin in (types.UnionType, typing.Union):
        return _conformed_to_one(key, value, kind, parts)
    if kind in (int, float) and type(value) is int and abs(value) >= 2**63:
        raise ValueError(f"{key} must be a number of at most 63 bits, got {short_repr(value)}")
    if kind is float and type(value) is int:
        value = float(value)
    if not _fits(value, kind, origin):
        raise ValueError(f"{key} must be {_named(kind)}, got {short_repr(value)} ({type(value).__name__})")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{key} must be a finite number, got {value}")
    return value


def _conformed_to_one(key: str, value: Any, kind: Any, parts: tuple[Any, ...]) -> Any:
    """The value in the first of several types that takes it; what is wrong within one of them is said of that."""
    inside: list[ValueError] = []
    for part in parts:
        try:
            return conformed(key, value, part)
        except ValueError as error:
            container, given = typing.get_origin(part), type(value)
            taken_apart = isinstance(value, Mapping if container is Mapping else _SEQUENCES)
            if (container in _CONTAINERS and taken_apart) or part is given:
                inside.append(error)
    if inside:
        raise inside[0]
    raise ValueError(f"{key} must be {_named(kind)}, got {short_repr(value)} ({type(value).__name__})")


_SEQUENCES = (list, tuple, range)  # text and bytes are sequences too, of what nobody meant
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_CONTAINERS = {tuple: "a tuple", Sequence: "a list", Mapping: "a dict"}


def _fits(value: Any, kind: Any, origin: Any) -> bool:
    if getattr(kind, "_is_protocol", False):
        return True
    if origin in _CONTAINERS:
        return False  # the containers that fit have been taken apart
    if kind in NAMES:
        return type(value) is kind  # bool is an int, and numpy's float64 a float
    return isinstance(value, kind)


def _named(kind: Any) -> str:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(_named(part) for part in typing.get_args(kind)))
    if typing.get_origin(kind) is Literal:
        return " or ".join(repr(word) for word in typing.get_args(kind))
    if kind is types.NoneType:
        return "None"
    names = NAMES | _CONTAINERS
    return names.get(typing.get_origin(kind) or kind) or f"{kind.__name__}(...)"
