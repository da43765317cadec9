"""doctor: a machine that is ready is told so, and each thing that is amiss is named with its remedy."""

import http.server
import json
import os
import sqlite3
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jepa_train.storage import storage
from jepa_train.storage.storage import StorageError, checkpoints_dir
from sweeps.__main__ import main
from sweeps.engine.cli import doctor
from sweeps.engine.cluster import nodes


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of this test's own, which is not there yet, and no cluster."""
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    for name in ("MLFLOW_TRACKING_URI", "OMP_NUM_THREADS", "JEPA_STORAGE", "JEPA_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A store with a sweep whose launch died: MLflow takes seconds to make one."""
    file = tmp_path_factory.mktemp("template") / "mlflow.db"
    holder = {"host": "elsewhere", "pid": 1, "user": "me", "since": 0, "beat": 0}
    MlflowClient(f"sqlite:///{file}").create_experiment("study", tags={"sweep.holder": json.dumps(holder)})
    return file.read_bytes()


@pytest.fixture
def store(results: Path, template: bytes) -> str:
    """The URI of a store of this test's own."""
    results.mkdir()
    (results / "mlflow.db").write_bytes(template)
    return f"sqlite:///{results}/mlflow.db"


def told(check, *arguments) -> dict[str, tuple[str, str]]:
    """The lines of a check: name -> (level, text and remedy)."""
    return {line.name: (line.level, f"{line.text}; {line.remedy}") for line in check(*arguments)}


def test_a_fresh_machine_is_ready_and_doctor_writes_nothing(results: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "demo_rectified_lpjepa"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 24  # one screen
    assert {line.split()[0] for line in lines} <= {"ok", "warning"}
    assert any(line.startswith("ok       demo_rectified_lpjepa data digits") for line in lines)
    assert not results.exists()


def test_a_sweep_whose_data_is_not_there_is_a_problem(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "colour_folder", "data.path=/nowhere"]) == 1
    assert "problem  colour_folder data.path must be a folder, got '/nowhere'" in capsys.readouterr().out
    assert main(["doctor", "demo_two_workers"]) == 0  # its base comes when demo_lejepa has run
    assert "warning  demo_two_workers base is the best cell of sweep 'demo_lejepa'" in capsys.readouterr().out


def test_a_sweep_whose_data_is_away_is_a_problem(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def away(*_: object) -> None:
        raise StorageError("data.path 's3://bucket/x' cannot be read (no network)")

    monkeypatch.setattr("jepa_train.storage.storage.StoragePath.files", away)
    assert main(["doctor", "colour_folder", "data.path=s3://bucket/x"]) == 1
    assert "problem  colour_folder data.path 's3://bucket/x' cannot be read (no network)" in capsys.readouterr().out


def test_unknown_names_are_answered(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "demo_lejpa"]) == 2
    assert capsys.readouterr().err.startswith("error: 'demo_lejpa' is no sweep; did you mean 'demo_lejepa'?")


def test_the_store_and_what_was_left_behind(store: str, results: Path):
    (results / "spool").mkdir()
    (results / "spool" / "study.jsonl").write_text("x" * 2_000_000)
    lines = told(doctor._store)
    assert lines["store"][0] == "ok"
    assert f"{store}, " in lines["store"][1]
    assert lines["spool"] == ("warning", "1 files, 2.0 MB of metrics wait for the store; "
                              "the next launch of their sweeps writes them")  # fmt: skip
    assert lines["left"] == ("warning", "study: its launch is gone; the next launch takes it over")


@pytest.mark.usefixtures("store")
def test_a_store_that_somebody_else_writes_to_for_long(results: Path):
    with sqlite3.connect(results / "mlflow.db", isolation_level=None) as other:
        other.execute("begin immediate")
        assert "cannot be written to: database is locked" in told(doctor._store)["store"][1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.usefixtures("store")
def test_a_store_that_is_read_only(results: Path):
    (results / "mlflow.db").chmod(0o444)
    assert "the file is read-only" in told(doctor._store)["store"][1]


def test_a_file_that_is_no_store_and_a_server_that_is_down(results: Path, monkeypatch: pytest.MonkeyPatch):
    results.mkdir()
    (results / "mlflow.db").write_text("no database" * 100)
    assert told(doctor._store)["store"][0] == "problem"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    level, text = told(doctor._store)["store"]
    assert level == "problem"
    assert "start the server" in text


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize("command", [["doctor"], ["demo_lejepa", "--status"]])
def test_a_database_without_its_driver(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+pg8000://me:canary@127.0.0.1:1/mlflow")
    assert main(command) != 0
    told = capsys.readouterr()
    text = " ".join((told.out + told.err).split())
    assert "MLFLOW_TRACKING_URI must be a server's http://host:port, or a database whose driver is installed" in text
    assert "canary" not in text
    assert "Traceback" not in text


def test_a_server_of_another_version():
    class Old(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"2.9.1")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Old) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        lines = told(doctor._server_version, f"http://127.0.0.1:{server.server_port}")
    level, text = lines["MLflow server"]
    assert (level, text[:6]) == ("warning", "2.9.1,")
    assert "the same version" in text


def test_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch):
    cores = len(os.sched_getaffinity(0))
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores + 1))
    level, text = told(doctor._machine)["CPU"]
    assert level == "warning"
    assert f"set it to {cores} or less" in text


