"""Image files decoded to one uint8 array, once per machine, and memory-mapped by all processes."""

import functools
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from jepa_train.data.cache import ArraySource, cached_array

_FORMAT = 2  # part of the cache's name: raise it when the same files would decode to other pixels
_CHUNK = 1024  # images that are decoded, and then written, together
_CORRUPT = "corrupt"  # name of the fact {position: reason why the file cannot be read}
_DRAFT = 2.0  # large JPEGs are decoded at 1/2, 1/4 or 1/8, at least at this multiple of the final size


def decode_images(files: Sequence[str], *, name: str, size: int, skip_corrupt: bool) -> tuple[Tensor, dict[int, str]]:
    """Decode to (M, 3, size, size) uint8 in the order of the files: shorter side to size (bilinear), center crop.

    The array is a read-only memory map that processes share (cache.cached_array). It records unreadable files and is
    made again when one of them has been repaired.

    Args:
        files: paths as text: a million Path objects take half a minute to make.
        name: identifies the content of the files.
        skip_corrupt: leave out files that are no images.

    Returns:
        The array, and by position the reasons why files cannot be read; their rows are black.

    Raises:
        ValueError: a file is no image, and skip_corrupt is false; names the first.
    """

    def still_corrupt(facts: dict[str, Any]) -> bool:
        return all(isinstance(_read(files[int(position)], size), str) for position in facts[_CORRUPT])

    def make() -> ArraySource:
        facts: dict[str, Any] = {_CORRUPT: {}}
        parts = _decode(files, size, facts[_CORRUPT], skip_corrupt)
        return ArraySource(shape=(len(files), 3, size, size), parts=parts, facts=facts)

    pixels, facts = cached_array(f"{name}-{size}-{_FORMAT}", make, current=still_corrupt)
    corrupt = {int(position): reason for position, reason in facts[_CORRUPT].items()}
    if corrupt and not skip_corrupt:
        raise _corrupt(files, *next(iter(corrupt.items())))
    return pixels, corrupt


def _decode(
    files: Sequence[str], size: int, corrupt: dict[int, str], skip_corrupt: bool
) -> Generator[np.ndarray, None, None]:
    """The array in parts, (n, 3, size, size) each. Adds unreadable files to `corrupt`."""
    read = functools.partial(_read, size=size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the GIL
        for start in range(0, len(files), _CHUNK):
            rows = np.zeros((min(_CHUNK, len(files) - start), 3, size, size), np.uint8)
            for row, image in enumerate(pool.map(read, files[start : start + _CHUNK])):
                if not isinstance(image, str):
                    rows[row] = image
                elif skip_corrupt:
                    corrupt[start + row] = image
                else:
                    raise _corrupt(files, start + row, image)
            yield rows


def _read(file: str, size: int) -> np.ndarray | str:
    """Decode one file to (3, size, size) uint8, or return the reason why it cannot be read."""
    try:
        with Image.open(file) as image:
            draft = image.draft("RGB", (round(_DRAFT * size), round(_DRAFT * size)))  # None unless a JPEG
            width, height = draft[1][2:] if draft else image.size  # may be fractional: the original size at that scale
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
            # crop and resize in one step: the longer side is not rounded to whole pixels
            square = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's errors
        return " ".join(str(error).split()) or type(error).__name__
    return np.asarray(square).transpose(2, 0, 1)


def _corrupt(files: Sequence[str], position: int, reason: str) -> ValueError:
    return ValueError(
        f"data.path holds a file that cannot be read as an image: {files[position]!r} ({reason}); "
        "delete or replace it, or set data.on_corrupt=skip"
    )
