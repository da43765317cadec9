"""Ledger and lock under faults of whole processes: an MLflow server and launches that are killed.

Run: python -m pytest tests/slow/test_ledger_faults.py
"""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from stores import until

from jepa_train.base.errors import ConfigError
from jepa_train.config.presets import DIGITS
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.run.ledger import Ledger
from sweeps.engine.spec.cells import Cell
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store import mlflow_client, write_queue
from sweeps.engine.store.lock import hold, holder_of
from sweeps.engine.store.mlflow_client import open_client, root_cause
from sweeps.engine.store.offline_queue import offline_files

GRID = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]})
LAUNCH = """
import sys, time
from sweeps.engine.store import lock
lock._HEARTBEAT_S, lock._STOP_S = 1.0, 10.0
with lock.hold("study", lambda line: print(line, flush=True), take_over="--take-over" in sys.argv):
    print("held", flush=True)
    time.sleep(float(sys.argv[1]))
"""


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def mlflow_server(store: Path, port: int) -> Iterator[None]:
    """A real MLflow server on loopback over a store; the end of the block kills it with its worker."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{store}"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # a dozen processes fewer
    with (store.parent / "server.log").open("a") as log:
        quiet = {"stdout": log, "stderr": log, "start_new_session": True}
        server = subprocess.Popen(command, cwd=store.parent, env=environment, **quiet)
    try:
        until(lambda: answers(port))
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        until(lambda: not answers(port))  # its worker may be gone a little later


def test_a_server_that_is_killed_and_comes_back(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(write_queue, "_PAUSE_S", 0.1)
    notes: list[str] = []
    with mlflow_server(results / "mlflow.db", port):
        plan = make_plan(GRID, Path("study.py"))
        ledger = Ledger(plan, note=notes.append, publish=str)
        first, second = plan.fixed
        client = MlflowClient()
        sweep = client.get_experiment_by_name("study").experiment_id
        ledger.start(first, devices=1.0)
        report(ledger, first, 1, 2)
        until(lambda: logged(client, sweep, first) == [1, 2])
        before = len(notes)
    report(ledger, first, 3, 4)
    ledger.start(second, devices=1.0)
    until(lambda: len(notes) > before)
    # The reason is one of the socket or of the dying server's last answer, never the whole chain of HTTP errors
    assert notes[before].startswith(f"the store http://127.0.0.1:{port} cannot be reached (")
    assert "HTTPConnectionPool" not in notes[before]
    with mlflow_server(results / "mlflow.db", port):
        until(lambda: notes[-1].endswith("answers again; the metrics that waited are written"))
        report(ledger, first, 5)
        ledger.end(first.key, "finished", "")
        ledger.end(second.key, "failed", "it broke", "a traceback")
        assert ledger.close() == ""
        assert logged(client, sweep, first) == [1, 2, 3, 4, 5]
        statuses = {entry.status for entry in make_plan(GRID, Path("study.py")).entries.values()}
    assert statuses == {"finished", "failed"}
    assert offline_files("study") == []


def report(ledger: Ledger, cell: Cell, *epochs: int) -> None:
    for epoch in epochs:
        ledger.log(cell.key, {"epoch": epoch, "val/probe_top1": epoch / 10})


def logged(client: MlflowClient, sweep: str, cell: Cell) -> list[int]:
    """Epochs in the store."""
    runs = client.search_runs([sweep], f"tags.cell_key = '{cell.key}'")
    return [point.step for run in runs for point in client.get_metric_history(run.info.run_id, "val/probe_top1")]


def test_mlflow_repeats_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A creation that was carried out without an answer would make two runs. Tables, read before, allow retries."""
    requests: list[str] = []

    class Busy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(503)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(mlflow_client, "_BUSY_S", 0.0)  # in which calls that may be repeated are
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    with http.server.HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        with pytest.raises(MlflowException) as raised:
            open_client(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert root_cause(raised.value) == "too many 503 error responses"
    assert len(requests) == 1


def launched(*words: str) -> subprocess.Popen:
    """A process that holds the sweep, or tries to."""
    command = [sys.executable, "-c", LAUNCH, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.usefixtures("results")
def test_a_killed_launch_is_taken_over_at_once_and_a_living_one_on_request() -> None:
    killed = launched("600")
    assert killed.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=rf"\(process {killed.pid}\)"), hold("study"):
        raise AssertionError("held twice")
    killed.kill()
    killed.wait()
    living = launched("600")
    assert living.stdout.readline() == "held\n", "without a wait for a sign of life"
    assert holder_of("study").pid == living.pid
    taker = launched("1", "--take-over")
    assert living.wait(120) == 128 + signal.SIGTERM
    assert "was taken over by" in living.stdout.read()
    assert taker.wait(120) == 0
    assert taker.stdout.read().endswith("held\n")
