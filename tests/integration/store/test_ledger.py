"""Ledger on a real sqlite store: one run per cell and each metric once, while the store fails in every way.

Run: python -m pytest tests/integration/store/test_ledger.py
"""

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from stores import until

from analysis.store.cell_list import recorded_cells
from jepa_train.config.presets import DIGITS
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.run.ledger import Ledger, replay_offline_queue
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store import mlflow_client, write_queue
from sweeps.engine.store.offline_queue import OfflineQueue, Operation, offline_files, read_operations
from sweeps.engine.store.reader import store_uri

FILE = Path("study.py")
GRID = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]})


@pytest.fixture(autouse=True)
def store(results: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store, and a write queue without pauses."""
    monkeypatch.setattr(write_queue, "_PAUSE_S", 0.1)
    return results / "mlflow.db"


class Study:
    """One launch of the sweep, and the lines for its user."""

    def __init__(self, publish: Callable[[], str] = lambda: "| a table |") -> None:
        plan = make_plan(GRID, FILE)
        self.first, self.second = plan.fixed
        self.notes: list[str] = []
        self.ledger = Ledger(plan, note=self.notes.append, publish=publish)

    def start(self) -> None:
        """Start the first cell, and wait until the store has its run."""
        self.ledger.start(self.first, devices=1.0)
        until(lambda: runs()["lamb=0.02"].data.params)

    def epochs(self, *epochs: int, value: float = 0.0) -> None:
        """Reports of the first cell, by default with a tenth of the epoch as the value."""
        for epoch in epochs:
            metrics = {"epoch": epoch, "val/probe_top1": value or epoch / 10, "train/loss": 1.0 / epoch}
            self.ledger.log(self.first.key, metrics)

    def finish(self, *epochs: int) -> None:
        """Report epochs, end the first cell and close the ledger."""
        self.epochs(*epochs)
        self.ledger.end(self.first.key, "finished", "")
        assert self.ledger.close() == ""


def experiment() -> tuple[MlflowClient, str, dict[str, str]]:
    """A client, the sweep's experiment and its tags."""
    client = MlflowClient(store_uri())
    found = client.get_experiment_by_name("study")
    return client, found.experiment_id, found.tags


def runs() -> dict[str, Run]:
    """The cells' runs by label: one of each."""
    client, sweep, _ = experiment()
    found = [run for run in client.search_runs([sweep]) if "cell_key" in run.data.tags]
    assert max(Counter(run.data.tags["cell_key"] for run in found).values(), default=1) == 1
    return {run.info.run_name: run for run in found}


def curve(metric: str = "val/probe_top1") -> list[tuple[int, float]]:
    """Everything that the first cell's run holds of a metric."""
    history = MlflowClient(store_uri()).get_metric_history(runs()["lamb=0.02"].info.run_id, metric)
    return sorted((point.step, point.value) for point in history)


def refuse(store: Path, *events: str) -> Callable[[], None]:
    """Let the store reject statements, as "INSERT ON runs". Returns a call that lets it accept them again."""

    def execute(*statements: str) -> None:
        connection = sqlite3.connect(store, timeout=20)
        with connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    body = "BEGIN SELECT RAISE(ABORT, 'refused'); END"
    names = [f"refuse_{number}" for number, _ in enumerate(events)]
    execute(*(f"CREATE TRIGGER {name} BEFORE {event} {body}" for name, event in zip(names, events, strict=True)))
    return lambda: execute(*(f"DROP TRIGGER {name}" for name in names))


WRITES = ("INSERT ON runs", "INSERT ON metrics")


def test_a_cell_from_start_to_end_and_a_later_evaluation() -> None:
    study = Study()
    study.ledger.start(study.first, devices=2.0)
    study.epochs(1, 2, 3)
    time.sleep(0.1)
    study.ledger.log(study.first.key, {"epoch": 4, "val/probe_top1": float("nan")}, rungs={2: 0.2})
    study.ledger.end(study.first.key, "failed", "it broke", "a traceback")
    assert study.ledger.close() == ""
    run = runs()["lamb=0.02"]
    assert curve("train/loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert [step for step, _ in curve()] == [1, 2, 3, 4]
    tags = run.data.tags
    assert (tags["status"], tags["reason"], tags["epoch"], tags["rungs"]) == ("failed", "it broke", "4", '{"2": 0.2}')
    assert 0.2 <= float(tags["device_seconds"]) < 60, "0.1 s on two devices"
    assert run.info.status == "FAILED"
    assert run.info.start_time < run.info.end_time
    assert run.data.params["method.lamb"] == "0.02"
    assert MlflowClient(store_uri()).list_artifacts(run.info.run_id)[0].path == "traceback.txt"
    assert study.notes == []
    for _ in range(2):
        study.ledger.amend(
            make_plan(GRID, FILE).entries[study.first.key], {"epoch": 4, "train/loss": 1 / 3, "test/knn_top1": 0.75}
        )
    assert (len(curve("train/loss")), curve("test/knn_top1")) == (3, [(4, 0.75)]), "only what is new, once"


def test_a_resumed_cell_logs_no_epoch_twice_and_adds_its_lost_time() -> None:
    study = Study()
    study.ledger.start(study.first, devices=1.0)
    study.epochs(1, 2, 3)
    study.ledger.start(study.first, devices=1.0)  # its trial was lost
    study.epochs(2, 3, 4, value=0.9)
    assert study.ledger.lose(study.first.key, lost_s=100.0, idle_s=0.05) == 100.0
    study.ledger.end(study.first.key, "interrupted", "")
    study.ledger.close()
    again = Study()
    again.ledger.start(again.first, devices=2.0)
    again.ledger.lose(again.first.key, lost_s=1.0, idle_s=0.0)
    again.epochs(1, 2, 3, 4, value=0.7)
    again.finish(5)
    assert curve() == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.9), (5, 0.5)]
    assert float(runs()["lamb=0.02"].data.tags["lost_device_seconds"]) == pytest.approx(102.0), "of all attempts"


