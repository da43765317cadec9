"""Image folders: round trip, identity, shared cache, and every way in which a folder can be wrong."""

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jepa_train.__main__ import main as command_line
from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig
from jepa_train.data import DATASETS, Images
from jepa_train.data.splits import load_splits
from jepa_train.storage.paths import cache_dir

FOLDER = DATASETS["image_folder"]


@pytest.fixture(autouse=True)
def _own_results(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    load_splits.cache_clear()


def pixels_of(images: Images) -> torch.Tensor:
    return images.batch(torch.arange(len(images)))[0]


@pytest.fixture
def folder(tmp_path) -> Path:
    """2 classes, 6 train and 3 test images each, uniform colours in several formats: red = class, green = number."""
    root = tmp_path / "photos"
    for split, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                suffix = ("png", "bmp", "PNG")[number % 3]
                colour = (100 * label, 20 * number, 200 if split == "train" else 0)
                Image.new("RGB", (24, 16), colour).save(root / split / name / f"{number}.{suffix}")
    return root


def folder_config(root: Path, **fields) -> DataConfig:
    return DataConfig(name="image_folder", path=str(root), **{"image_size": 8, "val_frac": 0.34} | fields)


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
def test_corrupt_image_is_named_and_leaves_no_cache(damage, folder, capsys):
    image = folder / "train" / "bee" / "3.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(image)
    whole = image.read_bytes()
    image.write_bytes({"cut": whole[: len(whole) // 2], "foreign": b"hello" * 100, "empty": b""}[damage])
    with pytest.raises(
        ValueError,
        match=r"^data\.path holds a file .*train/bee/3\.png' \(.+\); delete or replace it, or .*on_corrupt=skip$",
    ):
        load_splits(folder_config(folder))
    assert not [file for file in cache_dir().iterdir() if file.suffix != ".lock"]
    assert (
        command_line([f"data.path={folder}", "data.name=image_folder", "data.image_size=8", "data.val_frac=0.34"]) == 2
    )
    assert capsys.readouterr().err.startswith("error: data.path holds a file that cannot be read as an image: ")
    image.write_bytes(whole)
    assert len(load_splits(folder_config(folder)).test.labels) == 6


def test_second_load_decodes_nothing(folder, monkeypatch):
    first = load_splits(folder_config(folder))
    load_splits.cache_clear()  # as a new process would start
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("decoded again"))
    again = load_splits(folder_config(folder))
    assert torch.equal(pixels_of(first.train), pixels_of(again.train))
    assert torch.equal(pixels_of(first.test), pixels_of(again.test))
    monkeypatch.undo()
    assert (
        pixels_of(load_splits(folder_config(folder, image_size=12)).test).shape[-1] == 12
    )  # another size, another array


def test_writing_into_a_batch_leaves_the_images_alone(folder):
    test = load_splits(folder_config(folder)).test
    expected = pixels_of(test).clone()
    pixels_of(test).zero_()
    assert torch.equal(pixels_of(test), expected)


def test_concurrent_loads_decode_once(folder, monkeypatch):
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or real(file))
    results = []
    threads = [threading.Thread(target=lambda: results.append(FOLDER.load(folder, False, 8, False))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 18
    assert all(torch.equal(pixels_of(result.train), pixels_of(results[0].train)) for result in results)


def spoilt(folder: Path, *names: str) -> list[Path]:
    files = [folder / name for name in names]
    for file in files:
        file.write_bytes(b"no image")
    return files


def skipping(folder: Path):
    load_splits.cache_clear()  # as a new process would start
    return load_splits(folder_config(folder, on_corrupt="skip"))


def test_corrupt_images_are_skipped_and_counted(folder, caplog):
    spoilt(folder, "train/ant/1.bmp", "train/bee/4.bmp", "test/bee/0.png")
    splits = skipping(folder)
    assert splits.skipped == 3
    assert "skipped 3 of 18 images" in caplog.text
    assert "cannot be read: train/ant/1.bmp, train/bee/4.bmp, test/bee/0.png\n" in caplog.text
    assert splits.test.labels.tolist() == [0, 0, 0, 1, 1]
    assert pixels_of(splits.test)[:, 1, 0, 0].tolist() == [0, 20, 40, 20, 40]
    greens = [
        sorted(
            torch.cat([pixels_of(part)[part.labels == label] for part in (splits.train, splits.val)])[
                :, 1, 0, 0
            ].tolist()
        )
        for label in (0, 1)
    ]
    assert greens == [[0, 40, 60, 80, 100], [0, 20, 40, 60, 100]]


def test_skipping_decodes_once_and_is_no_excuse_for_failing(folder, monkeypatch):
    (file,) = spoilt(folder, "train/bee/3.png")
    skipping(folder)
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or real(file))
    load_splits.cache_clear()
    with pytest.raises(ConfigError, match=r"train/bee/3\.png' .*; delete or replace it, or set data\.on_corrupt=skip$"):
        load_splits(folder_config(folder))
    assert skipping(folder).skipped == 1
    assert set(opened) == {str(file)}  # looked at again, and nothing else
    Image.new("RGB", (1, 1)).save(file)
    mended = file.read_bytes()
    spoilt(folder, "train/bee/3.png")
    file.write_bytes(b"x" * len(mended))
    assert skipping(folder).skipped == 1
    file.write_bytes(mended)  # of the same size, and so the same fingerprint
    assert skipping(folder).skipped == 0
    del opened[:]
    load_splits.cache_clear()
    assert load_splits(folder_config(folder)).skipped == 0
    assert opened == []  # a complete array serves both


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
    spoilt(folder, *names)
    with pytest.raises(ConfigError, match=rf"^data\.path must hold {rule} is corrupt; replace it$"):
        skipping(folder)


@pytest.mark.skipif("JEPA_CIFAR10" not in os.environ, reason="set JEPA_CIFAR10 to CIFAR-10 as an image folder")
def test_cifar10_as_an_image_folder():
    splits = load_splits(folder_config(Path(os.environ["JEPA_CIFAR10"]), image_size=32, val_frac=0.1))
    assert splits.train.labels.bincount().tolist() == [4500] * 10
    assert splits.val.labels.bincount().tolist() == [500] * 10
    assert splits.test.labels.bincount().tolist() == [1000] * 10
    channel_means = pixels_of(splits.train).float().mean((0, 2, 3)) / 255
    torch.testing.assert_close(channel_means, torch.tensor([0.4914, 0.4822, 0.4465]), rtol=0, atol=2e-3)  # well known
