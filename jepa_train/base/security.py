"""Redaction of secrets in stores, files and terminals: passwords, tokens and keys that a text names as such, as URLs
do, and the values of the environment's secrets."""

import functools
import os
import re
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from jepa_train.base.errors import ConfigError

HIDDEN = "***"
_SHORTEST = 8  # characters of a secret: "test" or "true" would be found in half of all texts
_SECRET = re.compile(
    r"(^|_)(TOKENS?|PASSPHRASE|SECRETS?|CREDENTIALS?)(_|$)|PASSW(OR)?D(_|$)|(^|_)((API_?)?KEY|(SSH)?PASS|PAT)$|_PWD$"
    r"|_CONNECTION_STRING$"
)
_NO_SECRET = re.compile(r"_(FILE|PATH|DIR|URL|URI|ID|MODE|NAME)$")  # AWS_WEB_IDENTITY_TOKEN_FILE: a place
# user:password of a URL, in which a password may hold @ and /; or a token alone
_LOGIN = re.compile(r"(?<=://)(?:[^\s/@:'\"]*:([^\s'\"]+)|[^\s/@:'\"]+)@")
_NAMES = "password|passwd|pwd|secret|token|credential|signature|key|(?<![a-z])pass|(?<![a-z])sig"
_WORDS = (  # what follows the first group is a secret, whatever it is
    re.compile(rf"(?i)((?:[?&;#]|%3B|%26)[\w.-]*(?:{_NAMES})(?:=|%3D))[^&\s'\"#]+"),  # in the query of a URL
    re.compile(
        r"(?i)((?<![\w.-])[\w.-]*(?:password|passwd|AccountKey|SharedAccessKey)=)"
        r"(?:(['\"])(?:(?!\2|\\).|\\.)*\2|['\"]\S*|[^\s;,'\"&)]+)"  # a quote may have been cut off
    ),
    re.compile(r"(?i)(\bAuthorization['\"]?\s*[:=]\s*(?:b?['\"])?(?:Bearer|Basic|Token)\s+)[\w.~+/=-]+"),
    re.compile(r"(\bBearer\s+)(?=\S*\d)[\w.~+/=-]{8,}"),
)
_PART = re.compile(r"(?i)(?:key|password|pwd|signature)=([^;\s]+)")  # of a connection string

T = TypeVar("T")


def hidden(value: T) -> T:
    """The value with *** for each secret in its texts: of a string, or of what mappings, lists and tuples hold."""
    return _hidden(value, _pattern(_secrets()))


def clean(error: BaseException) -> None:
    """Hide the secrets in what an exception, its causes and those within it say: whoever raises it again lets Ray log
    it."""
    waiting: list[Any] = [error]
    seen: set[int] = set()
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, list | tuple):
            waiting += inner
        if not isinstance(inner, BaseException) or id(inner) in seen:
            continue
        seen.add(id(inner))
        inner.args = hidden(inner.args)
        for name in ("strerror", "filename", "filename2") if isinstance(inner, OSError) else ():
            if isinstance(getattr(inner, name), str):  # None is not to be set
                setattr(inner, name, hidden(getattr(inner, name)))
        waiting += [inner.__cause__, inner.__context__, inner.args]


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


def _hidden(value: Any, secrets: re.Pattern[str] | None) -> Any:
    if isinstance(value, str):
        if "://" in value:
            value = _LOGIN.sub(f"{HIDDEN}@", value)
        for word in _WORDS:
            value = word.sub(rf"\1{HIDDEN}", value)
        return secrets.sub(HIDDEN, value) if secrets else value
    if isinstance(value, Mapping):
        return {_hidden(key, secrets): _hidden(each, secrets) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_hidden(each, secrets) for each in value)
    return value


def _secrets() -> frozenset[str]:
    """What this process's environment keeps secret."""
    found = {text.strip() for name, text in os.environ.items() if _is_secret(name)}  # of a file, with its last newline
    found |= {part for text in found for part in _PART.findall(text)}
    for text in os.environ.values():
        found |= {unquote(login[1] or login[0][:-1]) for login in _LOGIN.finditer(text)} if "://" in text else set()
    return frozenset(text for text in found if len(text) >= _SHORTEST)


@functools.cache
def _is_secret(name: str) -> bool:
    return bool(_SECRET.search(name.upper()) and not _NO_SECRET.search(name.upper()))


@functools.lru_cache(maxsize=8)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str] | None:
    """Finds any of them, as it is or quoted as in a URL; the longer one where one is a part of another."""
    spellings = {text for secret in secrets for text in (secret, quote(secret, safe=""))}
    longest = sorted(spellings, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest))) if longest else None
