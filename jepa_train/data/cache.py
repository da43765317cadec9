"""What is made once per machine and shared: where it lies, and who makes it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jepa_train.paths import results_dir


def cache_dir() -> Path:
    """cache/ in the results folder, created when missing."""
    folder = results_dir() / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Processes of this machine enter one after the other: the first makes the thing, the others find it made.

    The system drops the lock when its holder dies, so a killed process blocks nobody.
    """
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
