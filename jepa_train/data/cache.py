"""What is made once per machine and shared: where it lies, and who makes it."""

import errno
import fcntl
import json
import logging
import math
import os
import re
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from jepa_train.storage.paths import made_cache_dir

_log = logging.getLogger(__name__)
_INTERVAL = 30.0  # seconds between lines of progress in the log
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what file systems without flock say


@dataclass(frozen=True, kw_only=True)
class Making:
    """An array that is being made.

    Args:
        shape: of the whole array, (M, 3, H, W).
        parts: its rows in order, uint8, in pieces of any length.
        facts: what else to keep, fit for JSON; may be filled in while the parts are made.
    """

    shape: tuple[int, ...]
    parts: Generator[np.ndarray, None, None]
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An array in the cache: a read-only memory map, so that processes share one copy; writing into it crashes.

    Copy on write would be kinder, but Linux refuses such a map of more bytes than the machine has memory.
    """

    pixels: Tensor
    facts: dict[str, Any]


def stored(
    name: str, make: Callable[[], Making], *, current: Callable[[dict[str, Any]], bool] = lambda _: True
) -> Stored:
    """The array of this name, made only when the cache holds none; of several processes one makes it, the others wait.

    Args:
        name: names the content; another content must have another name.
        current: whether an array with these facts will still do; otherwise it is made anew.

    Raises:
        ValueError: the disk has no room for it; nothing is left behind. The cache is another user's.
    """
    target = made_cache_dir() / f"{name}.npy"
    found = _read(target)
    if found is None or not current(found.facts):
        with one_at_a_time(target.with_suffix(".lock")):
            found = _read(target)
            if found is None or not current(found.facts):
                _write(target, make())
                found = _read(target)
    assert found is not None, target
    return found


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Processes of this machine enter one after the other: the first makes the thing, the others find it made.

    The system drops the lock when its holder dies, so a killed process blocks nobody. Where the file system has no
    locks, several may make the thing at once, each its own part; so may machines that share a folder but no locks.
    """
    thing = lock.with_suffix("")
    with lock.open("w") as file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.info("waiting for another process, which is making %s", thing)
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _log.warning("%s cannot be locked (%s): each process makes its own", thing, error.strerror)
        else:
            ours = re.compile(re.escape(f"{thing.name}.{socket.gethostname()}-") + r"\d+\.part")
            for part in thing.parent.iterdir():
                if ours.fullmatch(part.name):
                    remove(part)  # of a process of this machine that was killed
        yield


def part_of(target: Path) -> Path:
    """What the target is called while this process makes it, to be renamed when it is complete. See one_at_a_time."""
    return target.with_suffix(f".{socket.gethostname()}-{os.getpid()}.part")


def remove(part: Path) -> None:
    """Drop a file or a folder, if it is there."""
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def _read(target: Path) -> Stored | None:
    """An .npy file with the facts, as JSON, behind the array: one file, so that both appear at once."""
    try:
        with target.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            if dtype != np.uint8 or len(shape) != 4:  # of objects, the bytes would be addresses
                raise ValueError(f"it holds {dtype} of shape {shape}, no images")
            array = np.memmap(file, mode="r", dtype=dtype, shape=shape, offset=start)
            file.seek(start + array.nbytes)
            facts = json.load(file)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError) as error:
        _log.warning("%s cannot be read (%s); it is made anew", target, " ".join(str(error).split()))
        return None
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that the array is read-only
        return Stored(pixels=torch.from_numpy(array), facts=facts)


def _write(target: Path, making: Making) -> None:
    size = math.prod(making.shape)
    if size > shutil.disk_usage(target.parent).free:
        raise _no_room(target, size)
    _log.info("making %s: %d images, %.1f GB", target, making.shape[0], size / 1e9)
    part = part_of(target)
    header = {"descr": "|u1", "fortran_order": False, "shape": making.shape}
    try:
        # by write(), not through a map: there a full disk would be a signal that kills the process
        with part.open("wb") as file, closing(making.parts) as parts, _progress(making.shape[0]) as advance:
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            for rows in parts:
                file.write(rows.data)
                advance(len(rows))
            assert file.tell() - start == size, (file.tell(), making.shape)
            file.write(json.dumps(making.facts).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(target, size) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def _no_room(target: Path, size: int) -> ValueError:
    free = shutil.disk_usage(target.parent).free
    variable = "JEPA_CACHE" if os.environ.get("JEPA_CACHE") else "JEPA_RESULTS"
    return ValueError(
        f"{variable} must have room for the decoded images: {str(target.parent)!r} needs {size / 1e9:.2f} GB and has "
        f"{free / 1e9:.2f} GB free; free some, or set JEPA_CACHE to a folder on another disk"
    )


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line in the log now and then elsewhere; takes the images done since the last call."""
    console = Console(stderr=True)
    done, last = 0, time.monotonic()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("decoding images", total=total)

        def advance(count: int) -> None:
            nonlocal done, last
            done += count
            bar.advance(task, count)
            if not console.is_terminal and time.monotonic() - last > _INTERVAL:
                last = time.monotonic()
                _log.info("decoded %d of %d images", done, total)

        yield advance
