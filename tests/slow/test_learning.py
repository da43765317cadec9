"""Training and fine-tuning learn: accuracies well above the untrained encoder's.

Run: python -m pytest tests/slow/test_learning.py
"""

import dataclasses
import math

import pytest
import ranks

from jepa_train.config import ModelConfig, OptimConfig, ProbeConfig
from jepa_train.config.augmentation_presets import LEJEPA_SMALL_VIEWS
from jepa_train.config.presets import DIGITS
from jepa_train.data.splits import load_splits
from jepa_train.evaluation import finetune as module
from jepa_train.evaluation.evaluate import final_evaluation
from jepa_train.model.network import build_network
from jepa_train.train.loop import train


def test_training_beats_the_untrained_encoder() -> None:
    """15 of the preset's 50 epochs: 8 points, as the demo promises after all of them."""
    untrained = train(dataclasses.replace(DIGITS, epochs=0)).metrics
    trained = train(dataclasses.replace(DIGITS, epochs=15)).metrics
    assert untrained["epoch"] == 0
    for metric in ("test/linear_top1", "test/knn_top1"):
        assert trained[metric] > untrained[metric] + 0.08


def test_fine_tuning_beats_the_frozen_random_encoder() -> None:
    config = dataclasses.replace(ranks.FINETUNED, probe=ProbeConfig(protocols="linear"))
    splits, network = load_splits(config.data), build_network(config, num_classes=10)
    frozen = final_evaluation(network, splits, config)["test/linear_top1"]
    assert module._fit(network, splits, config, module._Job(0, 3e-3))[1] > frozen + 0.05


@pytest.mark.parametrize("encoder", ["test_vit", "test_convnext"])
def test_encoders_of_the_papers_train_on_two_global_and_six_local_views(encoder: str) -> None:
    """48 and 32 px, an averaged network, three epochs: well above chance, with every term reported."""
    config = dataclasses.replace(
        ranks.SMALL,
        model=ModelConfig(encoder=encoder, small_stem=False, projector_dim=32, swa_decay=0.5),
        views=dataclasses.replace(LEJEPA_SMALL_VIEWS, flip=0.0, global_size=48, local_size=32),
        optim=OptimConfig(lr=2e-3, warmup_epochs=0.5),
        probe=ProbeConfig(lr=3e-2, protocols="knn"),
        global_batch=200,
        epochs=3,
    )
    reports: list[dict[str, float]] = []
    outcome = train(config, report=lambda metrics: bool(reports.append(metrics)))
    assert (config.views.num_global, config.views.num_local) == (2, 6)
    assert outcome.status == "finished"
    assert all(math.isfinite(value) for report in reports for value in report.values())
    assert reports[-1]["train/sigreg"] < reports[0]["train/sigreg"]
    assert outcome.metrics["test/knn_top1"] > 0.4