def test_packages_out_of_bounds(monkeypatch: pytest.MonkeyPatch):
    real = doctor.importlib.metadata.version
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "0.9" if name == "timm" else real(name))
    level, text = told(doctor._python)["packages"]
    assert level == "problem"
    assert text.startswith("timm is 0.9, not >=1.0.20; pip install")


def test_results_on_a_full_or_closed_disk(results: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_FREE_GB", 1e9)
    assert told(doctor._results)["results"][0] == "warning"
    results.write_text("a file where the folder should be")
    assert told(doctor._results)["results"][0] == "problem"


def test_the_storage_by_url_and_the_cache(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "PAUSES_S", ())
    monkeypatch.setenv("JEPA_STORAGE", s3)
    assert told(doctor._storage) == {
        "storage": ("ok", f"{s3} can be written to; "),
        "checkpoints": ("ok", "nothing yet; "),
    }
    (checkpoints_dir("study") / "cell" / "final.pt").write_bytes(bytes(20_000_000))
    assert told(doctor._storage)["checkpoints"][1].startswith("0.02 GB in 1 files")
    for where, level, words in (
        (s3.replace("s3://", "s3://no-"), "problem", "NO_SUCH_BUCKET"),
        ("s3://me:hunter2@bucket", "problem", "must hold no credentials"),
        (f"{tmp_path}/nfs", "warning", "mount it"),
        (str(tmp_path), "ok", "can be written to"),
    ):
        monkeypatch.setenv("JEPA_STORAGE", where)
        (found, text) = told(doctor._storage)["storage"]
        assert (found, words in text, "hunter2" in text) == (level, True, False)
    assert told(doctor._cache) == {}
    monkeypatch.setenv("JEPA_CACHE", f"{tmp_path}/cache")
    assert told(doctor._cache)["cache"][1].startswith(f"{tmp_path}/cache: nothing yet, ")
    (tmp_path / "cache").touch()
    assert told(doctor._cache)["cache"][0] == "problem"


def test_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    level, text = told(doctor._ray)["Ray"]
    assert level == "problem"
    assert "got nothing from 127.0.0.1:9" in text
    assert "RAY_ADDRESS=local" in text


@pytest.mark.parametrize(
    ("text", "level", "words"),
    [
        ("provider: {type: aws}\navailable_node_types: {head: {}, gpu: {}}", "ok", "head, gpu; without prices"),
        ("provider: {type: local}\nmetadata: {prices: {head: 1}}", "ok", "with prices"),
        ("provider: [", "problem", "is no YAML"),
        ("cluster_name: x", "problem", "has no provider"),
    ],
)
def test_cluster_files(text: str, level: str, words: str, tmp_path: Path):
    (tmp_path / "cluster.yaml").write_text(text)
    assert told(doctor._cluster_file)["cluster file"][0] == level
    assert words in told(doctor._cluster_file)["cluster file"][1]


def test_on_a_head_the_cluster_s_file_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nodes, "BOOTSTRAP", str(tmp_path / "bootstrap.yaml"))
    (tmp_path / "bootstrap.yaml").write_text("provider: {type: local}")
    (tmp_path / "cluster.yaml").write_text("provider: {type: aws}\nmetadata: {prices: {gpu: 1}}")
    assert "bootstrap.yaml: the machines of provider local; without prices" in str(told(doctor._cluster_file))
