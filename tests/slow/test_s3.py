"""Storage, exact resume across ranks and data on a real S3 server (moto).

Run: python -m pytest tests/slow/test_s3.py
"""

from pathlib import Path

import pytest
from buckets import check_storage

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
