"""Transfer sets: how they are named, where they lie, and that their numbers are those of a linear probe on them."""

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from jepa_train.base.errors import ConfigError
from jepa_train.config import ProbeConfig, TrainConfig
from jepa_train.config.flat import cell_key, unflatten
from jepa_train.config.names import transfer_sets
from jepa_train.config.presets import DIGITS
from jepa_train.data.splits import load_splits
from jepa_train.evaluation.evaluate import embed, final_evaluation
from jepa_train.evaluation.probes import Labelled
from jepa_train.evaluation.protocols import Frozen, kshot, linear
from jepa_train.evaluation.transfer import transfer_data
from jepa_train.model.network import build_network
from jepa_train.train.loop import evaluate_checkpoint, train
from jepa_train.train.preflight import preflight

SMALL = dataclasses.replace(DIGITS, epochs=0, probe=ProbeConfig(protocols=""))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """30 images of each of three greys, of which 24 are for training."""
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))  # where they are cached
    noise = torch.Generator().manual_seed(0)
    for split, count in (("train", 24), ("test", 6)):
        for label, name in enumerate(("dark", "grey", "light")):
            (tmp_path / "greys" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(0, 90, (16, 16, 3), generator=noise) + 60 * label
                Image.fromarray(pixels.to(torch.uint8).numpy()).save(
                    tmp_path / "greys" / split / name / f"{number}.png"
                )
    return tmp_path / "greys"


def asking(text: str) -> TrainConfig:
    return unflatten({"probe.transfer": text}, base=SMALL)


def test_sets_are_a_list_of_names_and_folders() -> None:
    assert transfer_sets("") == transfer_sets(" ") == {}
    found = transfer_sets("cifar100, dtd=/data/d=td,digits")
    assert found == {"cifar100": "", "dtd": "/data/d=td", "digits": ""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "cifr100",
            "probe.transfer must list known data sets, or NAME=FOLDER of images, got 'cifr100'; "
            "did you mean 'cifar100'?",
        ),
        (
            "digits,image_folder",
            "probe.transfer must list known data sets, or NAME=FOLDER of images, got 'image_folder'; "
            "choose one of cifar10, cifar100, digits, digits_0_4, digits_5_9",
        ),
        (
            "dtd=",
            "probe.transfer must list known data sets, or NAME=FOLDER of images, got 'dtd='; "
            "choose one of cifar10, cifar100, digits, digits_0_4, digits_5_9",
        ),
        (
            "a/b=DIR",
            "probe.transfer must list known data sets, or NAME=FOLDER of images, got 'a/b=DIR'; "
            "a name has letters, digits, - and _",
        ),
        ("digits,digits", "probe.transfer must name each data set once, got 'digits' twice; drop one"),
    ],
)
def test_a_wrong_set_is_refused_by_the_config(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        asking(text)
    assert str(error.value) == message


def test_a_name_alone_lies_beside_the_training_images() -> None:
    data = dataclasses.replace(DIGITS.data, path="/data/cifar10", fingerprint="ab", train_images=500)
    beside = transfer_data("cifar100", "", data)
    assert (beside.name, beside.path, beside.fingerprint, beside.train_images) == ("cifar100", "/data/cifar100", "", 0)
    elsewhere = transfer_data("cifar100", "/other", data)
    assert (elsewhere.name, elsewhere.path) == ("cifar100", "/other")
    images = transfer_data("dtd", "/data/dtd", data)
    assert (images.name, images.path, images.image_size) == ("image_folder", "/data/dtd", 12)


def test_missing_images_are_named_before_anything_starts(folder: Path) -> None:
    assert preflight(asking(f"digits,greys={folder}")).probe.transfer == f"digits,greys={folder}"
    with pytest.raises(ConfigError, match=r"^probe.transfer's dtd must be a folder, got '/nowhere', which is none"):
        preflight(asking("dtd=/nowhere"))
    with pytest.raises(ConfigError, match=r"^probe.transfer's cifar100 must hold cifar-100-python/"):
        preflight(asking("cifar100"))


def test_it_is_no_part_of_the_cell() -> None:
    assert cell_key(asking("digits")) == cell_key(SMALL)


def test_the_numbers_are_those_of_linear_probes_on_the_other_images(folder: Path) -> None:
    config = asking(f"greys={folder}")
    network = build_network(config, num_classes=10)
    metrics = final_evaluation(network, load_splits(config.data), config)
    splits = load_splits(transfer_data("greys", str(folder), config.data))
    parts = [embed(network, images, config) for images in (splits.train, splits.val, splits.test)]
    assert [len(part.labels) for part in parts] == [60, 12, 18]
    expected = {}
    for part, suffix in (("features", ""), ("z", "_projector")):
        train, val, test = (Labelled(getattr(split, part), split.labels) for split in parts)
        frozen = Frozen(train=train, val=val, test=test, num_classes=3)
        on_all, on_few = linear(frozen), kshot(frozen)
        expected[f"transfer/greys/linear{suffix}_top1"] = on_all["test/linear_top1"]
        for shots in (1, 10):
            expected[f"transfer/greys/shot{shots}{suffix}_top1"] = on_few[f"test/shot{shots}_top1"]
    assert {name: value for name, value in metrics.items() if name.startswith("transfer/")} == expected
    assert expected["transfer/greys/linear_top1"] > 0.8


def test_a_finished_run_can_be_judged_on_others_later(tmp_path: Path) -> None:
    outcome = train(SMALL, checkpoints=tmp_path / "run")
    assert not any(name.startswith("transfer/") for name in outcome.metrics)
    later = evaluate_checkpoint(tmp_path / "run", ["probe.transfer=digits", "probe.protocols=linear"])
    assert "transfer/digits/shot10_projector_top1" in later
    for part in ("linear", "linear_projector"):
        assert later[f"transfer/digits/{part}_top1"] == later[f"test/{part}_top1"]  # it is the run's own data set
