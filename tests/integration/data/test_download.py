"""Data by URL or in an archive: the same images as those of a local folder, copied once, and never out of the cache."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jepa_train.storage.bucket import opened
from PIL import Image
from pyarrow import fs

from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig
from jepa_train.data import Images
from jepa_train.data.download import _staged, beside, local_folder
from jepa_train.data.splits import identify, load_splits
from jepa_train.evaluation.transfer import check_transfer
from jepa_train.storage import bucket
from jepa_train.storage.paths import cache_dir
from jepa_train.storage.storage import StorageError, StoragePath, storage_path
from sweeps.engine.lanes import worker


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("JEPA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bucket, "_PAUSES_S", ())
    load_splits.cache_clear()
    _staged.cache_clear()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """2 classes, 4 train and 2 test images each: red = class, green = number."""
    root = tmp_path / "photos"
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (100 * label, 20 * number, 7)).save(root / split / name / f"{number}.png")
    return root


def config(where: str | Path, **fields: object) -> DataConfig:
    return DataConfig(name="image_folder", path=str(where), image_size=8, val_frac=0.5, **fields)


def sent(local: Path, url: str) -> str:
    """A file or folder in the place of a URL, which is returned."""
    client, path = opened(storage_path(url))
    fs.copy_files(str(local), path, destination_filesystem=client)
    return url


def pixels(images: Images) -> torch.Tensor:
    return images.batch(torch.arange(len(images)))[0]


def url_of(s3: str, name: str) -> str:
    return str(storage_path(s3) / name)


@pytest.mark.parametrize(
    "kind",
    ["file URL", "folder on S3", "tar on S3", "gztar on S3", "xztar on S3", "zip on S3", "zip", "zip in a folder"],
)
def test_images_by_url_are_those_of_the_folder(kind: str, photos: Path, tmp_path: Path, s3: str):
    form, _, where = kind.partition(" ")
    if form in ("file", "folder"):
        data = f"file://{photos}" if form == "file" else sent(photos, url_of(s3, "photos"))
    else:
        root, base = (photos.parent, "photos") if where == "in a folder" else (photos, None)
        data = shutil.make_archive(str(tmp_path / "packed"), form, root, base)
        if where == "on S3":
            data = sent(Path(data), url_of(s3, Path(data).name))
    fingerprint = identify(config(photos))
    assert identify(config(data)) == fingerprint
    here, there = load_splits(config(photos)), load_splits(config(data, fingerprint=fingerprint))
    for split in ("train", "val", "test"):
        assert torch.equal(pixels(getattr(there, split)), pixels(getattr(here, split)))
        assert torch.equal(getattr(there, split).labels, getattr(here, split).labels)
    (copy,) = [entry for entry in (cache_dir() / "staged").iterdir() if entry.suffix != ".lock"]
    assert copy.is_dir()


def test_two_processes_copy_once(photos: Path, s3: str):
    url = sent(Path(shutil.make_archive(str(photos), "tar", root_dir=photos)), url_of(s3, "photos.tar"))
    script = f"""
