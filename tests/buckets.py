"""Buckets for tests: new ones in the session's S3 server, and a folder that pyarrow takes for an object store."""

import uuid
from pathlib import Path

import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs

from jepa_train.storage import storage
from jepa_train.storage.storage import StoragePath


def new_bucket(server: str, patch: pytest.MonkeyPatch) -> str:
    """The URL of a folder in a new bucket, for which this process and its children now have the credentials."""
    patch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    bucket, options = f"bucket-{uuid.uuid4().hex[:8]}", f"endpoint_override={server}&scheme=http"
    maker, _ = fs.FileSystem.from_uri(f"s3://{bucket}?{options}&allow_bucket_creation=true")
    maker.create_dir(bucket)
    return f"s3://{bucket}/team?{options}"


def buckets_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Keep the objects of all buckets in a local folder, in this process, and try nothing twice."""
    client = fs.PyFileSystem(fs.FSSpecHandler(DirFileSystem(str(folder), LocalFileSystem(auto_mkdir=True))))
    patch.setattr(storage, "connect", lambda url: client if url else fs.LocalFileSystem())
    patch.setattr(storage, "PAUSES_S", ())


def check_storage(folder: StoragePath, local: Path) -> None:
    """Write, replace, list, read, copy, move and remove files below a folder that does not exist yet."""
    assert (folder.names(), folder.files()) == ([], [])
    cell = folder / "sweep ± 1" / "cell"
    for name, content in (("b?.pt", b"old"), ("b?.pt", b"new"), ("a.pt", bytes(6_000_000))):
        (cell / name).write_bytes(content)
    (cell / "below" / "c.pt").write_bytes(b"")
    assert cell.names() == ["a.pt", "b?.pt"]
    assert [(info.base_name, info.size) for info in folder.files()] == [("a.pt", 6_000_000), ("b?.pt", 3), ("c.pt", 0)]
    assert [len((cell / name).files()) for name in ("a.pt", "c.pt")] == [1, 0]
    same = storage.storage_path(str(cell / "b?.pt"))
    assert same == cell / "b?.pt"
    assert (same.name, same.read_bytes()) == ("b?.pt", b"new")
    with pytest.raises(FileNotFoundError):
        (cell / "c.pt").read_bytes()
    cell.copy_to(local)
    assert sorted(path.name for path in local.rglob("*") if path.is_file()) == ["a.pt", "b?.pt", "c.pt"]
    (folder / "d" / "e.pt").write_bytes(b"1")
    (folder / "d").move(folder / "f")
    assert ((folder / "d").names(), (folder / "f").names()) == ([], ["e.pt"])
    for _ in range(2):
        (folder / "f" / "e.pt").remove()
        assert (folder / "f").names() == []
