"""Local folders: results/ in the current directory or as the environment says, and the cache."""

import os
import re
from pathlib import Path

from jepa_train.base.errors import ConfigError, check_utf8


def results_dir() -> Path:
    """The absolute results folder, from JEPA_RESULTS; it need not exist.

    Raises:
        ConfigError: see absolute_path.
    """
    return absolute_path(os.environ.get("JEPA_RESULTS") or "results", named="JEPA_RESULTS")


def cache_dir() -> Path:
    """The folder of decoded images and copies of data: JEPA_CACHE, or cache/ in the results folder; need not exist.

    Raises:
        ConfigError: see absolute_path.
    """
    folder = os.environ.get("JEPA_CACHE")
    return absolute_path(folder, named="JEPA_CACHE") if folder else results_dir() / "cache"


def has_url_scheme(where: str) -> bool:
    """True for a URL, also one with a single slash: `s3:/bucket` is a mistyped URL, not a folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", where) is not None


def absolute_path(text: str, *, named: str) -> Path:
    """The absolute local path of user input.

    Args:
        named: the variable or option, for the message.

    Raises:
        ConfigError: it is a URL, no UTF-8, or begins with the ~ of an unknown user.
    """
    if has_url_scheme(text):
        raise ConfigError(f"{named} must be a folder on a disk, got {text!r}; set JEPA_STORAGE or data.path to a URL")
    try:
        path = Path(text).expanduser().absolute()
    except RuntimeError:
        raise ConfigError(f"{named} must be a folder, got {text!r}, the home of an unknown user; correct it") from None
    check_utf8(str(path), named=named)
    return path
