"""Identity of an image folder's content, with an index of its files.

A folder's fingerprint is made of names and sizes, and is known without reading. Its content is a hash of every file's
bytes, computed while the files are decoded. The index remembers each file's digest by size, times and inode, so that
only files that may have changed are read again.
"""

import hashlib
import logging
import os
import uuid
import warnings
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jepa_train.data.cache import ArraySource, cached_array, progress_bar
from jepa_train.data.files.decode import OTHER_FORMAT, VERSION, Decoded, Note, decode_file
from jepa_train.data.files.listing import Listing
from jepa_train.data.pictures import LONGEST, LineRanges, as_lines
from jepa_train.storage.paths import cache_dir

_log = logging.getLogger(__name__)
_CHUNK = 512  # images that are decoded, and then written, together
# Odd numbers that make one key of four stats. Not of the inode alone: files of two disks may have the same.
_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)
_SMALL = 8  # pixels: the side at which images are decoded whose pixels are not kept


@dataclass
class Contents:
    """Facts about the files of a listing, in its order."""

    fingerprint: str
    digests: np.ndarray  # (N,) uint64
    notes: np.ndarray  # (N,) uint64, of Note
    known: np.ndarray  # (N,) bool

    @property
    def content(self) -> str:
        """16 hex digits of all files' digests, in order; "" while a file has not been read."""
        if not self.known.all():
            return ""
        return hashlib.blake2b(self.fingerprint.encode() + self.digests.tobytes(), digest_size=8).hexdigest()

    @property
    def corrupt(self) -> np.ndarray:
        """(N,) bool, of files that have been read and are no images."""
        return self.having(Note.CORRUPT)

    def having(self, note: Note) -> np.ndarray:
        """(N,) bool, of files that have been read and have this note."""
        return (self.notes & np.uint64(note)) > 0

    def add(self, rows: Sequence[int], decoded: Sequence[Decoded]) -> None:
        """Record files that have been read."""
        self.digests[rows] = [each.digest for each in decoded]
        self.notes[rows] = [int(each.notes) for each in decoded]
        self.known[rows] = True


def read_index(listing: Listing) -> Contents:
    """The facts about the files of a listing that have been read before and not been touched since."""
    size = len(listing.files)
    contents = Contents(
        listing.fingerprint, np.zeros(size, np.uint64), np.zeros(size, np.uint64), np.zeros(size, np.bool_)
    )
    try:
        rows = np.load(_index_file(listing))
    except (OSError, ValueError, EOFError):  # none yet, or damaged
        return contents
    if rows.ndim != 2 or rows.shape[1] != 6 or not len(rows):
        return contents
    keys, wanted = ((stats * _MIX).sum(axis=1) for stats in (rows[:, :4], listing.stats))
    order = np.argsort(keys)
    found = order[np.searchsorted(keys, wanted, sorter=order).clip(max=len(rows) - 1)]
    contents.known = (rows[found, :4] == listing.stats).all(axis=1)
    contents.digests, contents.notes = (np.where(contents.known, rows[found, column], 0) for column in (4, 5))
    return contents


def write_index(listing: Listing, contents: Contents) -> None:
    """Keep the facts about the files that have been read."""
    rows = np.column_stack([listing.stats, contents.digests, contents.notes])[contents.known]
    file = _index_file(listing)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as stream:
            np.save(stream, rows)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _index_file(listing: Listing) -> Path:
    folder = hashlib.blake2b(os.fsencode(os.path.realpath(listing.root)), digest_size=8).hexdigest()
    return cache_dir() / "index" / f"{folder}-{VERSION}{listing.pixel_format.suffix}.npy"


def read_files(listing: Listing, *, skip_corrupt: bool) -> Contents:
    """Read the files that the index does not know, and add them to it, also those before an interruption.

    Corrupt files are read again: a decoder for them may have been installed since.

    Raises:
        ValueError: a file is no image, and skip_corrupt is false; names the first.
    """
    contents = read_index(listing)
    rows = np.flatnonzero(~contents.known | contents.corrupt)
    if len(rows):
        _log.info("reading %d of %d images of %s", len(rows), len(listing.files), listing.root)
        try:
            with progress_bar() as progress:
                task = progress.add_task("reading images", total=len(rows))
                for some, decoded in _decode(listing, rows, _SMALL, skip_corrupt):
                    contents.add(some, decoded)
                    progress.advance(task, len(some))
        finally:
            write_index(listing, contents)
    return contents


