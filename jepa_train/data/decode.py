"""Image files -> one uint8 array, decoded once per machine and memory-mapped by everybody after that."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jepa_train.data.cache import cache_dir, one_at_a_time

_log = logging.getLogger(__name__)
_FORMAT = 1  # part of the cache's file name: raise it when the same files would decode to other pixels
_CHUNK = 256  # images per task


def decoded(files: Sequence[Path], *, name: str, size: int) -> Tensor:
    """(N, 3, size, size) uint8, in the order of the files: shorter side resized to size (bilinear), centre crop.

    Memory-mapped, copy on write: processes share one copy. Decoded only when the cache holds no array of this name
    and size; of several processes one decodes and the others wait.

    Args:
        name: names the content of the files; another content must have another name.

    Raises:
        ValueError: a file is no image; names the file.
    """
    folder = cache_dir()
    target = folder / f"{name}-{size}-{_FORMAT}.npy"
    if not target.exists():
        with one_at_a_time(target.with_suffix(".lock")):
            if not target.exists():
                _log.info("decoding %d images at %d px into %s", len(files), size, target)
                _write(target, files, size)
    return torch.from_numpy(np.load(target, mmap_mode="c"))


def _write(target: Path, files: Sequence[Path], size: int) -> None:
    part = target.with_suffix(f".{os.getpid()}.part")  # renamed when complete: a killed process leaves no half array
    try:
        array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(files), 3, size, size))

        def fill(start: int) -> None:
            for position, file in enumerate(files[start : start + _CHUNK], start):
                array[position] = _read(file, size)

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow decodes outside the GIL
            tasks = [pool.submit(fill, start) for start in range(0, len(files), _CHUNK)]
            try:
                for task in tasks:  # in order, so that the first corrupt file is the one named
                    task.result()
            finally:
                pool.shutdown(cancel_futures=True)
        array.flush()
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _read(file: Path, size: int) -> np.ndarray:
    """(3, size, size) uint8."""
    try:
        with Image.open(file) as image:
            side = min(image.size)
            left, top = (image.width - side) / 2, (image.height - side) / 2
            box = (left, top, left + side, top + side)
            # one step: the longer side, which is cropped, need not be rounded to whole pixels
            square = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # all that Pillow raises
        reason = " ".join(str(error).split())
        raise ValueError(
            f"data.path holds a file that cannot be read as an image: {str(file)!r} ({reason}); delete or replace it"
        ) from error
    return np.asarray(square).transpose(2, 0, 1)
