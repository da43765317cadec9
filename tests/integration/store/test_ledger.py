"""The ledger never waits for the store and never lies to it: nothing is lost, nothing is doubled, whatever fails."""

import http.server
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from analysis.store.cell_list import recorded_cells
from jepa_train.config.presets import DIGITS
from sweeps.engine.plan.describe import open_ledger
from sweeps.engine.plan.plan import Plan, make_plan
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store import ledger as tracking_module
from sweeps.engine.store import write_queue
from sweeps.engine.store.ledger import replay_offline_queue
from sweeps.engine.store.mlflow_client import open_client
from sweeps.engine.store.offline_queue import OfflineQueue, Operation, offline_files, read_operations
from sweeps.engine.store.provenance import dirty
from sweeps.engine.store.reader import store_uri

FILE = Path("study.py")
GRID = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]})
TAKEN = (
    "runs",
    "metrics",
)  # whether a cell's start is written alone, or with what came after it, is the writer's affair


@pytest.fixture(autouse=True)
def store(results: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of this test's own, and a writer that does not take its time."""
    monkeypatch.setattr(write_queue, "_REST_S", (0.05, 0.05))
    monkeypatch.setattr(write_queue, "_BACKOFF_S", (0.1, 0.2))
    monkeypatch.setattr(write_queue, "_GRACE_S", 0.5)
    return results / "mlflow.db"


class Study:
    """One launch of the sweep, and what it told the user."""

    def __init__(self, publish: Callable[[], str] = lambda: "| a table |") -> None:
        self.plan: Plan = make_plan(GRID, FILE)
        self.first, self.second = self.plan.fixed
        self.notes: list[str] = []
        self.ledger = open_ledger(self.plan, note=self.notes.append, publish=publish)
        self.written()

    def written(self) -> None:
        """Wait until the store has everything."""
        until(lambda: not self.ledger._queue._waiting)

    def epochs(self, *epochs: int, value: float = 0.0) -> None:
        """Reports of the first cell, each with its epoch as a value."""
        for epoch in epochs:
            metrics = {"epoch": epoch, "val/probe_top1": value or epoch / 10, "train/loss": 1.0 / epoch}
            self.ledger.log(self.first.key, metrics)


def runs() -> dict[str, Run]:
    """The cells' runs by label: one of each."""
    client = MlflowClient(store_uri())
    experiment = client.get_experiment_by_name("study").experiment_id
    found = [run for run in client.search_runs([experiment]) if "cell_key" in run.data.tags]
    assert max(Counter(run.data.tags["cell_key"] for run in found).values(), default=1) == 1
    return {run.info.run_name: run for run in found}


def curve(run: Run, metric: str = "val/probe_top1") -> list[tuple[int, float]]:
    """Everything that a run holds of a metric."""
    history = MlflowClient(store_uri()).get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in history)


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until the writer's thread has come so far."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def execute(store: Path, statement: str) -> None:
    """Another hand in the store."""
    connection = sqlite3.connect(store, timeout=20)
    with connection:
        connection.execute(statement)
    connection.close()


def refuse(store: Path) -> None:
    """The store takes neither runs nor metrics."""
    for table in TAKEN:
        trigger = f"CREATE TRIGGER refuse_{table} BEFORE INSERT ON {table}"
        execute(store, f"{trigger} BEGIN SELECT RAISE(ABORT, 'refused'); END")


def accept(store: Path) -> None:
    """The store takes everything again."""
    for table in TAKEN:
        execute(store, f"DROP TRIGGER refuse_{table}")


