"""doctor's look at where checkpoints, exports and copies of data lie, where the environment says so."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from jepa_train.base.errors import ConfigError
from jepa_train.storage.base import StoragePath
from jepa_train.storage.local import LocalPath
from jepa_train.storage.paths import cache_dir, results_dir
from jepa_train.storage.resolve import mark, storage_dir, unseen
from sweeps.engine.cli.doctor_store import Told

_FREE_GB = 5.0  # of disk, below which decoded images may not fit
_WALK_S = 1.0  # for adding up a folder


def check_storage() -> Iterator[Told]:
    """The storage: reachable, writable, what is there."""
    try:
        place = storage_dir()
    except ConfigError as error:
        yield Told("problem", "storage", str(error))
        return
    if not os.environ.get("JEPA_STORAGE"):
        yield Told("ok", "checkpoints", size_told(results_dir() / "checkpoints"))
    elif isinstance(place, LocalPath) and not place.path.exists() and _may_be_made(place.path):
        remedy = "where machines share it, mount it; else the first sweep makes it"
        yield Told("warning", "storage", f"{place} is not there", remedy)
    else:
        reason = _unusable(place)
        remedy = "see that it is up, and that this machine has the credentials" if reason else ""
        yield Told("problem" if reason else "ok", "storage", reason or f"{place} can be written to", remedy)
        if not reason:
            yield Told("ok", "checkpoints", _kept_told(place / "checkpoints"))


def check_cache() -> Iterator[Told]:
    """This machine's folder of decoded images and copies of data, where it has one of its own."""
    if not os.environ.get("JEPA_CACHE"):
        return
    try:
        folder = cache_dir()
    except ConfigError as error:
        yield Told("problem", "cache", str(error))
        return
    if not _may_be_made(folder):
        yield Told("problem", "cache", f"{folder} cannot be written to", "set JEPA_CACHE to a folder of yours")
        return
    free = shutil.disk_usage(_nearest(folder)).free / 1e9
    level: Literal["ok", "warning"] = "ok" if free >= _FREE_GB else "warning"
    remedy = "" if free >= _FREE_GB else "remove what is not needed, or set JEPA_CACHE to a larger disk"
    yield Told(level, "cache", f"{folder}: {size_told(folder)}, {free:.0f} GB free", remedy)


def _nearest(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _may_be_made(folder: Path) -> bool:
    there = _nearest(folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def size_told(folder: Path) -> str:
    """The files below a folder: how many, how large; a folder of very many is not added up to the end."""
    size = count = 0
    deadline = time.monotonic() + _WALK_S
    for at, _, names in os.walk(folder):
        for name in names:
            size += os.lstat(os.path.join(at, name)).st_size if os.path.lexists(os.path.join(at, name)) else 0
            count += 1
        if time.monotonic() > deadline:
            return f"more than {size / 1e9:.2f} GB in more than {count} files"
    return f"{size / 1e9:.2f} GB in {count} files" if count else "nothing yet"


def _unusable(place: StoragePath) -> str:
    try:
        with mark(place) as name:
            return unseen(str(place), name)
    except OSError as error:
        return str(error)


def _kept_told(place: StoragePath) -> str:
    from jepa_train.storage.bucket import listed

    if isinstance(place, LocalPath):
        return size_told(place.path)
    try:
        sizes = [info.size for info in listed(place)]
    except OSError as error:
        return f"cannot be listed ({error})"
    return f"{sum(sizes) / 1e9:.2f} GB in {len(sizes)} files" if sizes else "nothing yet"
