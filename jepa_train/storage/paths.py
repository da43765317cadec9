"""Folders of this machine: results/ in the current directory or as the environment says, and the cache."""

import os
import stat
from pathlib import Path

from jepa_train.base.errors import ConfigError
from jepa_train.storage.base import expanded


def results_dir() -> Path:
    """The absolute results folder, of JEPA_RESULTS; it need not exist yet.

    Raises:
        ConfigError: it begins with ~ and no user of this machine.
    """
    return expanded(os.environ.get("JEPA_RESULTS") or "results", named="JEPA_RESULTS")


def cache_dir() -> Path:
    """Where this machine keeps decoded images and copies of data: JEPA_CACHE, or cache/ in the results folder.

    Raises:
        ConfigError: it begins with ~ and no user, or another user has made it, who may exchange what lies there.
    """
    named = os.environ.get("JEPA_CACHE")
    folder = expanded(named, named="JEPA_CACHE") if named else results_dir() / "cache"
    for path in (folder, *folder.parents):
        if path.exists() and _is_anybodys(path.parent) and path.lstat().st_uid not in (os.getuid(), 0):
            raise ConfigError(
                f"JEPA_CACHE must be a folder that no other user has made, got {str(folder)!r} of user "
                f"{path.lstat().st_uid}; name one of your own"
            )
    return folder


def made_cache_dir() -> Path:
    """cache_dir(), which is there from now on: this user's alone where anybody may make folders, as in /tmp.

    Raises:
        ConfigError: see cache_dir.
        OSError: it cannot be made.
    """
    folder = cache_dir()
    folder.mkdir(mode=0o700 if _is_anybodys(folder.parent) else 0o777, parents=True, exist_ok=True)
    return cache_dir()  # another user may have been faster


def _is_anybodys(folder: Path) -> bool:
    """Whether all users may make folders there, and each rename and remove only his own."""
    anybodys = stat.S_ISVTX | stat.S_IWOTH
    return folder.is_dir() and folder.stat().st_mode & anybodys == anybodys
