"""Ledger: one MLflow experiment per sweep, one flat run per cell, found or created by its cell key."""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any

from mlflow.entities import Metric, RunTag

from analysis.store.cell_list import to_tags
from analysis.ui import view_link
from jepa_train.base import checkout
from jepa_train.base.security import hidden
from jepa_train.config.flat import flatten
from jepa_train.model.network import weights_report
from sweeps.engine.plan.describe import codes_of, experiment_tags, plan_files
from sweeps.engine.plan.plan import Plan
from sweeps.engine.spec.cells import Cell, data_facts
from sweeps.engine.store.code_version import code_of
from sweeps.engine.store.experiment import escape_html, open_experiment, shortened
from sweeps.engine.store.mlflow_client import Refused, root_cause, when_free
from sweeps.engine.store.mlflow_writer import MlflowWriter
from sweeps.engine.store.offline_queue import Operation, offline_files, read_operations
from sweeps.engine.store.provenance import code_tags, git_state, user
from sweeps.engine.store.reader import RESULTS, Entry, read_sweep
from sweeps.engine.store.write_queue import WriteQueue

logger = logging.getLogger(__name__)

_MLFLOW_STATUS = dict.fromkeys((*RESULTS, "pruned"), "FINISHED") | {"failed": "FAILED"}


@dataclass
class _Progress:
    """Device time and progress of a cell, in all of its attempts."""

    before: float = 0.0  # device-seconds of earlier attempts
    lost: float = 0.0  # device-seconds of training that had to be done again
    epoch: int = 0
    devices: float = 0.0  # that it occupies: 0 while it does not run
    started: float = field(default_factory=time.monotonic)

    @property
    def device_seconds(self) -> float:
        return self.before + self.devices * (time.monotonic() - self.started)

    def run_on(self, devices: float) -> None:
        """Count the time from now on with as many devices."""
        self.before, self.started, self.devices = self.device_seconds, time.monotonic(), devices


