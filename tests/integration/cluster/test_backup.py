"""backup: the copy of a head's store comes back where the store is missing, and is overwritten by no other store."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

from jepa_train.base.errors import ConfigError
from jepa_train.storage.storage import storage_dir
from sweeps.__main__ import main
from sweeps.engine.cluster import backup
from sweeps.engine.run.launch import Launch

pytestmark = pytest.mark.usefixtures("results")


@pytest.fixture(params=["disk", "S3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    where = str(tmp_path / "shared") if request.param == "disk" else request.getfixturevalue("s3")
    monkeypatch.setenv("JEPA_STORAGE", where)
    return where


@pytest.fixture
def another(tmp_path: Path, template: bytes, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Another head, with an empty disk, or a store of its own."""

    def made(*, empty: bool) -> Path:
        folder = tmp_path / "another"
        folder.mkdir(exist_ok=True)
        if not empty:
            (folder / "mlflow.db").write_bytes(template)
        monkeypatch.setenv("JEPA_RESULTS", str(folder))
        return folder

    return made


def client(results: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{results}/mlflow.db")


def run(results: Path) -> str:
    return str(client(results).create_run("0").info.run_id)


def runs(results: Path) -> set[str]:
    return {found.info.run_id for found in client(results).search_runs(["0"])}


@pytest.mark.usefixtures("storage")
def test_a_head_with_an_empty_disk_gets_the_last_copy(
    results: Path, another: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backup", "restore"]) == 0, "neither is there"
    first = run(results)
    assert backup.keep() == ""
    second = run(results)
    assert backup.keep() == "", "an earlier copy of the same store"
    run(results)  # too late
    assert main(["backup", "restore"]) == 0, "the store is there"
    assert runs(results) > {first, second}
    assert capsys.readouterr().out == ""
    assert main(["backup", "restore"]) == 0
    head = another(empty=True)
    assert main(["backup", "restore"]) == 0
    assert runs(head) == {first, second}
    told = rf"{head}/mlflow.db was missing: restored from .*store/mlflow.db.*, which is of 20[\d-]+ [\d:]+ UTC\n"
    assert re.fullmatch(told, capsys.readouterr().out)
    third = run(head)
    assert backup.keep() == "", "the restored store is the same one"
    assert third in runs(head)


@pytest.mark.usefixtures("storage")
def test_another_store_overwrites_no_copy(results: Path, another: Callable[..., Path]) -> None:
    known = run(results)
    assert backup.keep() == ""
    head = another(empty=False)
    for _ in range(2):
        assert re.search(r"store/mlflow.db\S* is of another store: 1 of its runs are not in this one", backup.keep())
        run(head)
    (head / "mlflow.db").unlink()
    assert backup.restore_store() != ""
    assert backup._runs(head / "mlflow.db") == {known}


def test_a_store_is_copied_whole_while_it_is_written(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JEPA_STORAGE", str(tmp_path / "shared"))
    run(results)
    with backup._opened(results / "mlflow.db", "mode=rw") as other:
        other.execute("begin immediate")
        other.execute("delete from runs")
        assert backup.keep() == ""
    assert len(backup._runs(tmp_path / "shared/store/mlflow.db")) == 1
    assert {path.name for path in results.iterdir()} == {"mlflow.db"}


def test_what_cannot_be_copied_is_one_line(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JEPA_STORAGE", str(tmp_path / "file"))
    assert re.fullmatch("the store cannot be copied to .*file/store/mlflow.db now .*", backup.keep())
    (results / "mlflow.db").write_text("no store")
    monkeypatch.setenv("JEPA_STORAGE", str(tmp_path / "shared"))
    assert "file is not a database" in backup.keep()
    assert storage_dir().names() == []


def test_a_storage_that_is_away_begins_no_empty_store(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "mlflow.db").unlink()
    (tmp_path / "file").touch()
    monkeypatch.setenv("JEPA_STORAGE", str(tmp_path / "file"))
    assert main(["backup", "restore"]) == 2
    assert capsys.readouterr().err.startswith("error: JEPA_STORAGE must say whether it holds a copy of the store, got ")


def test_a_launch_copies_at_its_end_where_a_watch_does(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JEPA_STORAGE", str(tmp_path / "shared"))
    with Launch(Console(), print):
        run(results)
    assert not (tmp_path / "shared").exists(), "a laptop's store is no head's"
    (results / backup.WATCH).touch()
    with Launch(Console(), print):
        run(results)
    assert backup._runs(tmp_path / "shared/store/mlflow.db") == runs(results)


def test_a_watch_copies_what_has_changed(results: Path, tmp_path: Path) -> None:
    environment = os.environ | {"JEPA_STORAGE": str(tmp_path / "shared")}
    every = "import sys; from sweeps.engine.cluster import backup; backup.EVERY_S = 0.05; backup.backup(['watch'])"
    copy = tmp_path / "shared/store/mlflow.db"
    with (tmp_path / "log").open("w") as log:
        watch = subprocess.Popen([sys.executable, "-c", every], env=environment, stdout=log)
    try:
        for _ in range(2):
            made = run(results)
            deadline = time.monotonic() + 60
            while not (copy.exists() and made in backup._runs(copy)):
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        watch.kill()
        watch.wait()
    assert f"copied to {copy}" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("words", [[], ["now"], ["watch", "restore"]])
def test_another_word_is_answered(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"write python -m sweeps backup restore\|watch"):
        backup.backup(words)
    assert main(["backup", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
