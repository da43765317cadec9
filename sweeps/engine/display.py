"""The live view of a sweep: one line that moves on a terminal, plain lines on a pipe."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from jepa_train.flat import flatten
from sweeps.engine.cells import Cell
from sweeps.engine.objective import Goal

_QUIET_S = 20.0  # on a pipe, seconds between progress lines while nothing ends


class Display:
    """Counts cells done, running and failed, and keeps the best so far; rendered once a second.

    Args:
        name: the sweep's name.
        goal: what the best cell is best at.
        total: all cells of the sweep, with those already done.
        done: the cells that an earlier launch finished.
    """

    def __init__(self, *, name: str, goal: Goal, total: int, done: int, console: Console) -> None:
        self._name = name
        self._goal = goal
        self._total = total
        self._earlier = done
        self._console = console
        self._started = time.monotonic()
        self._first_report_at: float | None = None  # before it, the worker groups are starting
        self._trained = 0  # ended cells that count for the time left; an untrained reference does not
        self._progress: dict[str, float] = {}  # running cell's label -> fraction done
        self._ended: dict[str, int] = {}  # status -> count
        self._best: tuple[float, str] | None = None
        self._live: Live | None = None
        self._last_line = self._started

    @contextmanager
    def shown(self) -> Iterator["Display"]:
        """Show the view until the block ends; on a pipe only lines are printed."""
        if not self._console.is_terminal:
            yield self
            return
        with Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True) as live:
            self._live = live
            yield self
        self._live = None

    def note_best(self, value: float, label: str) -> None:
        """Take a finished cell's objective into account."""
        if self._goal.better(value, math.nan if self._best is None else self._best[0]):
            self._best = (value, label)

    def started(self, cell: Cell) -> None:
        """A cell has been given to a lane."""
        self._progress[cell.label] = 0.0

    def progressed(self, cell: Cell, epoch: float) -> None:
        """A cell has reported an epoch."""
        self._first_report_at = self._first_report_at or time.monotonic()
        self._progress[cell.label] = epoch / max(cell.config.epochs, 1)
        if self._live is None and time.monotonic() - self._last_line > _QUIET_S:
            self._line(self._status())

    def ended(self, cell: Cell, status: str, reason: str, metrics: Mapping[str, float], seconds: float) -> None:
        """A cell has ended; its line stays on the screen."""
        self._progress.pop(cell.label, None)
        self._ended[status] = self._ended.get(status, 0) + 1
        self._trained += cell.config.epochs > 0
        value = self._goal.score(metrics, flatten(cell.config))
        outcome = f"{self._goal.name} {value:.3f}" if status == "finished" else f"{status}: {reason}"
        if status == "finished" and cell.role == "cell":
            self.note_best(value, cell.label)
        counter = f"{self._earlier + sum(self._ended.values())}/{self._total}"
        self._line(f"{self._name}  {counter:>7}  {cell.label}  {outcome}  ({seconds:.0f} s)")

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(text, highlight=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        return Text(self._status())

    def _status(self) -> str:
        done = self._earlier + sum(count for status, count in self._ended.items() if status != "failed")
        failed = self._ended.get("failed", 0)
        if self._first_report_at is None and not self._ended:
            waited = time.monotonic() - self._started
            return f"{self._name}  {done}/{self._total} done  starting the workers ({waited:.0f} s)"
        parts = [f"{done}/{self._total} done", f"{len(self._progress)} running", f"{failed} failed", self._time_left()]
        if self._best is not None:
            parts.append(f"best {self._goal.name} {self._best[0]:.3f} ({self._best[1]})")
        return f"{self._name}  " + "  ".join(parts)

    def _time_left(self) -> str:
        """From the mean time of the cells so far, a running one counted by its epochs."""
        running = sum(self._progress.values())
        worked = self._trained + running
        remaining = self._total - self._earlier - sum(self._ended.values()) - running
        if worked < 0.1 or self._first_report_at is None:
            return "time left: measuring"
        seconds = (time.monotonic() - self._first_report_at) / worked * remaining
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s left" if seconds >= 60 else f"{seconds:.0f} s left"
