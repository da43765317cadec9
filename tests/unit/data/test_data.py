"""Data: stratified splits, the bundled digits, CIFAR's files, devices, and refused configs.

Run: python -m pytest tests/unit/data/test_data.py
"""

import dataclasses
import hashlib
import pickle
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from folders_of_images import batch_of, gathered, pixels_of, write_folder
from sklearn.datasets import load_digits

from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig
from jepa_train.config.names import DATASET_NAMES
from jepa_train.data import DATASETS, Images, cifar, device_transfer
from jepa_train.data.base import stratified_split
from jepa_train.data.splits import identify, load_splits


@pytest.fixture(autouse=True)
def _nothing_loaded_before(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    load_splits.cache_clear()


def test_stratified_holds_out_the_fraction_of_every_class():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 2)[torch.randperm(82, generator=torch.Generator().manual_seed(0))]
    rest, held_out = stratified_split(labels, 0.2, purpose="a")
    assert labels[held_out].bincount().tolist() == [10, 6, 1]  # of two images one on either side
    assert sorted(rest.tolist() + held_out.tolist()) == list(range(82))
    assert torch.equal(stratified_split(labels, 0.2, purpose="a")[1], held_out)
    assert not torch.equal(stratified_split(labels, 0.2, purpose="b")[1], held_out)
    assert labels[stratified_split(labels, 0.99, purpose="a")[0]].bincount().tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"^data\.path must hold at least 2 images of each class, number 1 has 1"):
        stratified_split(torch.tensor([0, 0, 1]), 0.5, purpose="a")


