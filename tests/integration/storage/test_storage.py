"""Places: a folder on a disk and one in an object store are used alike; what is typed wrong is one line."""

import os
import pickle
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import fs

from jepa_train.base.errors import ConfigError
from jepa_train.storage import bucket
from jepa_train.storage.base import StorageError, StoragePath
from jepa_train.storage.local import LocalPath
from jepa_train.storage.paths import cache_dir, made_cache_dir
from jepa_train.storage.resolve import checkpoints_dir, mark, storage_dir, storage_path, unseen


@pytest.fixture(params=["path", "file URL", "S3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StoragePath:
    """A folder that is not there yet."""
    where = {"path": lambda: tmp_path / "a b", "file URL": lambda: f"file://{tmp_path}/a%20b"}
    return storage_path(where[request.param]() if request.param in where else request.getfixturevalue("s3"))


def write(file: StoragePath, content: bytes) -> None:
    with file.written() as local:
        local.write_bytes(content)


def read(file: StoragePath) -> bytes:
    with file.local() as local:
        return local.read_bytes()


def test_what_is_written_is_there_and_comes_back(place: StoragePath):
    assert place.names() == []
    folder = place / "sweep ± 1" / "cell"
    for name, content in (("b.pt", b"old"), ("b.pt", b"new"), ("a.pt", b"\0" * 12_000_000)):
        write(folder / name, content)
    write(folder / "below" / "c.pt", b"")
    assert folder.names() == ["a.pt", "b.pt"]
    assert [(folder / name).is_there() for name in ("a.pt", "below", "c.pt")] == [True, False, False]
    assert (read(folder / "b.pt"), len(read(folder / "a.pt"))) == (b"new", 12_000_000)
    assert (folder / "a.pt").name == "a.pt"
    for _ in range(2):
        (folder / "a.pt").remove()
        assert folder.names() == ["b.pt"]
    with pytest.raises(FileNotFoundError):
        read(folder / "a.pt")


def test_a_place_travels_as_text_and_as_a_value(place: StoragePath):
    file = place / "sweep ± 1" / "x?.pt"
    write(file, b"1")
    assert storage_path(str(file)) == file == pickle.loads(pickle.dumps(file))
    assert read(storage_path(str(file))) == b"1"


def test_a_folder_gets_another_name(place: StoragePath):
    write(place / "cell" / "a.pt", b"1")
    (place / "cell").move(place / "cell.before-1")
    assert (place / "cell").names() == []
    assert read(place / "cell.before-1" / "a.pt") == b"1"


def cut(whole: Callable, *, times: int, sent: list[str]) -> Callable:
    """A client's copy_files which leaves half of the file behind, so many times."""

    def copy_files(file: str, path: str, **filesystems: fs.FileSystem) -> None:
        sent.append(file)
        content = Path(file).read_bytes()
        if len(sent) <= times:
            Path(file).write_bytes(content[: len(content) // 2])
        whole(file, path, **filesystems)
        Path(file).write_bytes(content)

    return copy_files


def test_what_arrives_torn_is_sent_again(monkeypatch: pytest.MonkeyPatch, s3: str):
    sent: list[str] = []
    monkeypatch.setattr(bucket, "_PAUSES_S", (0.0, 0.0))
    with monkeypatch.context() as patch:
        patch.setattr(bucket.fs, "copy_files", cut(fs.copy_files, times=2, sent=sent))
        write(storage_path(s3) / "a.pt", b"whole")
    assert read(storage_path(s3) / "a.pt") == b"whole"
    assert [*map(sent.count, sent)] == [3, 3, 3], "the same local file"


def test_what_arrives_torn_is_never_there(monkeypatch: pytest.MonkeyPatch, s3: str):
    monkeypatch.setattr(bucket, "_PAUSES_S", ())
    with monkeypatch.context() as patch:
        patch.setattr(bucket.fs, "copy_files", cut(fs.copy_files, times=1, sent=[]))
        with pytest.raises(StorageError, match=r"a\.pt.* cannot be written \(2 of 5 bytes arrived\)$"):
            write(storage_path(s3) / "a.pt", b"whole")
    assert storage_path(s3).names() == []


def test_copies_lie_in_the_cache_and_those_of_killed_processes_go(
    monkeypatch: pytest.MonkeyPatch, s3: str, tmp_path: Path
):
    monkeypatch.setenv("JEPA_CACHE", str(tmp_path))
    below, host = tmp_path / "transfer", socket.gethostname()
    dead = subprocess.Popen(["true"])
    dead.wait()
    mine, others = f"{host}.{os.getpid()}.x", {f"{host}.{dead.pid}.x", f"elsewhere.{dead.pid}.x", f"{host}.txt"}
    for name in (mine, *others):
        (below / name).mkdir(parents=True)
    with (storage_path(s3) / "a.pt").written() as file:
        file.write_bytes(b"1")
        assert file.is_relative_to(below)
    kept = {mine, f"elsewhere.{dead.pid}.x", f"{host}.txt"}
    assert {entry.name for entry in below.iterdir()} == kept
    with (storage_path(s3) / "a.pt").local() as file:
        assert file.is_relative_to(below)
    assert {entry.name for entry in below.iterdir()} == kept


def test_a_cache_that_cannot_be_written_to_says_nothing_of_the_file(
    monkeypatch: pytest.MonkeyPatch, s3: str, tmp_path: Path
):
    """Else a run would take its checkpoint for a damaged one, and begin anew."""
    write(storage_path(s3) / "a.pt", b"1")
    (tmp_path / "transfer").touch()
    monkeypatch.setenv("JEPA_CACHE", str(tmp_path))
    with pytest.raises(StorageError, match=r"a\.pt.* cannot be read \(.*File exists"):
        read(storage_path(s3) / "a.pt")


def test_a_writer_that_fails_leaves_what_was_there(place: StoragePath):
    write(place / "a.pt", b"old")

    def dies() -> None:
        with (place / "a.pt").written() as local:
            local.write_bytes(b"half")
            raise ValueError("the writer fails")

    with pytest.raises(ValueError, match="the writer fails"):
        dies()
    assert (place.names(), read(place / "a.pt")) == (["a.pt"], b"old")


def test_a_store_that_is_away_is_not_empty(monkeypatch: pytest.MonkeyPatch, s3: str, tmp_path: Path):
    monkeypatch.setattr(bucket, "_PAUSES_S", ())
    no_bucket = storage_path(s3.replace("s3://bucket", "s3://no-bucket"))
    with pytest.raises(StorageError, match=r"^s3://no-bucket.* cannot be listed \(.*NO_SUCH_BUCKET"):
        no_bucket.names()
    with pytest.raises(StorageError, match=r"cannot be written .*NO_SUCH_BUCKET"):
        write(no_bucket / "x", b"1")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file cannot be read \(Not a directory\)"):
        LocalPath(tmp_path / "file").names()


def test_a_bucket_that_is_not_there_is_not_empty_for_a_client_that_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "bucket").mkdir()
    monkeypatch.setattr(bucket, "_PAUSES_S", ())
    monkeypatch.setattr(bucket, "_connected", lambda _: fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()))
    assert storage_path("gs://bucket/team").names() == []
    with pytest.raises(StorageError, match=r"^gs://other/team cannot be listed \(there is no bucket other\)$"):
        storage_path("gs://other/team").names()


class Scoped:
    """A client whose policy ends at the prefix: of the bucket itself it may ask nothing."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def get_file_info(self, asked: str | fs.FileSelector) -> list:
        if isinstance(asked, str):
            raise OSError(self._answer)
        raise FileNotFoundError(f"Path does not exist '{asked.base_dir}'")


def test_a_new_prefix_is_empty_for_who_may_not_ask_about_the_bucket(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bucket, "_PAUSES_S", ())
    for url, answer in (
        ("s3://bucket/team", "When getting information for bucket 'bucket': AWS Error ACCESS_DENIED during HeadBucket"),
        ("gs://bucket/team", "google::cloud::Status(PERMISSION_DENIED: Permanent error 403: does not have .. access)"),
    ):
        monkeypatch.setattr(bucket, "_connected", lambda _, answer=answer: Scoped(answer))
        assert storage_path(url).names() == []
    monkeypatch.setattr(bucket, "_connected", lambda _: Scoped("google::cloud::Status(UNAVAILABLE)"))
    with pytest.raises(StorageError, match="UNAVAILABLE"):
        storage_path("gs://bucket/team").names()


def test_a_store_that_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch, s3: str):
    place = storage_path(s3)
    write(place / "a.pt", b"1")
    asked = []
    honest = bucket.BucketPath._infos

    def busy(bucket: bucket.BucketPath) -> list:
        asked.append(1)
        if len(asked) < 3:
            raise OSError("AWS Error SLOW_DOWN")
        return honest(bucket)

    monkeypatch.setattr(bucket, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(bucket.BucketPath, "_infos", busy)
    assert place.names() == ["a.pt"]
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("ftp://host/x", r"must be a path or begin with s3://, gs:// or file:///, got 'ftp://host/x'"),
        ("s3:///x", r"must name a bucket of 3 or more characters .* as in s3://bucket/prefix, got 's3:///x'; correct"),
        ("gs://", r"must name a bucket of 3 or more characters .* as in gs://bucket/prefix, got 'gs://'; correct"),
        ("s3://b/x", r"must name a bucket of 3 or more characters .*, got 's3://b/x'"),
        (
            "s3://me:hunter2@bucket/x",
            r"must hold no credentials, .* in 's3://bucket/x'; leave them to AWS_ACC",
        ),
        ("gs://hunter2@bucket/x", r"must hold no credentials, .* in 'gs://bucket/x'; leave them to GOOGLE_APPLICATION"),
        (
            "s3://bucket/x?secret_key=hunter2",
            r"must hold no credentials, got some in 's3://bucket/x'; leave ",
        ),
        ("s3://bucket/x?acl=hunter2", r"may end in \?region=\.\.&scheme=\.\.&endpoint_override=\.\., got 'acl' in"),
        ("s3://bucket/x#y", r"may end in \?region=.*, got '#y' in"),
        ("file://host/x", r"must name a folder of this machine as file:///folder, got 'file://host/x'"),
        ("s3://[bucket/x", r"must be a path or a URL like s3://bucket/prefix, got neither \(Invalid IPv6 URL\)"),
        ("~nobody-of-that-name/x", r"must be a folder, got '~nobody-of-that-name/x'; nobody's home is called that"),
    ],
)
def test_what_is_typed_wrong_is_answered_in_one_line_without_secrets(
    where: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("JEPA_STORAGE", where)
    with pytest.raises(ConfigError, match=f"^JEPA_STORAGE {message}") as refused:
        storage_dir()
    assert "\n" not in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_the_environment_says_where_checkpoints_and_copies_of_data_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))
    for name in ("JEPA_STORAGE", "JEPA_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert str(checkpoints_dir("study")) == f"{tmp_path}/checkpoints/study"
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("JEPA_CACHE", "/fast/../cache")
    monkeypatch.setenv("JEPA_STORAGE", "s3://bucket/our team?region=eu-west-1")
    assert str(checkpoints_dir("study")) == "s3://bucket/our%20team/checkpoints/study?region=eu-west-1"
    assert cache_dir() == Path("/fast/../cache")


def test_who_shares_a_folder_sees_a_mark_in_it(place: StoragePath, tmp_path: Path):
    with mark(place) as name:
        assert unseen(str(place), name) == ""
        assert unseen(str(tmp_path / "other"), name) == f"{tmp_path}/other is another folder here"
    assert unseen(str(place), name) == f"{place} is another folder here"
    assert place.names() == []


def test_a_mark_is_asked_for_by_its_name(place: StoragePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine may list a folder on NFS as it was seconds ago; and a prefix may hold a hundred thousand objects."""
    with mark(place) as name:
        for kind in (LocalPath, bucket.BucketPath):
            monkeypatch.setattr(kind, "names", lambda _: [])
        assert unseen(str(place), name) == ""
    (tmp_path / "file").touch()
    assert unseen(str(tmp_path / "file"), "x") == f"{tmp_path}/file is another folder here"


def test_machines_whose_processes_have_equal_numbers_write_different_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = LocalPath(tmp_path / "a.pt")
    with file.written() as here:
        here.write_bytes(b"whole")
        monkeypatch.setattr(socket, "gethostname", lambda: "another")
        with file.written() as there:
            there.write_bytes(b"whole too")
        assert here != there
    assert read(file) == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_where_anybody_may_make_folders_the_cache_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv("JEPA_CACHE", str(shared / "cache"))
    for _ in range(2):
        assert made_cache_dir() == shared / "cache"
    assert (shared / "cache").stat().st_mode & 0o777 == 0o700
    if os.getuid() == 0:
        os.chown(shared / "cache", 4711, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 4711)
    for where in ("cache", "cache/below"):
        monkeypatch.setenv("JEPA_CACHE", str(shared / where))
        with pytest.raises(
            ConfigError, match=rf"^JEPA_CACHE must be a folder that no other user has made, got '{shared}"
        ):
            made_cache_dir()
    # a checkpoint on its way to a bucket lies there too
    with pytest.raises(StorageError, match="no other user has made"), storage_path("s3://bucket/a").written():
        raise AssertionError("made in another's folder")
    shared.chmod(0o755)
    assert made_cache_dir() == shared / "cache" / "below", "whoever may write here has been chosen"


@pytest.mark.parametrize("text", ["s3:/bucket/x", "S3:/b", "s3+http:/b"])
def test_a_url_with_a_slash_too_few_is_no_folder(text: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(
        ConfigError, match=r"^a place must be a folder or file of a disk here, got '.*as s3://bucket/prefix$"
    ):
        storage_path(text)
    monkeypatch.setenv("JEPA_RESULTS", "s3://bucket/x")
    with pytest.raises(
        ConfigError, match=r"^JEPA_RESULTS must be a folder or file of a disk here, got 's3://bucket/x'"
    ):
        storage_dir()
