"""List of the cells that a sweep asks for, in the tags of its experiment. Launches write it; selection reads it.

The tags `sweep.cells`, `sweep.cells.1`, ... have 250 keys each. The first begins with the number of keys and a digest
of them all: remaining tags of a longer list, or a half-written list, are recognised.
"""

import hashlib
from collections.abc import Iterable, Mapping
from itertools import count

_TAG = "sweep.cells"
_KEYS = 250  # in one tag: 4,250 characters; MLflow 3 accepts 20,000, older servers 5,000


def to_tags(keys: Iterable[str]) -> dict[str, str]:
    """The tags of a list of cell keys, each key once, in the order of writing.

    The first tag is last: until it is written, readers find the old list, or none if tags of both are mixed. Tags of a
    longer, older list may stay.
    """
    listed = [*dict.fromkeys(keys)]
    chunks = [" ".join(listed[start : start + _KEYS]) for start in range(0, max(1, len(listed)), _KEYS)]
    chunks[0] = f"{len(listed)} {_digest(listed)} {chunks[0]}".strip()
    return {f"{_TAG}.{number}" if number else _TAG: chunks[number] for number in reversed(range(len(chunks)))}


def recorded_cells(tags: Mapping[str, str]) -> tuple[str, ...] | None:
    """The cell keys in an experiment's tags; None without a complete list."""
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
