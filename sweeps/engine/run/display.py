"""The live view of a sweep: on a terminal its table, filling, above a status line; on a pipe plain lines."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from analysis.select.pareto import pareto_set
from jepa_train.config.flat import flatten
from sweeps.engine.plan.plan import Plan
from sweeps.engine.run.eta import Pace, duration
from sweeps.engine.spec.cells import Cell

_NO_MACHINE_S = 600.0  # a machine starts in some ten minutes, where there is one
_QUIET_S = 20.0  # on a pipe, seconds between progress lines while nothing ends


@dataclass(frozen=True, kw_only=True)
class CellEnd:
    """How a cell of this launch ended."""

    label: str
    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class LaunchOutcome:
    """What became of a launch."""

    ends: dict[str, CellEnd] = field(default_factory=dict)  # by cell key
    hours: float = 0.0  # device time
    lost_hours: float = 0.0  # of it: trained in vain
    unit: str = "CPU-hours"


class Display:
    """Follows a launch cell by cell; rendered four times a second.

    Args:
        devices: what one running cell occupies: workers x GPUs of each, or x 1 on CPUs.
        unit: what an hour of that is called.
        budget: hours that the launch may use, of that unit.
        table: the sweep's table so far, as Markdown.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        console: Console,
        devices: float = 1.0,
        unit: str = "CPU-hours",
        budget: float = math.inf,
        table: Callable[[], str] = str,
    ) -> None:
        self._ends: dict[str, CellEnd] = {}  # by cell key
        self._name = plan.sweep.name
        self._goals = plan.sweep.goals
        self._total = plan.total
        self._todo = plan.todo
        self._failed = sum(row.state == "failed" and not row.due for row in plan.rows())  # and stay so
        self._begun = {entry.key: entry.epoch for entry in plan.entries.values() if entry.epoch and not entry.done}
        self._console = console
        self._devices, self._unit, self._budget = devices, unit, budget
        self._table = table
        self._seconds = 0.0  # of cells that ended
        self._lost = 0.0  # device-seconds
        self._since: dict[str, float] = {}  # running cell's key -> when it started
        self._running: dict[str, str] = {}  # running cell's key -> "lr=0.1 3/20"
        self._pace = Pace(time.monotonic())
        self._best: tuple[float, str] | None = None
        self._front: list[tuple[float, ...]] = []  # scores of the Pareto set
        self._live: Live | None = None
        self._asked_for_machines = False
        self._last_line = time.monotonic()
        for entry in plan.entries.values():
            if entry.role == "cell":
                self._note_scores(entry.scores(self._goals), entry.label)

    @property
    def outcome(self) -> LaunchOutcome:
        """What became of the launch so far."""
        seconds = self._seconds + sum(time.monotonic() - since for since in self._since.values())
        return LaunchOutcome(
            ends=dict(self._ends),
            hours=self._devices * seconds / 3600,
            lost_hours=self._lost / 3600,
            unit=self._unit,
        )

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

    def started(self, cell: Cell) -> None:
        """A cell has been given to a lane."""
        begun = self._begun.pop(cell.key, 0)
        self._since.setdefault(cell.key, time.monotonic())  # its trial may be back, whose process was lost
        self._running[cell.key] = cell.label
        self._pace.started(cell.key, time.monotonic(), begun / max(cell.config.epochs, 1))
        if begun:
            self.note(
                f"{cell.label}: begun before, goes on from its last checkpoint (epoch {begun} of {cell.config.epochs})"
            )

    def progressed(self, cell: Cell, epoch: float) -> None:
        """A cell has reported an epoch."""
        self._running[cell.key] = f"{cell.label} {epoch:.0f}/{cell.config.epochs}"
        self._pace.progressed(cell.key, time.monotonic(), epoch / max(cell.config.epochs, 1))
        if self._live is None and time.monotonic() - self._last_line > _QUIET_S:
            self.note(f"{self._status()}  {self._told_best()}".rstrip())

    def ended(self, cell: Cell, status: str, reason: str, metrics: Mapping[str, float], seconds: float) -> None:
        """A cell has ended. On a terminal the table shows what it gave; what went wrong keeps a line anywhere."""
        self._ends[cell.key] = CellEnd(label=cell.label, status=status, reason=reason)
        self._since.pop(cell.key, None)
        self._running.pop(cell.key, None)
        self._seconds += seconds
        self._pace.ended(cell.key, time.monotonic(), counts=cell.config.epochs > 0)
        scores = tuple(goal.score(metrics, flatten(cell.config)) for goal in self._goals)
        if status == "finished" and cell.role == "cell":
            self._note_scores(scores, cell.label)
        if status == "finished" and self._live is not None:
            return
        told = "  ".join(f"{goal.name} {score:.3f}" for goal, score in zip(self._goals, scores, strict=True))
        outcome = told if status == "finished" else f"{status}: {reason}"
        counter = f"{self._total - self._todo + len(self._ends)}/{self._total}"
        self.note(f"{self._name}  {counter:>7}  {cell.label}  {outcome}  ({seconds:.0f} s)")

    def lost(self, cell: Cell, note: str, device_seconds: float, idle_s: float) -> None:
        """A cell's workers were lost, and so much of what they had trained; or, without a note, it waited for some."""
        self._lost += device_seconds
        self._since[cell.key] += idle_s
        if note:
            self.note(f"{cell.label}: {note}, {device_seconds:.0f} device-seconds lost")

    def waits(self, machines: Callable[[], int]) -> None:
        """Time passes on a cluster; said once where its machines do not come. What Ray knows of it is elsewhere."""
        waited = self._pace.waited(time.monotonic())
        if self._asked_for_machines or waited < _NO_MACHINE_S:
            return
        if not machines():
            self.note(
                f"no machine in {waited / 60:.0f} minutes; waiting on; `ray status` on the head says why "
                "(ray exec CLUSTER.yaml 'ray status')"
            )
        self._asked_for_machines = True

    def note(self, line: str) -> None:
        """A line that stays on the screen; on a terminal it is cut to one, and --explain tells the rest."""
        self._last_line = time.monotonic()
        crop = self._live is not None
        self._console.print(Text(line), no_wrap=crop, overflow="ellipsis" if crop else None, soft_wrap=not crop)

    def _note_scores(self, scores: tuple[float, ...], label: str) -> None:
        points = [*self._front, scores]
        inside = pareto_set(points, [goal.direction for goal in self._goals])
        self._front = [point for point, member in zip(points, inside, strict=True) if member]
        if self._goals[0].better(scores[0], math.nan if self._best is None else self._best[0]):
            self._best = (scores[0], label)

    def _render(self) -> RenderableType:
        """The table, cut to what the terminal holds, and the status below it, which must never scroll out of sight."""
        lines = self._table().splitlines()
        running = ", ".join(self._running.values())
        below = [self._status(), self._told_best(), f"running: {running}" if running else ""]
        below = [line for line in below if line]
        room = self._console.height - len(below) - 3  # a blank line, one to spare, and the prompt's
        if len(lines) > room:
            hidden = len(lines) - max(room, 1) + 1
            lines = [*lines[: max(room, 1) - 1], f"... {hidden} more lines (python -m analysis {self._name})"]
        above = [*lines, ""] if lines else []
        return Text("\n".join([*above, *below]), no_wrap=True, overflow="ellipsis")

    def _status(self) -> str:
        ends = Counter(end.status for end in self._ends.values())
        done = self._total - self._todo - self._failed + sum(ends[status] for status in ends if status != "failed")
        ends["failed"] += self._failed
        if not self._pace.reported and not self._ends:
            waited = self._pace.waited(time.monotonic())
            return f"{self._name}  {done}/{self._total} done  starting the workers ({waited:.0f} s)"
        parts = [f"{done}/{self._total} done", f"{len(self._running)} running"]
        parts += [f"{ends[status]} {status}" for status in ("failed", "pruned") if ends[status]]
        parts += [self._spent(), self._time_left()]
        return f"{self._name}  " + "  ".join(parts)

    def _told_best(self) -> str:
        if self._best is None:
            return ""
        front = f"Pareto set of {len(self._front)}; " if len(self._goals) > 1 else ""
        return f"{front}best {self._goals[0].name} {self._best[0]:.3f} ({self._best[1]})"

    def _spent(self) -> str:
        limit = "" if math.isinf(self._budget) else f" of {self._budget:g}"
        return f"{self.outcome.hours:.2f}{limit} {self._unit}"

    def _time_left(self) -> str:
        left = self._pace.seconds_left(time.monotonic(), self._todo - len(self._ends))
        return "time left: measuring" if left is None else f"{duration(left)} left"
