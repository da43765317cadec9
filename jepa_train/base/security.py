"""Redaction of secrets in stores, files and terminals: logins of URLs, and secret values of the environment."""

import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from jepa_train.base.errors import ConfigError

HIDDEN = "***"
_SHORTEST = 8  # characters of a secret: "test" or "true" occurs in half of all texts
# not AWS_WEB_IDENTITY_TOKEN_FILE, which is a path, nor AWS_ACCESS_KEY_ID
_SECRET_NAME = re.compile(r"(?i)(KEY|TOKEN|SECRET|PASSW)(?!.*_(FILE|PATH|DIR|ID)$)")
_LOGIN = re.compile(r"(?<=://)(?:[^\s/@:'\"]*:[^\s'\"]+|[^\s/@:'\"]+)@")  # a password may hold @ and /
_QUERY = re.compile(r"(?i)([?&][\w.-]*(?:password|token|secret|signature)=)[^&\s'\"#]+")

T = TypeVar("T")


def hidden(value: T) -> T:
    """Return a copy with every secret replaced by ***; searches strings, and those in mappings, lists and tuples."""
    values = {text.strip() for name, text in os.environ.items() if _SECRET_NAME.search(name)}
    return _masked(value, sorted((text for text in values if len(text) >= _SHORTEST), key=len, reverse=True))


def clean(error: BaseException | None) -> None:
    """Mask, in place, the secrets in the messages of an exception and its causes, before Ray logs it."""
    while error is not None:
        error.args = hidden(error.args)
        for name in ("strerror", "filename"):  # an OSError prints these in place of its arguments
            if isinstance(getattr(error, name, None), str):
                setattr(error, name, hidden(getattr(error, name)))
        error = error.__cause__ or error.__context__


def check_open(flat: Mapping[str, Any]) -> None:
    """Refuse a flat config that holds a secret: every run stores its whole config.

    Raises:
        ConfigError: a value has the login of a URL, or a secret of the environment.
    """
    for key, value in flat.items():
        if hidden(value) != value:
            raise ConfigError(
                f"{key} must hold no password, token or key, got {hidden(value)!r}; take it out and set it in the "
                "environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )


def _masked(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        value = _QUERY.sub(rf"\1{HIDDEN}", _LOGIN.sub(f"{HIDDEN}@", value))
        for secret in secrets:
            value = value.replace(secret, HIDDEN)
    elif isinstance(value, Mapping):
        return {_masked(key, secrets): _masked(each, secrets) for key, each in value.items()}
    elif type(value) in (list, tuple):
        return type(value)(_masked(each, secrets) for each in value)
    return value
