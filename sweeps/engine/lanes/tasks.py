"""Tasks: cells on their way through the mailbox, and what becomes of one whose worker group is lost. Plain Python."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_LOSSES = 3  # worker groups that a cell may take down with it before it counts as failed
MAX_FAULTS = 2  # the same where it raised the error itself: others may have taken the memory, but hardly twice
QUEUED_S = 5.0  # a shorter wait for a lane is not worth a word
LEASE_S = 120.0  # a trial speaks every BEAT_S at least; one that is silent for so long has died

Cell = dict[str, Any]  # and where its checkpoints lie; whatever the trial says and the worker understands
Report = dict[str, Any]  # the metrics of an epoch; or a "note" for people, "" for none: see Task.tell
Claim = tuple[int, int, int]  # lane, worker group, ticket
End = dict[str, str]


def ending(status: str, reason: str = "", traceback: str = "") -> End:
    """How a cell ended, in the words that its trial reports and MLflow stores."""
    return {"status": status, "reason": reason, "traceback": traceback}


@dataclass
class Task:
    """A cell on its way through the mailbox."""

    ticket: int
    owner: str
    cell: Cell
    asked: float  # when its trial was last heard of
    reports: list[Report] = field(default_factory=list)
    taken: int = 0  # reports that the trial has told Tune, and Tune goes on
    errors: dict[int, str] = field(default_factory=dict)  # rank -> reason, while its worker group lives
    end: End | None = None
    stop: bool = False
    losses: list[frozenset[str]] = field(default_factory=list)  # the nodes of each worker group that was lost with it
    queued: float | None = field(default_factory=time.monotonic)  # since when it waits for a lane
    kept: float = 0.0  # when a worker group took it, or the state of its last checkpoint: what came since would be lost

    @property
    def unwanted(self) -> bool:
        """Whether its trial gave it up, or died."""
        return self.stop or time.monotonic() - self.asked > LEASE_S

    def tell(self, note: str, *, lost_s: float, idle_s: float) -> None:
        """A report of seconds of training that were lost, and of those in which no device was the cell's.

        It says which report it is: a trial whose process died relays all of them again, and these must count once.
        """
        self.reports.append(
            {"note": note, "lost_s": max(0.0, lost_s), "idle_s": max(0.0, idle_s), "at": len(self.reports)}
        )

    def dequeue(self) -> None:
        """It waits no longer: a lane takes it, or there is none left. A lane's machine may have had to start first."""
        waited = 0.0 if self.queued is None else time.monotonic() - self.queued
        self.queued = None
        if waited > QUEUED_S:
            self.tell("", lost_s=0.0, idle_s=waited)


class WorkerFailure(NamedTuple):
    """Why a worker group was lost, as Train's controller saw it."""

    reason: str = "its worker group died"  # one line
    traceback: str = ""
    is_fault: bool = False  # the cell raised it itself: memory, the device, or the storage
    is_outage: bool = False  # it was the storage, which says nothing about the cell: the next launch goes on with it


@dataclass
class Lane:
    """A worker group, and those that take its place."""

    group: int = 0  # counts the worker groups that this lane has had
    controller: Any = None  # the actor that keeps its worker groups
    place: Any = None  # what the worker group occupies
    nodes: dict[str, str] = field(default_factory=dict)  # of its worker group: id -> address
    leaving: frozenset[str] = frozenset()  # those of its nodes that are about to be taken away
    failure: WorkerFailure | None = None
    failed_at: float = 0.0
    task: Task | None = None
    lost: str = ""  # why it will never come back

    def claimed(self, group: int, ticket: int) -> Task | None:
        """The cell that a worker speaks of; None where it has ended or another worker group has it."""
        task = self.task
        return task if task and task.end is None and (self.group, task.ticket) == (group, ticket) else None

    def lose(self, alive: Sequence[str]) -> End | None:
        """The worker group is no more: the end of its cell, or None, and it runs again.

        That is not for ever, but where machines were taken away, with notice or without: that says nothing about the
        cell. All losses so far are looked at anew, because Ray notices that a node is gone some seconds after its
        workers.

        Args:
            alive: ids of the nodes that the cluster still has.
        """
        task, failure = self.task, self.failure or WorkerFailure()
        failed_at = self.failed_at if self.failure else time.monotonic()
        nodes, leaving = self.nodes, self.leaving
        self.nodes, self.leaving, self.failure = {}, frozenset(), None
        if task is None or task.end is not None:
            return None
        task.errors.clear()
        task.losses += [] if leaving else [frozenset(nodes)]
        if task.unwanted:
            return ending("stopped")
        gone = [address for node, address in nodes.items() if node not in alive]
        attempts = sum(lost.issubset(alive) for lost in task.losses)
        if not gone and not leaving and attempts >= (MAX_FAULTS if failure.is_fault else MAX_LOSSES):
            status = "interrupted" if failure.is_outage else "failed"
            return ending(status, f"{failure.reason} ({attempts} attempts)", failure.traceback)
        cause = f"node {' and '.join(gone)} is gone" if gone else failure.reason
        if leaving:
            cause = f"node {' and '.join(nodes.get(node, node) for node in sorted(leaving))} is about to be taken away"
        epoch = max((int(report.get("epoch", 0)) for report in task.reports), default=0)
        note = f"worker lost ({cause}); goes on after epoch {epoch}"
        lost, idle = failed_at - task.kept, time.monotonic() - failed_at
        task.tell(note, lost_s=lost, idle_s=idle)
        return None