import logging, sys
from jepa_train.data.download import local_folder
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
print("ready", flush=True)
sys.stdin.readline()
print("at", local_folder({url!r}, download=False))
"""
    command = [sys.executable, "-c", script]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0] for process in both]
    assert "".join(told).count(f"copying {url} to ") == 1
    assert len({text.partition("at ")[2] for text in told}) == 1


def test_what_changed_at_its_url_is_copied_anew(photos: Path, s3: str):
    url = sent(photos, url_of(s3, "photos"))
    before = identify(config(url))
    Image.new("RGB", (9, 9)).save(photos / "train" / "ant" / "9.png")
    sent(photos, url)
    assert identify(config(url)) == before, "a process looks once"
    _staged.cache_clear()
    assert identify(config(url)) == identify(config(photos)) != before


def add(tar: tarfile.TarFile, name: str, **fields: object) -> None:
    member = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(b"x" * member.size))


def add_chain(tar: tarfile.TarFile, *, out: str) -> None:
    """A file in `out`, behind links whose true path is too long for os.path.realpath (CVE-2025-4517)."""
    long, steps = "d" * 247, "abcdefghijklmnop"
    for depth, step in enumerate(steps):
        add(tar, "/".join([long] * (depth + 1)), type=tarfile.DIRTYPE, mode=0o755)
        add(tar, "/".join([*[long] * depth, step]), type=tarfile.SYMTYPE, linkname=long)
    last = f"{'/'.join(steps)}/{'l' * 254}"
    add(tar, last, type=tarfile.SYMTYPE, linkname="../" * len(steps))
    add(tar, "escape", type=tarfile.SYMTYPE, linkname=f"{last}/{out}")
    add(tar, "escape/evil", size=1)


def evil(kind: str, archive: Path, outside: Path) -> None:
    if kind.startswith("zip"):
        with zipfile.ZipFile(archive, "w") as zipped:
            zipped.writestr({"zip above": "../evil", "zip absolute": str(outside), "zip by \\": "..\\evil"}[kind], "x")
        return
    with tarfile.open(archive, "w") as tar:
        if kind == "tar above":
            add(tar, "../evil", size=1)
        elif kind == "tar link":
            add(tar, "way", type=tarfile.SYMTYPE, linkname=str(outside.parent))
            add(tar, "way/evil", size=1)
        elif kind == "tar hard link":
            add(tar, "train", type=tarfile.LNKTYPE, linkname="../../../photos")
        elif kind == "tar chain":
            add_chain(tar, out="../../../../photos")
        else:
            add(tar, "null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)


@pytest.mark.parametrize(
    "kind",
    ["tar above", "tar link", "tar hard link", "tar chain", "tar device", "zip above", "zip absolute", "zip by \\"],
)
def test_no_archive_writes_outside_its_folder(kind: str, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    archive, outside = tmp_path / f"a.{kind[:3]}", tmp_path / "evil"
    evil(kind, archive, outside)
    before = {*tmp_path.iterdir()}
    with pytest.raises(
        ConfigError, match=r"^data\.path must (be a whole and harmless archive|hold no name that leads out)"
    ):
        identify(config(archive))
    assert {*tmp_path.rglob("*")} - {cache_dir(), *cache_dir().rglob("*")} == before
    assert [entry.suffix for entry in (cache_dir() / "staged").iterdir()] == [".lock"]


def test_no_object_is_copied_outside_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()

    class Lying:
        def get_file_info(self, asked: str | fs.FileSelector) -> object:
            """A store's key may hold anything."""
            if isinstance(asked, str):
                return fs.LocalFileSystem().get_file_info(asked)
            return [SimpleNamespace(path=f"{asked.base_dir}/../evil", size=1, mtime_ns=0, is_file=True)]

    monkeypatch.setattr("jepa_train.storage.bucket.opened", lambda place: (Lying(), str(place)))
    with pytest.raises(
        ConfigError, match=r"^data\.path must hold no name that leads out of its folder, got '\.\./evil"
    ):
        identify(config(f"file://{tmp_path}/photos"))


def test_bad_urls_and_archives_are_one_line(photos: Path, tmp_path: Path, s3: str):
    whole = Path(shutil.make_archive(str(photos), "gztar", photos))
    (tmp_path / "half.tar.gz").write_bytes(whole.read_bytes()[:-60])
    (tmp_path / "no.zip").write_text("no archive")
    for where, told in (
        (url_of(s3, "nothing"), r"must name a folder or an archive, got 's3://.*/nothing\?.*', where there is none$"),
        (s3.replace("s3://", "s3://no-"), r"must name a folder or an archive, got 's3://no-bucket"),
        (sent(tmp_path / "no.zip", url_of(s3, "notes.txt")), r"must be a folder or an archive \(\.tar \.tar\.gz "),
        (str(tmp_path / "half.tar.gz"), r"must be a whole and harmless archive, got '.*half\.tar\.gz' \("),
        (str(tmp_path / "no.zip"), r"must be a whole and harmless archive, got '.*no\.zip' \(File is not a zip file\)"),
        ("s3://me:hunter2@bucket/x", r"must hold no credentials, got some in 's3://bucket/x'"),
    ):
        with pytest.raises(ConfigError, match=rf"^data\.path {told}") as refused:
            identify(config(where))
        assert "\n" not in str(refused.value)
        assert "hunter2" not in str(refused.value)
    with pytest.raises(ConfigError, match=r"^data\.download must be false where data\.path is a URL"):
        identify(config(s3, download=True))