def decoded_images(
    listing: Listing, size: int, *, whole: bool, skip_corrupt: bool
) -> tuple[Tensor, LineRanges | None, Contents]:
    """All files of a listing, in its order, with `size` as their shorter side.

    The array is a read-only memory map that processes share (cache.cached_array), named by its content. Files that have
    never been read are read once, for the array and for its name.

    Args:
        whole: keep the whole pictures; else their center squares.

    Returns:
        Squares as (N, C, size, size), or lines of whole pictures as (T, C, size) with their ranges, of the listing's
        pixel format; and the facts about the files. Corrupt files are black squares.

    Raises:
        ValueError: a file is no image, and skip_corrupt is false; names the first.
    """
    contents = read_index(listing)
    if contents.known.any():
        contents = read_files(listing, skip_corrupt=skip_corrupt)
    channels, dtype = listing.pixel_format.channels, listing.pixel_format.dtype
    kind = f"{size}{'-whole' * whole}-{VERSION}{listing.pixel_format.suffix}"
    lengths: list[int] = []  # of whole pictures, as in LineRanges

    def file_name() -> str:
        nonlocal contents
        if not contents.content:  # another process may have read the files
            contents = read_index(listing)
        return f"{contents.content}-{kind}" if contents.content else ""

    def parts() -> Generator[np.ndarray, None, None]:
        nonlocal contents
        read = read_index(listing)
        black = np.zeros((channels, size, size), dtype)
        rows = np.arange(len(listing.files))
        for some, decoded in _decode(listing, rows, size, skip_corrupt, longest=LONGEST if whole else 1):
            read.add(some, decoded)
            images = [black if each.pixels is None else each.pixels for each in decoded]
            if whole:
                lines = [as_lines(image) for image in images]
                lengths.extend(length for _, length in lines)
                yield np.concatenate([each for each, _ in lines])
            else:
                yield np.stack(images)
        write_index(listing, read)
        contents = read

    source = ArraySource(
        rows=len(listing.files) * (size if whole else 1),
        shape=(channels, size) if whole else (channels, size, size),
        parts=parts(),
        facts={"lengths": lengths} if whole else {},
        dtype=dtype,
    )
    pixels, facts = cached_array(f"{listing.fingerprint}-{kind}", lambda: source, file_name=file_name)
    if contents.corrupt.any() and not skip_corrupt:  # of an array that another process has made meanwhile
        read_files(listing, skip_corrupt=False)
    return pixels, LineRanges(torch.tensor(facts["lengths"])) if whole else None, contents


def _decode(
    listing: Listing, rows: np.ndarray, size: int, skip_corrupt: bool, longest: int = 1
) -> Iterator[tuple[list[int], list[Decoded]]]:
    """The files of these rows, decoded, in parts.

    Raises:
        ValueError: a file is no image, and skip_corrupt is false.
    """
    decode = partial(decode_file, size=size, longest=longest, pixel_format=listing.pixel_format)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the GIL
        for start in range(0, len(rows), _CHUNK):
            some = rows[start : start + _CHUNK].tolist()
            files = [f"{listing.root}/{listing.files[row]}" for row in some]
            with warnings.catch_warnings(action="ignore"):  # about broken metadata, thousands of them
                decoded = list(pool.map(decode, files))
            for file, each in zip(files, decoded, strict=True):
                if each.pixels is None and not skip_corrupt:
                    other = each.reason.startswith(OTHER_FORMAT)
                    rule = "an image of another format" if other else "a file that cannot be read as an image"
                    remedy = "set data.channels and data.bits as all files have them, convert" if other else "delete"
                    raise ValueError(
                        f"data.path holds {rule}: {file!r} ({each.reason}); {remedy} or replace it, or "
                        "set data.on_corrupt=skip"
                    )
            yield some, decoded
