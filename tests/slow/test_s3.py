"""Storage, data, checkpoints of a sweep and exports on a real S3 server (moto).

Run: python -m pytest tests/slow/test_s3.py
"""

from pathlib import Path

import pytest
from buckets import check_storage
from pandas.testing import assert_frame_equal

from analysis import tables
from analysis.__main__ import main as analysis
from analysis.store.runs import load_histories, load_runs
from jepa_train.storage import storage
from jepa_train.storage.storage import StorageError, storage_path


def test_files_and_folders_in_a_bucket(s3: str, tmp_path: Path):
    check_storage(storage_path(s3), tmp_path / "copy")


def test_a_missing_bucket_is_an_error_and_not_an_empty_folder(s3: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "PAUSES_S", ())
    missing = storage_path(s3.replace("s3://bucket", "s3://no-bucket"))
    with pytest.raises(StorageError, match=r"^s3://no-bucket.* cannot be read \(.*NO_SUCH_BUCKET"):
        missing.names()
    with pytest.raises(StorageError, match=r"cannot be written .*NO_SUCH_BUCKET"):
        (missing / "x").write_bytes(b"1")


def test_an_export_goes_to_an_object_store_and_is_read_from_there(
    store: str, s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JEPA_STORAGE", s3)
    assert analysis(["export", "demo_lejepa", "--store", store]) == 0
    below = s3.replace("?", "/exports?")
    told = capsys.readouterr().out.split()
    assert told == [
        below.replace("?", f"/demo_lejepa/{name}?")
        for name in ("runs.parquet", "runs.csv", "history.parquet", "history.csv", "sweep.json")
    ]
    assert_frame_equal(load_runs("demo_lejepa", below), load_runs("demo_lejepa", store))
    metrics = ["val/probe_top1", "test/linear_top1"]
    assert_frame_equal(load_histories("demo_lejepa", metrics, below), load_histories("demo_lejepa", metrics, store))
    assert tables.table("demo_lejepa", below) == tables.table("demo_lejepa", store)
    assert analysis(["--store", below]) == 0
    assert analysis(["export", "seeds", "--store", store, "--output", f"file://{tmp_path}/by%20URL"]) == 0
    assert_frame_equal(load_runs("seeds", str(tmp_path / "by URL")), load_runs("seeds", f"file://{tmp_path}/by%20URL"))
    capsys.readouterr()
    assert analysis(["demo_lejepa", "--store", s3.replace("s3://", "s3://no-")]) == 1
    assert "cannot be used (" in capsys.readouterr().err