def test_a_store_that_is_away_is_an_outage_and_no_mistake_of_the_cell(monkeypatch: pytest.MonkeyPatch):
    """What the workers' group is told of it ends the cell as interrupted: it goes on with the next launch."""

    def listed(_: StoragePath) -> list[fs.FileInfo]:
        raise OSError("AWS Error NETWORK_CONNECTION\nduring HeadObject")

    monkeypatch.setattr("jepa_train.data.download.listed", listed)
    away = config("s3://bucket/x", fingerprint="0123")
    for ask in (identify, load_splits):
        with pytest.raises(StorageError, match=r"^data\.path 's3://bucket/x' cannot be read \(.*NETWORK") as outage:
            ask(away)
        assert "\n" not in str(outage.value)
        assert worker.failure_of({0: outage.value})[2:] == (True, True)
    with pytest.raises(StorageError, match=r"^probe\.transfer's dtd 's3://bucket/x' cannot be read"):
        check_transfer(f"dtd={away.path}", away)


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_of_two_machines_without_a_common_lock_the_second_takes_what_the_first_has_made(
    form: str, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    data = f"file://{photos}" if form == "folder" else shutil.make_archive(str(photos), form, photos)
    honest = fs.copy_files

    def slow(source: str, to: str, **options: object) -> None:
        honest(source, to, **options)
        part = next(path for path in (Path(to), Path(to).parent) if path.suffix == ".part")
        shutil.copytree(photos, part.with_name(part.name.partition(".")[0]))

    monkeypatch.setattr(fs, "copy_files", slow)
    assert identify(config(data)) == identify(config(photos))
    assert sorted(entry.suffix for entry in (cache_dir() / "staged").iterdir()) == ["", ".lock"]


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_a_store_that_is_away_while_it_is_copied_is_asked_again(
    form: str, photos: Path, s3: str, monkeypatch: pytest.MonkeyPatch
):
    data = photos if form == "folder" else Path(shutil.make_archive(str(photos), form, photos))
    url, honest, asked = sent(data, url_of(s3, data.name)), fs.copy_files, []

    def copy_files(*args: object, **options: object) -> None:
        asked.append(1)
        if len(asked) < 3:
            raise OSError("AWS Error SLOW_DOWN")
        honest(*args, **options)

    monkeypatch.setattr(fs, "copy_files", copy_files)
    with pytest.raises(StorageError, match=r"^data\.path 's3://.*' cannot be copied to .* \(AWS Error SLOW_DOWN\)$"):
        identify(config(url))
    monkeypatch.setattr(bucket, "_PAUSES_S", (0.0,))
    assert identify(config(url)) == identify(config(photos))
    assert len(asked) == 3


def test_a_disk_without_room_is_told_before_anything_is_copied(photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(ConfigError, match=r"cache needs 0\.00 GB and has 0\.00 GB free; set JEPA_CACHE"):
        identify(config(f"file://{photos}"))
    assert [*(cache_dir() / "staged").glob("*.part")] == []


@pytest.mark.parametrize("form", ["tar", "gztar", "zip"])
def test_an_archive_needs_room_for_itself_and_for_what_it_holds(
    form: str, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of a tar both are known before it is copied; of the others, when it is opened."""
    (photos / "train" / "zeros").write_bytes(bytes(30_000_000))
    archive = shutil.make_archive(str(photos), form, photos)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=29_900_000 + 30_000_000 * (form == "tar")))
    if form == "tar":
        monkeypatch.setattr("jepa_train.data.download._copy", lambda *_: pytest.fail("copied"))
    with pytest.raises(ConfigError, match=rf"cache needs 0\.0{'6' if form == 'tar' else '3'} GB and has 0\.0"):
        identify(config(archive))
    assert [entry.suffix for entry in (cache_dir() / "staged").iterdir()] == [".lock"]


def test_paths_stay_as_they_were(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_folder("", download=True) == Path()
    assert local_folder("~/photos", download=False) == tmp_path / "photos"
    (tmp_path / "folder.zip").mkdir()
    assert local_folder(f"{tmp_path}/folder.zip", download=False) == tmp_path / "folder.zip"
    assert not cache_dir().exists()
    assert beside("~/data/cifar10", "digits") == f"{tmp_path}/data/digits"
    assert beside("s3://bucket/a/cifar10.tar?region=x", "dtd") == "s3://bucket/a/dtd?region=x"
    assert os.path.basename(beside("", "dtd")) == "dtd"


@pytest.mark.parametrize("more", [0, 100])
def test_an_archive_that_was_cut_between_two_images_is_not_whole(more: int, photos: Path, tmp_path: Path):
    """tarfile itself takes it for a shorter one."""
    whole = Path(shutil.make_archive(str(tmp_path / "packed"), "tar", photos))
    with tarfile.open(whole) as tar:
        last = max(tar.getmembers(), key=lambda member: member.offset)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[: last.offset + more])
    with pytest.raises(ConfigError, match=r"whole and harmless archive, got '.*cut\.tar' \(its end is missing"):
        identify(config(cut))
    assert identify(config(whole)) == identify(config(photos))


def test_links_are_refused_with_what_to_do(photos: Path, tmp_path: Path):
    (photos / "train" / "ant" / "8.png").symlink_to("0.png")
    linked = shutil.make_archive(str(tmp_path / "linked"), "tar", photos)
    told = r"'\./train/ant/8\.png' is neither a file nor a folder; pack it with tar --dereference --hard-dereference"
    with pytest.raises(ConfigError, match=rf"whole and harmless archive, got '.*linked\.tar' \({told}\)$"):
        identify(config(linked))
    command = ["tar", "--dereference", "--hard-dereference", "-C", str(photos), "-cf", linked, "train", "test"]
    subprocess.run(command, check=True)
    _staged.cache_clear()
    assert identify(config(linked)) == identify(config(photos))


def test_a_file_that_is_no_archive_is_said_to_be_none(tmp_path: Path):
    (tmp_path / "bad.tar").write_bytes(b"no archive at all")
    with pytest.raises(ConfigError, match=r"got '.*bad\.tar' \(it is none, or damaged\)"):
        identify(config(tmp_path / "bad.tar"))
