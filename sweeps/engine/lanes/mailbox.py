"""Mailbox: passes cells from trials to lanes, and the lanes' reports back to the trials.

Plain Python, without Ray and torch: the one mailbox of a LanePool runs in an actor of its own, which must start fast.
A lane asks for its next cell when its workers are idle. Messages of workers carry a claim (lane, worker group, ticket):
those about a cell that has ended, or from a group that was replaced, are dropped.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sweeps.engine.lanes.tasks import Cell, Claim, End, Lane, Report, Task, WorkerFailure, ending

POLL_S = 5.0  # longest wait inside one call, so that a waiting caller notices the loss of the mailbox


class Mailbox:
    """One queue of cells. Each of num_lanes lanes takes the next cell when its last one has ended."""

    def __init__(self, num_lanes: int) -> None:
        self._lanes = [Lane() for _ in range(num_lanes)]
        self._tasks: dict[int, Task] = {}
        self._queue: deque[Task] = deque()
        self._tickets = 0
        self._closed = False
        self._refusal = ""
        self._changed = asyncio.Condition()

    # Calls of a trial.

    async def submit(self, owner: str, cell: Cell) -> int:
        """Queue a cell and return its ticket; a trial that was restarted gets the ticket that it had."""
        for task in self._tasks.values():
            if task.owner == owner and not task.stop:
                return task.ticket
        self._tickets += 1
        task = Task(self._tickets, owner, cell, queued=time.monotonic())
        self._tasks[task.ticket] = task
        self._queue.append(task)
        await self._notify()
        return task.ticket

    async def take(self, ticket: int, start: int) -> tuple[list[Report], End | None]:
        """The reports from the start-th on, after a wait of up to POLL_S for one, and the cell's final status.

        A request for the start-th report confirms that Tune has judged those before it.
        """
        task = self._tasks.get(ticket)
        if task is None:
            return [], ending("stopped", "the lanes were closed")
        task.taken = start
        await self._notify()
        await self._wait(lambda: task.end is not None or len(task.reports) > start or not self._usable())
        if task.end is None and not self._usable():
            task.dequeue()
            why = self._refusal or f"no lane is left to run cells: {self._lanes[-1].lost}"
            self._end(task, ending("interrupted", why))
        return task.reports[start:], task.end

    async def abandon_trial(self, owner: str) -> None:
        """Give up a trial's cell: one that runs is stopped at its next report, one that waits is never started.

        The driver calls this for a trial whose process was lost for good.
        """
        for task in [task for task in self._tasks.values() if task.owner == owner]:
            task.stop = True
            if task.end is not None:
                del self._tasks[task.ticket]
        await self._notify()

    # Calls of a lane's workers.

    async def refuse(self, why: str) -> None:
        """Give out no more cells: a node of the cluster is not fit."""
        self._refusal = self._refusal or why
        await self._notify()

    async def begin(self, lane: int, alive: Sequence[str]) -> int:
        """Register a new worker group and return its number. The cell of the group before it was lost.

        Args:
            alive: ids of the cluster's nodes.
        """
        mine = self._lanes[lane]
        mine.group += 1
        self._lose_group(mine, alive)
        await self._notify()
        return mine.group

    async def join(self, lane: int, group: int, node: str, address: str) -> None:
        """Record the node of a rank."""
        if group == self._lanes[lane].group:
            self._lanes[lane].nodes[node] = address

    async def saved(self, claim: Claim, age_s: float) -> None:
        """Record that a checkpoint of the state so many seconds ago is safe."""
        if task := self._claimed(claim):
            task.kept = max(task.kept, time.monotonic() - age_s)

    async def leave(self, claim: Claim, nodes: Sequence[str]) -> None:
        """Record that the worker group gives up its cell because these nodes are about to be taken away."""
        if self._claimed(claim):
            self._lanes[claim[0]].leaving = frozenset(nodes)

    async def next(self, lane: int, group: int, seen: int) -> tuple[int, Cell] | tuple[()] | None:
        """(ticket, cell) for a rank whose last ticket was `seen`, () where there is none yet, None to end."""
        mine = self._lanes[lane]
        await self._wait(lambda: self._closed or group != mine.group or self._offer(mine, seen))
        if self._closed or group != mine.group:
            return None
        return (mine.task.ticket, mine.task.cell) if mine.task and self._offer(mine, seen) else ()

    async def report(self, claim: Claim, metrics: Report, wait: bool) -> bool:
        """Rank 0's metrics of one epoch. Returns True to stop the cell.

        Args:
            wait: for Tune's judgement of these metrics; otherwise the cell continues meanwhile.
        """
        task = self._claimed(claim)
        if task is None or task.stop:
            return True
        task.reports.append(metrics)
        number = len(task.reports)
        await self._notify()
        while wait and task.taken < number and not task.stop:
            await self._wait(lambda: task.taken >= number or task.stop)
        return wait and task.stop

    async def finish(self, claim: Claim, end: End) -> None:
        """Record the final status of a cell; the first one counts."""
        if task := self._claimed(claim):
            self._end(task, end)
        await self._notify()

    # Calls of the driver.

    async def fail(self, lane: int, *failure: Any) -> None:
        """Record why the lane's worker group is about to be replaced: the fields of a WorkerFailure."""
        self._lanes[lane].failure, self._lanes[lane].failed_at = WorkerFailure(*failure), time.monotonic()

    async def release(self, lane: int, alive: Sequence[str], lost: str = "") -> None:
        """Requeue the lane's cell at the front: no machine comes for the lane now.

        Args:
            lost: why the lane has ended for good, "" where it may come back.
        """
        mine = self._lanes[lane]
        mine.lost = lost
        self._lose_group(mine, alive)
        if mine.task is not None and mine.task.end is None:
            mine.task.queued = time.monotonic()
            self._queue.appendleft(mine.task)
        mine.task = None
        await self._notify()

    async def refusal(self) -> str:
        """Why a node was refused, "" where none was."""
        return self._refusal

    async def groups(self) -> list[int]:
        """For each lane the number of its worker groups so far."""
        return [lane.group for lane in self._lanes]

    async def close(self) -> None:
        """End the lanes: an idle one now, a busy one at its next report."""
        self._closed = True
        for task in self._tasks.values():
            task.stop = True
        await self._notify()

    def _claimed(self, claim: Claim) -> Task | None:
        """The cell that a worker reports on; None if it has ended or another worker group has it."""
        number, group, ticket = claim
        lane = self._lanes[number]
        task = lane.task
        return task if task and task.end is None and (lane.group, task.ticket) == (group, ticket) else None

    def _offer(self, mine: Lane, seen: int) -> bool:
        """True if the lane has a cell other than `seen`; an idle lane takes one from the queue."""
        if mine.task is None or mine.task.end is not None:
            while self._queue and self._queue[0].stop:
                self._end(self._queue.popleft(), ending("stopped"))
            if not self._queue:
                return False
            mine.task = self._queue.popleft()
            mine.task.dequeue()
            mine.task.kept = time.monotonic()
        return mine.task.ticket != seen

    def _lose_group(self, mine: Lane, alive: Sequence[str]) -> None:
        end = mine.lose_group(alive)
        if mine.task is not None:
            mine.task.kept = time.monotonic()  # a new group takes it now
            if end is not None:
                self._end(mine.task, end)

    def _end(self, task: Task, end: End) -> None:
        task.end = task.end or end
        if task.stop:  # nobody will fetch it
            self._tasks.pop(task.ticket, None)

    def _usable(self) -> bool:
        return not self._refusal and not all(lane.lost for lane in self._lanes)

    async def _wait(self, holds: Callable[[], bool]) -> None:
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(holds), POLL_S)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
