"""Image folders: round trip, fingerprint, one decoding for all, broken folders and corrupt images.

Run: python -m pytest tests/unit/data/test_image_folder.py
"""

import os
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


def test_folder_round_trip(folder):
    splits = load_splits(folder_config(folder, fingerprint=FOLDER.identify(folder, False)))
    assert splits.classes == ("ant", "bee")
    assert splits.train.labels.bincount().tolist() == [4, 4]
    assert splits.val.labels.bincount().tolist() == [2, 2]
    for part, blue, numbers in ((splits.test, 0, [0, 1, 2] * 2), (splits.train, 200, None)):
        assert torch.equal(pixels_of(part)[:, 0, 4, 4], (100 * part.labels).byte())
        assert (pixels_of(part)[:, 2] == blue).all()
        if numbers is not None:
            assert pixels_of(part)[:, 1, 0, 0].tolist() == [20 * number for number in numbers]
    greens = torch.cat([pixels_of(splits.train), pixels_of(splits.val)])[:, 1, 0, 0]
    assert sorted(greens.tolist()) == sorted([20 * number for number in range(6)] * 2)


def test_fingerprint_changes_with_content_and_not_with_path(folder, tmp_path):
    found = FOLDER.identify(folder, False)
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert FOLDER.identify(tmp_path / "elsewhere", False) == found
    (folder / "train" / "ant" / ".hidden.png").write_bytes(b"")
    (folder / "train" / "ant" / "notes.txt").write_text("not an image")
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    assert FOLDER.identify(folder, False) == found
    image = folder / "train" / "ant" / "0.png"
    image.rename(image.with_name("zero.png"))
    renamed = FOLDER.identify(folder, False)
    with image.with_name("zero.png").open("ab") as file:
        file.write(b"x")
    assert len({found, renamed, FOLDER.identify(folder, False)}) == 3


def test_folder_that_is_not_what_the_fingerprint_names_is_refused(folder):
    with pytest.raises(
        ValueError, match=r"^data\.fingerprint must name .* got '0123', but .*leave data\.fingerprint out"
    ):
        load_splits(folder_config(folder, fingerprint="0123"))


def emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (shutil.rmtree, "must be a folder"),
        (lambda root: shutil.rmtree(root / "train"), "train/: there is none"),
        (lambda root: shutil.rmtree(root / "test"), "test/: there is none"),
        (lambda root: [shutil.rmtree(root / "train" / name) for name in ("ant", "bee")], "it has no folders"),
        (lambda root: emptied(root / "test" / "bee"), "of every class: test/bee/ has none"),
        (lambda root: shutil.rmtree(root / "test" / "bee"), "in both splits: 'bee' lies only in train/"),
        (lambda root: shutil.rmtree(root / "train" / "ant"), "in both splits: 'ant' lies only in test/"),
        (lambda root: [shutil.rmtree(root / part / "bee") for part in ("train", "test")], "there is only 'ant'"),
        (lambda root: [(root / "train" / "ant" / f"{n}").unlink() for n in os.listdir(root / "train" / "ant")[1:]],
         "'ant' has 1"),
    ],
)  # fmt: skip
def test_broken_folder_is_named_in_one_line(damage, rule, folder):
    damage(folder)
    with pytest.raises(ValueError, match=r"^data\.path must ") as caught:
        FOLDER.identify(folder, False)
    message = str(caught.value)
    assert rule in message
    assert repr(str(folder)) in message
    assert message.endswith(("set data.path=DIR", "lay it out as train/<class>/ and test/<class>/"))
    assert "\n" not in message


def test_unset_path_and_file_as_path(tmp_path):
    with pytest.raises(ValueError, match=r"^data\.path must be set for an image folder, got ''; set data\.path=DIR$"):
        FOLDER.identify(Path(), False)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"^data\.path must be a folder, got '.*/file'"):
        FOLDER.identify(tmp_path / "file", False)


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


def test_writing_into_a_batch_leaves_the_images_alone(folder):
    test = load_splits(folder_config(folder)).test
    expected = pixels_of(test).clone()
    pixels_of(test).zero_()
    assert torch.equal(pixels_of(test), expected)


@pytest.fixture
def decoded_files(monkeypatch) -> list[str]:
    found, real = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file: found.append(file) or real(file))
    return found


def test_concurrent_and_later_loads_decode_once(folder, decoded_files):
    with ThreadPoolExecutor(4) as threads:
        results = [*threads.map(lambda _: FOLDER.load(folder, False, 8, False), range(4))]
    assert len(decoded_files) == 18
    assert all(torch.equal(pixels_of(result.train), pixels_of(results[0].train)) for result in results)
    load_splits(folder_config(folder))
    assert len(decoded_files) == 18
    assert pixels_of(load_splits(folder_config(folder, image_size=12)).test).shape[-1] == 12
    assert len(decoded_files) == 36, "another size, another array"


def spoil(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"no image")


def skipping(folder: Path):
    load_splits.cache_clear()  # as a new process would start
    return load_splits(folder_config(folder, on_corrupt="skip"))


def test_corrupt_images_are_skipped_and_counted(folder, caplog):
    spoil(folder, "train/ant/1.bmp", "train/bee/4.bmp", "test/bee/0.png")
    splits = skipping(folder)
    assert splits.skipped == 3
    assert "skipped 3 of 18 images" in caplog.text
    assert "cannot be read: train/ant/1.bmp, train/bee/4.bmp, test/bee/0.png\n" in caplog.text
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


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        ([f"train/bee/{n}.{s}" for n, s in enumerate(["png", "bmp", "PNG", "png", "bmp"])],
         r"at least 2 train images of each class that can be read: 'bee' has 1 in .*'train/bee/0\.png' for one"),
        (["test/ant/0.png", "test/ant/1.bmp", "test/ant/2.PNG"],
         r"at least 1 test images of each class that can be read: 'ant' has 0 in .*'test/ant/0\.png' for one"),
    ],
)  # fmt: skip
def test_a_class_that_skipping_empties_is_refused(names, rule, folder):
    spoil(folder, *names)
    with pytest.raises(ConfigError, match=rf"^data\.path must hold {rule} is corrupt; replace it$"):
        skipping(folder)
