"""Image folders: round trip, fingerprint, one decoding for all, broken folders and corrupt images.

Run: python -m pytest tests/unit/data/test_image_folder.py
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from folders_of_images import folder_config, pixels_of, write_folder
from PIL import Image

from jepa_train.base.errors import ConfigError
from jepa_train.data import DATASETS
from jepa_train.data.files import content
from jepa_train.data.splits import load_splits
from jepa_train.storage.paths import cache_dir

FOLDER = DATASETS["image_folder"]


@pytest.fixture(autouse=True)
def _own_results(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    load_splits.cache_clear()


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "photos")


def fingerprint(folder: Path) -> str:
    return FOLDER.identify(folder, folder_config(folder)).fingerprint


def test_folder_round_trip(folder):
    splits = load_splits(folder_config(folder, fingerprint=fingerprint(folder)))
    assert splits.classes == ("ant", "bee")
    assert splits.train.labels.bincount().tolist() == [4, 4]
    assert splits.val.labels.bincount().tolist() == [2, 2]
    for part, blue in ((splits.test, 0), (splits.train, 200)):
        assert torch.equal(pixels_of(part)[:, 0, 4, 4], (100 * part.labels).byte())
        assert (pixels_of(part)[:, 2] == blue).all()
    assert pixels_of(splits.test)[:, 1, 0, 0].tolist() == [0, 20, 40] * 2
    greens = torch.cat([pixels_of(splits.train), pixels_of(splits.val)])[:, 1, 0, 0]
    assert sorted(greens.tolist()) == sorted([20 * number for number in range(6)] * 2)


def test_fingerprint_changes_with_content_and_not_with_path(folder, tmp_path):
    found = fingerprint(folder)
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert fingerprint(tmp_path / "elsewhere") == found
    (folder / "train" / "ant" / ".hidden.png").write_bytes(b"")
    (folder / "train" / "ant" / "notes.txt").write_text("not an image")
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / "ant" / "folder.png").mkdir()
    (folder / "train" / "ant" / "broken.png").symlink_to("nowhere")
    assert fingerprint(folder) == found
    image = folder / "train" / "ant" / "0.png"
    image.rename(image.with_name("zero.png"))
    renamed = fingerprint(folder)
    with image.with_name("zero.png").open("ab") as file:
        file.write(b"x")
    assert len({found, renamed, fingerprint(folder)}) == 3
    with pytest.raises(ConfigError, match=r"^data\.fingerprint must name .* leave data\.fingerprint out"):
        load_splits(folder_config(folder, fingerprint=found))


@pytest.mark.parametrize(
    ("missing", "rule"),
    [
        ([""], "data.path must be a folder"),
        (["train/ant"], "one of them lacks 'ant'"),
        (["train"], "train/ if it has splits: there is test/"),
        (["train/bee", "test/bee"], "at least 2 classes: there is only 'ant'"),
        ([f"train/ant/{n}.{('png', 'bmp', 'PNG')[n % 3]}" for n in range(5)], "in train/ant/: it has 1"),
    ],
)
def test_a_broken_folder_is_named_in_one_line(missing, rule, folder):
    for name in missing:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    remedy = "(set data.path=DIR|lay it out as train/<class>/ and test/<class>/, train/<class>/ alone, or <class>/)"
    remedy += "(; or set data.name=unlabelled_folder)?"
    with pytest.raises(ValueError, match=rf"^data\.path must .* got '{folder}'.*; {remedy}$") as found:
        fingerprint(folder)
    assert rule in str(found.value)


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty"])
def test_a_corrupt_image_is_named_and_leaves_no_cache(damage, folder):
    image = folder / "train" / "bee" / "3.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(image)
    whole = image.read_bytes()
    image.write_bytes({"cut": whole[: len(whole) // 2], "foreign": b"hello" * 100, "empty": b""}[damage])
    rule = r"^data\.path holds a file .*train/bee/3\.png' \(.+\); delete or replace it, or .*on_corrupt=skip$"
    with pytest.raises(ConfigError, match=rule):
        load_splits(folder_config(folder))
    assert not [file for file in cache_dir().iterdir() if file.suffix != ".lock"]
    image.write_bytes(whole)
    assert len(load_splits(folder_config(folder)).test.labels) == 6


@pytest.fixture
def decoded_files(monkeypatch) -> list[str]:
    found, real = [], content.decode_file
    monkeypatch.setattr(
        content, "decode_file", lambda file, size, **options: found.append(file) or real(file, size, **options)
    )
    return found


def test_concurrent_and_later_loads_decode_once(folder, decoded_files):
    with ThreadPoolExecutor(4) as threads:
        results = [*threads.map(lambda _: FOLDER.load(folder, folder_config(folder)), range(4))]
    assert len(decoded_files) == 18
    assert all(torch.equal(pixels_of(result.train), pixels_of(results[0].train)) for result in results)
    load_splits(folder_config(folder))
    assert len(decoded_files) == 18
    assert pixels_of(load_splits(folder_config(folder, image_size=12)).test).shape[-1] == 12
    assert len(decoded_files) == 36, "another size, another array"


def skipping(folder: Path):
    load_splits.cache_clear()  # as a new process would start
    return load_splits(folder_config(folder, on_corrupt="skip"))


def test_corrupt_images_are_skipped_and_counted(folder, caplog):
    for name in ("train/ant/1.bmp", "train/bee/4.bmp", "test/bee/0.png"):
        (folder / name).write_bytes(b"no image")
    splits = skipping(folder)
    assert splits.skipped == 3
    assert f"skipped 3 of 18 images of {folder}, the first is train/ant/1.bmp" in caplog.text
    assert splits.test.labels.tolist() == [0, 0, 0, 1, 1]
    assert pixels_of(splits.test)[:, 1, 0, 0].tolist() == [0, 20, 40, 20, 40]
    bees = torch.cat([pixels_of(part)[part.labels == 1] for part in (splits.train, splits.val)])
    assert sorted(bees[:, 1, 0, 0].tolist()) == [0, 20, 40, 60, 100]


def test_a_corrupt_image_is_remembered_and_looked_at_again(folder, decoded_files):
    file = folder / "train" / "bee" / "3.png"
    repaired = file.read_bytes()
    file.write_bytes(b"x" * len(repaired))  # the same size, and so the same fingerprint
    assert skipping(folder).skipped == 1
    decoded_files.clear()
    with pytest.raises(ConfigError, match=r"train/bee/3\.png' .*; delete or replace it, or set data\.on_corrupt=skip$"):
        load_splits(folder_config(folder))
    assert skipping(folder).skipped == 1
    assert {*decoded_files} == {str(file)}
    file.write_bytes(repaired)
    assert skipping(folder).skipped == 0
    decoded_files.clear()
    assert load_splits(folder_config(folder)).skipped == 0
    assert decoded_files == [], "a complete array serves both"


@pytest.mark.parametrize(("split", "left"), [("train", 1), ("test", 0)])
def test_a_class_without_enough_readable_images_is_refused(split, left, folder):
    files = sorted((folder / split / "bee").iterdir())
    for file in [folder / "train" / "ant" / "0.png", *files[left:]]:
        file.write_bytes(b"no image")
    rule = rf"^data\.path must hold at least {left + 1} images in {split}/bee/ that can be read, got '.*', where "
    with pytest.raises(ConfigError, match=rf"{rule}{split}/bee/{files[left].name} cannot; replace it$"):
        skipping(folder)
