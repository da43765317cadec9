"""Mailbox: hands cells from trials to lanes, and the lanes' reports back to the trials.

Plain Python, no Ray and no torch: the one mailbox of a LanePool runs in an actor of its own, which must start fast.
Lanes pull: a lane asks for its next cell when its workers are idle, so nobody ever has to give a lane back. What a
worker says carries its claim: what is of a cell that has ended, or of a group that was replaced, is dropped.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sweeps.engine.lanes.tasks import Cell, Claim, End, Lane, Report, Task, WorkerFailure, ending

POLL_S = 5.0  # longest wait inside one call, so that a waiting caller notices when the other side is gone
STATEMENTS_S = 5.0  # how long a failed rank waits for the others to fail likewise


class Mailbox:
    """Cells wait in one queue; each of num_lanes lanes takes the next when all it had is done."""

    def __init__(self, num_lanes: int) -> None:
        self._lanes = [Lane() for _ in range(num_lanes)]
        self._tasks: dict[int, Task] = {}
        self._queue: deque[Task] = deque()
        self._tickets = 0
        self._closed = False
        self._refusal = ""
        self._changed = asyncio.Condition()

    # The trial's side.

    async def submit(self, owner: str, cell: Cell) -> int:
        """Queue a cell and return its ticket: the one that it has, where the owner's process died and is back."""
        for task in self._tasks.values():
            if task.owner == owner and not task.stop:
                task.asked = time.monotonic()
                return task.ticket
        self._tickets += 1
        task = Task(self._tickets, owner, cell, time.monotonic())
        self._tasks[task.ticket] = task
        self._queue.append(task)
        await self._notify()
        return task.ticket

    async def take(self, ticket: int, start: int) -> tuple[list[Report], End | None]:
        """The reports from the start-th on, waiting a while for one, and how the cell ended, once it has.

        To ask for the start-th says that Tune has heard those before it and wants more.
        """
        task = self._tasks.get(ticket)
        if task is None:
            return [], ending("stopped", "the lanes were closed")
        task.asked, task.taken = time.monotonic(), start
        await self._notify()
        await self._wait(lambda: task.end is not None or len(task.reports) > start or not self._alive(), POLL_S)
        task.asked = time.monotonic()
        if task.end is None and not self._alive():
            why = self._refusal or f"no lane is left to run cells: {self._lanes[-1].lost}"
            task.dequeue()
            self._end(task, ending("interrupted", why))
        return task.reports[start:], task.end

    async def beat(self, ticket: int) -> None:
        """The trial lives, even if Tune keeps it waiting."""
        if ticket in self._tasks:
            self._tasks[ticket].asked = time.monotonic()

    async def abandon(self, ticket: int) -> None:
        """The trial is gone: a cell that runs is stopped at its next report, one that waits is never started."""
        task = self._tasks.get(ticket)
        if task is not None:
            task.stop = True
        if task is not None and task.end is not None:
            del self._tasks[ticket]
        await self._notify()

    # The lane's side.

    async def refuse(self, why: str) -> None:
        """A node must run no cells: no lane gets any from now on, and the driver is told."""
        self._refusal = self._refusal or why
        await self._notify()

    async def begin(self, lane: int, place: Any, alive: Sequence[str]) -> int:
        """A new worker group introduces itself and gets its number. The cell its forerunner had in hand was lost.

        Args:
            place: what the group occupies; the driver must free it where Train's controller dies.
            alive: ids of the cluster's nodes.
        """
        mine = self._lanes[lane]
        mine.group += 1
        mine.place = place
        self._lose(mine, alive)
        await self._notify()
        return mine.group

    async def join(self, lane: int, group: int, node: str, address: str) -> None:
        """A rank says where it runs."""
        if group == self._lanes[lane].group:
            self._lanes[lane].nodes[node] = address

    async def controlled(self, lane: int, controller: Any) -> None:
        """Who keeps the lane's worker groups: a handle of its actor."""
        self._lanes[lane].controller = controller

    async def blame(self, lane: int, *failure: Any) -> None:
        """Why the lane's worker group is about to be replaced: the fields of a WorkerFailure."""
        self._lanes[lane].failure, self._lanes[lane].failed_at = WorkerFailure(*failure), time.monotonic()

    async def saved(self, claim: Claim, age_s: float) -> None:
        """A checkpoint of the cell is safe: what its workers did until so many seconds ago will not be lost."""
        lane, group, ticket = claim
        task = self._lanes[lane].claimed(group, ticket)
        if task is not None:
            task.kept = max(task.kept, time.monotonic() - age_s)

    async def leave(self, claim: Claim, nodes: Sequence[str]) -> None:
        """The worker group gives its cell up, to go on elsewhere: these nodes are about to be taken away."""
        lane, group, ticket = claim
        if self._lanes[lane].claimed(group, ticket) is not None:
            self._lanes[lane].leaving = frozenset(nodes)

    async def next(self, lane: int, group: int, seen: int) -> tuple[int, Cell] | tuple[()] | None:
        """(ticket, cell) for a rank that is done with ticket `seen`, () where there is none yet, None to end."""
        mine = self._lanes[lane]
        await self._wait(lambda: self._closed or group != mine.group or self._offer(mine, seen), POLL_S)
        if self._closed or group != mine.group:
            return None
        return (mine.task.ticket, mine.task.cell) if mine.task and self._offer(mine, seen) else ()

    async def report(self, claim: Claim, metrics: Report, wait: bool) -> bool:
        """Rank 0's metrics of one epoch. True when the cell is to stop: its trial does not want it any more.

        Args:
            wait: until Tune has judged these metrics; else the cell goes on meanwhile.
        """
        lane, group, ticket = claim
        task = self._lanes[lane].claimed(group, ticket)
        if task is None or task.unwanted:
            return True
        task.reports.append(metrics)
        told = len(task.reports)
        await self._notify()
        while wait and task.taken < told and not task.unwanted:
            await self._wait(lambda: task.taken >= told or task.unwanted, POLL_S)
        return wait and task.unwanted

    async def finish(self, claim: Claim, end: End) -> None:
        """The cell has ended; the first ending counts."""
        lane, group, ticket = claim
        task = self._lanes[lane].claimed(group, ticket)
        if task is not None:
            self._end(task, end)
        await self._notify()

    async def alike(self, claim: Claim, rank: int, reason: str, workers: int) -> bool:
        """Whether all ranks failed in the same way, asked by each rank that did; waits a while for the others.

        If so, no rank hangs in a collective and the worker group can go on with the next cell.
        """
        lane, group, ticket = claim
        task = self._lanes[lane].task  # it may have ended: by the first rank that failed
        if task is None or (self._lanes[lane].group, task.ticket) != (group, ticket):
            return False
        task.errors[rank] = reason
        await self._notify()
        await self._wait(lambda: len(task.errors) == workers, STATEMENTS_S)
        return len(task.errors) == workers and len(set(task.errors.values())) == 1

    # The driver's side.

    async def lose_lane(self, lane: int, reason: str, alive: Sequence[str]) -> None:
        """The lane will not come back; the cell it had goes to another one."""
        self._lanes[lane].lost = reason
        await self.give_back(lane, alive)

    async def give_back(self, lane: int, alive: Sequence[str]) -> None:
        """No machine comes for the lane now: the cell it had goes to whichever lane is free first."""
        mine = self._lanes[lane]
        self._lose(mine, alive)
        if mine.task is not None and mine.task.end is None:
            mine.task.queued = time.monotonic()
            self._queue.appendleft(mine.task)
        mine.task = None
        await self._notify()

    async def refusal(self) -> str:
        """Why a node was refused, "" where none was."""
        return self._refusal

    async def groups(self) -> list[int]:
        """How many worker groups each lane has had so far; 0 while its first one starts."""
        return [lane.group for lane in self._lanes]

    async def place(self, lane: int) -> Any:
        """What the lane's latest worker group said that it occupies, None before the first."""
        return self._lanes[lane].place

    async def controller(self, lane: int) -> Any:
        """The actor that keeps the lane's worker groups, None before it has started."""
        return self._lanes[lane].controller

    async def close(self) -> None:
        """No more cells: lanes end, at their next report if they are running one."""
        self._closed = True
        for task in self._tasks.values():
            task.stop = True
        await self._notify()

    def _offer(self, mine: Lane, seen: int) -> bool:
        """Whether the lane has a cell for a rank that has done with `seen`; takes one from the queue where it may."""
        if mine.task is None or mine.task.end is not None:
            while self._queue and self._queue[0].unwanted:
                self._end(self._queue.popleft(), ending("stopped"))
            if not self._queue:
                return False
            mine.task = self._queue.popleft()
            mine.task.dequeue()
            mine.task.kept = time.monotonic()
        return mine.task.ticket != seen

    def _lose(self, mine: Lane, alive: Sequence[str]) -> None:
        task, end = mine.task, mine.lose(alive)
        if task is not None:
            task.kept = time.monotonic()  # the new group takes it now
        if task is not None and end is not None:
            self._end(task, end)

    def _end(self, task: Task, end: End) -> None:
        task.end = task.end or end
        if task.stop:  # nobody will fetch it
            self._tasks.pop(task.ticket, None)

    def _alive(self) -> bool:
        return not self._refusal and not all(lane.lost for lane in self._lanes)

    async def _wait(self, holds: Callable[[], bool], timeout_s: float) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(holds), timeout_s)
            except TimeoutError:
                return

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
