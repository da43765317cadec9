"""Errors in user input, and the parts of their one-line messages: key, rule, value and remedy."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class ConfigError(ValueError):
    """Wrong user input. The message is one line that names key, rule, value and remedy."""


def require(holds: bool, message: str) -> None:
    """Raise ValueError(message) unless the rule holds; the message starts with the field's name."""
    if not holds:
        raise ValueError(message)


def check_utf8(text: str, *, named: str) -> None:
    """Refuse a name whose bytes are not UTF-8: neither JSON nor the store nor Arrow can hold it.

    Raises:
        ConfigError: it is not.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{named} must be UTF-8, got {text!r}; rename the folder or file") from None


def check_identity(key: str, planned: str | None, found: str, *, of: str, others: str = "") -> None:
    """Refuse a file or folder that is not the one that a config names.

    Args:
        key: of the field with its hash.
        planned: that hash; None if the config names none.
        of: the file or folder, with the field of its place.
        others: end of the remedy, on fields to leave out too.

    Raises:
        ConfigError: it is another one.
    """
    if planned not in (None, found):
        raise ConfigError(
            f"{key} must name {of}, got {planned!r}, but that is {found!r}; restore it, or leave {key}"
            f"{others} out to use it as it is"
        )


@contextmanager
def config_errors(prefix: str = "") -> Iterator[None]:
    """Re-raise a ValueError of the block, or of the decorated function, as a ConfigError with the prefix."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{prefix}{error}") from None


def nearest(word: str, words: Iterable[str]) -> str:
    """End of an error message: '; did you mean ...?', '; choose one of ...', or nothing for many choices."""
    known, last = sorted(words), word.rpartition(".")[2]
    section = [name for name in known if name.startswith(f"{last}.")]
    if section:
        return f"; {last} has the fields {', '.join(section)}"
    close = [name for name in known if name.endswith(f".{word}")] or difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; choose one of {', '.join(known)}" if len(known) <= 12 else ""


def short_repr(value: Any) -> str:
    """The value's repr for an error message: on one line, cut to 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
