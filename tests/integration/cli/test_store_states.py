"""Every command on a store in every state: one line that names the state and the remedy, or the command's output.

Run: python -m pytest tests/integration/cli/test_store_states.py
"""

import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from analysis import ui
from analysis.__main__ import main as analysis_main
from analysis.store import mlflow_sql
from jepa_train.config.presets import DIGITS
from sweeps.__main__ import main as sweeps_main
from sweeps.engine.cli import doctor
from sweeps.engine.cli.main import main
from sweeps.engine.cluster import backup
from sweeps.engine.spec.sweep import Sweep

pytestmark = pytest.mark.usefixtures("priced")
SWEEP = Sweep(name="study", purpose="A study.", base=DIGITS)
OLDER = "17e22815139b"  # one of MLflow's earlier revisions


def _launch(*words: str) -> Callable[[], int]:
    return lambda: main(SWEEP, os.path.join(os.environ["JEPA_RESULTS"], "study.py"), words)


def _keep() -> int:
    sys.stdout.write(backup.keep())  # a watch logs it, and goes on
    return 0


READERS: dict[str, Callable[[], int]] = {
    "--status": _launch("--status"),
    "--dry-run": _launch("--dry-run"),
    "--explain": _launch("--explain", "x"),
    "list": lambda: analysis_main([]),
    "table": lambda: analysis_main(["demo_lejepa"]),
    "table of a sweep": lambda: analysis_main(["seeds"]),
    "figure": lambda: analysis_main(["figure", "curves", "--sweep", "demo_rectified_lpjepa"]),
    "report": lambda: analysis_main(["report", "seeds"]),
    "export": lambda: analysis_main(["export"]),
    "ui": lambda: ui.main([]),
    "backup": _keep,
}
WRITERS: dict[str, Callable[[], int]] = {
    "launch": _launch(),
    "--evaluate": _launch("--evaluate"),
    "doctor": lambda: sweeps_main(["doctor"]),
}
RESTORE = {"backup restore": lambda: sweeps_main(["backup", "restore"])}


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("begin exclusive")
        yield


@contextmanager
def _changed(file: Path, statement: str) -> Iterator[None]:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement)
    yield


@contextmanager
def _replaced(file: Path, content: bytes | None) -> Iterator[None]:
    file.unlink()
    file.mkdir() if content is None else file.write_bytes(content)
    yield


# state -> how to make it, and the line
STATES: dict[str, tuple[Callable[[Path], object], str]] = {
    "locked": (_locked, "is locked by another program; wait until it ends"),
    "older": (
        lambda file: _changed(file, f"update alembic_version set version_num = '{OLDER}'"),
        rf"is of an older MLflow \(schema {OLDER}\); copy the file, then run mlflow db upgrade sqlite:///",
    ),
    "newer": (
        lambda file: _changed(file, "update alembic_version set version_num = 'fffffffffff1'"),
        r"is of a newer MLflow \(schema fffffffffff1\); install that version",
    ),
    "text": (
        lambda file: _replaced(file, b"no database" * 100),
        r"is no MLflow store \(file is not a database\); ",
    ),
    "empty": (lambda file: _replaced(file, b""), r"is no MLflow store \(it lacks alembic_version, datasets"),
    "folder": (lambda file: _replaced(file, None), "is no MLflow store but a folder"),
    "damaged": (lambda file: _replaced(file, file.read_bytes()[:5000]), r"cannot be read \(database disk image"),
    "a table is missing": (
        lambda file: _changed(file, "drop table params"),
        r"is no MLflow store \(it lacks params\); name another store, or move",
    ),
    "half made": (lambda file: _changed(file, "delete from alembic_version"), r"\(it lacks alembic_version\)"),
}


@pytest.fixture(autouse=True)
def file(results: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of the results, with the demo's sweeps; another program's lock is waited for 0.05 s."""
    shutil.copyfile(store.removeprefix("sqlite:///"), results / "mlflow.db")
    monkeypatch.setattr(mlflow_sql, "BUSY_S", 0.05)
    monkeypatch.setattr(os, "execv", lambda *_: None)
    for name in {*doctor.CHECKS} - {"store"}:
        monkeypatch.delitem(doctor.CHECKS, name)
    return results / "mlflow.db"


@pytest.mark.parametrize("command", [*READERS, *WRITERS, *RESTORE])
@pytest.mark.parametrize("state", STATES)
def test_a_store_that_cannot_be_used_is_one_line(
    state: str, command: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, line = STATES[state]
    with make(file):
        code = (READERS | WRITERS | RESTORE)[command]()
    out = capsys.readouterr()
    lines = [each for each in (out.out + out.err).splitlines() if re.search(line, each)]
    assert len(lines) == 1, out
    assert str(file) in lines[0]
    assert "no such table" not in out.out + out.err
    assert code == (0 if command in ("list", "backup") else code or -1)
    assert [path.name for path in file.parent.glob("*.db*")] == ["mlflow.db"]


@pytest.mark.parametrize("command", READERS)
def test_a_read_only_store_can_be_read(
    command: str, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, access = file.read_bytes(), os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    code = READERS[command]()
    assert code in (0, None) or "fits no cell" in capsys.readouterr().err
    assert file.read_bytes() == before


@pytest.mark.parametrize("command", WRITERS)
def test_a_read_only_store_cannot_be_written(
    command: str, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, access = file.read_bytes(), os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    assert WRITERS[command]() in (1, 2)
    out = capsys.readouterr()
    assert f"the store {file} is read-only; make the file and its folder writable" in out.out + out.err
    assert file.read_bytes() == before


@pytest.mark.parametrize("command", READERS)
def test_a_missing_store_is_not_created(command: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.unlink()
    code = READERS[command]()
    out = capsys.readouterr()
    if command in ("--status", "--dry-run"):
        assert (code, "1 missing" in out.out or "0 of 1" in out.out) == (0, True), out
        assert f"store: sqlite:///{file}; there is no store there yet, the first launch makes it\n" in out.err
    elif command != "--explain":
        assert f"there is no MLflow store at {file} yet; python sweeps/demo_lejepa.py creates one" in out.out + out.err
    assert not file.exists()
