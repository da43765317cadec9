"""Storage, data, checkpoints of a sweep and exports on a real S3 server (moto).

Run: python -m pytest tests/slow/test_s3.py
"""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from buckets import check_storage
from launches import small_sweep
from pandas.testing import assert_frame_equal

from analysis import tables
from analysis.__main__ import main as analysis
from analysis.runs import load_histories, load_runs
from jepa_train.storage.storage import storage_path
from sweeps.engine.cli.main import main


def test_files_and_folders_in_a_bucket(s3: str, tmp_path: Path):
    check_storage(storage_path(s3), tmp_path / "copy")


def test_a_sweep_keeps_its_weights_in_the_bucket_and_evaluates_them(
    results: Path, s3: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("JEPA_STORAGE", s3)
    file = results.parent / "kept.py"
    file.write_text(small_sweep("kept"))
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    sweep = runpy.run_path(str(file))["SWEEP"]
    assert main(sweep, str(file), ["--explain", "lamb=0.05"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "checkpoint" in line]
    assert line.split()[1].startswith(s3.replace("?", "/checkpoints/kept?").partition("?")[0])
    assert "/final.pt?" in line
    assert main(sweep, str(file), ["--evaluate", "probe.protocols=knn"]) == 0
    assert "test/knn_top1 0." in capsys.readouterr().out
    assert not (results / "checkpoints").exists()
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert not [path for path in results.parent.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert secret not in done.stdout + done.stderr


def test_an_export_goes_to_an_object_store_and_is_read_from_there(
    store: str, s3: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JEPA_STORAGE", s3)
    assert analysis(["export", "demo_lejepa", "--store", store]) == 0
    below = s3.replace("?", "/exports?")
    printed = capsys.readouterr().out.split()
    assert printed == [
        below.replace("?", f"/demo_lejepa/{name}?")
        for name in ("runs.parquet", "runs.csv", "history.parquet", "history.csv", "sweep.json")
    ]
    assert_frame_equal(load_runs("demo_lejepa", below), load_runs("demo_lejepa", store))
    assert_frame_equal(load_histories("demo_lejepa", store=below), load_histories("demo_lejepa", store=store))
    assert tables.table("demo_lejepa", below) == tables.table("demo_lejepa", store)
    capsys.readouterr()
    assert analysis(["demo_lejepa", "--store", s3.replace("s3://", "s3://no-")]) == 1
    assert "is no folder of exports; " in capsys.readouterr().err
