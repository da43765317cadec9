"""How far a long job is: a bar on a terminal, a line in the log now and then elsewhere."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

_log = logging.getLogger(__name__)
_INTERVAL = 30.0  # seconds between lines


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of images that are done since the last call."""
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
