"""The list of cells that a sweep asks for, in the tags of its experiment. Launches write it; selection reads it.

The keys stand in `sweep.cells`, `sweep.cells.1`, ..., 250 in each. The first tag begins with their number and a digest
of them all, so that neither leftover tags of a longer list nor a list that was half written is taken for it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from itertools import count

_TAG = "sweep.cells"
_KEYS = 250  # in one tag: 4,250 characters, where MLflow 3 takes 20,000 and older servers 5,000


def to_tags(keys: Iterable[str]) -> dict[str, str]:
    """The tags of a list of cell keys, each key once, in the order in which they are to be written.

    The first tag comes last: until it is written, readers find the old list, or none where they were mixed. Tags of a
    longer list of before may stay.
    """
    listed = [*dict.fromkeys(keys)]
    chunks = [" ".join(listed[start : start + _KEYS]) for start in range(0, max(1, len(listed)), _KEYS)]
    chunks[0] = f"{len(listed)} {_digest(listed)} {chunks[0]}".strip()
    return {f"{_TAG}.{number}" if number else _TAG: chunks[number] for number in reversed(range(len(chunks)))}


def recorded_cells(tags: Mapping[str, str]) -> tuple[str, ...] | None:
    """The cell keys in an experiment's tags; None where no list was written, or not completely."""
    words = tags.get(_TAG, "").split()
    if len(words) < 2:
        return None
    for number in count(1):
        if f"{_TAG}.{number}" not in tags:
            break
        words += tags[f"{_TAG}.{number}"].split()
    size, digest, *keys = words
    listed = keys[: int(size)] if size.isdecimal() else []
    return tuple(listed) if digest == _digest(listed) else None


def _digest(keys: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(keys).encode()).hexdigest()[:16]
