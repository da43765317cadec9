"""A sweep without Ray, training and MLflow: the real plan, searcher and early stopping, over reports from a function.

Every lane takes an epoch per turn; the store is a dict. A sweep that is stopped after some turns leaves the store of a
killed driver, and a later run resumes it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten
from sweeps.engine.plan.cell_state import Rules
from sweeps.engine.plan.choice import CellChoice
from sweeps.engine.plan.plan import Plan
from sweeps.engine.search.asha import Judge
from sweeps.engine.search.searcher import CellSearcher
from sweeps.engine.spec.cells import Cell, fixed_cells
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import Entry

Reports = Callable[[TrainConfig], Sequence[Mapping[str, float]]]  # one per epoch, {"epoch": 1.0, "val/..": ..}


def entry_of(cell: Cell, status: str = "finished", **fields: Any) -> Entry:
    """The record of a cell in a store."""
    common = {"run_id": cell.key, "key": cell.key, "role": cell.role, "label": cell.label, "metrics": {}}
    params = {key: str(value) for key, value in flatten(cell.config).items()}
    return Entry(status=status, **(common | {"params": params} | fields))


def plan_of(sweep: Sweep, entries: Iterable[Entry] = (), warm: Iterable[Entry] = (), **rules: Any) -> Plan:
    """A plan on a store with these records."""
    found = {entry.key: entry for entry in entries}
    rules.setdefault("stopping", sweep.early_stopping is not None)
    return Plan(sweep, sweep.base, tuple(fixed_cells(sweep, sweep.base)), found, rules=Rules(**rules)).with_searches(
        warm
    )


@dataclass
class _Lane:
    trial: str
    cell: Cell
    reports: Sequence[Mapping[str, float]]
    done: int = 0  # reports that have been made


class SimulatedSweep:
    """The runs of one sweep.

    Args:
        reports: of a config's training; a list shorter than its epochs ends as diverged, an empty one as failed.
    """

    def __init__(self, sweep: Sweep, reports: Reports, *, lanes: int = 1, warm: Iterable[Entry] = ()) -> None:
        self.sweep = sweep
        self._reports = reports
        self._lanes = lanes
        self._warm = list(warm)
        self.entries: dict[str, Entry] = {}  # the store
        self.epochs = 0  # trained so far
        self.launched: list[Cell] = []  # as often as they were suggested
        self.recorded: list[str] = []  # keys of best candidates' cells with the other seeds
        self.total = 0  # number of all cells, as a status reads it
        self.notes: list[str] = []

    def plan(self, **rules: Any) -> Plan:
        """Plan of a launch at this moment."""
        return plan_of(self.sweep, self.entries.values(), self._warm, **rules)

    def run(self, *, turns: int | None = None, choice: CellChoice | None = None, **options: Any) -> CellSearcher:
        """Launch the sweep, with options of the searcher, and kill it after a number of turns."""
        plan = self.plan(choice=choice or CellChoice())
        self.total = plan.total
        judge = Judge(plan)
        busy: list[_Lane] = []
        searcher = CellSearcher(
            plan,
            parallel=self._lanes > 1,
            announce=self.launched.append,
            record=self._record,
            judge=judge,
            note=self.notes.append,
            **{"admit": lambda _: True, **options},
        )
        trial = 0
        while turns is None or turns > 0:
            for _ in range(self._lanes - len(busy)):
                trial += 1
                config = searcher.suggest(str(trial))
                if not isinstance(config, dict):
                    break
                busy.append(self._started(self.launched[-1], str(trial)))
            if not busy:
                break
            busy = [lane for lane in busy if not self._advanced(lane, searcher, judge)]
            turns = None if turns is None else turns - 1
        return searcher

    def _record(self, keys: Sequence[str], total: int) -> None:
        self.recorded.extend(keys)
        self.total = total

    def _started(self, cell: Cell, trial: str) -> _Lane:
        known = self.entries.get(cell.key)
        self._write(cell, "running", epoch=known.epoch if known else 0, rungs=known.rungs if known else {})
        return _Lane(trial, cell, self._reports(cell.config))

    def _advanced(self, lane: _Lane, searcher: CellSearcher, judge: Judge) -> bool:
        """Advance a lane by one epoch beyond those of earlier launches. Returns True if the cell has ended."""
        flat = flatten(lane.cell.config)
        before = self.entries[lane.cell.key].epoch
        while lane.done < len(lane.reports):
            metrics = lane.reports[lane.done]
            lane.done += 1
            stopped = judge.judge(lane.cell.key, flat, metrics)
            repeated = lane.done <= before
            self.epochs += not repeated
            rungs = dict(judge.seen(lane.cell.key))
            self._write(lane.cell, "running", epoch=max(lane.done, before), rungs=rungs, metrics=dict(metrics))
            if stopped:
                status = "interrupted" if judge.waits(lane.cell.key) else "pruned"
                return self._ended(lane, searcher, status, judge.reason(lane.cell.key))
            if not repeated:
                break
        if lane.done < len(lane.reports):
            return False
        status = "failed" if not lane.reports else "diverged" if lane.done < lane.cell.config.epochs else "finished"
        return self._ended(lane, searcher, status, "")

    def _ended(self, lane: _Lane, searcher: CellSearcher, status: str, reason: str) -> bool:
        entry = dataclasses.replace(self.entries[lane.cell.key], status=status, reason=reason)
        self.entries[lane.cell.key] = entry
        ended = {} if status in ("pruned", "interrupted") else {"status": status}
        searcher.on_trial_complete(lane.trial, {**entry.metrics, **ended})
        return True

    def _write(self, cell: Cell, status: str, **fields: Any) -> None:
        self.entries[cell.key] = entry_of(cell, status, **fields)
