"""How bad input is answered: one line that names key, rule, value and remedy."""

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable
from typing import Any, Literal


class ConfigError(ValueError):
    """What a user typed is wrong; the message is one line that names key, rule, value and remedy."""


def require(holds: bool, message: str) -> None:
    """Raise ValueError(message) unless the rule holds; the message starts with the field's name."""
    if not holds:
        raise ValueError(message)


def nearest(word: str, words: Iterable[str]) -> str:
    """'; did you mean ...?' or '; choose one of ...', for the end of an error message."""
    known = sorted(words)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; choose one of {', '.join(known)}" if len(known) <= 12 else ""


def conform(config: Any) -> None:
    """Give every scalar field of a frozen dataclass its declared type, or raise ValueError: for __post_init__."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        if not dataclasses.is_dataclass(getattr(config, field.name)):
            value = conformed(field.name, getattr(config, field.name), hints[field.name])
            object.__setattr__(config, field.name, value)


def conformed(key: str, value: Any, kind: Any) -> Any:
    """The value in its field's type: an int serves as a float, so that equal cells have equal keys; nothing else does.

    Raises:
        ValueError: another type, a number that is not finite, a word that is no choice of a Literal.
    """
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise ValueError(f"{key} must be one of {', '.join(choices)}, got {value!r}{nearest(str(value), choices)}")
        return value
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{key} must be {NAMES[kind]}, got {value!r} ({type(value).__name__})")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{key} must be a finite number, got {value}")
    return value


NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
