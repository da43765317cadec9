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
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from stores import until

from jepa_train.base.errors import ConfigError
from jepa_train.config.presets import DIGITS
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.run.ledger import Ledger
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store import write_queue
from sweeps.engine.store.lock import hold, holder_of
from sweeps.engine.store.mlflow_client import open_client, root_cause
from sweeps.engine.store.offline_queue import offline_files

GRID = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]})
LAUNCH = """
import sys, time
from sweeps.engine.store.lock import hold
with hold("study", lambda line: print(line, flush=True), take_over="--take-over" in sys.argv):
    print("held", flush=True)
    time.sleep(float(sys.argv[1]))
"""


class Server:
    """A real MLflow server on loopback."""

    def __init__(self, store: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._store = store
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; it is up when it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self._store}"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # a dozen processes fewer
        self._process = subprocess.Popen(command, cwd=self._store.parent, env=environment, **quiet)

    def answers(self) -> bool:
        """Return True if it accepts connections."""
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """Kill it with its worker, which may be gone a little later than its parent."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        until(lambda: not self.answers())


@pytest.fixture
def server(results: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server over the test's store."""
    server = Server(results / "mlflow.db")
    server.start()
    try:
        until(server.answers)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        yield server
    finally:
        server.kill()


def test_a_server_that_is_killed_and_comes_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_queue, "_PAUSE_S", 0.1)
    plan = make_plan(GRID, Path("study.py"))
    notes: list[str] = []
    ledger = Ledger(plan, note=notes.append, publish=str)
    first, second = plan.fixed
    client = MlflowClient(server.uri)

    def logged() -> list[int]:
        (run,) = client.search_runs([sweep], f"tags.cell_key = '{first.key}'")
        return [point.step for point in client.get_metric_history(run.info.run_id, "val/probe_top1")]

    def report(*epochs: int) -> None:
        for epoch in epochs:
            ledger.log(first.key, {"epoch": epoch, "val/probe_top1": epoch / 10})

    sweep = client.get_experiment_by_name("study").experiment_id
    ledger.start(first, devices=1.0)
    until(lambda: client.search_runs([sweep], f"tags.cell_key = '{first.key}'"))
    report(1, 2)
    until(lambda: logged() == [1, 2])
    before = len(notes)
    server.kill()
    report(3, 4)
    ledger.start(second, devices=1.0)
    until(lambda: len(notes) > before)
    # The reason is one of the socket or of the dying server's last answer, never the whole chain of HTTP errors
    assert notes[before].startswith(f"the store {server.uri} cannot be reached (")
    assert "HTTPConnectionPool" not in notes[before]
    server.start()
    until(server.answers)
    until(lambda: notes[-1].endswith("answers again; the metrics that waited are written"))
    report(5)
    ledger.end(first.key, "finished", "")
    ledger.end(second.key, "failed", "it broke", "a traceback")
    assert ledger.close() == ""
    assert logged() == [1, 2, 3, 4, 5]
    assert {entry.status for entry in make_plan(GRID, Path("study.py")).entries.values()} == {"finished", "failed"}
    assert offline_files("study") == []


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
def test_a_launch_that_is_killed_is_taken_over_at_once() -> None:
    launch = launched("600")
    assert launch.stdout.readline() == "held\n"
    assert holder_of("study").pid == launch.pid
    with pytest.raises(ConfigError, match=rf"\(process {launch.pid}\)"), hold("study"):
        raise AssertionError("held twice")
    launch.kill()
    launch.wait()
    with hold("study"):
        assert holder_of("study").pid == os.getpid()


@pytest.mark.usefixtures("results")
def test_take_over_ends_a_living_launch() -> None:
    first = launched("600")
    assert first.stdout.readline() == "held\n"
    second = launched("1", "--take-over")
    assert first.wait(120) == 128 + signal.SIGTERM
    assert "was taken over by" in first.stdout.read()
    assert second.wait(120) == 0
    assert second.stdout.read().endswith("held\n")
