"""Dispatcher of Tune's events to budget, ledger and display, in the driver process."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from jepa_train.storage.storage import StoragePath
from sweeps.engine.cluster.resources import Request
from sweeps.engine.run.budget import Budget
from sweeps.engine.run.display import Display
from sweeps.engine.run.ledger import Ledger
from sweeps.engine.search.asha import Judge
from sweeps.engine.spec.cells import Cell

logger = logging.getLogger(__name__)


@dataclass
class _Trial:
    """A trial in flight."""

    cell: Cell
    metrics: dict[str, float] = field(default_factory=dict)  # of the last report
    notes: set[int] = field(default_factory=set)  # a trial whose process was lost relays its notes again


@dataclass(kw_only=True, eq=False)
class TrialEvents(tune.Callback):
    """The one receiver of trial events: passes them to budget, ledger and display, in this order.

    Tune asks its scheduler, which stops trials early, first. A trial's last report carries its status; see
    sweeps.engine.lanes.trial.

    Args:
        request: resources of a trial.
        abandon: gives up the cells of a trial, by its id, in the mailbox; does not wait for it.
    """

    ledger: Ledger
    display: Display
    judge: Judge
    request: Request
    checkpoints: StoragePath
    budget: Budget
    abandon: Callable[[str], object]
    _cells: dict[str, Cell] = field(default_factory=dict, init=False)
    _resumed: set[str] = field(default_factory=set, init=False)  # keys of cells that have checkpoints
    _running: dict[str, _Trial] = field(default_factory=dict, init=False)  # by trial id

    def announce(self, cell: Cell) -> None:
        """Register a cell that is about to become a trial. A cell without a run starts without checkpoints."""
        self._cells[cell.key] = cell
        folder = self.checkpoints / cell.key
        try:
            if folder.names():
                self._resumed.add(cell.key)
                if not self.ledger.knows(cell.key):
                    folder.move(self.checkpoints / f"{cell.key}.before-{time.time():.0f}")  # another store may know it
                    self._resumed.discard(cell.key)
        except OSError as error:  # to go on from them is exact, or recorded as of both codes
            logger.warning("checkpoints of an earlier run of %s are not moved away: %s", cell.label, error)

    def on_trial_start(self, *, trial: Trial, **_: Any) -> None:
        """Open the cell's run. A trial that Tune restarts after a lost actor continues in the same run."""
        cell = self._cells[trial.config["cell_key"]]
        self._running.setdefault(trial.trial_id, _Trial(cell))
        self.budget.started(cell)
        resumed = cell.key in self._resumed
        self.ledger.start(cell, devices=self.request.devices, resources=str(self.request), resumed=resumed)
        self.display.started(cell)

    def on_trial_result(self, *, trial: Trial, result: dict[str, Any], **_: Any) -> None:
        """Log one epoch, or end the cell with the trial's last report, which repeats the metrics before it."""
        running = self._running[trial.trial_id]
        if "status" in result:
            self._end(trial, result["status"], result["reason"], result["traceback"])
        elif "note" in result:  # about its workers; the metrics are repeated
            self._lose(running, result)
        else:
            running.metrics = {name: result[name] for name in result if name == "epoch" or "/" in name}
            self.ledger.log(running.cell.key, running.metrics, rungs=self.judge.seen(running.cell.key))
            self.display.progressed(running.cell, result["epoch"])

    def on_trial_complete(self, *, trial: Trial, **_: Any) -> None:
        """End a cell that early stopping stopped, perhaps for a while: it has no last report. The others have ended."""
        if trial.trial_id not in self._running:
            return
        cell = self._running[trial.trial_id].cell
        reason = self.judge.reason(cell.key)
        if not self.judge.waits(cell.key):
            self._end(trial, "pruned", reason, "")
            return
        del self._running[trial.trial_id]
        self.budget.ended(cell, finished=False)
        self.ledger.end(cell.key, "interrupted", reason)
        self.display.paused(cell)
        self.display.outcome.waiting.add(cell.key)

    def on_trial_error(self, *, trial: Trial, **_: Any) -> None:
        """End a cell whose trial process, not its training, was lost too often: the next launch resumes it."""
        self.abandon(trial.trial_id)  # else its lane would wait for a judgement of this trial for ever
        if trial.trial_id in self._running:
            self._end(trial, "interrupted", "the trial's process was lost", str(trial.get_error() or ""))

    def interrupt(self) -> None:
        """Close the runs of cells that were in flight when the sweep stopped; the next launch resumes them."""
        for running in self._running.values():
            self.ledger.end(running.cell.key, "interrupted", "the sweep was stopped")
        self._running.clear()

    def _lose(self, running: _Trial, result: dict[str, Any]) -> None:
        """Count lost training, and take time without a device off, once per note."""
        if result["at"] in running.notes:
            return
        running.notes.add(result["at"])
        idle_s = result["idle_s"]
        self.budget.idled(running.cell, idle_s)
        lost = self.ledger.lose(running.cell.key, result["lost_s"], idle_s)
        self.display.lost(running.cell, result["note"], lost, idle_s)

    def _end(self, trial: Trial, status: str, reason: str, details: str) -> None:
        running = self._running.pop(trial.trial_id)
        self.budget.ended(running.cell, finished=status == "finished")
        self.ledger.end(running.cell.key, status, reason, details)
        self.display.ended(running.cell, status, reason, running.metrics)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks into the experiment folder, which is disposable."""
        return {}
