"""Redaction of secrets in stores, files and terminals: logins of URLs, and secret values of the environment."""

import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from jepa_train.base.errors import ConfigError

HIDDEN = "***"
_SHORTEST = 8  # characters of a secret: "test" or "true" occurs in half of all texts
# not paths, as AWS_WEB_IDENTITY_TOKEN_FILE, GOOGLE_APPLICATION_CREDENTIALS, SSH_ASKPASS, PGPASSFILE and PWD; nor
# AWS_ACCESS_KEY_ID and GNOME_KEYRING_CONTROL
_SECRET_NAME = re.compile(
    r"(?i)((^|_|API)KEYS?(?![A-Z])|TOKEN|SECRET|(?<!ASK)PASS(?!FILE)|_PWD|(?<!APPLICATION_)CREDENTIAL|CONNECTION_STRING)"
    r"(?!.*_(FILE|PATH|DIR|ID)$)"
)
_LOGIN = re.compile(r"(?<=://)(?:[^\s/@:'\"]*:[^\s'\"]+|[^\s/@:'\"]+)@")  # a password may hold @ and /
_QUERY = re.compile(
    r"(?i)([?&][\w.-]*(?:password|passwd|pass|pwd|token|secret|signature|sig|key|credentials?)=)[^&\s'\"#]+"
)

T = TypeVar("T")


def hidden(value: T) -> T:
    """Return a copy with every secret replaced by ***; searches strings, and those in mappings, lists and tuples."""
    values = {text.strip() for name, text in os.environ.items() if _SECRET_NAME.search(name)}
    return _masked(value, sorted((text for text in values if len(text) >= _SHORTEST), key=len, reverse=True))


def clean(error: object) -> None:
    """Mask, in place, the secrets in the messages of an exception, its causes and arguments, before Ray logs it."""
    left: list[object] = [error]
    seen: set[int] = set()  # causes may form a circle
    while left:
        error = left.pop()
        if not isinstance(error, BaseException) or id(error) in seen:
            continue
        seen.add(id(error))
        error.args = hidden(error.args)
        for name in ("strerror", "filename"):  # an OSError prints these in place of its arguments
            if isinstance(getattr(error, name, None), str):
                setattr(error, name, hidden(getattr(error, name)))
        left += [error.__cause__, error.__context__, *error.args, *getattr(error, "exceptions", ())]


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
