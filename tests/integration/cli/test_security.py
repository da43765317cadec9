"""Attempts: to get at secrets, to run code by what is read, to leave the results folder, to listen for others."""

import dataclasses
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient
from stores import StoreWriter

from analysis.__main__ import main as analysis_main
from analysis.html_report import write_report
from analysis.store.export import write_export
from analysis.store.runs import load_runs
from analysis.store.sources import NothingToShow, digest_of, shown
from jepa_train.base.errors import ConfigError
from jepa_train.base.security import hidden
from jepa_train.checkpoint.checkpoints import CheckpointError, Checkpoints, read_checkpoint
from jepa_train.config import TrainConfig
from jepa_train.config.flat import cell_key, flatten
from jepa_train.config.presets import DIGITS
from jepa_train.data.cache import ArraySource, cached_array
from jepa_train.storage.paths import cache_dir
from jepa_train.train.preflight import preflight
from sweeps.engine.cli.doctor import examine
from sweeps.engine.cli.main import main
from sweeps.engine.cluster import nodes
from sweeps.engine.plan.describe import open_ledger
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.spec.sweep import BestOf, Sweep
from sweeps.engine.store.ledger import replay_offline_queue
from sweeps.engine.store.offline_queue import OfflineQueue, Operation
from sweeps.engine.store.reader import find_experiment, read_entries, shown_uri, store_uri

SWEEP = Sweep(name="study", purpose="A study.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]})


# Secrets stay where they are.


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "AWS_SECRET_ACCESS_KEY": "abc/def+ghijklmnop",
        "TEAM_TOKEN": "tok-12345678",
        "SHORT_TOKEN": "digits",
        "GOOGLE_TOKEN_FILE": "/home/me/token.json",
        "DATABASE_URL": "postgresql://me:p%40ss-word-1@db:5432/x",
        "PGPASSWORD": "canary-0001",
        "DB_PASS": "canary-0002",
        "SSHPASS": "canary-0003",
        "GITHUB_PAT": "canary-0004",
        "K8S_TOKEN": "canary-0005\n",
        "AZURE_STORAGE_CONNECTION_STRING": "AccountName=name-0001;AccountKey=canary/0006==;EndpointSuffix=core.net",
        "SSH_ASKPASS": "/usr/bin/askpass",
        "OLDPWD": "/home/me/work",
        "PROXY_BYPASS": "localhost",
    }.items():
        monkeypatch.setenv(name, text)


def test_analysis_names_a_store_without_its_password() -> None:
    assert shown("postgresql://me:p@ss/word@db:5432/x") == "postgresql://db:5432/x"
    assert shown("postgresql://db/x?user=me&password=pass&y=1") == "postgresql://db/x?user=me&password=***&y=1"
    assert shown("https://h/x?pwd=a&db_pass=b&sig=c&passes=3") == "https://h/x?pwd=***&db_pass=***&sig=***&passes=3"
    assert shown("sqlite:////home/me@work/mlflow.db") == "sqlite:////home/me@work/mlflow.db"
    assert shown("https://ghp_0123456789@host/x") == "https://host/x", "a token alone"
    assert hidden("https://ghp_0123456789@host/x s3://bucket/a@b") == "https://***@host/x s3://bucket/a@b"


