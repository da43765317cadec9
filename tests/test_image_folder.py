"""Image folders: round trip, identity, shared cache, and every way in which a folder can be wrong."""

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from jepa_train.__main__ import main as command_line
from jepa_train.config import DataConfig
from jepa_train.data import DATASETS
from jepa_train.data.cache import cache_dir, one_at_a_time
from jepa_train.data.decode import decoded
from jepa_train.data.split import load_splits

FOLDER = DATASETS["image_folder"]


@pytest.fixture(autouse=True)
def _own_results(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    load_splits.cache_clear()


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
        assert torch.equal(part.pixels[:, 0, 4, 4], (100 * part.labels).byte())
        assert (part.pixels[:, 2] == blue).all()
        if numbers is not None:
            assert part.pixels[:, 1, 0, 0].tolist() == [20 * number for number in numbers]
    greens = torch.cat([splits.train.pixels, splits.val.pixels])[:, 1, 0, 0]
    assert sorted(greens.tolist()) == sorted([20 * number for number in range(6)] * 2)


@pytest.mark.parametrize("shape", [(32, 64), (72, 48), (33, 33), (8, 16)])  # the longer side stays whole at 16 px
def test_decoding_is_torchvisions_resize_and_centre_crop(shape, tmp_path):
    noise = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(1))
    smooth = tv.resize(noise, list(shape)).mul(255).byte()
    tv.to_pil_image(smooth).save(tmp_path / "colour.png")
    tv.to_pil_image(smooth).convert("LA").save(tmp_path / "grey.png")
    colour, grey = decoded([tmp_path / "colour.png", tmp_path / "grey.png"], name="shapes", size=16)
    expected = tv.center_crop(tv.resize(smooth, [16], antialias=True), [16, 16])
    assert (colour.int() - expected.int()).abs().max() <= 1
    expected = tv.rgb_to_grayscale(expected, num_output_channels=3)
    assert (grey.int() - expected.int()).abs().max() <= 2


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
    with pytest.raises(ValueError, match=r"^data\.path holds a file .*train/bee/3\.png' \(.+\); delete or replace it$"):
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
    assert torch.equal(first.train.pixels, again.train.pixels)
    assert torch.equal(first.test.pixels, again.test.pixels)
    monkeypatch.undo()
    assert load_splits(folder_config(folder, image_size=12)).test.pixels.shape[-1] == 12  # another size, another array


def test_writing_into_loaded_pixels_leaves_the_cache_alone(folder):
    first = load_splits(folder_config(folder))
    expected = first.test.pixels.clone()
    first.test.pixels.zero_()
    load_splits.cache_clear()
    assert torch.equal(load_splits(folder_config(folder)).test.pixels, expected)


def test_concurrent_loads_decode_once(folder, monkeypatch):
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or real(file))
    results = []
    threads = [threading.Thread(target=lambda: results.append(FOLDER.load(folder, False, 8))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 18
    assert all(torch.equal(result[0].pixels, results[0][0].pixels) for result in results)


def test_one_at_a_time_is_exclusive(tmp_path):
    inside, order = threading.Event(), []

    def second() -> None:
        inside.wait()
        with one_at_a_time(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with one_at_a_time(tmp_path / "lock"):
        inside.set()
        thread.join(timeout=0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.skipif("JEPA_CIFAR10" not in os.environ, reason="set JEPA_CIFAR10 to CIFAR-10 as an image folder")
def test_cifar10_as_an_image_folder():
    splits = load_splits(folder_config(Path(os.environ["JEPA_CIFAR10"]), image_size=32, val_frac=0.1))
    assert splits.train.labels.bincount().tolist() == [4500] * 10
    assert splits.val.labels.bincount().tolist() == [500] * 10
    assert splits.test.labels.bincount().tolist() == [1000] * 10
    channel_means = splits.train.pixels.float().mean((0, 2, 3)) / 255
    torch.testing.assert_close(channel_means, torch.tensor([0.4914, 0.4822, 0.4465]), rtol=0, atol=2e-3)  # well known
