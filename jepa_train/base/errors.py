"""Errors of user input: one line that names key, rule, value and remedy."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class ConfigError(ValueError):
    """User input is wrong; the message is one line that names key, rule, value and remedy."""


def require(holds: bool, message: str) -> None:
    """Raise ValueError(message) unless the rule holds; the message starts with the field's name."""
    if not holds:
        raise ValueError(message)


@contextmanager
def config_errors(prefix: str = "") -> Iterator[None]:
    """Raise a ValueError of the block, or of the function so decorated, as a ConfigError; prefix begins its message."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{prefix}{error}") from None


def nearest(word: str, words: Iterable[str]) -> str:
    """'; did you mean ...?' or '; choose one of ...', for the end of an error message."""
    known = sorted(words)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; choose one of {', '.join(known)}" if len(known) <= 12 else ""


def short_repr(value: Any) -> str:
    """The value in an error message: on one line, and cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 (a value's own; Python itself refuses to write a number of 5,000 digits)
        text = f"a {type(value).__name__} that cannot be printed"
    return text if len(text) <= 80 else f"{text[:77]}..."