@pytest.mark.usefixtures("secrets", "results")
@pytest.mark.parametrize(
    "word",
    ["data.path=s3://AKIA:canary@bucket/images", "data.path=/mnt/tok-12345678", "probe.transfer=x=s3://a:canary@b"],
)
def test_a_config_that_holds_a_secret_is_refused_before_anything_starts(
    word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, _, value = word.partition("=")
    base = dataclasses.replace(DIGITS, data=dataclasses.replace(DIGITS.data, path=value)) if "path" in key else None
    probe = dataclasses.replace(DIGITS.probe, transfer=value if base is None else "")
    with pytest.raises(ConfigError, match=f"{key} must hold no password, token or key"):
        preflight(base or dataclasses.replace(DIGITS, probe=probe))
    if base is None:
        return
    for name in ("study.py", "x.py"):
        (tmp_path / name).touch()
    assert main(SWEEP, str(tmp_path / "study.py"), [word]) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(r"error: data\.path must hold no password[^\n]+\n", told)
    assert "canary" not in told
    assert "tok-12345678" not in told


@pytest.mark.usefixtures("secrets")
def test_what_the_ledger_writes_while_the_store_is_away_holds_no_secret(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The experiment's own tags, and every text that an operation may hold, in the store and in the spool."""
    file = tmp_path / "tok-12345678" / "study.py"  # its path is a tag of the experiment
    file.parent.mkdir()
    file.write_text("# s3://AKIA:tok-12345678@bucket\n")
    monkeypatch.setattr(sys, "argv", ["study.py", "http://me:canary@host"])
    sweep = dataclasses.replace(SWEEP, purpose="see http://me:canary@host")
    notes: list[str] = []
    ledger = open_ledger(make_plan(sweep, file), note=notes.append, publish=lambda: "tok-12345678", products=lambda: {})
    cell = make_plan(sweep, file).fixed[0]
    ledger.start(cell, devices=1.0)
    ledger.end(cell.key, "failed", "no login for abc/def+ghijklmnop", "Traceback tok-12345678")
    assert ledger.close() == ""
    spool = OfflineQueue("study")
    spool.append([Operation(at=1, tags=hidden({"reason": "tok-12345678"}))])
    found = {path for path in results.rglob("*") if path.is_file()}
    assert {"traceback.txt", "study.py", "mlflow.db"} <= {path.name for path in found}
    canaries = (b"canary", b"tok-12345678", b"abc/def+ghijklmnop")
    assert [(path, word) for path in found for word in canaries if word in path.read_bytes()] == []
    assert b"***@host" in (results / "mlflow.db").read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:canary@db/x")
    assert shown_uri() == "postgresql://***@db/x"


@pytest.mark.usefixtures("results")
def test_doctor_and_status_name_the_store_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.py"
    file.touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{store_uri()}?password=canary-1")
    assert main(SWEEP, str(file), ["--status", "--json"]) == 0
    assert "password=***" in capsys.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:canary-1@127.0.0.1:9")
    assert examine([], []) == 1
    told = capsys.readouterr().out
    assert "store         http://***@127.0.0.1:9 cannot be used" in told
    assert "canary" not in told


CANARIES = {
    "AWS_ACCESS_KEY_ID": "AKIA-not-hidden",
    "AWS_SECRET_ACCESS_KEY": "canary-aws-0001",
    "AWS_SESSION_TOKEN": "canary-aws-0002",
    "MLFLOW_TRACKING_TOKEN": "canary-mlflow-0003",
    "RAY_AUTH_TOKEN": "canary-ray-0004-0004-0004-0004-0004",
    "TEAM_API_KEY": "canary-team-0005",
}
SWEEP_FILE = """
import dataclasses
from jepa_train.methods import LeJEPA
from jepa_train.config.presets import DIGITS
from sweeps.engine import Sweep
BASE = dataclasses.replace(DIGITS, method=LeJEPA(num_slices=16), epochs=1, global_batch=256)
SWEEP = Sweep(name="leaky", purpose="See http://me:canary-doc-0006@host/.", base=BASE, cpus_per_worker=1,
    grid={"data.name": ["digits", "image_folder"]})
"""
DRIVER = """
import json, os, subprocess, sys
from pathlib import Path
import leaky
from sweeps.engine.cli.main import launch
from sweeps.engine.cli.args import read_words

# the images of its second cell cannot be read: what the cell raises names the file, and with it a secret
code = launch([(leaky.SWEEP, Path(leaky.__file__))], read_words([sys.argv[1]]))

import psutil, ray
from sweeps.engine.cluster.session import ray_session
from sweeps.engine.lanes.pool import LanePool

PROBE = '''
import sys
from ray._raylet import GcsClient
print(GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, timeout=5))
'''

def runner(cell, report, checkpoints, host):
    raise MemoryError("no memory for " + os.environ["TEAM_API_KEY"])  # raised again, so that Ray hears of it

def answered(environment):
    address = ray.get_runtime_context().gcs_address
    done = subprocess.run([sys.executable, "-c", PROBE, address], env=environment, capture_output=True, timeout=60)
    return done.returncode == 0

end = None
with ray_session(1):
    one = {"num_lanes": 1, "workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0}
    with LanePool(**one, storage=Path("train").resolve(), runner=runner) as pool:
        job = {"cell": {}, "checkpoints": "unused", "rungs": ()}
        ticket = ray.get(pool.mailbox.submit.remote("trial", job))
        while end is None:
            _, end = ray.get(pool.mailbox.take.remote(ticket, 0))
        me = psutil.Process()
        mine = {process.pid for process in [me, *me.children(recursive=True)]}
        heard = [[*one.laddr] for one in psutil.net_connections() if one.pid in mine and one.status == "LISTEN"]
        stranger = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
        tokens = [answered(os.environ), answered(stranger | {"HOME": os.path.abspath("nobody")})]
told = {"code": code, "end": end, "listening": heard, "with and without token": tokens}
Path("told.json").write_text(json.dumps(told))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, template: bytes) -> Iterator[tuple[Path, str, psutil.Process]]:
    """`make ui`: folder, address, process. It is what the sweep below writes to, too."""
    folder = tmp_path_factory.mktemp("leaky")
    (folder / "results").mkdir()
    (folder / "results" / "mlflow.db").write_bytes(template)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JEPA_RESULTS": str(folder / "results")}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "analysis.ui", "--port", str(port)]
    process = psutil.Popen(command, cwd=folder / "results", env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.2)
        yield folder, f"127.0.0.1:{port}", process
    finally:
        for one in [*process.children(recursive=True), process]:
            one.kill()
        process.wait(10)


def test_the_ui_listens_on_loopback_alone(server: tuple[Path, str, psutil.Process]) -> None:
    _, address, process = server
    mine = {one.pid: one for one in [process, *process.children(recursive=True)]}
    heard = [one.laddr for one in psutil.net_connections() if one.pid in mine and one.status == "LISTEN"]
    assert {f"{ip}:{port}" for ip, port in heard} == {address}
    assert not any("mlflow.db" in word for one in mine.values() for word in one.cmdline()), "a store has a password"


@pytest.fixture(scope="module")
def leaky(server: tuple[Path, str, psutil.Process]) -> tuple[Path, dict[str, Any], str]:
    """A sweep with secrets wherever one may be, against a server with a password, and then a cell that runs out of
    memory: the folder, what was found, and what the terminal showed."""
    folder, address, _ = server
    (folder / "leaky.py").write_text(SWEEP_FILE)
    (folder / "driver.py").write_text(DRIVER)
    for split in ("train", "test"):
        for number, name in enumerate(("a", "b")):
            (folder / "images" / split / name).mkdir(parents=True)
            for file in (f"0-{CANARIES['TEAM_API_KEY']}.png", "1.png", "2.png"):
                (folder / "images" / split / name / file).write_text(f"no image {number}")
    uri = f"http://me:canary-uri-0007@{address}"
    environment = os.environ | CANARIES | {"JEPA_RESULTS": str(folder / "results"), "MLFLOW_TRACKING_URI": uri}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "driver.py", "data.path=images", uri, "s3://key:canary-argv-0008@bucket"],
        **{"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 500, "check": False},
    )
    assert (folder / "told.json").exists(), done.stderr
    return folder, json.loads((folder / "told.json").read_text()), done.stdout + done.stderr


def test_no_secret_reaches_the_store_any_file_or_the_terminal(leaky: tuple[Path, dict[str, Any], str]) -> None:
    """Ray's own files included: of its sessions, of Tune, of Train."""
    folder, told, shown_text = leaky
    assert told["code"] == 1
    assert (told["end"]["status"], told["end"]["reason"]) == ("failed", "MemoryError: no memory for *** (2 attempts)")
    assert "no image" not in shown_text
    assert "leaky: 1 finished, 1 failed" in shown_text
    assert "***.png" in shown_text
    files = [path for path in [*(folder / "results").rglob("*"), *(folder / "train").rglob("*")] if path.is_file()]
    assert {"mlflow.db", "traceback.txt", "runtime_env_agent.log", "leaky.py"} <= {path.name for path in files}
    assert b"See http://***@host/" in (folder / "results" / "mlflow.db").read_bytes()
    found = {(path.name, *re.findall(rb"canary-\w+-\d+", path.read_bytes())) for path in files}
    assert {one for one in found if len(one) > 1} == set()
    assert "canary" not in shown_text


def test_a_private_ray_listens_on_loopback_alone_and_asks_for_its_token(
    leaky: tuple[Path, dict[str, Any], str],
) -> None:
    _, told, _ = leaky
    assert len(told["listening"]) >= 3, "GCS, raylet and agents"
    addresses = {ip.removeprefix("::ffff:") for ip, _ in told["listening"]}
    assert addresses <= {"127.0.0.1", "::1"}
    assert told["with and without token"] == [True, False]


# What others wrote is read, never run.


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """What a bomb would leave; the test fails where it is there."""
    file = tmp_path / "boom"
    pickle.loads(pickle.dumps(Bomb(file))).close()
    assert file.exists(), "the bomb works"
    file.unlink()
    yield file
    assert not file.exists(), "what was read has been run"


def zipped(file: Path, content: bytes, *others: str) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        for name in others:
            archive.writestr(f"archive/{name}", content)


def planted(bomb: Bomb) -> dict[str, Any]:
    """A checkpoint in order but for one value."""
    config = TrainConfig()
    head = {"format": 2, "cell_key": cell_key(config), "config": flatten(config)}
    return head | {"step": 8, "trainer": {"network": bomb}, "network": {"weight": bomb}, "reports": []}


BOMBS: dict[str, Callable[[Path, Bomb], object]] = {
    "saved by torch": lambda file, bomb: torch.save(planted(bomb), file),
    "alone": lambda file, bomb: torch.save(bomb, file),
    "in torch's old format": lambda file, bomb: torch.save(planted(bomb), file, _use_new_zipfile_serialization=False),
    "a plain pickle": lambda file, bomb: file.write_bytes(pickle.dumps(planted(bomb))),
    "a zip": lambda file, bomb: zipped(file, pickle.dumps(planted(bomb), protocol=2)),
    "a zip of TorchScript": lambda file, bomb: zipped(file, pickle.dumps(bomb, protocol=2), "constants.pkl", "code/x"),
}


@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("name", ["final.pt", "step-000000008.pt"])
def test_a_checkpoint_cannot_execute_anything(
    name: str, make: Callable[[Path, Bomb], object], marker: Path, tmp_path: Path
) -> None:
    make(tmp_path / name, Bomb(marker))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(tmp_path / name)
    with Checkpoints(tmp_path, TrainConfig()) as saves:
        assert saves.resume() == {}


@pytest.mark.parametrize("kind", ["pickled", "addresses", "numbers"])
def test_decoded_images_cannot_execute_anything(
    kind: str, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))
    monkeypatch.delenv("JEPA_CACHE", raising=False)
    file = cache_dir() / "images.npy"
    file.parent.mkdir(exist_ok=True)
    if kind == "pickled":
        objects = np.empty(1, object)
        objects[0] = Bomb(marker)
        np.save(file, objects, allow_pickle=True)
    else:
        header = {"descr": "|O" if kind == "addresses" else "<f4", "fortran_order": False, "shape": (1, 3, 4, 4)}
        with file.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            stream.write(b"A" * 48 * (8 if kind == "addresses" else 4) + b"{}")
    pixels = np.ones((1, 3, 4, 4), np.uint8)
    source = ArraySource(shape=pixels.shape, parts=(part for part in [pixels]), facts={})
    assert torch.equal(cached_array("images", lambda: source)[0], torch.ones(1, 3, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize("name", ["../../../../boom", "a/../../../../../boom", "/{marker}"])
def test_a_spool_cannot_execute_anything_and_its_files_stay_with_their_run(
    name: str, marker: Path, results: Path, tmp_path: Path
) -> None:
    spool = OfflineQueue("study").file
    spool.parent.mkdir()
    line = {"at": 1, "new": {"label": "plan", "tags": {"role": "plan"}}, "status": "FINISHED"}
    files = {"whole.txt": "kept", name.format(marker=marker): "planted"}
    spool.write_bytes(pickle.dumps(Bomb(marker)) + b"\n" + json.dumps(line | {"files": files}).encode() + b"\n")
    assert replay_offline_queue("study") == 1
    assert [file.name for file in (results / "artifacts").rglob("*.txt")] == ["whole.txt"]
    assert [file for file in tmp_path.rglob("*boom*") if not file.is_relative_to(results / "artifacts")] == []


def test_a_cluster_file_cannot_execute_anything(marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "BOOTSTRAP", str(tmp_path / "joined.yaml"))
    monkeypatch.setattr(nodes, "cluster_address", lambda: "10.0.0.1:6379")
    for tag in ("!!python/object/apply:os.system", "!!python/object/new:os.system"):
        (tmp_path / "joined.yaml").write_text(f"metadata:\n  prices: {tag} ['touch {marker}']\n")
        with pytest.raises(ConfigError, match=r"joined\.yaml must be YAML"):
            nodes.autoscaling()


HOSTILE = '</td><script>alert(1)</script><img src=x onerror="alert(1)">![x](http://example.com/x)'


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def hostile(results: Path) -> str:
    """A store of somebody else's, with a sweep whose every text is an attack."""
    writer = StoreWriter(f"sqlite:///{results / 'mlflow.db'}")
    name = f"../../{HOSTILE.replace('/', '|')}"
    sweep = writer.sweep(name, axes=["optim.name"], present={"grid": {"optim.name": [HOSTILE]}, "seeds": [0]})
    writer.client.set_experiment_tag(sweep, "mlflow.note.content", f"{HOSTILE}\n\n**x**")
    for status, metrics in (("finished", {"val/probe_top1": 0.5, "test/linear_top1": 0.5}), ("failed", {})):
        tags = {"cell_key": f"../../{status}", "status": status, "reason": HOSTILE, "user": HOSTILE, "host": HOSTILE}
        writer.run(sweep, {"optim.name": HOSTILE, "data.name": HOSTILE, "epochs": 1}, metrics, **tags)
    return name


def below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "results" not in path.parts}


def test_what_a_store_says_is_text_in_a_page_and_names_no_folder(
    hostile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = tmp_path / "one" / "two" / "three"
    page = write_report(hostile, store_uri(), inside).read_text()
    write_export(hostile, store_uri(), inside)
    assert analysis_main([hostile, "--output", str(inside), "--format", "html"]) == 0
    page += capsys.readouterr().out
    assert analysis_main(["figure", "curves", "--sweep", hostile, "--output", str(inside)]) in (0, 1)
    tags = Tags(page).found
    assert HOSTILE[:12] not in page
    assert "&lt;script&gt;alert(1)" in page
    assert {tag for tag, _ in tags} & {"script", "iframe", "object", "embed", "form", "base", "link"} == set()
    assert [one for one in tags if any(name.startswith("on") for name in one[1])] == []
    sources = {str(attributes.get("src", "data:")) for _, attributes in tags}
    assert all(source.startswith("data:image/svg+xml;base64,") or source == "data:" for source in sources)
    outside = [path for path in below(tmp_path) if not path.is_relative_to(inside) and not inside.is_relative_to(path)]
    assert outside == []
    assert load_runs(hostile, str(inside)).equals(load_runs(hostile, store_uri()))


@pytest.mark.usefixtures("results")
def test_the_description_that_the_ui_shows_holds_no_html_and_no_image_from_a_table(tmp_path: Path) -> None:
    file = tmp_path / "study.py"
    file.touch()
    ledger = open_ledger(make_plan(SWEEP, file), note=str, publish=lambda: f"| {HOSTILE} |")
    assert ledger.close() == ""
    text = MlflowClient(store_uri()).get_experiment_by_name("study").tags["mlflow.note.content"]
    assert text.startswith("A study.\n\n| &lt;/td>&lt;script>")
    assert "<" not in text
    assert "![" not in text


class _Type(pa.ExtensionType):
    """An Arrow type with Python of its own, as old versions of pyarrow unpickled on reading."""

    def __init__(self) -> None:
        super().__init__(pa.string(), "arrow.py_extension_type")

    def __arrow_ext_serialize__(self) -> bytes:
        return pickle.dumps(Bomb(Path(os.environ["BOOM"])))

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> "_Type":
        raise AssertionError("not registered")


def test_an_export_cannot_execute_anything(
    store: str, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOM", str(marker))
    files = write_export("demo_lejepa", store, tmp_path)
    runs, about = files[0], files[-1]
    frame = pd.read_parquet(runs)
    planted = pa.ExtensionArray.from_storage(_Type(), pa.array(["x"] * len(frame)))
    table = pa.Table.from_pandas(frame).append_column("planted", planted)
    table = table.replace_schema_metadata((table.schema.metadata or {}) | {b"x": pickle.dumps(Bomb(marker))})
    pq.write_table(table, runs)
    told = json.loads(about.read_text())
    about.write_text(json.dumps(told | {"digests": told["digests"] | {"runs.parquet": digest_of(runs)}}))
    assert len(load_runs("demo_lejepa", str(tmp_path))) == len(frame)
    about.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(NothingToShow, match="damaged"):
        load_runs("demo_lejepa", str(tmp_path))


# Names lead nowhere.


@pytest.mark.parametrize("name", ["../x", "a/b", "/x", "..", "x\n", "A", "", "a\x00"])
def test_a_sweeps_name_is_a_word(name: str) -> None:
    with pytest.raises(ConfigError, match="name must be lower-case letters"):
        dataclasses.replace(SWEEP, name=name)


@pytest.mark.usefixtures("results")
def test_a_best_cell_is_looked_up_by_name_alone(tmp_path: Path) -> None:
    file = tmp_path / "study.py"
    file.touch()
    before = below(tmp_path)
    with pytest.raises(ConfigError, match="no finished cell in this store"):
        make_plan(dataclasses.replace(SWEEP, base=BestOf("../../x")), file)
    assert below(tmp_path) == before


def test_a_cell_key_that_is_none_names_no_checkpoint(hostile: str) -> None:
    """Later evaluation reads checkpoints/<sweep>/<key>/: of such a store there is no cell."""
    experiment = find_experiment(hostile, store_uri())
    assert experiment is not None
    assert read_entries(experiment, store_uri()) == []