@dataclass(eq=False)
class Ledger:
    """Writes one sweep's experiment. After its construction no method waits for the store or raises its failures.

    Args:
        note: takes a line for the user; called in another thread.
        publish: returns the sweep's table as Markdown, after cells have ended; called in another thread.
        products: returns further artifacts of the sweep's own run, name -> content, at the end; called there too.

    Raises:
        MlflowException: the store cannot be reached now.
    """

    plan: Plan
    _: KW_ONLY
    note: Callable[[str], object]
    publish: Callable[[], str]
    products: Callable[[], Mapping[str, str | bytes]] = dict

    def __post_init__(self) -> None:
        plan, sweep = self.plan, self.plan.sweep
        git = git_state(checkout.PROJECT, tuple(sorted({file for code in codes_of(plan) for file in code.files})))
        code = code_tags(plan.file, git)
        self._code = {"workers": str(sweep.workers), **code}
        self._publish_at = 0.0
        self._stale = bool(plan.entries)  # the table
        self.table = ""  # the latest, as Markdown
        held = {key: entry for key, entry in plan.entries.items() if not entry.restart}
        self._again = plan.entries.keys() - held.keys()  # cells whose run becomes history when they start
        self._progress = {
            key: _Progress(entry.device_seconds, entry.lost_device_seconds, entry.epoch) for key, entry in held.items()
        }
        self._cells = dict.fromkeys(cell.key for cell in plan.known)
        self._tags = experiment_tags(plan) | to_tags(self._cells)
        self._client, experiment = open_experiment(sweep.name)
        for name, text in hidden(self._tags).items():
            if experiment.tags.get(name) != text:
                when_free(partial(self._client.set_experiment_tag, experiment.experiment_id, name, text))
        run_ids = {key: entry.run_id for key, entry in held.items()}
        self._writer = MlflowWriter(self._client, experiment.experiment_id, run_ids, self.note)
        self._queue = WriteQueue(writer=self._writer, sweep=sweep.name, note=self.note, flushed=self._publish_table)
        new = {"label": "plan", "tags": {"role": "plan", "mlflow.user": user(), **code}}
        self._put(new=new, status="FINISHED", files=plan_files(plan) | git.patch_file, run_tags=self._changed_tags())

    def record_cells(self, keys: Iterable[str], total: int | None = None) -> None:
        """Append cells to the list of those that the sweep asks for, on which tables and status rest.

        Args:
            total: the number of all cells, if it may have changed.
        """
        new, before = [key for key in dict.fromkeys(keys) if key not in self._cells], self._tags
        if new:
            self._cells |= dict.fromkeys(new)
            self._tags = before | to_tags(self._cells)
        if total is not None:
            self._tags = self._tags | {"sweep.total": str(total)}
        if changed := {name: text for name, text in self._tags.items() if before.get(name) != text}:
            self._put(tags=changed)
        for key in new:
            if key in self.plan.entries and key not in self._again:  # of an earlier launch, and stale until now
                self._put(key=key, tags={"stale": None})

    def knows(self, key: str) -> bool:
        """Return True if the cell has a run, in any state, that goes on if the cell does."""
        return key in self._progress

    def start(self, cell: Cell, *, devices: float, resources: str = "", resumed: bool = False) -> None:
        """Open the cell's run: the one it has, continued, or a new one with its complete config.

        A cell that a search proposed joins the list of those that the sweep asks for.

        Args:
            devices: number that the cell occupies: workers x GPUs of each (on CPUs, x 1).
            resources: the same as text, with the kind of device; prices of later cells rest on it.
            resumed: from a checkpoint, which may be of other code; then the result is of both.
        """
        self.record_cells([cell.key])
        self._progress.setdefault(cell.key, _Progress()).run_on(devices)
        params = {key: str(value) for key, value in flatten(cell.config).items()}
        data, scale = cell.config.data, {"scale": self.plan.sweep.scale} if self.plan.sweep.scale else {}
        new = {
            "label": cell.label,
            "tags": {"cell_key": cell.key, "role": cell.role, "mlflow.user": user(), **scale, **_input_tags(cell)},
            "params": params,
            "again": cell.key in self._again,
            "dataset": {
                "name": data.name,
                "digest": data.fingerprint or "builtin",
                "source_type": "local",
                "source": data.path,
            },
        }
        code = code_of(params)
        earlier = self.plan.entries[cell.key].version if resumed and cell.key in self.plan.entries else code.version
        tags = {
            **{"status": "running", "reason": "", "resources": resources, "group": cell.group, **self._code},
            "code_version": ", ".join(dict.fromkeys([*earlier.split(", "), code.version])),
            "code_modules": code.own,
        }
        self._put(key=cell.key, new=new, tags=tags, status="RUNNING")
        self._again.discard(cell.key)

    def log(self, key: str, metrics: Mapping[str, float], *, rungs: Mapping[int, float] = {}) -> None:
        """Log one epoch's metrics of a cell, except those without a prefix, as epoch itself.

        Metrics of an epoch that the run already holds stay as they are: a resumed cell reports its past again.

        Args:
            rungs: epoch -> objective, of the rungs at which early stopping has judged the cell so far.
        """
        run, epoch = self._progress[key], int(metrics["epoch"])
        run.epoch = max(run.epoch, epoch)
        tags = {"epoch": str(run.epoch), "device_seconds": f"{run.device_seconds:.1f}"}
        tags |= {"rungs": json.dumps(rungs)} if rungs else {}
        self._put(key=key, step=epoch, metrics=_rows(metrics), tags=tags)

    def lose(self, key: str, lost_s: float, idle_s: float) -> float:
        """Record that a cell lost its workers, with the seconds of training to repeat and of waiting for new ones.

        Returns:
            The device-seconds that were lost; those of waiting do not count.
        """
        run = self._progress[key]
        run.started += idle_s
        run.lost += run.devices * lost_s
        tags = {"device_seconds": f"{run.device_seconds:.1f}", "lost_device_seconds": f"{run.lost:.1f}"}
        self._put(key=key, tags=tags)
        return run.devices * lost_s

    def end(self, key: str, status: str, reason: str, details: str = "") -> None:
        """Close a cell's run: finished, diverged, collapsed, pruned, failed, or interrupted (which runs again)."""
        self._progress[key].run_on(0)
        seconds = f"{self._progress[key].device_seconds:.1f}"
        tags = {"status": status, "reason": reason[:500], "device_seconds": seconds}
        files = {"traceback.txt": details} if details else {}
        self._put(key=key, tags=tags, status=_MLFLOW_STATUS.get(status, "KILLED"), files=files)

    def amend(self, entry: Entry, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a later evaluation that a finished cell's run does not hold; waits for the store.

        Raises:
            MlflowException: the store cannot be reached.
        """
        held = self._client.get_run(entry.run_id).data.metrics
        now, epoch = _now(), int(metrics["epoch"])
        rows = [Metric(name, value, now, epoch) for name, value in _rows(metrics).items() if held.get(name) != value]
        commit, version = self._code["mlflow.source.git.commit"], code_of(entry.params).version
        tags = [RunTag("evaluated_by", commit), RunTag("evaluated_version", version)] if rows else []
        self._client.log_batch(entry.run_id, metrics=rows, tags=tags)

    def close(self) -> str:
        """Write what is left, if the store answers. Returns "" or one line on what waits in which file."""
        return self._queue.close()

    def _changed_tags(self) -> dict[str, dict[str, str | None]]:
        """Tags of earlier runs to set or, by None, to remove: those that the plan does not use are stale.

        A reference of an earlier plan may be a cell of this one. The label of a cell, which its group has in its name,
        changes with the axes.
        """
        cells, changes = {cell.key: cell for cell in self.plan.known}, {}
        used = {entry.run_id for entry in self.plan.entries.values()}
        for entry in self.plan.stored.runs:
            cell, wanted = cells.get(entry.key), {"stale": "not asked for"}
            if cell is not None and entry.run_id in used:
                wanted = {"stale": "", "role": cell.role, "group": cell.group}
            elif cell is not None or entry.role == "history":
                wanted = {"stale": "replaced"}
            if tags := {name: text or None for name, text in wanted.items() if getattr(entry, name) != text}:
                changes[entry.run_id] = tags
        return changes

    def _put(self, **parts: Any) -> None:
        """Queue an operation, without the secrets in its texts."""
        self._queue.put(Operation(at=_now(), **hidden(parts)))

    def _publish_table(self, ended: bool, closing: bool) -> None:
        """Publish the table when it has changed, in a twentieth of the time: reading a big store takes seconds."""
        self._stale |= ended
        began = time.monotonic()
        if not closing and not (self._stale and began >= self._publish_at):
            return
        try:
            self.table = self.publish()
            view = view_link(self._writer.experiment_id, "compare").replace("Key=", "Ke%79=")  # else hidden as a secret
            view = f"[Compare the runs]({view})"
            parts = [self.plan.sweep.purpose.strip(), view, escape_html(self.table)]
            self._put(description=shortened("\n\n".join(parts)))  # the UI renders it
            self._stale = False
            if closing:
                self._writer.keep(hidden(self.products()))
        except Exception as error:  # noqa: BLE001 (an error in a user's table or figure must lose no metrics)
            self.note(f"tables and figures cannot be made now: {root_cause(error)}")
        now = time.monotonic()
        self._publish_at = now + 19 * (now - began)


def replay_offline_queue(sweep: str) -> int:
    """Write the operations that earlier launches of the sweep left offline. Returns their number.

    Call it before the ledger is read, in the launch that holds the sweep.

    Raises:
        MlflowException: the store cannot be reached; the offline queue stays.
    """
    count = 0
    for file in offline_files(sweep):
        client, experiment = open_experiment(sweep)
        operations = read_operations(file)
        writer = MlflowWriter(client, experiment.experiment_id, {}, logger.warning)
        ended = {entry.key for entry in read_sweep(sweep).cells if entry.status in _MLFLOW_STATUS}
        for key in dict.fromkeys(one.key for one in operations):
            own = [one for one in operations if one.key == key]
            last = next((one for one in reversed(own) if one.status or "epoch" in one.tags), None)
            # The launch wrote these, and the cell's end, and was killed before it removed the file
            if key in ended and last is not None and not last.ends:
                continue
            try:
                writer.write(key, own)
            except Refused as error:
                whose = f"cell {key}" if key else "the sweep itself"
                logger.warning("the store refuses what %s holds for %s: %s", file, whose, error)
        file.unlink()
        count += len(operations)
    return count


def _input_tags(cell: Cell) -> dict[str, str]:
    """The facts about the images that a cell is trained on, not of its transfer sets, and its initial weights."""
    of_data = (facts.tags for facts in data_facts(cell.config) if facts.config.path == cell.config.data.path)
    config = cell.config
    report = weights_report(config.model, config.views.global_size, config.data.channels)
    return next(of_data, {}) | ({"initial_weights": report} if report else {})


def _rows(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if "/" in name}


def _now() -> int:
    return int(time.time() * 1000)
