"""--watch: the status of sweeps that run elsewhere, read from the store again and again."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from rich.console import Console
from rich.live import Live
from rich.text import Text

from sweeps.engine.cli.status import status, status_lines
from sweeps.engine.spec.sweep import Sweep

_REFRESH_S = 5.0  # between two readings
_SHARE = 10  # of the time, as 1 / _SHARE, goes into reading at most: a big store takes seconds
_OPEN = ("missing", "interrupted", "running")


def watch_status(
    sweeps: Sequence[Sweep], words: Sequence[str], console: Console, *, sleep: Callable[[float], object] = time.sleep
) -> None:
    """Show the status until every cell has ended, or until Ctrl-C.

    A terminal has one screen, which stays at the end. Elsewhere the first status is printed whole; after that only
    the first line of a sweep, where its counts change.

    Args:
        words: assignments of the command line.
    """
    live = Live(console=console, auto_refresh=False, vertical_overflow="crop") if console.is_terminal else None
    seen: dict[str, dict[str, int]] = {}
    try:
        with live or nullcontext():
            while True:
                began = time.monotonic()
                facts = [status(sweep, words) for sweep in sweeps]
                lines = [status_lines(each) for each in facts]
                if live is not None:
                    live.update(_screen([line for own in lines for line in [*own, ""]][:-1], console), refresh=True)
                for each, own in zip(facts, lines, strict=True):
                    if live is None and seen.get(each["sweep"]) != each["states"]:
                        sys.stdout.write("\n".join(own[:1] if each["sweep"] in seen else own) + "\n")
                    seen[each["sweep"]] = each["states"]
                sys.stdout.flush()
                if not any(state in _OPEN for each in facts for state in each["states"]):
                    return
                sleep(max(_REFRESH_S, _SHARE * (time.monotonic() - began)))
    except KeyboardInterrupt:
        return


def _screen(lines: Sequence[str], console: Console) -> Text:
    """The lines that fit the terminal, with the number of the others."""
    room = max(1, console.height - 2)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"... {len(lines) - room + 1} more lines"]
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