def test_digits_are_scikit_learns_split_without_overlap():
    splits = load_splits(DataConfig(name="digits", image_size=8))
    bunch = load_digits()
    known = {
        (np.round(image * 255 / 16).astype(np.uint8).tobytes(), int(label))
        for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    seen = [
        (pixels[0].numpy().tobytes(), int(label))
        for part in (splits.train, splits.val, splits.test)
        for pixels, label in zip(pixels_of(part), part.labels, strict=True)
    ]
    assert len(seen) == len(known) == 1797  # all differ: no image lies in two parts
    assert {*seen} == known
    for part, share in ((splits.test, 0.2), (splits.val, 0.08)):
        assert np.abs(part.labels.bincount().numpy() - share * np.bincount(bunch.target)).max() <= 1
    assert splits.classes == tuple("0123456789")


def test_the_halves_of_digits_are_its_classes_and_keep_its_split():
    full, low, high = (load_splits(DataConfig(name=name)) for name in ("digits", "digits_0_4", "digits_5_9"))
    assert (low.classes, high.classes) == (tuple("01234"), tuple("56789"))
    assert len(low.test) + len(high.test) == len(full.test)
    expected = full.test.rows[full.test.labels >= 5]
    assert torch.equal(high.test.rows, expected)
    assert torch.equal(high.test.labels, full.test.labels[full.test.labels >= 5] - 5)


def test_some_of_the_training_images_keep_the_proportions_and_the_test_split():
    full, some = (load_splits(DataConfig(train_images=count, val_frac=0.2)) for count in (0, 300))
    rows = torch.cat([some.train.rows, some.val.rows])
    assert len(rows.unique()) == len(some.train) + len(some.val) == 300
    assert torch.equal(some.test.rows, full.test.rows)
    assert torch.isin(rows, torch.cat([full.train.rows, full.val.rows])).all()
    shares = torch.cat([some.train.labels, some.val.labels]).bincount() / 300
    everyone = torch.cat([full.train.labels, full.val.labels]).bincount()
    torch.testing.assert_close(shares, everyone / everyone.sum(), atol=0.005, rtol=0)
    for count, rule in ((5000, r"not exceed the \d+ training images"), (19, "be two for each of 10 classes at least")):
        with pytest.raises(ConfigError, match=rf"data.train_images must {rule}, got {count}"):
            load_splits(DataConfig(train_images=count))


def test_val_depends_on_val_frac_alone():
    config = DataConfig(name="digits", image_size=8, val_frac=0.1)
    first = load_splits(config)
    load_splits.cache_clear()
    torch.manual_seed(5)
    assert batch_of(first.val) == batch_of(load_splits(config).val)
    assert len(load_splits(dataclasses.replace(config, val_frac=0.3)).val) == pytest.approx(0.3 * 1438, abs=5)


def write_cifar(root: Path, monkeypatch) -> np.ndarray:
    """Four train and two test images in CIFAR-10's own file format, with checksums that torchvision will accept."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    contents = {
        "data_batch_1": {"data": pixels[:4].reshape(4, -1), "labels": [0, 1, 0, 1]},
        "test_batch": {"data": pixels[4:].reshape(2, -1), "labels": [1, 0]},
        "batches.meta": {"label_names": ["plane", "car"]},
    }
    sums = {}
    (root / "cifar-10-batches-py").mkdir(parents=True)
    for name, content in contents.items():
        data = pickle.dumps(content)
        (root / "cifar-10-batches-py" / name).write_bytes(data)
        sums[name] = hashlib.md5(data).hexdigest()
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(kind, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(kind, "meta", meta)
    return pixels


def test_cifar_reads_torchvisions_files_once_and_names_damage(tmp_path, monkeypatch):
    pixels = write_cifar(tmp_path / "root", monkeypatch)
    config = DataConfig(name="cifar10", path=str(tmp_path / "root"), image_size=32, val_frac=0.5)
    splits = load_splits(config)
    assert np.array_equal(pixels_of(splits.test), pixels[4:])
    assert splits.test.labels.tolist() == [1, 0]
    assert splits.classes == ("plane", "car")
    carved = torch.cat([pixels_of(splits.train), pixels_of(splits.val)])
    assert {image.numpy().tobytes() for image in carved} == {image.tobytes() for image in pixels[:4]}
    load_splits.cache_clear()  # as a new process would start
    with monkeypatch.context() as patch:
        patch.setattr(cifar, "_open", lambda *_, **__: pytest.fail("read again"))
        assert batch_of(load_splits(config).train) == batch_of(splits.train)
    (tmp_path / "root" / "cifar-10-batches-py" / "test_batch").write_bytes(b"cut")
    load_splits.cache_clear()
    with pytest.raises(ValueError, match=r"^data\.path must hold a complete cifar-10-batches.*data\.download=true$"):
        load_splits(config)


def test_cifar_downloads_into_a_new_folder_when_asked(tmp_path, monkeypatch):
    pixels = write_cifar(tmp_path / "mirror", monkeypatch)
    monkeypatch.setattr(
        torchvision.datasets.CIFAR10,
        "download",
        lambda self: shutil.copytree(tmp_path / "mirror", self.root, dirs_exist_ok=True),
    )
    config = DataConfig(name="cifar10", path=str(tmp_path / "new" / "root"), download=True, image_size=32, val_frac=0.5)
    assert np.array_equal(pixels_of(load_splits(config).test), pixels[4:])


def test_a_config_may_name_every_dataset_and_no_other():
    assert {*DATASET_NAMES} == DATASETS.keys()


def test_missing_cifar_files_are_named_and_downloaded_only_when_asked(tmp_path):
    cifar100 = DATASETS["cifar100"]
    config = DataConfig(name="cifar100", path=str(tmp_path))
    assert (
        cifar100.identify(tmp_path, dataclasses.replace(config, download=True)).fingerprint == ""
    )  # load downloads it
    with pytest.raises(ValueError, match=r"^data\.path must hold cifar-100-python/train, .* or data\.download=true$"):
        cifar100.load(tmp_path, config)


def test_cifar_as_folders_of_images_has_a_fingerprint(tmp_path):
    write_folder(tmp_path / "cifar")
    config = DataConfig(name="cifar10", path=str(tmp_path / "cifar"))
    fingerprint = DATASETS["cifar10"].identify(tmp_path / "cifar", config).fingerprint
    assert fingerprint == DATASETS["image_folder"].identify(tmp_path / "cifar", config).fingerprint != ""
    source = DATASETS["cifar10"].load(tmp_path / "cifar", config)
    assert (source.classes, len(source.train), len(source.test)) == (("ant", "bee"), 12, 6)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (DataConfig(fingerprint="0123"), "data.fingerprint must be left out for digits, which has none, got '0123'"),
        (DataConfig(name="image_folder", path="~nobody_of_that_name"), "data.path must be a folder that can be read"),
        (DataConfig(name="cifar10"), "data.path must be set, got ''"),
    ],
)
def test_data_that_cannot_be_is_a_mistake_of_the_config(config, expected):
    with pytest.raises(ConfigError) as caught:
        identify(config)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def some_images() -> Images:
    pixels = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 2, 2).contiguous()
    return Images(pixels=pixels, rows=torch.tensor([4, 2, 0]), labels=torch.tensor([40, 20, 0]))


def test_batches_and_parts_of_images_are_found_by_row():
    images = some_images()
    source, labels = images.batch(torch.tensor([2, 0, 0]))
    assert gathered(source)[:, 1, 0, 1].tolist() == [0, 4, 4]
    assert labels.tolist() == [0, 40, 40]
    part = images.take(torch.tensor([1, 0]))
    assert len(part) == 2
    assert gathered(part.batch(torch.tensor([0, 1]))[0])[:, 0, 0, 0].tolist() == [2, 4]
    assert part.pixels.data_ptr() == images.pixels.data_ptr()
    assert images.on(torch.device("cpu")).pixels is images.pixels


def test_images_are_copied_to_a_device_once_and_those_of_one_dataset_only(monkeypatch):
    """On the meta device, whose copies are free, in the place of a GPU with room for 400 bytes of images."""
    monkeypatch.setattr(device_transfer, "_free", lambda _: 400 / device_transfer._SHARE)
    monkeypatch.setattr(device_transfer, "_copied", {})
    meta = torch.device("meta")
    fits, also, large = (torch.zeros(count, 3, 2, 2, dtype=torch.uint8) for count in (30, 33, 34))
    copy = device_transfer.cached_on_device(fits, meta)
    assert copy.device == meta
    assert device_transfer.cached_on_device(fits, meta) is copy
    assert device_transfer.cached_on_device(fits, torch.device("cpu")) is fits
    kept = weakref.ref(copy)
    del copy
    assert device_transfer.cached_on_device(also, meta).device == meta
    assert kept() is None
    assert device_transfer.cached_on_device(large, meta) is large
    monkeypatch.setattr(device_transfer, "_free", lambda _: 10**9)
    assert device_transfer.cached_on_device(large, meta) is large, "decided once, not again at every epoch"
    images = dataclasses.replace(some_images(), pixels=fits).on(meta)
    assert gathered(images.batch(torch.tensor([0, 1]))[0]).shape == (2, 3, 2, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("share", [0.25, 0.0])  # on the GPU, and sent from the host
def test_batches_on_a_gpu_are_those_of_the_host_and_wait_for_nothing(share, monkeypatch):
    monkeypatch.setattr(device_transfer, "_SHARE", share)
    monkeypatch.setattr(device_transfer, "_copied", {})
    images = load_splits(DataConfig(name="digits", image_size=8)).train
    there = images.on(torch.device("cuda"))
    assert (there.pixels.device.type == "cuda") == (share > 0)
    positions = torch.tensor([5, 0, 700])

    def found(images: Images) -> tuple[torch.Tensor, torch.Tensor]:
        source, labels = images.batch(positions)
        return gathered(source), labels

    found(there)  # what is made once is there now
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = found(there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for result, expected in zip(results, found(images), strict=True):
        assert result.device.type == "cuda"
        assert torch.equal(result.cpu(), expected)
