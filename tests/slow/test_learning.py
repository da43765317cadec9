"""Training and fine-tuning learn: accuracies well above the untrained encoder's.

Run: python -m pytest tests/slow/test_learning.py
"""

import dataclasses

import ranks

from jepa_train.config import ProbeConfig
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
    _, fine_tuned = module._fit(network, splits, config, module._Job(0, 3e-3)).squeeze(0)
    assert fine_tuned > frozen + 0.05
