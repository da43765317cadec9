"""On-disk cache of decoded images, built by one process per machine and memory-mapped by all."""

import errno
import json
import logging
import math
import os
import shutil
import socket
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from jepa_train.storage.paths import cache_dir

_log = logging.getLogger(__name__)

Facts = dict[str, Any]  # metadata of an array, fit for JSON

_may_make: ContextVar[bool] = ContextVar("may_make", default=True)


@dataclass(frozen=True, kw_only=True)
class ArraySource:
    """An array to be written to the cache, part by part.

    Args:
        rows: number of rows of the array; of rows whose number shows only while they are made, the least.
        shape: of a row, as (3, H, W).
        parts: the rows in order, in pieces of any length.
        facts: may be filled in while the parts are made.
        dtype: uint8 or uint16.
    """

    rows: int
    shape: tuple[int, ...]
    parts: Generator[np.ndarray, None, None]
    facts: Facts
    dtype: np.dtype[Any] = field(default=np.dtype(np.uint8))


def cached_array(
    name: str,
    make: Callable[[], ArraySource],
    *,
    file_name: Callable[[], str] = lambda: "",
) -> tuple[Tensor, Facts]:
    """The array of this name and its facts, made first if the cache has none; other processes wait meanwhile.

    The tensor is a read-only memory map, so that processes share one copy; writing into it crashes. Copy on write
    would be kinder, but Linux refuses such a map of more bytes than the machine has memory.

    Args:
        name: names the content; another content must have another name.
        file_name: returns the name under which the array lies, if it is only known once its parts have been made: then
            `name` may stand for several contents, of which one is made at a time. "" as long as it is not known.

    Raises:
        ValueError: the disk has no room for it, and nothing is left behind; or only_cached forbids to make it.
    """
    lock = cache_dir() / f"{name}.npy"
    lock.parent.mkdir(parents=True, exist_ok=True)

    def target() -> Path:
        return cache_dir() / f"{file_name() or name}.npy"

    found = _read(target())
    if found is None and not _may_make.get():
        raise ValueError("data.path holds images that have not been decoded on this machine; a launch does that")
    if found is None:
        with one_at_a_time(lock) as part:
            found = _read(target())
            if found is None:
                _write(target, part, make())
                found = _read(target())
    assert found is not None, name
    return found


@contextmanager
def only_cached() -> Iterator[None]:
    """Make no array in the block: one that the cache lacks raises ValueError."""
    before = _may_make.set(False)
    try:
        yield
    finally:
        _may_make.reset(before)


@contextmanager
def one_at_a_time(target: Path) -> Iterator[Path]:
    """Keep other processes out of the block that makes `target`; released when its holder dies.

    Yields the path at which to make it before it is renamed: one per machine, since machines may share the folder
    without its locks, so that what a killed process left is overwritten; on a disk without locks, one per process.
    """
    lock = FileLock(target.with_suffix(".lock"))
    maker = socket.gethostname()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.info("waiting for another process, which is making %s", target)
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        _log.warning("%s has no file locks (%s): each process makes its own %s", target.parent, error, target.name)
        maker += f".{os.getpid()}"
    try:
        yield target.with_suffix(f".{maker}.part")
    finally:
        lock.release()


def _read(target: Path) -> tuple[Tensor, Facts] | None:
    """Read an .npy file with its facts, as JSON, behind the array: one file, so that both appear at once."""
    try:
        with target.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
            if dtype not in (np.uint8, np.uint16):  # bytes of objects would be addresses
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
        return torch.from_numpy(array), facts


def progress_bar() -> Progress:
    """A bar on a terminal, which vanishes at the end."""
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def _write_header(file: BinaryIO, rows: int, source: ArraySource) -> None:
    """Write the header of an .npy file; numpy leaves room in it, so that its length does not depend on the rows."""
    header = {"descr": source.dtype.str, "fortran_order": False, "shape": (rows, *source.shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _write(target: Callable[[], Path], part: Path, source: ArraySource) -> None:
    size = source.rows * math.prod(source.shape) * source.dtype.itemsize
    _log.info("decoding images to %.1f GB in %s", size / 1e9, part.parent)
    try:
        if size > shutil.disk_usage(part.parent).free:
            raise OSError(errno.ENOSPC, "too small")
        # by write(), not through a map: there a full disk would be a signal that kills the process
        with part.open("wb") as file, closing(source.parts) as parts, progress_bar() as progress:
            task = progress.add_task("decoding images", total=source.rows)
            count = 0
            _write_header(file, source.rows, source)
            start = file.tell()
            for rows in parts:
                assert (rows.shape[1:], rows.dtype) == (source.shape, source.dtype), (rows.shape, rows.dtype)
                file.write(rows.data)
                count += len(rows)
                progress.advance(task, len(rows))
            file.write(json.dumps(source.facts).encode())
            file.seek(0)
            _write_header(file, count, source)
            assert file.tell() == start, (count, source.rows)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(part.parent).free
        raise ValueError(
            f"JEPA_CACHE must have room for decoded images: {str(part.parent)!r} needs {size / 1e9:.2f} GB and has "
            f"{free / 1e9:.2f} GB free; free some, or set JEPA_CACHE to a folder on another disk"
        ) from error
    finally:
        part.unlink(missing_ok=True)
