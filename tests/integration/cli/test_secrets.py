"""Credentials in no store, log, export or checkpoint; untrusted stores are text.

Run: python -m pytest tests/integration/cli/test_secrets.py
"""

import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from stores import StoreWriter

from analysis.html_report import write_report
from analysis.store.export import write_export
from analysis.store.sources import shown
from jepa_train.checkpoint.checkpoints import Checkpoints
from jepa_train.config.presets import DIGITS
from sweeps.engine.cli.main import main
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.run.ledger import Ledger
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store import write_queue
from sweeps.engine.store.offline_queue import offline_files
from sweeps.engine.store.reader import read_sweep, shown_uri, store_uri

SWEEP = Sweep(name="study", purpose="See http://me:canary-url@host.", base=DIGITS, grid={"method.lamb": [0.02, 0.05]})
HOSTILE = '</td><script>alert(1)</script><img src=x onerror="alert(1)">![x](http://example.com/x)'


@pytest.fixture
def file(results: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep's file in a folder, and with arguments, that hold secrets of the environment."""
    monkeypatch.setenv("TEAM_TOKEN", "canary-token")
    monkeypatch.setattr(sys, "argv", ["study.py", "http://me:canary-argv@host"])
    file = results.parent / "canary-token" / "study.py"
    file.parent.mkdir()
    file.write_text("# s3://AKIA:canary-token@bucket\n")
    return file


def test_a_fake_secret_reaches_no_store_export_checkpoint_offline_file_or_terminal(
    file: Path, results: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the sweep's purpose, path, command, table, failure reason and traceback, with the store up and away."""

    def away(*_: object, **__: object) -> None:
        raise MlflowException("no answer for canary-token")

    monkeypatch.setattr(write_queue, "_PAUSE_S", 0.1)
    notes: list[str] = []
    for store_is_up in (True, False):
        plan = make_plan(SWEEP, file)
        ledger = Ledger(plan, note=notes.append, publish=lambda: "canary-token", products=dict)
        with monkeypatch.context() as patch:
            if not store_is_up:
                patch.setattr(MlflowClient, "create_run", away)
            cell = plan.missing[0]
            ledger.start(cell, devices=1.0)
            ledger.end(cell.key, "failed", "no login for canary-token", "Traceback canary-token")
            notes.append(ledger.close())
    assert len(offline_files("study")) == 1
    write_export("study", store_uri(), str(results / "exports"))
    with Checkpoints(results / "checkpoints", DIGITS) as saves:
        saves.save(1, {"weight": 1}, [])
    files = [path for path in results.rglob("*") if path.is_file()]
    assert {"mlflow.db", "traceback.txt", "study.py", "runs.parquet"} <= {path.name for path in files}
    assert [path for path in files if b"canary" in path.read_bytes()] == []
    assert b"***@host" in (results / "mlflow.db").read_bytes()
    assert any("no answer for ***" in note for note in notes)
    assert "canary" not in "".join([*notes, *capfd.readouterr()])


def test_a_config_that_holds_a_secret_is_refused_before_anything_starts(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("s3://AKIA:canary@bucket/images", "/mnt/canary-token"):
        assert main(SWEEP, str(file), [f"data.path={path}"]) == 2
        error = capsys.readouterr().err
        assert "error: data.path must hold no password" in error
        assert "canary" not in error


def test_a_store_is_named_without_its_password(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{store_uri()}?password=canary-1")
    assert main(SWEEP, str(file), ["--status", "--json"]) == 0
    assert "password=***" in capsys.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:canary@db/x")
    assert shown_uri() == "postgresql://***@db/x"
    assert shown("postgresql://me:p@ss/word@db:5432/x?password=pass") == "postgresql://db:5432/x?password=***"


def test_texts_of_an_untrusted_store_are_escaped_and_name_no_folder(results: Path) -> None:
    writer = StoreWriter(store_uri())
    name = f"../../{HOSTILE.replace('/', '|')}"
    sweep = writer.sweep(name, axes=["optim.name"], present={"grid": [{"optim.name": [HOSTILE]}], "seeds": [0]})
    for status, metrics in (("finished", {"val/probe_top1": 0.5, "test/linear_top1": 0.5}), ("failed", {})):
        tags = {"cell_key": f"../../{status}", "status": status, "reason": HOSTILE, "user": HOSTILE}
        writer.run(sweep, {"optim.name": HOSTILE, "epochs": 1}, metrics, **tags)
    page = write_report(name, store_uri(), results.parent / "a/b/c").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert {path.name for path in results.parent.iterdir()} == {"results", "a"}
    assert read_sweep(name).cells == (), "no cell key, no checkpoint folder"


def test_the_description_in_the_ui_has_no_html_and_no_image(file: Path) -> None:
    ledger = Ledger(make_plan(SWEEP, file), note=str, publish=lambda: f"| {HOSTILE} |")
    assert ledger.close() == ""
    text = MlflowClient(store_uri()).get_experiment_by_name("study").tags["mlflow.note.content"]
    assert "| &lt;/td>&lt;script>" in text
    assert not {"<", "!["} & {text[at : at + width] for at in range(len(text)) for width in (1, 2)}
