"""Dispatcher of Tune's events: budget, ledger and display follow every trial, in the driver process."""

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
from sweeps.engine.search.asha import Judge
from sweeps.engine.spec.cells import Cell
from sweeps.engine.store.ledger import Ledger

logger = logging.getLogger(__name__)


@dataclass
class _Trial:
    """A trial in flight."""

    cell: Cell
    started: float = field(default_factory=time.monotonic)
    metrics: dict[str, float] = field(default_factory=dict)  # the last report's
    heard: set[int] = field(default_factory=set)  # notes: a trial whose process was lost relays them again


class TrialEvents(tune.Callback):
    """The one receiver of what happens to trials: passes it to budget, ledger and display, in this order.

    Early stopping has been asked by then: Tune asks its scheduler first. A trial's last report carries its status; see
    sweeps.engine.lanes.trial.

    Args:
        budget: counts the hours of running cells, where the launch has a limit.
        machines: on a cluster, where they may not come: how many lanes have had theirs.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        display: Display,
        judge: Judge,
        request: Request,
        checkpoints: StoragePath,
        budget: Budget | None = None,
        machines: Callable[[], int] | None = None,
    ) -> None:
        self._ledger = ledger
        self._judge = judge
        self._budget = budget
        self._machines = machines
        self._display = display
        self._request = request  # what a trial asks for
        self._checkpoints = checkpoints
        self._cells: dict[str, Cell] = {}
        self._running: dict[str, _Trial] = {}  # by trial id

    def announce(self, cell: Cell) -> None:
        """A cell that is about to become a trial. The ledger decides what is resumed: a new run starts from nothing."""
        self._cells[cell.key] = cell
        stale = self._checkpoints / cell.key
        try:
            if not self._ledger.knows(cell.key) and stale.names():
                stale.move(self._checkpoints / f"{cell.key}.before-{time.time():.0f}")  # another store may know it
        except OSError as error:  # equal cells have equal checkpoints: to go on from them does no harm
            logger.warning("what an earlier run of %s left is not moved away: %s", cell.label, error)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:  # noqa: ARG002
        """Tune looks at its trials several times a second."""
        if self._machines is not None:
            self._display.waits(self._machines)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """Open the cell's run. A trial that Tune restarts after a lost actor goes on in the same run."""
        cell = self._cells[trial.config["cell_key"]]
        self._running.setdefault(trial.trial_id, _Trial(cell))
        if self._budget is not None:
            self._budget.started(cell)
        self._ledger.start(cell, devices=self._request.devices, resources=str(self._request))
        self._display.started(cell)

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Trial],  # noqa: ARG002
        trial: Trial,
        result: dict[str, Any],
        **info: Any,  # noqa: ARG002
    ) -> None:
        """Log one epoch, or end the cell with the trial's last report, which repeats the metrics before it."""
        running = self._running[trial.trial_id]
        if "status" in result:
            self._end(trial, result["status"], result["reason"], result["traceback"])
            return
        if "note" in result:  # of what became of its worker; the metrics are repeated
            self._lose(running, result)
            return
        running.metrics = {name: result[name] for name in result if _is_metric(name)}
        self._ledger.log(running.cell.key, running.metrics, rungs=self._judge.seen(running.cell.key))
        self._display.progressed(running.cell, result["epoch"])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """End a cell that was given up: its trial was stopped before it could say so. The others have ended."""
        if trial.trial_id in self._running:
            self._end(trial, "pruned", self._judge.reason(self._running[trial.trial_id].cell.key), "")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """The trial itself was lost, again and again, not its cell's training: the next launch resumes it."""
        if trial.trial_id in self._running:
            self._end(trial, "interrupted", "the trial's process was lost", str(trial.get_error() or ""))

    def interrupt(self) -> None:
        """Close the runs of cells that were in flight when the sweep stopped; they run again next time."""
        for running in self._running.values():
            self._ledger.end(running.cell.key, "interrupted", "the sweep was stopped")
        self._running.clear()

    def _lose(self, running: _Trial, result: dict[str, Any]) -> None:
        """What was trained in vain, and the time in which no device was the cell's: the same for all who count it."""
        if result["at"] in running.heard:
            return
        running.heard.add(result["at"])
        idle_s = result["idle_s"]
        running.started += idle_s
        if self._budget is not None:
            self._budget.idled(running.cell, idle_s)
        lost = self._ledger.lose(running.cell.key, result["lost_s"], idle_s)
        self._display.lost(running.cell, result["note"], lost, idle_s)

    def _end(self, trial: Trial, status: str, reason: str, details: str) -> None:
        running = self._running.pop(trial.trial_id)
        if self._budget is not None:
            self._budget.ended(running.cell, finished=status == "finished")
        self._ledger.end(running.cell.key, status, reason, details)
        seconds = time.monotonic() - running.started
        self._display.ended(running.cell, status, reason, running.metrics, seconds)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks into the experiment folder, which is disposable: nothing of us belongs there."""
        return {}


def _is_metric(name: str) -> bool:
    return name == "epoch" or name.partition("/")[0] in ("train", "val", "test", "target", "transfer", "system")
