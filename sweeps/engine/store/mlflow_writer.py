"""Idempotent writes to MLflow: one run per cell, each metric of a step once, also if answers of the store are lost."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from analysis.store.mlflow_sql import write_tags
from analysis.store.uri import sqlite_file, store_uri
from sweeps.engine.store.mlflow_client import BATCH, REFUSALS, TROUBLE, Refused, root_cause
from sweeps.engine.store.offline_queue import Operation

_CONNECTIONS = 8  # to a server, for the tags of many runs


class _UnknownCreation(OSError):
    """Creation of a run that may still go on in the store: a search at once would not find the run."""


@dataclass
class MlflowWriter:
    """Writes the runs of one experiment.

    A call that failed may have been carried out all the same: the content of the run is read back after a failure, and
    a run is searched by its cell key before it is created. A creation without an answer is an outage, so that the
    search comes a pause later.

    Args:
        known: cell key -> run id, of the cells that have a run.
        note: takes one line if the store accepts no artifacts.
    """

    client: MlflowClient
    experiment_id: str
    known: Mapping[str, str]
    note: Callable[[str], object]

    def __post_init__(self) -> None:
        self._run_ids = dict(self.known)
        self._logged: dict[str, set[tuple[str, int]]] = {}  # cell key -> (metric, step); absent: to be read back
        self._takes_files = True

    def write(self, key: str, operations: Sequence[Operation]) -> None:
        """Apply the operations of one cell, or of the sweep (no key), in order and in as few calls as possible.

        Raises:
            Refused: see there; anything of TROUBLE: the store is away, and the same operations may be given again.
        """
        apply = self._write_cell if key else self._write_sweep
        try:
            apply(key, operations)
        except _UnknownCreation:
            raise
        except TROUBLE:  # a cell's run may have been deleted, and is read back: a second rejection is final
            try:
                apply(key, operations)
            except MlflowException as error:
                if error.error_code in REFUSALS:
                    raise Refused(root_cause(error)) from error
                raise

    def keep(self, files: Mapping[str, str | bytes]) -> None:
        """Store files in the sweep's own run, replacing those of the same name."""
        for run in self._search("tags.role = 'plan'")[:1]:
            self._write_files(run.info.run_id, files)

    def _write_cell(self, key: str, operations: Sequence[Operation]) -> None:
        logged = self._logged.pop(key, None)  # put back at the end: after a failure it is unknown
        if logged is None or any(one.new.get("again") for one in operations):
            logged = self._opened(key, operations)
        run_id = self._run_ids[key]
        # Status first: should the driver be killed before the tag `status` is written, the cell is simply run again
        last = next((one for one in reversed(operations) if one.status), None)
        if last is not None and last.ends:
            self.client.set_terminated(run_id, last.status, end_time=last.at)
        elif last is not None:
            self.client.update_run(run_id, status=last.status)
        rows: dict[tuple[str, int], Metric] = {}
        for one in operations:
            for name, value in one.metrics.items():
                rows.setdefault((name, one.step), Metric(name, value, one.at, one.step))
        metrics = [row for place, row in rows.items() if place not in logged]
        while len(metrics) > BATCH:
            self.client.log_batch(run_id, metrics=metrics[:BATCH])
            metrics = metrics[BATCH:]
        self._tag(run_id, {name: text for one in operations for name, text in one.tags.items()}, metrics)
        self._write_files(run_id, {name: text for one in operations for name, text in one.files.items()})
        if last is None or not last.ends:
            self._logged[key] = logged | rows.keys()

    def _opened(self, key: str, operations: Sequence[Operation]) -> set[tuple[str, int]]:
        """Find or create the cell's run. Returns the (metric, step) that it holds."""
        new = next((one.new for one in operations if one.new), {})
        for one in operations:
            if one.new.get("again"):
                self._retire(key, before=one.at)
        run = self._stored_run(key)
        if run is None and not new:
            raise Refused("its run is no longer there")
        if run is None:
            run = self._create_run(new, operations[0].at)
        run_id = run.info.run_id
        if new and not run.data.params:  # a new run, or one whose creator was killed
            dataset = DatasetInput(Dataset(**new["dataset"]), [InputTag("mlflow.data.context", "training")])
            self.client.log_inputs(run_id, [dataset])
            self.client.log_batch(run_id, params=[Param(name, text) for name, text in new["params"].items()])
        self._run_ids[key] = run_id
        histories = [self.client.get_metric_history(run_id, name) for name in run.data.metrics]
        return {(point.key, point.step) for history in histories for point in history}

    def _retire(self, key: str, before: int) -> None:
        """Make a cell's earlier run history: it keeps its content, and is no longer the cell's."""
        tags = {"former_cell_key": key, "stale": "replaced", "role": "history", "cell_key": None}
        for run in self._search(f"tags.cell_key = '{key}'"):
            if run.info.start_time < before:
                self._tag(run.info.run_id, tags)

    def _create_run(self, new: Mapping[str, Any], at: int) -> Run:
        try:
            return self.client.create_run(self.experiment_id, at, dict(new["tags"]), run_name=new["label"])
        except TROUBLE as error:
            if getattr(error, "error_code", "") in REFUSALS:
                raise
            raise _UnknownCreation(root_cause(error)) from error

    def _stored_run(self, key: str) -> Run | None:
        """The cell's run in the store: the known one unless it was deleted, or the oldest with the cell's key."""
        if key in self._run_ids:
            run = self.client.get_run(self._run_ids[key])
            if run.info.lifecycle_stage == "active":
                return run
        return next(iter(self._search(f"tags.cell_key = '{key}'")), None)

    def _search(self, condition: str) -> list[Run]:
        order = ["attributes.start_time ASC"]
        return [*self.client.search_runs([self.experiment_id], condition, ViewType.ACTIVE_ONLY, 10, order)]

    def _write_sweep(self, _: str, operations: Sequence[Operation]) -> None:
        """Write the experiment's tags and description, and the run that keeps the plan and the sweep's file."""
        tags = {name: text for one in operations for name, text in one.tags.items()}
        if description := next((one.description for one in reversed(operations) if one.description), ""):
            tags["mlflow.note.content"] = description
        for name, text in tags.items():
            self.client.set_experiment_tag(self.experiment_id, name, text)
        for one in operations:
            if one.run_tags and not self._tagged_by_sql(one.run_tags):
                with ThreadPoolExecutor(_CONNECTIONS) as pool:  # a server takes 20 to 100 ms per call
                    [*pool.map(self._tag, one.run_tags, one.run_tags.values())]
            if one.new:
                run = next(iter(self._search("tags.role = 'plan'")), None) or self._create_run(one.new, one.at)
                self.client.set_terminated(run.info.run_id, one.status, end_time=one.at)
                self._write_files(run.info.run_id, one.files)

    def _tag(self, run_id: str, tags: Mapping[str, str | None], metrics: Sequence[Metric] = ()) -> None:
        """Log metrics, and set tags or, where the text is None, remove them."""
        texts = [RunTag(name, text) for name, text in tags.items() if text is not None]
        self.client.log_batch(run_id, metrics=metrics, tags=texts)
        for name in (name for name, text in tags.items() if text is None):
            try:
                self.client.delete_tag(run_id, name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # else it has been removed before
                    raise

    def _tagged_by_sql(self, run_tags: Mapping[str, Mapping[str, str | None]]) -> bool:
        """Set and remove the tags of many runs in one transaction of an sqlite store; False where that is no option."""
        file = sqlite_file(store_uri())
        if file is None:
            return False
        try:
            write_tags(file, run_tags)
        except sqlite3.Error:  # tables of a later MLflow, or a long lock
            return False
        return True

    def _write_files(self, run_id: str, files: Mapping[str, str | bytes]) -> None:
        if not (files and self._takes_files):
            return
        try:
            with TemporaryDirectory() as folder:
                for name, content in files.items():
                    Path(folder, name).write_bytes(content.encode() if isinstance(content, str) else content)
                self.client.log_artifacts(run_id, folder)
        except Exception as error:  # noqa: BLE001 (every kind of artifact store has exceptions of its own)
            self.client.get_run(run_id)  # raises if the whole store is away
            self._takes_files = False
            self.note(f"the store takes no files ({root_cause(error)}); plans and tracebacks are not kept there")
