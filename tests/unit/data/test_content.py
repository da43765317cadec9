"""Identity of images by content: exchanged files, touched folders, the index that decides what is read, and the cache.

Run: python -m pytest tests/unit/data/test_content.py
"""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders_of_images import folder_config, pixels_of, write_folder
from odd_images import IMAGES
from PIL import Image

from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig
from jepa_train.data.files import content, decode
from jepa_train.data.files.listing import list_folder
from jepa_train.data.splits import identify, load_splits, read_images
from jepa_train.storage.paths import cache_dir


@pytest.fixture(autouse=True)
def _own_results(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images that are bitmaps of one size, as two data sets with the same file names may be."""
    root = write_folder(tmp_path / "photos")
    for file in [*root.rglob("*.png"), *root.rglob("*.PNG")]:
        file.unlink()
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            for number in range(4):
                shutil.copy(root / split / name / "1.bmp", root / split / name / f"{number}{name}.bmp")
                with (root / split / name / f"{number}{name}.bmp").open("r+b") as file:
                    file.seek(-1, os.SEEK_END)
                    file.write(bytes([number]))
    return root


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The files that are read, by name below their split."""
    found, real = [], content.decode_file
    monkeypatch.setattr(
        content,
        "decode_file",
        lambda file, size, **options: found.append("/".join(file.split("/")[-2:])) or real(file, size, **options),
    )
    return found


def identity(folder: Path, *, keep: bool = True) -> DataConfig:
    return read_images(folder_config(folder), keep=keep)[0]


def exchange(first: Path, second: Path) -> None:
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def arrays() -> list[str]:
    return sorted(file.name for file in cache_dir().glob("*.npy"))


def test_exchanged_files_are_other_data_and_the_first_content_needs_no_field(folder, read):
    files = folder / "train" / "ant" / "0ant.bmp", folder / "train" / "bee" / "0bee.bmp"
    before = identity(folder)
    assert (before.fingerprint, before.content) == (identify(folder_config(folder))[0].fingerprint, "")
    read.clear()
    exchange(*files)
    assert identify(folder_config(folder))[0] == before, "nothing has been read since"
    after = identity(folder)
    assert (after.fingerprint, len(after.content)) == (before.fingerprint, 16)
    assert sorted(read) == ["ant/0ant.bmp", "bee/0bee.bmp"], "the others are known"
    assert identify(folder_config(folder))[0] == after
    exchange(*files)
    assert identity(folder) == before


def test_a_touched_folder_and_a_copy_are_the_same_data(folder, read, tmp_path):
    before = identity(folder)
    loaded, made = pixels_of(load_splits(before).train), arrays()
    read.clear()
    (folder / "test" / "bee" / "1bee.bmp").touch()
    assert identity(folder) == before
    assert read == ["bee/1bee.bmp"]
    shutil.copytree(folder, tmp_path / "copy")
    copied = identity(tmp_path / "copy", keep=False)
    assert (copied.fingerprint, copied.content) == (before.fingerprint, "")
    load_splits.cache_clear()
    assert np.array_equal(pixels_of(load_splits(copied).train), loaded)
    assert arrays() == made, "equal content has one array"


def test_data_of_other_content_has_an_array_of_its_own(folder):
    before = identity(folder)
    first = pixels_of(load_splits(before).test).clone()
    exchange(folder / "test" / "ant" / "0ant.bmp", folder / "test" / "bee" / "0bee.bmp")
    after = identity(folder)
    load_splits.cache_clear()
    assert not np.array_equal(pixels_of(load_splits(after).test), first)
    assert len(arrays()) == 2


def test_workers_refuse_images_that_the_launch_has_not_seen(folder):
    planned = identity(folder)
    exchange(folder / "train" / "ant" / "0ant.bmp", folder / "train" / "bee" / "0bee.bmp")
    load_splits.cache_clear()
    rule = rf"^data\.content must name the images under .* data\.path='{folder}', got '', but that is '[0-9a-f]{{16}}'"
    with pytest.raises(ConfigError, match=rule):
        load_splits(planned)
    changed = identity(folder)
    assert len(load_splits(changed).test) == len(load_splits(folder_config(folder)).test) == 10
    exchange(folder / "train" / "ant" / "0ant.bmp", folder / "train" / "bee" / "0bee.bmp")
    load_splits.cache_clear()
    with pytest.raises(ConfigError, match=rf"^data\.content must name .*, got '{changed.content}', but that is '';"):
        load_splits(changed)


def test_identification_reads_no_image(folder, read):
    data, inventory = identify(folder_config(folder))
    assert (data.content, inventory.content, inventory.unread) == ("", "", 22)
    assert read == []
    assert not (Path(os.environ["JEPA_RESULTS"])).exists()


def test_images_are_read_once_for_identity_and_training(folder, read):
    load_splits.cache_clear()
    load_splits(identity(folder))
    assert len(read) == 22
    load_splits.cache_clear()
    load_splits(identity(folder))
    assert len(read) == 22


def test_what_was_read_before_an_interruption_is_known(folder, read, monkeypatch):
    monkeypatch.setattr(content, "_CHUNK", 5)
    real = content.decode_file

    def stopped(file: str, size: int, **options: Any) -> object:
        if len(read) >= 7:
            raise KeyboardInterrupt
        return real(file, size, **options)

    with monkeypatch.context() as patch:
        patch.setattr(content, "decode_file", stopped)
        with pytest.raises(KeyboardInterrupt):
            identity(folder, keep=False)
    assert identify(folder_config(folder))[1].unread == 17
    read.clear()
    identity(folder, keep=False)
    assert len(read) == 17


def test_files_of_two_disks_may_have_one_inode(folder):
    listing = list_folder(folder)
    listing.stats[:, 3] = 7
    content.read_files(listing, skip_corrupt=False)
    assert content.read_index(listing).known.all()


def test_images_that_a_new_decoder_can_read_are_other_data(folder, monkeypatch):
    Image.new("RGB", (9, 9)).save(folder / "train" / "ant" / "new.jpg", format="WEBP")
    formats = decode._formats()
    monkeypatch.setattr(decode, "_formats", lambda: tuple(name for name in formats if name != "WEBP"))
    before = read_images(folder_config(folder, on_corrupt="skip"), keep=True)
    monkeypatch.setattr(decode, "_formats", lambda: formats)
    after = read_images(folder_config(folder, on_corrupt="skip"), keep=True)
    assert (before[1].skipped, after[1].skipped) == (1, 0)
    assert (before[0].content, len(after[0].content)) == ("", 16)
    load_splits.cache_clear()
    assert load_splits(after[0]).skipped == 0


@pytest.mark.parametrize("damage", [b"", b"no array", None])
def test_a_lost_index_is_made_anew(damage, folder, read):
    before = identity(folder, keep=False)
    (file,) = (cache_dir() / "index").iterdir()
    file.write_bytes(damage) if damage is not None else np.save(file, np.zeros((3, 2)))
    read.clear()
    assert identity(folder, keep=False) == before
    assert len(read) == 22


def test_files_that_this_version_decodes_otherwise_have_another_identity(folder):
    plain = identity(folder)
    IMAGES["opaque.png"](folder / "train" / "ant" / "x.png")
    assert identity(folder).content == ""
    IMAGES["clear.png"](folder / "train" / "ant" / "x.png")
    altered = identity(folder)
    assert altered.fingerprint != plain.fingerprint
    assert len(altered.content) == 16
    load_splits.cache_clear()
    assert len(load_splits(altered).test) == 10


def test_machines_with_one_storage_share_the_first_content(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "other")
    exchange(tmp_path / "other" / "test" / "ant" / "0ant.bmp", tmp_path / "other" / "test" / "ant" / "1ant.bmp")
    monkeypatch.setenv("JEPA_STORAGE", str(tmp_path / "shared"))
    assert identity(folder).content == ""
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "another machine"))
    assert len(identity(tmp_path / "other").content) == 16
    assert identity(folder).content == ""
