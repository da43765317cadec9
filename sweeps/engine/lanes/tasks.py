"""Cells in the mailbox, the worker groups that run them, and the decision to run a cell again after a loss.

Plain Python: the mailbox's process imports neither Ray Train nor torch.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_LOSSES = 3  # worker groups that a cell may take down with it before it counts as failed
QUEUED_S = 5.0  # shorter waits for a lane are not reported

Cell = dict[str, Any]  # the flat config, the folder of its checkpoints, and the rungs
Report = dict[str, Any]  # the metrics of an epoch, or a note: see Task.add_note
Claim = tuple[int, int, int]  # lane, worker group, ticket
End = dict[str, str]


def ending(status: str, reason: str = "", traceback: str = "") -> End:
    """Final status of a cell, as its trial reports it and MLflow stores it."""
    return {"status": status, "reason": reason, "traceback": traceback}


@dataclass
class Task:
    """A cell in the mailbox."""

    ticket: int
    owner: str  # the id of its trial
    cell: Cell
    queued: float | None  # start of its wait for a lane
    reports: list[Report] = field(default_factory=list)
    taken: int = 0  # reports that Tune has judged
    end: End | None = None
    stop: bool = False  # its trial gave it up
    losses: list[frozenset[str]] = field(default_factory=list)  # the nodes of each worker group that was lost with it
    kept: float = 0.0  # time of the state that a new worker group would resume from

    def add_note(self, note: str, *, lost_s: float, idle_s: float) -> None:
        """Report an event with the seconds of training that were lost and those without a device.

        `at` numbers the report: a trial that restarts relays all reports again, and these must count once.
        """
        seconds = {"lost_s": max(0.0, lost_s), "idle_s": max(0.0, idle_s)}
        self.reports.append({"note": note, **seconds, "at": len(self.reports)})

    def dequeue(self) -> None:
        """End the wait for a lane, and report a long one: the lane's machine may have had to start first."""
        waited = 0.0 if self.queued is None else time.monotonic() - self.queued
        self.queued = None
        if waited > QUEUED_S:
            self.add_note("", lost_s=0.0, idle_s=waited)


class WorkerFailure(NamedTuple):
    """Cause of the loss of a worker group, as Ray Train's controller reports it."""

    reason: str = "its worker group died"  # one line
    traceback: str = ""
    is_outage: bool = False  # the storage failed: the cell is not to blame, and the next launch resumes it


@dataclass
class Lane:
    """A worker group, and those that replace it."""

    group: int = 0  # counts the worker groups that this lane has had
    nodes: dict[str, str] = field(default_factory=dict)  # of the latest one: id -> address
    leaving: frozenset[str] = frozenset()  # those of its nodes that are about to be taken away
    failure: WorkerFailure | None = None
    failed_at: float = 0.0
    task: Task | None = None
    lost: str = ""  # why it has ended for good

    def lose_group(self, alive: Sequence[str]) -> End | None:
        """Handle the loss of the worker group. Returns the final status of its cell, or None to run it again.

        The loss of a node, with a preemption notice or without, does not count as an attempt. All losses so far are
        judged again, because Ray notices a lost node some seconds after its workers.

        Args:
            alive: ids of the nodes that the cluster still has.
        """
        task, failure = self.task, self.failure or WorkerFailure()
        failed_at = self.failed_at if self.failure else time.monotonic()
        nodes, leaving = self.nodes, self.leaving
        self.nodes, self.leaving, self.failure = {}, frozenset(), None
        if task is None or task.end is not None:
            return None
        task.losses += [] if leaving else [frozenset(nodes)]
        if task.stop:
            return ending("stopped")
        gone = [address for node, address in nodes.items() if node not in alive]
        attempts = sum(lost.issubset(alive) for lost in task.losses)
        if not gone and not leaving and attempts >= MAX_LOSSES:
            status = "interrupted" if failure.is_outage else "failed"
            return ending(status, f"{failure.reason} ({attempts} attempts)", failure.traceback)
        cause = f"node {' and '.join(gone)} is gone" if gone else failure.reason
        if leaving:
            cause = f"node {' and '.join(nodes.get(node, node) for node in sorted(leaving))} is about to be taken away"
        epoch = max((int(report.get("epoch", 0)) for report in task.reports), default=0)
        note = f"worker lost ({cause}); goes on after epoch {epoch}"
        task.add_note(note, lost_s=failed_at - task.kept, idle_s=time.monotonic() - failed_at)
        return None
