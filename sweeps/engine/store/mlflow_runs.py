"""Operations become MLflow runs: one run per cell for ever, each metric of a step once, whatever went wrong before."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from jepa_train.base.security import hidden
from sweeps.engine.store.offline_queue import Operation

TROUBLE = (MlflowException, SQLAlchemyError, OSError)  # what a store raises that cannot be reached or does not answer
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")
_BATCH = 900  # MLflow takes 1,000 metrics, params and tags together


class Refused(Exception):
    """The store answers, and will never take this: its run was deleted, or MLflow's rules forbid it."""


@dataclass
class _Run:
    """A run as far as it is known; held is None when it has to be asked."""

    run_id: str
    held: set[tuple[str, int]] | None = None  # (metric, step)
    status: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


class Runs:
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
        self._runs = {key: _Run(run_id) for key, run_id in known.items()}
        self._note = note
        self._takes_files = True
        self._tried: set[str] = set()  # cells whose run was asked for without an answer: it may come to be yet

    def write(self, key: str, operations: Sequence[Operation]) -> None:
        """Apply the operations of one cell, or of the sweep, in order and in as few calls as possible.

        Raises:
            Refused: see there; anything of TROUBLE: the store is away, and the same operations may be given again.
        """
        try:
            if key:
                self._write_cell(key, operations)
            else:
                self._write_sweep(operations)
        except TROUBLE as error:
            if key in self._runs:
                self._runs[key] = _Run(self._runs[key].run_id)
            if not key and getattr(error, "error_code", "") in _REFUSALS:
                raise Refused(one_line(error)) from error
            raise

    def keep(self, files: Mapping[str, str | bytes]) -> None:
        """Files of the sweep's own run, in the place of those of the same name."""
        for run_id in self._search("tags.role = 'plan'")[:1]:
            self._write_files(run_id, files)

    def _write_cell(self, key: str, operations: Sequence[Operation]) -> None:
        new = next((one.new for one in operations if one.new), {})
        known = self._runs.get(key)
        if known is None or known.held is None:
            run, answers = self._asked(key, known, new, operations[0]), True
        else:
            run, answers = known, False
        assert run.held is not None
        points: dict[tuple[str, int], Metric] = {}
        for one in operations:
            for name, value in one.metrics.items():
                points.setdefault((name, one.step), Metric(name, value, one.at, one.step))
        rows = [metric for place, metric in points.items() if place not in run.held]
        tags = {name: text for one in operations for name, text in one.tags.items()}
        changes = [RunTag(name, text) for name, text in tags.items() if run.tags.get(name) != text]
        ends = [one for one in operations if one.status]
        try:
            if ends and ends[-1].status != run.status:
                # First: should the driver be killed before the tag `status` says so, the cell is simply run again
                self._set_status(run, ends[-1])
            whole = max(0, len(rows) - 1) // _BATCH * _BATCH
            for start in range(0, whole, _BATCH):
                self._client.log_batch(run.run_id, metrics=rows[start : start + _BATCH])
            self._client.log_batch(run.run_id, metrics=rows[whole:], tags=changes)  # status comes last of all
        except MlflowException as error:
            if answers and error.error_code in _REFUSALS:
                raise Refused(one_line(error)) from error
            raise
        run.held |= points.keys()
        run.tags = {}
        self._write_files(run.run_id, {name: text for one in operations for name, text in one.files.items()})
        if run.status not in ("", "RUNNING"):
            self._ended(key, run)

    def _set_status(self, run: _Run, operation: Operation) -> None:
        if operation.status == "RUNNING":
            self._client.update_run(run.run_id, status="RUNNING")
        else:
            self._client.set_terminated(run.run_id, operation.status, end_time=operation.at)
        run.status = operation.status

    def _asked(self, key: str, known: _Run | None, new: Mapping[str, Any], first: Operation) -> _Run:
        """The cell's run as the store has it now, created where it has none."""
        found = [known.run_id] if known is not None else self._search(f"tags.cell_key = '{key}'")
        if not found and not new:
            raise Refused("its run is no longer there")
        if not found:
            run = self._create(key, new, first)
        else:
            stored = self._client.get_run(found[0])
            if stored.info.lifecycle_stage != "active":
                del self._runs[key]
                return self._asked(key, None, new, first)
            steps = {
                (name, point.step)
                for name in stored.data.metrics
                for point in self._client.get_metric_history(found[0], name)
            }
            run = _Run(found[0], steps)
            if new and not stored.data.params:  # its creator was killed in between
                self._complete(run.run_id, new)
        self._runs[key] = run
        return run

    def _create(self, key: str, new: Mapping[str, Any], first: Operation) -> _Run:
        tags = {**new["tags"], **first.tags}
        try:
            made = self._client.create_run(self._experiment_id, first.at, tags, run_name=new["label"])
        except TROUBLE as error:
            if getattr(error, "error_code", "") in _REFUSALS:  # right after an answer of the store
                raise Refused(one_line(error)) from error
            self._tried.add(key)
            raise
        self._complete(made.info.run_id, new)
        return _Run(made.info.run_id, set(), "RUNNING", tags)

    def _complete(self, run_id: str, new: Mapping[str, Any]) -> None:
        params = [Param(name, text) for name, text in new["params"].items()]
        self._client.log_batch(run_id, params=params)
        dataset = DatasetInput(Dataset(**new["dataset"]), [InputTag("mlflow.data.context", "training")])
        self._client.log_inputs(run_id, [dataset])

    def _ended(self, key: str, run: _Run) -> None:
        """Forget what the run holds; delete the empty twin that a creation may have left whose answer never came."""
        self._runs[key] = _Run(run.run_id)
        if key in self._tried:
            for twin in self._search(f"tags.cell_key = '{key}'"):
                if twin != run.run_id:
                    self._client.delete_run(twin)
            self._tried.discard(key)

    def _search(self, condition: str) -> list[str]:
        found = self._client.search_runs(
            [self._experiment_id], condition, ViewType.ACTIVE_ONLY, 10, ["attributes.start_time ASC"]
        )
        return [run.info.run_id for run in found]

    def _write_sweep(self, operations: Sequence[Operation]) -> None:
        """The description, and the run that keeps the plan and the sweep's file."""
        described = [one.description for one in operations if one.description]
        if described:
            self._client.set_experiment_tag(self._experiment_id, "mlflow.note.content", described[-1])
        for one in operations:
            if one.new:
                found = self._search("tags.role = 'plan'")
                if not found:
                    made = self._client.create_run(
                        self._experiment_id, one.at, dict(one.new["tags"]), run_name=one.new["label"]
                    )
                    found = [made.info.run_id]
                self._client.set_terminated(found[0], one.status, end_time=one.at)
                self._write_files(found[0], one.files)

    def _write_files(self, run_id: str, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items() if self._takes_files else ():
            try:
                self._write_file(run_id, name, content)
            except Exception as error:  # noqa: BLE001 (every kind of artifact store has exceptions of its own)
                self._client.get_run(run_id)  # raises where it is the store that is away
                self._takes_files = False
                self._note(f"the store takes no files ({one_line(error)}); plans and tracebacks are not kept there")
                return

    def _write_file(self, run_id: str, name: str, content: str | bytes) -> None:
        if isinstance(content, str):
            self._client.log_text(run_id, content, name)
            return
        with TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_bytes(content)
            self._client.log_artifact(run_id, str(file))


def one_line(error: BaseException) -> str:
    """What went wrong at the bottom of it, short enough for a line: what the socket or the database says."""
    inner: BaseException | None = error
    while inner is not None:
        error = inner if isinstance(inner, OSError) else getattr(inner, "orig", None) or error
        inner = inner.__cause__ or inner.__context__
    text = hidden(next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__))
    return text if len(text) <= 160 else f"{text[:157]}..."
