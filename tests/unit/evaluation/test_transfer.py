"""Transfer sets: parsing, paths, missing images, and metrics against linear probes on the same images.

Run: python -m pytest tests/unit/evaluation/test_transfer.py
"""

import dataclasses
from pathlib import Path

import pytest
from folders_of_images import write_folder

from jepa_train.base.errors import ConfigError
from jepa_train.config import ProbeConfig, TrainConfig
from jepa_train.config.flat import unflatten
from jepa_train.config.names import transfer_sets
from jepa_train.config.presets import DIGITS
from jepa_train.data.splits import load_splits
from jepa_train.evaluation.evaluate import embed, final_evaluation
from jepa_train.evaluation.probes import Frozen, Labelled
from jepa_train.evaluation.protocols import linear
from jepa_train.evaluation.transfer import transfer_data
from jepa_train.model.network import build_network
from jepa_train.train.preflight import preflight

SMALL = dataclasses.replace(DIGITS, epochs=0, probe=ProbeConfig(protocols=""))


def with_transfer(text: str) -> TrainConfig:
    return unflatten({"probe.transfer": text}, base=SMALL)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cifr100", "list known data sets, or NAME=FOLDER of images, got 'cifr100'; did you mean 'cifar100'?"),
        ("a/b=X", "list known data sets, or NAME=FOLDER of images, got 'a/b=X'; a name has letters, digits, - and _"),
        ("digits,digits", "name each data set once, got 'digits' twice; drop one"),
    ],
)
def test_wrong_transfer_sets_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        with_transfer(text)
    assert str(error.value) == f"probe.transfer must {message}"


def test_a_name_alone_is_a_folder_beside_the_training_images() -> None:
    assert transfer_sets("cifar100, dtd=/data/d=td,digits") == {"cifar100": "", "dtd": "/data/d=td", "digits": ""}
    data = dataclasses.replace(DIGITS.data, path="/data/cifar10", fingerprint="ab", train_images=500)
    beside = transfer_data("cifar100", "", data)
    assert (beside.name, beside.path, beside.fingerprint, beside.train_images) == ("cifar100", "/data/cifar100", "", 0)
    images = transfer_data("dtd", "/data/dtd", data)
    assert (images.name, images.path, images.image_size) == ("image_folder", "/data/dtd", 12)


def test_missing_images_are_named_before_anything_starts(tmp_path: Path) -> None:
    present = f"digits,insects={write_folder(tmp_path / 'insects')}"
    assert preflight(with_transfer(present)).probe.transfer == present
    with pytest.raises(ConfigError, match=r"^probe.transfer's dtd must be a folder, got '/nowhere', which is none"):
        preflight(with_transfer("dtd=/nowhere"))
    with pytest.raises(ConfigError, match=r"^probe.transfer's cifar100 must hold cifar-100-python/"):
        preflight(with_transfer("cifar100"))
    with pytest.raises(
        ConfigError, match=r"^probe.transfer's pets must hold a test split, got '.*'; add test/, or leave"
    ):
        preflight(with_transfer(f"pets={tmp_path / 'insects' / 'train'}"))


def test_metrics_are_those_of_linear_probes_on_the_other_images(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "insects")
    config = with_transfer(f"insects={folder}")
    network = build_network(config, num_classes=10)
    found = final_evaluation(network, load_splits(config.data), config)
    splits = load_splits(transfer_data("insects", str(folder), config.data))
    parts = {name: embed(network, getattr(splits, name), config) for name in ("train", "val", "test")}
    for part, metric in (("features", "linear_top1"), ("z", "linear_projector_top1")):
        x = {name: Labelled(getattr(embeddings, part), embeddings.labels) for name, embeddings in parts.items()}
        assert found[f"transfer/insects/{metric}"] == linear(Frozen(**x, num_classes=2))["test/linear_top1"]
    names = [f"{probe}{part}_top1" for probe in ("linear", "shot1") for part in ("", "_projector")]
    assert {name for name in found if name.startswith("transfer/")} == {f"transfer/insects/{name}" for name in names}