def test_an_outage_is_noted_once_kept_offline_and_caught_up_with(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study()
    study.start()
    accept = refuse(store, *WRITES)
    with monkeypatch.context() as patch:
        patch.setattr(OfflineQueue, "save", lambda *_: False)  # a full disk
        study.epochs(1, 2, 3)
        until(lambda: study.notes)
        assert study.notes[0].endswith("cannot be reached (refused); metrics wait in memory; training goes on")
    until(lambda: offline_files("study"))
    study.ledger.start(study.second, devices=1.0)
    study.ledger.end(study.second.key, "finished", "")
    until(lambda: {one.key for one in read_operations(offline_files("study")[0])} >= {study.second.key})
    accept()
    until(lambda: len(study.notes) == 2)
    assert study.notes[1] == f"the store {store_uri()} answers again; the metrics that waited are written"
    study.finish(4)
    assert curve() == [(epoch, epoch / 10) for epoch in range(1, 5)]
    assert {run.data.tags["status"] for run in runs().values()} == {"finished"}
    assert offline_files("study") == []


def test_the_next_launch_writes_the_offline_queue(store: Path) -> None:
    study = Study()
    accept = refuse(store, *WRITES)
    study.ledger.start(study.first, devices=1.0)
    study.epochs(1, 2)
    study.ledger.end(study.first.key, "interrupted", "")
    study.ledger.start(study.first, devices=1.0)
    study.epochs(2, 3)
    study.ledger.end(study.first.key, "finished", "well")
    line = study.ledger.close()
    (file,) = offline_files("study")
    count = len(read_operations(file))
    assert line.startswith(f"{count} records wait in {file}: the store {store_uri()} cannot be reached (")
    assert [one.step for one in read_operations(file) if one.key] == [0, 1, 2, 0, 0, 2, 3, 0]
    assert make_plan(GRID, FILE).todo == 2
    accept()
    kept = file.read_bytes()
    assert replay_offline_queue("study") == count
    assert replay_offline_queue("study") == 0
    file.write_bytes(kept)  # as if the launch had been killed before it removed the file
    assert replay_offline_queue("study") == count
    for lines in (kept, b"\n".join(line for line in kept.splitlines()[:4])):  # the second from before the cell's end
        file.write_bytes(lines)
        assert replay_offline_queue("study") == len(lines.splitlines())
        entry = make_plan(GRID, FILE).entries[study.first.key]
        assert (entry.status, entry.epoch, entry.reason) == ("finished", 3, "well")
    assert curve() == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert make_plan(GRID, FILE).todo == 1


@pytest.mark.parametrize("call", ["create_run", "log_batch", "log_inputs", "set_terminated"])
def test_a_call_whose_answer_is_lost_doubles_nothing(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    carry_out, failures = getattr(MlflowClient, call), []

    def lost(client: MlflowClient, *args, **kwargs):
        result = carry_out(client, *args, **kwargs)
        if len(failures) < 2:  # the writer itself tries some calls twice
            failures.append(call)
            raise MlflowException("the connection was reset")
        return result

    study = Study()
    monkeypatch.setattr(MlflowClient, call, lost)
    study.ledger.start(study.first, devices=1.0)
    study.finish(*range(1, 9))
    assert failures
    assert curve() == [(epoch, epoch / 10) for epoch in range(1, 9)]
    run = runs()["lamb=0.02"]
    assert run.data.params["method.lamb"] == "0.02"
    assert len(run.inputs.dataset_inputs) == 1
    assert make_plan(GRID, FILE).entries[study.first.key].status == "finished"


def test_a_run_that_is_created_late_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server carries a creation out after the writer has created another run, which it does after a pause."""
    create, late = MlflowClient.create_run, []

    def slow(client: MlflowClient, *args, **kwargs):
        if not late and kwargs["run_name"] == "lamb=0.02":
            late.append(lambda: create(client, *args, **kwargs))
            raise MlflowException("timed out")
        assert not late or study.notes, "a search at once would miss a creation that still goes on"
        return create(client, *args, **kwargs)

    study = Study()
    monkeypatch.setattr(MlflowClient, "create_run", slow)
    study.start()
    late[0]()
    study.finish(1, 2)
    entry = make_plan(GRID, FILE).entries[study.first.key]
    assert (entry.status, entry.metrics["val/probe_top1"]) == ("finished", 0.2)
    assert make_plan(GRID, FILE).todo == 1


def test_a_run_whose_creator_was_killed_gets_its_config() -> None:
    study = Study()
    client, sweep, _ = experiment()
    client.create_run(sweep, tags={"cell_key": study.first.key}, run_name="lamb=0.02")
    study.ledger.start(study.first, devices=1.0)
    study.finish()
    assert make_plan(GRID, FILE).state(study.first) == "finished"
    assert runs()["lamb=0.02"].data.params["method.lamb"] == "0.02"


def test_what_cannot_be_stored_costs_only_itself_and_one_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that somebody deletes, artifacts, the sweep's own tags, and a table that fails at first."""

    def refused(*_: object) -> None:
        raise MlflowException("too long", error_code=INVALID_PARAMETER_VALUE)

    failures = [KeyError("no column")]

    def publish() -> str:
        if failures:
            raise failures.pop()
        return "| a table |"

    study = Study(publish)
    study.start()
    study.epochs(1)
    until(lambda: curve() == [(1, 0.1)])
    MlflowClient(store_uri()).delete_run(runs()["lamb=0.02"].info.run_id)
    for call in ("log_artifacts", "set_experiment_tag"):
        monkeypatch.setattr(MlflowClient, call, refused)
    study.ledger.record_cells(["a" * 16])
    study.ledger.start(study.second, devices=1.0)
    study.ledger.end(study.second.key, "failed", "it broke", "a traceback")
    study.finish(2, 3)
    assert {label: run.data.tags["status"] for label, run in runs().items()} == {"lamb=0.05": "failed"}
    assert sorted(study.notes) == [
        "tables and figures cannot be made now: 'no column'",
        "the store refuses the sweep's own tags, description or plan (too long); it will be missing there",
        f"the store refuses what cell {study.first.key} reports (its run is no longer there); it will be missing there",
        "the store takes no files (too long); plans and tracebacks are not kept there",
    ]


def test_a_resumed_launch_shows_the_cells_that_were_done_before() -> None:
    study = Study()
    study.start()
    study.finish(1)
    again = Study(publish=lambda: "| before |")
    until(lambda: again.ledger.table == "| before |")
    assert again.ledger.close() == ""


def test_a_slow_and_busy_server_is_waited_for_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = [503, 200]  # MLflow's answer while another process locks its database

    class Slow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            time.sleep(0.1)
            self.send_response(codes.pop(0))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    monkeypatch.setattr(mlflow_client, "_LATE_S", 0.05)
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        mlflow_client.open_client(uri)
        server.shutdown()
    assert capsys.readouterr().err == f"waiting for the store {uri} to answer, up to 60 s for each request\n"


def test_nobody_waits_for_a_store_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, let_go, answers = threading.Event(), threading.Event(), []
    create = MlflowClient.create_run

    def hang(*_: object, **__: object) -> None:
        begun.set()
        let_go.wait(60)
        answers.append("at last")
        raise MlflowException("timed out")

    study = Study()
    monkeypatch.setattr(write_queue, "_CLOSE_S", 0.3)
    monkeypatch.setattr(MlflowClient, "create_run", hang)
    study.ledger.start(study.first, devices=1.0)
    assert begun.wait(60)
    study.epochs(*range(1, 1001))
    line = study.ledger.close()
    assert answers == [], "1,000 reports, and the end, within one call of the store"
    assert line.endswith("cannot be reached (it does not answer); the same command writes them first")
    (file,) = offline_files("study")
    assert len(read_operations(file)) == int(line.split()[0]) >= 1001
    kept, thread = file.read_bytes(), next(each for each in threading.enumerate() if each.name == "ledger")
    monkeypatch.setattr(MlflowClient, "create_run", create)
    let_go.set()  # the store answers again
    thread.join(60)
    assert not thread.is_alive()
    assert file.read_bytes() == kept, "the file is the next launch's"


def test_unreadable_lines_of_an_offline_queue_are_left_out_with_one_note(caplog: pytest.LogCaptureFixture) -> None:
    assert OfflineQueue("study").save([Operation(at=1, key="k"), Operation(at=2, key="k")])
    (file,) = offline_files("study")
    first, second = file.read_bytes().splitlines()
    half, unknown = b'etrics": {"train/loss": 1.0}}', b'{"at": 3, "colour": "red"}'
    file.write_bytes(b"\n".join([first, half, unknown, b'{"at": 4', second]))
    assert [one.at for one in read_operations(file)] == [1, 2]
    assert caplog.messages == [f"{file}: 3 lines cannot be read and are left out"]


def test_an_offline_queue_belongs_to_one_store_and_one_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    operation = Operation(at=1, key="k", metrics={"train/loss": float("inf")})
    for sweep in ("study", "study-2"):
        assert OfflineQueue(sweep).save([operation])
    (file,) = offline_files("study")
    assert read_operations(file) == [operation]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert offline_files("study") == []


def test_the_list_of_cells_grows_in_order_and_survives_an_outage(store: Path) -> None:
    study = Study()
    keys = [study.first.key, study.second.key, *(f"{number:016x}" for number in range(300))]
    study.ledger.record_cells([*keys[202:], study.first.key])
    until(lambda: recorded_cells(experiment()[2]) == (*keys[:2], *keys[202:]))
    study.ledger.record_cells([], 301)  # a search needs fewer
    until(lambda: experiment()[2]["sweep.total"] == "301")
    accept = refuse(store, "UPDATE ON experiment_tags", "INSERT ON experiment_tags")
    study.ledger.record_cells(keys[2:202])
    assert "records wait in" in study.ledger.close()
    accept()
    replay_offline_queue("study")
    assert recorded_cells(experiment()[2]) == (*keys[:2], *keys[202:], *keys[2:202])
