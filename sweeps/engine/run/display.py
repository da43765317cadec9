"""Live view of a sweep: on a terminal its table above a status line; on a pipe plain lines."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from analysis.device_time import device_time
from jepa_train.config.flat import flatten
from sweeps.engine.cluster.resources import Request
from sweeps.engine.plan.plan import Plan
from sweeps.engine.run.estimate import epochs_left
from sweeps.engine.run.eta import Pace, duration
from sweeps.engine.spec.cells import Cell

_QUIET_S = 20.0  # on a pipe, seconds between progress lines while nothing ends


def cut(lines: Sequence[str], room: int, where: str = "") -> list[str]:
    """The first lines that fit, with the number of the others."""
    hidden = len(lines) - room + 1
    return [*lines[: room - 1], f"... {hidden} more lines{where}"] if hidden > 1 else [*lines]


@dataclass(frozen=True, kw_only=True)
class CellEnd:
    """End of a cell in this launch."""

    label: str
    status: str
    reason: str


@dataclass(kw_only=True)
class LaunchOutcome:
    """Result of a launch."""

    ends: dict[str, CellEnd] = field(default_factory=dict)  # by cell key
    waiting: set[str] = field(default_factory=set)  # keys of cells that have waited for the other seeds of their point
    hours: float = 0.0  # device time
    lost_hours: float = 0.0  # part of it whose training was lost with its workers
    unit: str = ""


@dataclass(eq=False)
class Display:
    """State of a launch for the user, cell by cell; rendered four times a second.

    Args:
        request: resources of one running cell.
        budget: hours that the launch may use.
        table: the sweep's table so far, as Markdown.

    Attributes:
        todo: cells that this launch runs, known or not.
    """

    plan: Plan
    request: Request
    _: KW_ONLY
    console: Console
    budget: float = math.inf
    table: Callable[[], str] = str

    def __post_init__(self) -> None:
        plan = self.plan
        self.todo, self._failed, self._before = plan.todo, plan.failed, plan.total - plan.lacking
        self._total, self._chosen = plan.total, plan.chosen
        self._fractions = {  # trained part of each cell that this launch runs, by key; all of one without epochs
            cell.key: 1 - epochs_left(plan, cell) / (cell.config.epochs or math.inf) for cell in plan.missing
        }
        self.outcome = LaunchOutcome(unit=self.request.unit)  # so far, without cells that run
        self._since: dict[str, float] = {}  # start of each running cell, by key
        self._running: dict[str, str] = {}  # "lr=0.1 3/20" of each running cell, by key
        self._pace = Pace()
        self._best = (math.nan, "")  # score and label
        self._reasons: dict[str, str] = {}  # of failures -> label of the first cell
        self._live = False
        self._started = self._last_line = time.monotonic()
        for cell in plan.known:
            entry = plan.entries.get(cell.key)
            if entry is not None and entry.status == "finished" and cell.role == "cell":
                self._compare(plan.sweep.goals[0].score(entry.metrics, entry.params), cell.label)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the view until the block ends; on a pipe only lines are printed."""
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True):
            self._live = True
            yield
        self._live = False

    def recount(self, total: int) -> None:
        """Take the number of all cells, which changes where a search does not need some."""
        before = self.todo
        self._chosen += total - self._total
        self.todo = min(self.plan.rules.choice.limit, self._chosen)
        self._total = total
        self._pace.change(self.todo - before)

    def started(self, cell: Cell) -> None:
        """Begin a cell, or continue one whose trial was lost."""
        begun = cell.config.epochs - epochs_left(self.plan, cell)
        if begun and cell.key not in self._since:
            self.note(
                f"{cell.label}: begun before, goes on from its last checkpoint (epoch {begun} of {cell.config.epochs})"
            )
        self._since.setdefault(cell.key, time.monotonic())
        self._running[cell.key] = cell.label

    def progressed(self, cell: Cell, epoch: float) -> None:
        """Take the report of an epoch."""
        self._running[cell.key] = f"{cell.label} {epoch:.0f}/{cell.config.epochs}"
        trained = epoch / max(cell.config.epochs, 1)
        self._fractions[cell.key] = max(trained, self._fractions.get(cell.key, 0.0))  # a resumed cell repeats reports
        self._pace.report(time.monotonic(), self.todo - sum(self._fractions.values()))
        if not self._live and time.monotonic() - self._last_line > _QUIET_S:
            self.note(f"{self._status()}  {self._best_line()}".rstrip())

    def ended(self, cell: Cell, status: str, reason: str, metrics: Mapping[str, float]) -> None:
        """End a cell, with a line on a pipe; on a terminal the table shows results, and failures keep a line."""
        self.outcome.ends[cell.key] = CellEnd(label=cell.label, status=status, reason=reason)
        seconds = self.paused(cell)
        self._fractions[cell.key] = 1.0
        goals, flat = self.plan.sweep.goals, flatten(cell.config)
        if status == "finished" and cell.role == "cell":
            self._compare(goals[0].score(metrics, flat), cell.label)
        if status == "finished" and self._live:
            return
        scores = "  ".join(f"{goal.name} {goal.score(metrics, flat):.3f}" for goal in goals)
        first = self._reasons.setdefault(reason, cell.label) if status == "failed" else cell.label
        end = scores if status == "finished" else f"{status}: {reason if first == cell.label else f'as {first}'}"
        counter = f"{self._before + len(self.outcome.ends)}/{self._total}"
        self.note(f"{self.plan.sweep.name}  {counter:>7}  {cell.label}  {end}  ({seconds:.0f} s)")

    def paused(self, cell: Cell) -> float:
        """Take a cell off the running ones, with its time. Returns its seconds since it began or went on."""
        seconds = time.monotonic() - self._since.pop(cell.key)
        self._running.pop(cell.key, None)
        self.outcome.hours += self.request.devices * seconds / 3600
        return seconds

    def lost(self, cell: Cell, note: str, device_seconds: float, idle_s: float) -> None:
        """Take off time without a device; with a note, training was lost with a worker."""
        self.outcome.lost_hours += device_seconds / 3600
        self._since[cell.key] += idle_s
        if note:
            self.note(f"{cell.label}: {note}, {device_time(device_seconds / 3600, self.request.unit)} lost")

    def note(self, line: str) -> None:
        """Print a line that stays; on a terminal it is cut to one, and --explain shows the rest."""
        self._last_line = time.monotonic()
        if self._live:
            self.console.print(Text(line), no_wrap=True, overflow="ellipsis")
        else:
            self.console.print(Text(line), soft_wrap=True)

    def _compare(self, score: float, label: str) -> None:
        if self.plan.sweep.goals[0].better(score, self._best[0]):
            self._best = (score, label)

    def _render(self) -> RenderableType:
        """The table, cut to what the terminal holds, and below it the status, which always stays in sight."""
        lines = self.table().splitlines() if self.plan.entries or self.outcome.ends else []
        running = ", ".join(self._running.values())
        below = [line for line in (self._status(), self._best_line(), f"running: {running}" * bool(running)) if line]
        room = max(1, self.console.height - len(below) - 3)  # a blank line, one to spare, and the prompt's
        lines = cut(lines, room, f" (python -m analysis {self.plan.sweep.name})")
        return Text("\n".join([*lines, *[""] * bool(lines), *below]), no_wrap=True, overflow="ellipsis")

    def _status(self) -> str:
        now, ends = time.monotonic(), Counter(end.status for end in self.outcome.ends.values())
        done = self._before - self._failed + len(self.outcome.ends) - ends["failed"]
        head = f"{self.plan.sweep.name}  {done}/{self._total} done"
        if not self._pace.reported and not self.outcome.ends:
            return f"{head}  starting the workers ({now - self._started:.0f} s)"
        ends["failed"] += self._failed
        counts = "".join(f"  {ends[status]} {status}" for status in ("failed", "pruned") if ends[status])
        left = self._pace.seconds_left(now)
        time_left = "time left: measuring" if left is None else f"{duration(left)} left"
        spent = self.outcome.hours + self.request.devices * sum(now - since for since in self._since.values()) / 3600
        unit, limited = self.request.unit, self.budget < math.inf
        hours = f"{spent:.2f} of {self.budget:g} {unit}" if limited else device_time(spent, unit)
        return f"{head}  {len(self._running)} running{counts}  {hours}  {time_left}"

    def _best_line(self) -> str:
        score, label = self._best
        return f"best {self.plan.sweep.goals[0].name} {score:.3f} ({label})" if label else ""
