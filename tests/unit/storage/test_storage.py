"""Storage paths: a disk and an object store are used alike, errors and refusals are one line. Real S3: tests/slow.

Run: python -m pytest tests/unit/storage/test_storage.py
"""

import os
from pathlib import Path

import pytest
from buckets import buckets_in, check_storage
from filelock import FileLock

from jepa_train.base.errors import ConfigError
from jepa_train.storage import storage
from jepa_train.storage.paths import cache_dir
from jepa_train.storage.storage import StorageError, checkpoints_dir, storage_dir, storage_path


@pytest.mark.parametrize("where", ["{tmp}/a b", "file://{tmp}/a%20b", "s3://bucket/a%20b?region=x", "gs://bucket"])
def test_files_and_folders_of_every_kind_of_storage(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    buckets_in(tmp_path, monkeypatch)
    check_storage(storage_path(where.format(tmp=tmp_path)), tmp_path / "copy")


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    file = storage_path(tmp_path / "a.pt")
    file.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"a\.pt cannot be written \(\[Errno 28\] No space left on device\)$"):
        file.write_bytes(b"new")
    assert (file.read_bytes(), storage_path(tmp_path).names()) == (b"old", ["a.pt"])


def test_a_storage_that_does_not_answer_is_asked_again_and_is_not_empty(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def unreachable(url: str) -> None:
        asked.append(url)
        raise OSError("AWS Error SLOW_DOWN\nplease")

    monkeypatch.setattr(storage, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(storage, "connect", unreachable)
    with pytest.raises(StorageError, match=r"^s3://bucket/a%20b\?region=x cannot be read \(AWS Error SLOW_DOWN pl"):
        storage_path("s3://bucket/a b?region=x").names()
    assert asked == ["s3://bucket?region=x"] * 3


def test_a_locked_folder_is_refused_and_a_bucket_has_no_lock(tmp_path: Path):
    with FileLock(tmp_path / "lock"), pytest.raises(StorageError, match=r"^/.* is being written by another process"):
        storage_path(tmp_path).lock(0.1)
    for place in (storage_path(tmp_path), storage_path("s3://bucket"), storage_path("/proc/none")):
        with place.lock(0.1):
            pass


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("ftp://host/x", r"must be a path or begin with s3://bucket, gs://bucket or file:///, got 'ftp://host/x'"),
        ("s3:/bucket/x", r"must be a path or begin with s3://bucket, .*, got 's3:/bucket/x'"),
        ("s3://me:hunter2@bucket/x", r"must hold no credentials, got some in 's3://bucket/x'; leave them to the env"),
        ("s3://bucket/x?secret_key=hunter2", r"must hold no credentials, got some in 's3://bucket/x'"),
        ("~nobody-of-that-name/x", r"must be a folder, got '~nobody-of-that-name/x', the home of an unknown user"),
    ],
)
def test_a_wrong_url_is_refused_in_one_line_without_secrets(where: str, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JEPA_STORAGE", where)
    with pytest.raises(ConfigError, match=f"^JEPA_STORAGE {message}") as refused:
        storage_dir()
    assert "\n" not in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_the_environment_names_the_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))
    for name in ("JEPA_STORAGE", "JEPA_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert str(checkpoints_dir("study")) == f"{tmp_path}/checkpoints/study"
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("JEPA_CACHE", "/fast/cache")
    monkeypatch.setenv("JEPA_STORAGE", "s3://bucket/our team?region=eu-west-1")
    assert str(checkpoints_dir("study")) == "s3://bucket/our%20team/checkpoints/study?region=eu-west-1"
    assert cache_dir() == Path("/fast/cache")
    monkeypatch.setenv("JEPA_CACHE", "s3://bucket/x")
    with pytest.raises(ConfigError, match=r"^JEPA_CACHE must be a folder on a disk, got 's3://bucket/x'"):
        cache_dir()
