"""Idempotent writes to MLflow: one run per cell for ever, each metric of a step once, whatever went wrong before."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag, ViewType

from sweeps.engine.store.mlflow_client import BATCH, TROUBLE, Refused, refusals, root_cause
from sweeps.engine.store.offline_queue import Operation


@dataclass
class _KnownRun:
    """A cell's run as far as it is known."""

    run_id: str
    logged: set[tuple[str, int]] | None = None  # (metric, step); None when it has to be read back
    status: str = ""


class MlflowWriter:
    """Writes the runs of one experiment.

    A call that failed may have been carried out all the same: after one, what the run holds is read back first.

    Args:
        known: cell key -> run id, of the cells that have a run.
        note: told once when the store takes no artifacts.
    """

    def __init__(
        self, client: MlflowClient, experiment_id: str, known: Mapping[str, str], note: Callable[[str], object]
    ) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._runs = {key: _KnownRun(run_id) for key, run_id in known.items()}
        self._note = note
        self._takes_files = True
        self._unanswered: set[str] = set()  # cells whose run was asked for without an answer: it may come to be yet

    def write(self, key: str, operations: Sequence[Operation]) -> None:
        """Apply the operations of one cell, or of the sweep (no key), in order and in as few calls as possible.

        Raises:
            Refused: see there; anything of TROUBLE: the store is away, and the same operations may be given again.
        """
        if not key:
            with refusals():
                self._write_sweep(operations)
            return
        try:
            self._write_cell(key, operations)
        except (Refused, *TROUBLE):
            self._read_back_later(key)
            raise

    def keep(self, files: Mapping[str, str | bytes]) -> None:
        """Store files in the sweep's own run, in the place of those of the same name."""
        for run in self._search("tags.role = 'plan'")[:1]:
            self._write_files(run.info.run_id, files)

    def _write_cell(self, key: str, operations: Sequence[Operation]) -> None:
        known = self._runs.get(key)
        run = self._ensure_run(key, operations)
        # Of a run that was read just now, what the store rejects it will always reject; else it may have been deleted
        with refusals() if run is not known else nullcontext():
            # Status first: should the driver be killed before the tag `status` says so, the cell is simply run again
            self._set_status(run, [one for one in operations if one.status])
            self._log(run, operations)
        self._write_files(run.run_id, {name: text for one in operations for name, text in one.files.items()})
        if run.status not in ("", "RUNNING"):
            self._read_back_later(key)
            self._delete_twins(key, run.run_id)

    def _ensure_run(self, key: str, operations: Sequence[Operation]) -> _KnownRun:
        """The cell's run with what it holds: read back where that is not known, created where there is none."""
        run = self._runs.get(key)
        if run is None or run.logged is None:
            new = next((one.new for one in operations if one.new), {})
            stored = self._stored_run(key)
            if stored is None and not new:
                raise Refused("its run is no longer there")
            run = self._create(key, new, operations[0].at) if stored is None else self._read_back(stored, new)
            self._runs[key] = run
        return run

    def _stored_run(self, key: str) -> Run | None:
        """The cell's run in the store: the one that is known unless it was deleted, or the oldest with its key."""
        if key in self._runs:
            stored = self._client.get_run(self._runs[key].run_id)
            if stored.info.lifecycle_stage == "active":
                return stored
            del self._runs[key]
        return next(iter(self._search(f"tags.cell_key = '{key}'")), None)

    def _read_back(self, stored: Run, new: Mapping[str, Any]) -> _KnownRun:
        run_id = stored.info.run_id
        histories = [self._client.get_metric_history(run_id, name) for name in stored.data.metrics]
        if new and not stored.data.params:  # its creator was killed in between
            self._complete(run_id, new)
        return _KnownRun(run_id, {(point.key, point.step) for history in histories for point in history})

    def _create(self, key: str, new: Mapping[str, Any], at: int) -> _KnownRun:
        try:
            with refusals():
                made = self._client.create_run(self._experiment_id, at, dict(new["tags"]), run_name=new["label"])
        except TROUBLE:
            self._unanswered.add(key)
            raise
        self._complete(made.info.run_id, new)
        return _KnownRun(made.info.run_id, set(), "RUNNING")

    def _complete(self, run_id: str, new: Mapping[str, Any]) -> None:
        """Add what a new run holds besides its tags."""
        self._client.log_batch(run_id, params=[Param(name, text) for name, text in new["params"].items()])
        dataset = DatasetInput(Dataset(**new["dataset"]), [InputTag("mlflow.data.context", "training")])
        self._client.log_inputs(run_id, [dataset])

    def _set_status(self, run: _KnownRun, changes: Sequence[Operation]) -> None:
        if not changes or changes[-1].status == run.status:
            return
        last = changes[-1]
        if last.ends:
            self._client.set_terminated(run.run_id, last.status, end_time=last.at)
        else:
            self._client.update_run(run.run_id, status=last.status)
        run.status = last.status

    def _log(self, run: _KnownRun, operations: Sequence[Operation]) -> None:
        """Log the metrics that the run does not hold yet, and the tags with the last of them."""
        assert run.logged is not None
        rows: dict[tuple[str, int], Metric] = {}
        for one in operations:
            for name, value in one.metrics.items():
                rows.setdefault((name, one.step), Metric(name, value, one.at, one.step))
        metrics = [metric for place, metric in rows.items() if place not in run.logged]
        tags = {name: text for one in operations for name, text in one.tags.items()}
        while len(metrics) > BATCH:
            self._client.log_batch(run.run_id, metrics=metrics[:BATCH])
            metrics = metrics[BATCH:]
        self._client.log_batch(run.run_id, metrics=metrics, tags=[RunTag(name, text) for name, text in tags.items()])
        run.logged |= rows.keys()

    def _read_back_later(self, key: str) -> None:
        """Forget what the cell's run holds: a call failed, or the cell is over and its metrics take memory."""
        if key in self._runs:
            self._runs[key] = _KnownRun(self._runs[key].run_id)

    def _delete_twins(self, key: str, run_id: str) -> None:
        """Delete the empty twin that a creation may have left whose answer never came."""
        if key in self._unanswered:
            for twin in self._search(f"tags.cell_key = '{key}'"):
                if twin.info.run_id != run_id:
                    self._client.delete_run(twin.info.run_id)
            self._unanswered.discard(key)

    def _search(self, condition: str) -> list[Run]:
        order = ["attributes.start_time ASC"]
        return [*self._client.search_runs([self._experiment_id], condition, ViewType.ACTIVE_ONLY, 10, order)]

    def _write_sweep(self, operations: Sequence[Operation]) -> None:
        """Write the experiment's tags and description, and the run that keeps the plan and the sweep's file."""
        tags: dict[str, str] = {}
        for one in operations:
            changes = {**one.tags, **({"mlflow.note.content": one.description} if one.description else {})}
            tags = {name: text for name, text in tags.items() if name not in changes} | changes  # the last comes last
        for name, text in tags.items():
            self._client.set_experiment_tag(self._experiment_id, name, text)
        for one in operations:
            if one.new:
                run = next(iter(self._search("tags.role = 'plan'")), None) or self._client.create_run(
                    self._experiment_id, one.at, dict(one.new["tags"]), run_name=one.new["label"]
                )
                self._client.set_terminated(run.info.run_id, one.status, end_time=one.at)
                self._write_files(run.info.run_id, one.files)

    def _write_files(self, run_id: str, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items() if self._takes_files else ():
            try:
                self._write_file(run_id, name, content)
            except Exception as error:  # noqa: BLE001 (every kind of artifact store has exceptions of its own)
                self._client.get_run(run_id)  # raises where it is the store that is away
                self._takes_files = False
                self._note(f"the store takes no files ({root_cause(error)}); plans and tracebacks are not kept there")
                return

    def _write_file(self, run_id: str, name: str, content: str | bytes) -> None:
        if isinstance(content, str):
            self._client.log_text(run_id, content, name)
            return
        with TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_bytes(content)
            self._client.log_artifact(run_id, str(file))