def test_a_cell_from_start_to_end():
    study = Study()
    before = time.time()
    study.ledger.start(study.first, devices=2.0)
    study.epochs(1, 2, 3)
    time.sleep(0.1)
    study.ledger.log(study.first.key, {"epoch": 4, "val/probe_top1": float("nan")}, rungs={2: 0.2})
    study.ledger.end(study.first.key, "failed", "it broke", "a traceback")
    assert study.ledger.close() == ""
    run = runs()["lamb=0.02"]
    assert curve(run, "train/loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert [step for step, _ in curve(run)] == [1, 2, 3, 4]
    tags = run.data.tags
    assert (tags["status"], tags["reason"], tags["epoch"], tags["rungs"]) == ("failed", "it broke", "4", '{"2": 0.2}')
    assert 0.2 <= float(tags["device_seconds"]) < 60  # 0.1 s on two devices
    assert run.info.status == "FAILED"
    assert before - 1 <= run.info.start_time / 1000 < run.info.end_time / 1000 <= time.time()
    assert run.data.params["method.lamb"] == "0.02"
    assert MlflowClient(store_uri()).list_artifacts(run.info.run_id)[0].path == "traceback.txt"
    assert study.notes == []


def test_what_is_lost_with_a_worker_is_recorded_and_waiting_for_another_is_no_device_time():
    study = Study()
    study.ledger.start(study.first, devices=2.0)
    study.epochs(1)
    study.ledger._progress[study.first.key].started -= 500.0
    assert study.ledger.lose(study.first.key, lost_s=100.0, idle_s=400.0) == 200.0
    assert study.ledger.lose(study.first.key, lost_s=50.0, idle_s=0.0) == 100.0
    study.ledger.end(study.first.key, "interrupted", "the sweep was stopped")
    assert study.ledger.close() == ""
    tags = runs()["lamb=0.02"].data.tags
    assert float(tags["lost_device_seconds"]) == pytest.approx(300.0)
    assert 200 <= float(tags["device_seconds"]) < 400, "500 s on two devices, of which they were free 400"
    again = Study()
    again.ledger.start(again.first, devices=1.0)
    again.ledger.lose(again.first.key, lost_s=1.0, idle_s=0.0)
    again.ledger.close()
    assert float(runs()["lamb=0.02"].data.tags["lost_device_seconds"]) == pytest.approx(301.0), "of all attempts"


def test_reports_of_epochs_that_the_run_holds_are_dropped():
    study = Study()
    study.ledger.start(study.first, devices=1.0)
    study.epochs(1, 2, 3)
    study.ledger.start(study.first, devices=1.0)  # its trial was lost
    study.epochs(2, 3, 4, value=0.9)
    study.ledger.end(study.first.key, "interrupted", "")
    study.ledger.close()
    again = Study()
    again.ledger.start(again.first, devices=1.0)
    again.epochs(1, 2, 3, 4, 5, value=0.7)
    again.ledger.end(again.first.key, "finished", "")
    again.ledger.close()
    assert curve(runs()["lamb=0.02"]) == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.9), (5, 0.7)]
    assert make_plan(GRID, FILE).entries[study.first.key].epoch == 5


def test_a_store_that_refuses_is_spooled_and_told_once_and_caught_up_with(store: Path):
    study = Study()
    study.ledger.start(study.first, devices=1.0)
    study.written()
    refuse(store)
    for epoch in range(1, 6):
        study.epochs(epoch)
        time.sleep(0.06)
    until(lambda: offline_files("study") and len(read_operations(offline_files("study")[0])) == 5)
    study.ledger.start(study.second, devices=1.0)
    study.ledger.log(study.second.key, {"epoch": 1, "val/probe_top1": 0.5})
    study.ledger.end(study.second.key, "finished", "")
    (told,) = study.notes
    where = offline_files("study")[0]
    assert told == f"the store {store_uri()} cannot be reached (refused); metrics wait in {where}; training goes on"
    accept(store)
    until(lambda: len(study.notes) == 2)
    assert study.notes[1] == f"the store {store_uri()} answers again; the metrics that waited are written"
    study.ledger.end(study.first.key, "finished", "")
    assert study.ledger.close() == ""
    assert curve(runs()["lamb=0.02"]) == [(epoch, epoch / 10) for epoch in range(1, 6)]
    assert {name: run.data.tags["status"] for name, run in runs().items()} == dict.fromkeys(
        ("lamb=0.02", "lamb=0.05"), "finished"
    )
    assert offline_files("study") == []


