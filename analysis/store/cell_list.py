"""List of the cells that a sweep asks for, in the tags of its experiment, and digest of the file that asks for them.

Launches write both; selection reads them.

The tags `sweep.cells`, `sweep.cells.1`, ... have 250 keys each. The first begins with the number of keys and a digest
of them all: remaining tags of a longer list, or a half-written list, are recognised.
"""

import ast
import hashlib
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path

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


def file_digest(file: Path) -> str:
    """Digest of a sweep's file without comments and docstring; "" if it cannot be read."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    has_docstring = ast.get_docstring(tree) is not None
    return _digest(map(ast.unparse, tree.body[has_docstring:]))


def is_edited(tags: Mapping[str, str]) -> bool:
    """True if the sweep's file, where it is on this machine, was edited since the last launch."""
    digest, present = tags.get("sweep.digest", ""), file_digest(Path(tags.get("sweep.file", "")))
    return "" not in (digest, present) and digest != present


def _digest(keys: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(keys).encode()).hexdigest()[:16]
