"""Data by URL or in an archive: the images of the local folder, copied once, refused in one line.

Run: python -m pytest tests/unit/data/test_download.py
"""

import errno
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from buckets import buckets_in
from folders_of_images import batch_of, folder_config, write_folder

from jepa_train.base.errors import ConfigError
from jepa_train.data.files import download
from jepa_train.data.files.download import local_folder, sibling_path
from jepa_train.data.splits import identify, load_splits
from jepa_train.evaluation.transfer import check_transfer
from jepa_train.storage import storage
from jepa_train.storage.paths import cache_dir
from jepa_train.storage.storage import StorageError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JEPA_CACHE", str(tmp_path / "cache"))
    buckets_in(tmp_path, monkeypatch)
    load_splits.cache_clear()
    download._local_copy.cache_clear()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "bucket" / "photos")


def copies() -> list[Path]:
    return [entry for entry in (cache_dir() / "staged").iterdir() if entry.suffix != ".lock"]


def identity(where: Path | str) -> str:
    return identify(folder_config(where))[0].fingerprint


@pytest.mark.parametrize("kind", ["folder", "tar", "gztar", "xztar", "zip", "zip in a folder", "local tar"])
def test_images_by_url_are_those_of_the_folder(kind: str, photos: Path):
    where = "s3://bucket/photos"
    if kind != "folder":
        root, base = (photos.parent, "photos") if kind == "zip in a folder" else (photos, None)
        packed = shutil.make_archive(str(photos), kind.removeprefix("local ").partition(" ")[0], root, base)
        where = packed if kind == "local tar" else f"s3://bucket/{Path(packed).name}"
    fingerprint = identity(photos)
    assert identity(where) == fingerprint
    here, there = load_splits(folder_config(photos)), load_splits(folder_config(where, fingerprint=fingerprint))
    for split in ("train", "val", "test"):
        assert batch_of(getattr(there, split)) == batch_of(getattr(here, split))
    assert [copy.is_dir() for copy in copies()] == [True]


def test_an_archive_without_splits_may_have_a_folder_around_the_classes(photos: Path):
    (photos / "train").rename(photos / "insects")
    around = shutil.make_archive(str(photos.parent / "around"), "zip", photos, "insects")
    assert identity(around) == identity(photos / "insects")


def test_a_changed_source_is_copied_again_by_the_next_process(photos: Path):
    before = identity("s3://bucket/photos")
    shutil.copy(photos / "train" / "ant" / "0.png", photos / "train" / "ant" / "9.png")
    assert identity("s3://bucket/photos") == before
    download._local_copy.cache_clear()
    assert identity("s3://bucket/photos") == identity(photos) != before


@pytest.mark.parametrize(
    "member", [("../evil", tarfile.REGTYPE, ""), ("way", tarfile.SYMTYPE, "/tmp"), ("way", tarfile.LNKTYPE, "../../x")]
)
def test_no_archive_writes_outside_its_folder(member: tuple[str, bytes, str], tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        about = tarfile.TarInfo(member[0])
        about.type, about.linkname = member[1:]
        tar.addfile(about, io.BytesIO())
    with pytest.raises(ConfigError, match=r"^data\.path must be a source that can be copied, got '.*a\.tar' \("):
        identify(folder_config(tmp_path / "a.tar"))
    assert (copies(), [*tmp_path.rglob("evil")]) == ([], [])


def test_every_member_of_a_zip_is_extracted_inside_its_folder(photos: Path, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for file in photos.rglob("*.*"):
            packed.write(file, file.relative_to(photos).with_name(f"..{file.name}.{file.name}"))
        packed.writestr("../evil", "")
    assert sum(file.is_file() for file in local_folder(f"{tmp_path}/a.zip", download=False).rglob("*")) == 19
    assert all((cache_dir() / "staged") in file.parents for file in tmp_path.rglob("evil"))


@pytest.mark.parametrize("end", [512, 1024, 1124, "encrypted"])
def test_an_archive_that_is_cut_or_encrypted_is_refused(end: int | str, tmp_path: Path):
    """512 bytes: after the first, empty, member; 1024: after the second; 1124: within the header of the third."""
    file = tmp_path / ("a.zip" if end == "encrypted" else "a.tar")
    if end == "encrypted":
        with zipfile.ZipFile(file, "w") as packed:
            packed.writestr("a", "")
        content = bytearray(file.read_bytes())
        content[6] |= 1  # flag of the member's header and of the directory's entry
        content[content.index(b"PK\1\2") + 8] |= 1
    else:
        with tarfile.open(file, "w") as tar:
            for name in "abc":
                tar.addfile(tarfile.TarInfo(name))
        content = file.read_bytes()[:end]
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"a source that can be copied, got '.*' \(.*(no end marker|encrypted)"):
        local_folder(str(file), download=False)
    assert copies() == []


def test_the_copy_of_a_faster_machine_is_used(photos: Path, monkeypatch: pytest.MonkeyPatch):
    def late(_: Path, target: Path) -> None:
        shutil.copytree(photos, target)
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(Path, "rename", late)
    assert (local_folder("s3://bucket/photos", download=False) / "train").is_dir()


def test_bad_urls_and_archives_are_one_line(photos: Path, tmp_path: Path):
    whole = Path(shutil.make_archive(str(photos), "gztar", photos))
    (tmp_path / "half.tar.gz").write_bytes(whole.read_bytes()[:-60])
    (photos.parent / "no.zip").write_text("no archive")
    (photos.parent / "notes.txt").write_text("no archive")
    for where, message in (
        ("s3://bucket/nothing", r"must name a folder or an archive, got 's3://bucket/nothing', where there is none$"),
        ("s3://bucket/notes.txt", r"must be a folder or an archive \(\.tar \.tar\.gz .*\), got"),
        (f"{tmp_path}/half.tar.gz", r"must be a source that can be copied, got '.*half\.tar\.gz' \("),
        ("s3://bucket/no.zip", r"must be a source that can be copied, got '.*no\.zip' \(.* is not a zip file\)"),
        ("s3://me:hunter2@bucket/x", r"must hold no credentials, got some in 's3://bucket/x'"),
    ):
        with pytest.raises(ConfigError, match=rf"^data\.path {message}") as refused:
            identify(folder_config(where))
        assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match=r"^data\.download must be false where data\.path is a URL"):
        identify(folder_config("s3://bucket/x", download=True))


def test_a_storage_that_does_not_answer_is_no_error_of_the_config(monkeypatch: pytest.MonkeyPatch):
    def unreachable(_: str) -> None:
        raise OSError("AWS Error NETWORK_CONNECTION\nduring HeadObject")

    monkeypatch.setattr(storage, "connect", unreachable)
    away = folder_config("s3://bucket/x", fingerprint="0123")
    for ask in (identify, load_splits):
        with pytest.raises(StorageError, match=r"^s3://bucket/x cannot be read \(.*NETWORK"):
            ask(away)
    with pytest.raises(StorageError, match=r"^s3://bucket/x cannot be read"):
        check_transfer(f"dtd={away.path}", away)


def test_local_folders_are_used_in_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_folder("", download=True) == Path()
    assert local_folder("~/photos", download=False) == tmp_path / "photos"
    assert not cache_dir().exists()
    assert sibling_path("~/data/cifar10", "digits") == f"{tmp_path}/data/digits"
    assert sibling_path("s3://bucket/a/cifar10.tar?region=x", "dtd") == "s3://bucket/a/dtd?region=x"
    assert sibling_path("", "dtd") == "dtd"