def test_what_the_store_never_took_is_written_by_the_next_launch(store: Path):
    study = Study()
    refuse(store)
    study.ledger.start(study.first, devices=1.0)
    study.epochs(1, 2)
    study.ledger.end(study.first.key, "interrupted", "")
    study.ledger.start(study.first, devices=1.0)
    study.epochs(2, 3)
    study.ledger.end(study.first.key, "finished", "well")
    line = study.ledger.close()
    (spool,) = offline_files("study")
    assert line.startswith(f"8 records wait in {spool}: the store {store_uri()} cannot be reached (")
    assert [one.step for one in read_operations(spool)] == [0, 1, 2, 0, 0, 2, 3, 0]
    assert make_plan(GRID, FILE).todo == 2
    accept(store)
    assert replay_offline_queue("study") == 8
    assert replay_offline_queue("study") == 0
    assert curve(runs()["lamb=0.02"]) == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert make_plan(GRID, FILE).entries[study.first.key].reason == "well"
    assert make_plan(GRID, FILE).todo == 1


def test_a_replay_that_is_cut_off_is_repeated_and_doubles_nothing(store: Path):
    study = Study()
    refuse(store)
    study.ledger.start(study.first, devices=1.0)
    study.epochs(1, 2)
    study.ledger.end(study.first.key, "finished", "")
    study.ledger.close()
    (spool,) = offline_files("study")
    kept = spool.read_bytes()
    accept(store)
    replay_offline_queue("study")
    spool.write_bytes(kept + b'{"at": 1, "key": "' + study.first.key.encode()[:5])  # killed before it was removed
    assert replay_offline_queue("study") == 4
    assert curve(runs()["lamb=0.02"]) == [(1, 0.1), (2, 0.2)]
    assert runs()["lamb=0.02"].info.status == "FINISHED"


@pytest.mark.parametrize("call", ["create_run", "log_batch", "set_terminated", "log_inputs"])
def test_a_call_that_was_carried_out_but_not_acknowledged(call: str, monkeypatch: pytest.MonkeyPatch):
    carried_out, failing = getattr(MlflowClient, call), []

    def lost(client: MlflowClient, *args, **kwargs):
        result = carried_out(client, *args, **kwargs)
        if len(failing) < 2:  # the writer asks twice before it says that the store is away
            failing.append(call)
            raise MlflowException("the connection was reset")
        return result

    study = Study()
    monkeypatch.setattr(MlflowClient, call, lost)
    study.ledger.start(study.first, devices=1.0)
    for epoch in range(1, 9):
        study.epochs(epoch)
        time.sleep(0.06)
    study.ledger.end(study.first.key, "finished", "")
    assert study.ledger.close() == ""
    assert failing
    assert curve(runs()["lamb=0.02"]) == [(epoch, epoch / 10) for epoch in range(1, 9)]
    assert runs()["lamb=0.02"].data.params["method.lamb"] == "0.02"
    assert make_plan(GRID, FILE).entries[study.first.key].status == "finished"


def test_a_creation_that_is_carried_out_late_leaves_no_second_run(monkeypatch: pytest.MonkeyPatch):
    create, late = MlflowClient.create_run, []

    def slow(client: MlflowClient, *args, **kwargs):
        if not late and kwargs["run_name"] == "lamb=0.02":
            late.append(lambda: create(client, *args, **kwargs))
            raise MlflowException("timed out")
        return create(client, *args, **kwargs)

    study = Study()
    monkeypatch.setattr(MlflowClient, "create_run", slow)
    study.ledger.start(study.first, devices=1.0)
    study.epochs(1)
    study.written()
    late[0]()
    study.epochs(2)
    study.ledger.end(study.first.key, "finished", "")
    assert study.ledger.close() == ""
    assert curve(runs()["lamb=0.02"]) == [(1, 0.1), (2, 0.2)]


def test_a_run_that_was_begun_without_its_config_gets_it():
    study = Study()
    client = MlflowClient(store_uri())
    experiment = client.get_experiment_by_name("study").experiment_id
    client.create_run(
        experiment, tags={"cell_key": study.first.key}, run_name="lamb=0.02"
    )  # then the driver was killed
    study.ledger.start(study.first, devices=1.0)
    study.ledger.end(study.first.key, "finished", "")
    study.ledger.close()
    assert make_plan(GRID, FILE).state(study.first) == "finished"
    assert runs()["lamb=0.02"].data.params["method.lamb"] == "0.02"


