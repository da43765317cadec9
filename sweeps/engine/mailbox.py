"""Mailbox: hands cells from trials to lanes, and the lanes' reports back to the trials.

Plain Python, no Ray and no torch: the one mailbox of a LanePool runs in an actor of its own, which must start fast.
Lanes pull: a lane asks for its next cell when its workers are idle, so nobody ever has to give a lane back. Every
message carries the cell's ticket; what belongs to a cell that has ended is dropped.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_LOSSES = 3  # worker groups that a cell may take down with it before it counts as failed
LEASE_S = 120.0  # a trial asks at least every POLL_S; one that is silent for so long has died
POLL_S = 5.0  # longest wait inside one call, so that a waiting caller notices when the other side is gone
STATEMENTS_S = 5.0  # how long a failed rank waits for the others to fail likewise

Cell = dict[str, Any]  # and where its checkpoints lie; whatever the trial says and the worker understands
End = dict[str, str]


def ending(status: str, reason: str = "", traceback: str = "") -> End:
    """How a cell ended, in the words that its trial reports and MLflow stores."""
    return {"status": status, "reason": reason, "traceback": traceback}


@dataclass
class _Task:
    """A cell on its way through the mailbox."""

    ticket: int
    owner: str
    cell: Cell
    asked: float  # when its trial was last heard of
    reports: list[dict[str, float]] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)  # rank -> reason, while its worker group lives
    end: End | None = None
    stop: bool = False
    losses: int = 0


@dataclass
class _Lane:
    group: int = 0  # counts the worker groups that this lane has had
    place: Any = None
    task: _Task | None = None
    lost: str = ""  # why it will never come back


class Mailbox:
    """Cells wait in one queue; each of num_lanes lanes takes the next when all it had is done."""

    def __init__(self, num_lanes: int) -> None:
        self._lanes = [_Lane() for _ in range(num_lanes)]
        self._tasks: dict[int, _Task] = {}
        self._queue: deque[_Task] = deque()
        self._tickets = 0
        self._closed = False
        self._changed = asyncio.Condition()

    # The trial's side.

    async def submit(self, owner: str, cell: Cell) -> int:
        """Queue a cell and return its ticket. What its owner had submitted before is stopped: that trial has died."""
        for task in self._tasks.values():
            task.stop |= task.owner == owner
        self._tickets += 1
        task = _Task(self._tickets, owner, cell, time.monotonic())
        self._tasks[task.ticket] = task
        self._queue.append(task)
        await self._notify()
        return task.ticket

    async def take(self, ticket: int, start: int) -> tuple[list[dict[str, float]], End | None]:
        """The reports from the start-th on, waiting a while for one, and how the cell ended, once it has.

        Raises:
            RuntimeError: no lane is left that could run the cell.
        """
        task = self._tasks.get(ticket)
        if task is None:
            return [], ending("stopped", "the lanes were closed")
        task.asked = time.monotonic()
        await self._wait(lambda: task.end is not None or len(task.reports) > start or not self._alive(), POLL_S)
        task.asked = time.monotonic()
        if task.end is None and not self._alive():
            raise RuntimeError(f"no lane is left to run cells: {self._lanes[-1].lost}")
        return task.reports[start:], task.end

    async def abandon(self, ticket: int) -> None:
        """The trial is gone: a cell that runs is stopped at its next report, one that waits is never started."""
        task = self._tasks.get(ticket)
        if task is not None:
            task.stop = True
        if task is not None and task.end is not None:
            del self._tasks[ticket]

    # The lane's side.

    async def begin(self, lane: int, place: Any) -> int:
        """A new worker group introduces itself and gets its number. The cell its forerunner had in hand was lost.

        Args:
            place: what the group occupies; the driver must free it where Train's controller dies.
        """
        mine = self._lanes[lane]
        mine.group += 1
        mine.place = place
        if mine.task is not None and mine.task.end is None:
            self._lose(mine.task)
        await self._notify()
        return mine.group

    async def next(self, lane: int, group: int, seen: int) -> tuple[int, Cell] | tuple[()] | None:
        """(ticket, cell) for a rank that is done with ticket `seen`, () where there is none yet, None to end."""
        mine = self._lanes[lane]
        await self._wait(lambda: self._closed or group != mine.group or self._offer(mine, seen), POLL_S)
        if self._closed or group != mine.group:
            return None
        return (mine.task.ticket, mine.task.cell) if mine.task and self._offer(mine, seen) else ()

    async def report(self, ticket: int, metrics: dict[str, float]) -> bool:
        """Rank 0's metrics of one epoch. True when the cell is to stop: its trial does not want it any more."""
        task = self._tasks.get(ticket)
        if task is None or task.end is not None or self._unwanted(task):
            return True
        task.reports.append(metrics)
        await self._notify()
        return False

    async def finish(self, ticket: int, end: End) -> None:
        """The cell has ended; the first ending counts."""
        task = self._tasks.get(ticket)
        if task is not None:
            self._end(task, end)
        await self._notify()

    async def alike(self, ticket: int, rank: int, reason: str, workers: int) -> bool:
        """Whether all ranks failed in the same way, asked by each rank that did; waits a while for the others.

        If so, no rank hangs in a collective and the worker group can go on with the next cell.
        """
        task = self._tasks.get(ticket)
        if task is None:
            return False
        task.errors[rank] = reason
        await self._notify()
        await self._wait(lambda: len(task.errors) == workers, STATEMENTS_S)
        return len(task.errors) == workers and len(set(task.errors.values())) == 1

    # The driver's side.

    async def lose_lane(self, lane: int, reason: str) -> None:
        """The lane will not come back; the cell it had goes to another one."""
        mine = self._lanes[lane]
        mine.lost = reason
        if mine.task is not None and mine.task.end is None:
            self._lose(mine.task)
            if mine.task.end is None:
                self._queue.appendleft(mine.task)
        mine.task = None
        await self._notify()

    async def groups(self) -> list[int]:
        """How many worker groups each lane has had so far; 0 while its first one starts."""
        return [lane.group for lane in self._lanes]

    async def place(self, lane: int) -> Any:
        """What the lane's latest worker group said that it occupies, None before the first."""
        return self._lanes[lane].place

    async def close(self) -> None:
        """No more cells: lanes end, at their next report if they are running one."""
        self._closed = True
        for task in self._tasks.values():
            task.stop = True
        await self._notify()

    def _offer(self, mine: _Lane, seen: int) -> bool:
        """Whether the lane has a cell for a rank that has done with `seen`; takes one from the queue where it may."""
        if mine.task is None or mine.task.end is not None:
            while self._queue and self._unwanted(self._queue[0]):
                self._end(self._queue.popleft(), ending("stopped"))
            if not self._queue:
                return False
            mine.task = self._queue.popleft()
        return mine.task.ticket != seen

    def _lose(self, task: _Task) -> None:
        task.losses += 1
        last = f"; its last error was {next(iter(task.errors.values()))}" if task.errors else ""
        task.errors.clear()
        if self._unwanted(task):
            self._end(task, ending("stopped"))
        elif task.losses >= MAX_LOSSES:
            self._end(task, ending("failed", f"lost its worker group {task.losses} times{last}"))

    def _end(self, task: _Task, end: End) -> None:
        task.end = task.end or end
        if task.stop:  # nobody will fetch it
            self._tasks.pop(task.ticket, None)

    def _unwanted(self, task: _Task) -> bool:
        return task.stop or time.monotonic() - task.asked > LEASE_S

    def _alive(self) -> bool:
        return not all(lane.lost for lane in self._lanes)

    async def _wait(self, holds: Callable[[], bool], timeout_s: float) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(holds), timeout_s)
            except TimeoutError:
                return

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
