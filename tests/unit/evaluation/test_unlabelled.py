"""Images without labels: training, evaluation and transfer without accuracies, and what needs labels is refused.

Run: python -m pytest tests/unit/evaluation/test_unlabelled.py
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from folders_of_images import write_folder

from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig, ProbeConfig, TrainConfig
from jepa_train.config.augmentation_presets import CHANNEL_VIEWS
from jepa_train.config.flat import parse, unflatten
from jepa_train.config.presets import DIGITS
from jepa_train.data import Images
from jepa_train.data.splits import load_splits
from jepa_train.evaluation import evaluate
from jepa_train.evaluation.glossary import ON_VAL
from jepa_train.model.network import Network, build_network, feature_widths
from jepa_train.model.optim import build_optimizer
from jepa_train.train.loop import train
from jepa_train.train.preflight import preflight

LABEL_FREE = {name for name in ON_VAL if not name.endswith("_top1")}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """A run on 12 images of one channel and 16 bits, 3 of which are for test."""
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    load_splits.cache_clear()
    images(tmp_path / "cells", 12)
    return dataclasses.replace(
        DIGITS,
        data=DataConfig(
            name="unlabelled_folder", path=str(tmp_path / "cells"), channels=1, bits=16, test_frac=0.25, image_size=12
        ),
        views=dataclasses.replace(CHANNEL_VIEWS, global_size=12),
        probe=ProbeConfig(protocols="collapse"),
        epochs=1,
        global_batch=4,
    )


def images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        np.save(folder / f"{number}.npy", np.random.default_rng(number).integers(0, 4096, (12, 12), np.uint16))


def test_a_run_has_every_metric_but_accuracies(config: TrainConfig) -> None:
    outcome = train(preflight(config, read=True))
    assert outcome.status == "finished"
    assert {name for name in outcome.metrics if name.startswith("val/")} == {f"val/{name}" for name in LABEL_FREE}
    on_test = LABEL_FREE | {"entropy", *(f"gradient_at_{factor}" for factor in (1, 0.1, 0.01, 0.001))}
    assert {name for name in outcome.metrics if name.startswith("test/")} == {f"test/{name}" for name in on_test}
    assert [name for name in outcome.metrics if "top1" in name] == []


def test_the_network_has_no_probes_and_the_channels_of_the_images(config: TrainConfig) -> None:
    network = build_network(config, 0)
    assert not any("probe" in name for name in network.state_dict())
    assert len(build_optimizer(network, config, 1).optimizers) == 1
    assert network.encode(torch.zeros(2, 1, 12, 12)).features.shape == (2, feature_widths(config).features)


@pytest.mark.parametrize(
    ("encoder", "small_stem"),
    [("test_vit", False), ("test_convnext", True), ("test_resnet", True), ("torchvision.models.resnet18", False)],
)
def test_encoders_take_the_channels_of_the_images(encoder: str, small_stem: bool) -> None:
    fields = {"data.channels": 5, "model.encoder": encoder, "model.small_stem": small_stem, "views.global_size": 32}
    asked = unflatten(fields, base=DIGITS)
    if encoder.startswith("torchvision"):
        with pytest.raises(
            ConfigError, match=r"^views.global_size must fit torchvision.models.resnet18, got 32 of data"
        ):
            feature_widths(asked)
    else:
        assert feature_widths(asked).pooled > 0


def test_a_labelled_set_is_probed_with_the_normalization_of_the_training_images(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("train/a", "train/b", "test/a", "test/b")):
        images(tmp_path / "labelled" / name, 3 + number)
    norms: list[torch.Tensor] = []
    real = evaluate.embed

    def embed(network: Network, part: Images, asked: TrainConfig) -> evaluate.Embeddings:
        norms.append(part.norm)
        return real(network, part, asked)

    monkeypatch.setattr(evaluate, "embed", embed)
    config = unflatten({"probe.transfer": f"dishes={tmp_path / 'labelled'}"}, base=config)
    found = train(preflight(config)).metrics
    accuracies = [f"{probe}{part}_top1" for probe in ("linear", "shot1") for part in ("", "_projector")]
    assert {name for name in found if "top1" in name} == {f"transfer/dishes/{name}" for name in accuracies}
    assert all(torch.equal(norm, load_splits(config.data).train.norm) for norm in norms)
    assert len(norms) == 5  # val and test; train, val and test of the labelled set


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"probe.protocols": "linear,collapse,knn"},
            "probe.protocols must name no protocol that needs labels for unlabelled_folder, got linear, knn; set "
            "probe.protocols= (empty), and name a labelled dataset in probe.transfer, which is probed at the end",
        ),
        (
            {"probe.transfer": "digits"},
            "probe.transfer's digits must have images of data.channels=1, as those trained on, got 3 channels; leave "
            "the data set out",
        ),
        (
            {"probe.transfer": "more=FOLDER"},
            "probe.transfer's more must hold a test split, got 'FOLDER'; add test/, or leave the data set out",
        ),
        (
            {"data.name": "digits", "data.test_frac": "0"},
            "data.channels must be 3 for digits, which is no folder of images, got 1; set data.channels=3",
        ),
    ],
    ids=["protocols", "channels of transfer", "transfer without test", "digits"],
)
def test_what_needs_labels_or_other_images_is_refused_before_the_start(
    fields: dict[str, str], message: str, config: TrainConfig, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "insects") / "train"
    words = [f"{key}={value.replace('FOLDER', str(folder))}" for key, value in fields.items()]
    with pytest.raises(ConfigError) as caught:
        preflight(unflatten(parse(words, base=config), base=config))
    assert str(caught.value) == message.replace("FOLDER", str(folder))