def test_a_run_that_somebody_deletes_holds_up_no_other():
    study = Study()
    study.ledger.start(study.first, devices=1.0)
    study.epochs(1)
    study.written()
    MlflowClient(store_uri()).delete_run(runs()["lamb=0.02"].info.run_id)
    study.epochs(2)
    study.epochs(3)
    study.ledger.end(study.first.key, "finished", "")
    study.ledger.start(study.second, devices=1.0)
    study.ledger.end(study.second.key, "finished", "")
    assert study.ledger.close() == ""
    assert list(runs()) == ["lamb=0.05"]
    (told,) = study.notes
    assert told.startswith(f"the store refuses what cell {study.first.key} reports (")
    assert make_plan(GRID, FILE).todo == 1


def test_a_disk_that_refuses_the_spool_too_is_no_reason_to_stop(store: Path, monkeypatch: pytest.MonkeyPatch):
    study = Study()
    refuse(store)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    study.ledger.start(study.first, devices=1.0)
    study.epochs(1, 2)
    until(lambda: study.notes)
    assert "; metrics wait in memory; training goes on" in study.notes[0]
    study.epochs(3)
    monkeypatch.undo()
    monkeypatch.setenv("JEPA_RESULTS", str(store.parent))
    until(lambda: offline_files("study") and len(read_operations(offline_files("study")[0])) == 4)
    accept(store)
    study.ledger.end(study.first.key, "finished", "")
    assert study.ledger.close() == ""
    assert curve(runs()["lamb=0.02"]) == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_a_store_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch):
    let_go, answers = threading.Event(), []

    def hung(*_: object, **__: object) -> None:
        let_go.wait(60)
        answers.append("at last")
        raise MlflowException("timed out")

    study = Study()
    monkeypatch.setattr(write_queue, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(MlflowClient, "create_run", hung)
    study.ledger.start(study.first, devices=1.0)
    study.epochs(1)
    line = study.ledger.close()
    assert answers == []
    let_go.set()
    assert line.startswith("2 records wait in ")
    assert "cannot be reached (it does not answer)" in line
    assert len(read_operations(offline_files("study")[0])) == 2


def test_logging_waits_for_nobody(monkeypatch: pytest.MonkeyPatch):
    asked, let_go, answers = threading.Event(), threading.Event(), []

    def slow(*_: object, **__: object) -> None:
        asked.set()
        let_go.wait(60)
        answers.append("at last")

    study = Study()
    monkeypatch.setattr(MlflowClient, "log_batch", slow)
    study.ledger.start(study.first, devices=1.0)
    assert asked.wait(60)
    study.epochs(*range(1, 1001))
    assert answers == []  # 1,000 reports within one call of the store
    let_go.set()
    study.ledger.close()


def test_a_spool_belongs_to_one_store_and_one_sweep(monkeypatch: pytest.MonkeyPatch):
    for sweep in ("study", "study-2"):
        assert OfflineQueue(sweep).append([Operation(at=1, key="k")])
    assert len(offline_files("study")) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert offline_files("study") == []


def test_half_a_line_on_a_full_disk_is_written_over():
    spool = OfflineQueue("study")
    first, second = Operation(at=1, key="a", metrics={"train/loss": float("inf")}), Operation(at=2, key="b", step=3)
    assert spool.append([first])
    with spool.file.open("ab") as stream:
        stream.write(b'{"at": 2, "ke')
    assert read_operations(spool.file) == [first]
    assert spool.append([second])
    assert read_operations(spool.file) == [first, second]


def recorded() -> tuple[str, ...] | None:
    """The list of cells in the store."""
    return recorded_cells(MlflowClient(store_uri()).get_experiment_by_name("study").tags)


def test_the_list_of_cells_begins_with_the_plans_and_takes_more_in_order_each_once():
    study = Study()
    fixed = (study.first.key, study.second.key)
    assert recorded() == fixed
    more = [f"{number:016x}" for number in range(700)]
    for start in range(0, 700, 100):
        study.ledger.record_cells([*more[start : start + 100], *more[:start], study.first.key])
        study.written()
        assert recorded() == (*fixed, *more[: start + 100])
    study.ledger.close()
    again = Study()
    assert recorded() == fixed, "the next launch's plan counts no more than these"
    again.ledger.close()


def test_the_list_of_cells_outlives_a_store_that_is_away(store: Path):
    study = Study()
    execute(
        store, "CREATE TRIGGER refuse_tags BEFORE UPDATE ON experiment_tags BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )
    for key in ("a" * 16, "b" * 16):
        study.ledger.record_cells([key])
        until(lambda: study.notes)
    line = study.ledger.close()
    assert line.startswith("2 records wait in ") or line.startswith("3 records wait in "), "the table's may be there"
    assert recorded() == (study.first.key, study.second.key)
    execute(store, "DROP TRIGGER refuse_tags")
    replay_offline_queue("study")
    assert recorded() == (study.first.key, study.second.key, "a" * 16, "b" * 16)


def test_the_sweeps_own_run_keeps_plan_and_file(tmp_path: Path):
    file = tmp_path / "study.py"
    file.write_text("SWEEP = ...")
    for status in ("finished", "diverged"):
        plan = make_plan(GRID, file)
        ledger = open_ledger(plan, note=print, publish=lambda: "")
        ledger.start(plan.missing[0], devices=1.0)
        ledger.end(plan.missing[0].key, status, "")
        assert ledger.close() == ""
    client = MlflowClient(store_uri())
    experiment = client.get_experiment_by_name("study").experiment_id
    (run,) = client.search_runs([experiment], "tags.role = 'plan'")
    assert (run.info.run_name, run.info.status) == ("plan", "FINISHED")
    folder = Path(client.download_artifacts(run.info.run_id, "."))
    assert (folder / "study.py").read_text() == "SWEEP = ..."
    cells = json.loads((folder / "plan.json").read_text())["cells"]
    assert [(cell["label"], cell["state"]) for cell in cells] == [("lamb=0.02", "finished"), ("lamb=0.05", "missing")]


def test_files_that_the_store_refuses_are_told_once_and_lose_nothing(monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'boto3'")

    monkeypatch.setattr(MlflowClient, "log_text", refused)
    study = Study()
    for cell in (study.first, study.second):
        study.ledger.start(cell, devices=1.0)
        study.ledger.end(cell.key, "failed", "it broke", "a traceback")
    assert study.ledger.close() == ""
    assert study.notes == [
        "the store takes no files (No module named 'boto3'); plans and tracebacks are not kept there"
    ]
    assert {run.data.tags["status"] for run in runs().values()} == {"failed"}


def test_the_table_is_published_while_cells_end_but_not_all_the_time(monkeypatch: pytest.MonkeyPatch):
    now, tables = [1000.0], []
    monkeypatch.setattr(tracking_module, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))

    def publish() -> str:
        tables.append(now[0])
        now[0] += 1.0
        return f"| {len(tables)} |"

    study = Study(publish)
    study.ledger.start(study.first, devices=1.0)
    study.ledger.end(study.first.key, "finished", "")
    until(lambda: tables)
    for _ in range(3):  # a table takes a second, so there is time for none in the next nineteen
        study.ledger.start(study.first, devices=1.0)
        study.ledger.end(study.first.key, "finished", "")
        study.written()
    assert tables == [1000.0]
    now[0] += 19.0
    study.ledger.start(study.first, devices=1.0)
    study.ledger.end(study.first.key, "finished", "")
    until(lambda: len(tables) == 2)
    study.ledger.close()
    assert study.ledger.table == "| 3 |"
    tags = MlflowClient(store_uri()).get_experiment_by_name("study").tags
    assert tags["mlflow.note.content"] == "A study.\n\n| 3 |"


def test_a_table_that_cannot_be_made_or_is_too_long_loses_no_metrics():
    def publish() -> str:
        if not study_tables:
            study_tables.append("")
            raise KeyError("method.lamb")
        return "| a row |\n" * 5000

    study_tables: list[str] = []
    study = Study(publish)
    study.ledger.start(study.first, devices=1.0)
    study.ledger.end(study.first.key, "finished", "")
    until(lambda: study.notes)
    assert study.ledger.close() == ""
    assert study.notes == ["the table cannot be made now: 'method.lamb'"]
    note = MlflowClient(store_uri()).get_experiment_by_name("study").tags["mlflow.note.content"]
    assert note.endswith("| a row |\n\n(cut here)")
    assert runs()["lamb=0.02"].data.tags["status"] == "finished"


def test_only_code_that_numbers_depend_on_makes_a_run_dirty(tmp_path: Path):
    def git(*words: str) -> None:
        who = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    for name in ("jepa_train/train/loop.py", "sweeps/study.py", "cluster.yaml", "docs/results/table.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    git("init")
    git("add", ".")
    git("commit", "-m", "all")
    (tmp_path / "cluster.yaml").write_text("filled in")
    (tmp_path / "docs/results/table.md").unlink()
    (tmp_path / "notes.txt").touch()
    assert not dirty(tmp_path)
    for name in ("jepa_train/train/loop.py", "sweeps/another.py"):
        (tmp_path / name).write_text("two")
        assert dirty(tmp_path), name
        git("add", ".")
        git("commit", "-m", "more")


def test_a_later_evaluation_joins_the_run_once():
    study = Study()
    study.ledger.start(study.first, devices=1.0)
    study.epochs(3)
    study.ledger.end(study.first.key, "finished", "")
    study.ledger.close()
    entry = make_plan(GRID, FILE).entries[study.first.key]
    for _ in range(2):
        study.ledger.amend(entry, {"epoch": 3, "val/probe_top1": 0.3, "test/knn_top1": 0.75})
    assert curve(runs()["lamb=0.02"]) == [(3, 0.3)]
    assert curve(runs()["lamb=0.02"], "test/knn_top1") == [(3, 0.75)]


def test_a_store_that_is_away_at_the_start_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch):
    plan = make_plan(GRID, FILE)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(MlflowException, match="Connection refused"):
            open_ledger(plan, note=print, publish=lambda: "")


@pytest.mark.parametrize("said", ["", "2"])
def test_mlflow_repeats_no_request_whatever_was_said_of_that_before(said: str, monkeypatch: pytest.MonkeyPatch):
    """A creation that was carried out but not acknowledged would make two runs. Tables, read before, allow retries."""
    asked: list[str] = []

    class Busy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(503)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", said)
    if not said:
        monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    with http.server.HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        with pytest.raises(MlflowException, match="503"):
            open_client(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert len(asked) == 1


class Server:
    """A real MLflow server on loopback."""

    def __init__(self, store: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._store = store
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; it is there when it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self._store}"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # else with a dozen processes more
        self._process = subprocess.Popen(command, cwd=self._store.parent, env=environment, **quiet)

    def wait(self) -> None:
        """Until it answers."""
        until(self._answers, 60)

    def kill(self) -> None:
        """kill -9, with its worker, which on a busy machine is gone a little later than its parent."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        until(lambda: not self._answers())

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def server(store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server over the test's store."""
    server = Server(store)
    server.start()
    try:
        server.wait()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        yield server
    finally:
        server.kill()


def test_a_server_that_is_killed_and_comes_back(server: Server):
    study = Study()
    study.ledger.start(study.first, devices=1.0)
    study.epochs(1, 2)
    study.written()
    before = len(study.notes)  # a busy server may have answered that it cannot now, and been asked again
    server.kill()
    study.epochs(3, 4)
    study.ledger.start(study.second, devices=1.0)
    study.ledger.log(study.second.key, {"epoch": 1, "val/probe_top1": 0.5})
    until(lambda: len(study.notes) > before)
    away = f"the store {server.uri} cannot be reached ([Errno 111] Connection refused); "
    assert study.notes[before].startswith(away)
    server.start()
    study.epochs(5)
    server.wait()
    until(lambda: len(study.notes) == before + 2)
    study.ledger.end(study.first.key, "finished", "")
    study.ledger.end(study.second.key, "failed", "it broke", "a traceback")
    assert study.ledger.close() == ""
    assert curve(runs()["lamb=0.02"]) == [(epoch, epoch / 10) for epoch in range(1, 6)]
    assert curve(runs()["lamb=0.05"]) == [(1, 0.5)]
    assert offline_files("study") == []
