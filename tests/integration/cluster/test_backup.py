"""backup: the copy of a head's store is restored where the store is missing, and replaced by no other store's.

Run: python -m pytest tests/integration/cluster/test_backup.py
"""

import contextlib
import re
import sqlite3
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

from sweeps.__main__ import main
from sweeps.engine.cluster import backup
from sweeps.engine.cluster.backup import runs_in
from sweeps.engine.run.launch import Launch

pytestmark = pytest.mark.usefixtures("results")


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JEPA_STORAGE", str(tmp_path / "shared"))
    return tmp_path / "shared"


def new_run(results: Path) -> str:
    return str(MlflowClient(f"sqlite:///{results}/mlflow.db").create_run("0").info.run_id)


@pytest.mark.parametrize("kind", ["disk", "S3"])
def test_an_empty_head_gets_the_last_copy_and_another_store_replaces_none(
    kind: str,
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("JEPA_STORAGE", str(tmp_path / "s") if kind == "disk" else request.getfixturevalue("s3"))
    empty = (results / "mlflow.db").read_bytes()
    assert main(["backup", "restore"]) == 0, "neither is there"
    first = new_run(results)
    assert backup.keep() == ""
    second = new_run(results)
    assert backup.keep() == "", "an earlier copy of the same store"
    new_run(results)  # too late
    assert main(["backup", "restore"]) == 0, "the store is there"
    assert capsys.readouterr().out == ""

    head = tmp_path / "another"
    head.mkdir()
    monkeypatch.setenv("JEPA_RESULTS", str(head))
    (head / "mlflow.db").write_bytes(empty)
    assert re.search(r"store/mlflow.db\S* is of another store: 2 of its runs are not in this one", backup.keep())
    (head / "mlflow.db").unlink()
    assert main(["backup", "restore"]) == 0
    line = rf"{head}/mlflow.db was missing: restored from .*store/mlflow.db.*, which is of 20[\d-]+ [\d:]+ UTC\n"
    assert re.fullmatch(line, capsys.readouterr().out)
    assert runs_in(head / "mlflow.db") == {first, second}
    new_run(head)
    assert backup.keep() == "", "the restored store is the same one"


def test_a_store_is_copied_whole_while_it_is_written(results: Path, shared: Path) -> None:
    new_run(results)
    with contextlib.closing(sqlite3.connect(results / "mlflow.db")) as other:
        other.execute("begin immediate")
        other.execute("delete from runs")
        assert backup.keep() == ""
    assert len(runs_in(shared / "store/mlflow.db")) == 1


def test_a_storage_or_store_that_cannot_be_read_is_one_line(
    results: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared.touch()  # a file where the folder should be
    assert re.fullmatch("the store cannot be copied to .*/store/mlflow.db now .*", backup.keep())
    shared.unlink()
    (results / "mlflow.db").write_text("no store")
    assert "file is not a database" in backup.keep()
    assert not shared.exists()
    assert main(["backup", "now"]) == 2
    assert re.fullmatch(r"error: backup: got 'now'; write .* backup restore\|watch\n", capsys.readouterr().err)


def test_a_launch_copies_at_its_end_where_a_watch_does(results: Path, shared: Path) -> None:
    with Launch(Console(), print):
        new_run(results)
    assert not shared.exists(), "a laptop's store is no head's"
    (results / backup.WATCH).touch()
    with Launch(Console(), print):
        new_run(results)
    assert len(runs_in(shared / "store/mlflow.db")) == 2


def test_a_watch_copies_changes(results: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied, ends = [], iter([None, None, KeyboardInterrupt])

    def sleep(_: float) -> None:
        copied.append(len(runs_in(shared / "store/mlflow.db")))
        if len(copied) == 2:  # at the second look nothing had changed
            new_run(results)
        if end := next(ends):
            raise end

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        backup.backup(["watch"])
    assert copied == [0, 0, 1]
