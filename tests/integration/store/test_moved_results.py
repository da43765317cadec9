"""Results folders with unusual names, and folders that were moved or copied: artifacts, offline queue, every command.

Run: python -m pytest tests/integration/store/test_moved_results.py
"""

import dataclasses
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from launches import record
from mlflow import MlflowClient
from mlflow.tracking._tracking_service import utils as mlflow_utils

from analysis import ui
from analysis.__main__ import main as analysis_main
from jepa_train.config.presets import DIGITS
from sweeps.engine.cli.main import main
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.run.ledger import Ledger, replay_offline_queue
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.offline_queue import OfflineQueue, Operation
from sweeps.engine.store.reader import find_experiment, store_uri

BASE = dataclasses.replace(DIGITS, epochs=1)
SWEEP = Sweep(name="study", purpose="A study.", base=BASE, grid={"method.lamb": [0.02, 0.05]})
METRICS = {"epoch": 1, "val/probe_top1": 0.5, "test/linear_top1": 0.5}


def fail_one(number: int, details: str) -> str:
    """Launch the sweep; its cell of that number fails with a traceback. Returns the id of the cell's run."""
    plan = make_plan(SWEEP, Path("study.py"))
    ledger = Ledger(plan, note=pytest.fail, publish=lambda: "a table", products=lambda: {"table.md": details})
    ledger.start(plan.fixed[number], devices=1.0)
    ledger.end(plan.fixed[number].key, "failed", "OutOfMemoryError", details)
    assert ledger.close() == ""
    return make_plan(SWEEP, Path("study.py")).entries[plan.fixed[number].key].run_id


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def traceback_of(run_id: str) -> str:
    mlflow_utils._artifact_repos_cache.clear()  # another process has none
    return Path(MlflowClient(store_uri()).download_artifacts(run_id, "traceback.txt")).read_text()


@pytest.mark.parametrize("named_by", ["JEPA_RESULTS", "MLFLOW_TRACKING_URI"])
@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_folder_that_was_moved_or_copied_writes_to_itself(
    how: object, named_by: str, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = fail_one(0, "old trouble")
    new = results.with_name("new results")
    how(results, new)
    monkeypatch.setenv("JEPA_RESULTS", str(new))
    if named_by == "MLFLOW_TRACKING_URI":
        monkeypatch.setenv(named_by, f"sqlite:///{new}/mlflow.db")
    before = files_in(results) if results.exists() else None
    mlflow_utils._artifact_repos_cache.clear()

    assert main(SWEEP, "study.py", ["--explain", "lamb=0.02"]) == 0
    assert f"traceback in {new}/artifacts/study/{old}/artifacts/traceback.txt" in capsys.readouterr().out
    later = fail_one(1, "new trouble")

    assert (traceback_of(old), traceback_of(later)) == ("old trouble", "new trouble")
    assert (new / f"artifacts/study/{later}/artifacts/traceback.txt").is_file()
    assert (files_in(results) if results.exists() else None) == before
    with closing(sqlite3.connect(new / "mlflow.db")) as connection:
        assert not [line for line in connection.iterdump() if str(results) in line]


def test_the_ui_shows_the_artifacts_of_a_folder_that_was_moved(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fail_one(0, "trouble")
    monkeypatch.setenv("JEPA_RESULTS", str(shutil.move(results, results.with_name("new"))))
    monkeypatch.setattr(os, "execv", lambda *_: None)
    ui.main([])
    assert traceback_of(run) == "trouble"


@pytest.mark.usefixtures("results")
def test_artifacts_that_were_never_in_the_results_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(store_uri())
    elsewhere = [client.create_experiment(f"e{number}", place) for number, place in enumerate(["s3://b/e0", "/srv/e1"])]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri())  # a store outside the results of two users
    places = []
    for user in ("ada", "grace"):
        monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / user))
        fail_one(0, "trouble")
        places.append(find_experiment("study").artifact_location)
    assert places == [f"file://{tmp_path}/ada/artifacts/study"] * 2
    assert [client.get_experiment(one).artifact_location for one in elsewhere] == ["s3://b/e0", "/srv/e1"]


@pytest.mark.parametrize("uri", ["", "sqlite:///{}/mlflow.db"])
def test_metrics_that_waited_are_found_after_a_move(uri: str, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = fail_one(0, "trouble")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(results))
    key = make_plan(SWEEP, Path("study.py")).fixed[0].key
    assert OfflineQueue("study").save([Operation(at=1, key=key, step=1, metrics={"val/x": 0.25})])
    new = shutil.move(results, results.with_name("new"))
    monkeypatch.setenv("JEPA_RESULTS", str(new))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(new))
    assert replay_offline_queue("study") == 1
    assert MlflowClient(store_uri()).get_run(run_id).data.metrics == {"val/x": 0.25}


NAMES = ["100%25 % what?x=1", "#'\"$` \\\\ ü 中 a:b@c;d,e&f\ntwo lines", "s3:"]


@pytest.mark.parametrize("name", NAMES)
def test_any_legal_name_works(
    name: str, tmp_path: Path, template: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / name / "results"
    results.mkdir(parents=True)
    (results / "mlflow.db").write_bytes(template)
    monkeypatch.setenv("JEPA_RESULTS", str(results))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    plan = make_plan(SWEEP, Path("study.py"))
    record(plan, plan.fixed, lambda _: METRICS)
    failed = fail_one(0, "trouble")
    assert traceback_of(failed) == "trouble"
    assert main(SWEEP, "study.py", ["--status"]) == 0
    assert "1 finished, 1 failed of 2 cells" in capsys.readouterr().out
    tables = []
    for store in (store_uri(), str(results / "mlflow.db"), str(results), str(results / "exports")):
        assert analysis_main(["export", "study"]) == 0
        capsys.readouterr()
        assert analysis_main(["study", "--store", store, "--output", str(results / "tables")]) == 0
        tables.append(capsys.readouterr().out)
    assert tables == tables[:1] * 4
    assert "50.00" in tables[0]
    assert {path.name for path in tmp_path.iterdir()} == {name.partition("/")[0]}
    assert {path.name for path in (tmp_path / name).iterdir()} == {"results"}


def test_names_that_are_not_utf8_are_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))
    assert main(SWEEP, f"{bad}/study.py", []) == 2
    assert main(SWEEP, "study.py", [f"data.path={bad}"]) == 2
    assert analysis_main(["study", "--store", bad]) == 1
    assert analysis_main(["export", "--output", bad]) == 1
    for name in ("JEPA_RESULTS", "JEPA_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, bad)
        assert main(SWEEP, "study.py", []) == 2
        monkeypatch.delenv(name)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 7
    assert all("must be UTF-8, got " in line and "\\udcff" in line for line in errors)
