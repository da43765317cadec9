"""Protocols of accuracies, and terms of a loss.

Run: python -m pytest tests/unit/analysis/select/test_select_metrics.py
"""

import pandas as pd
import pytest

from analysis.select.metrics import loss_terms, protocol_of
from jepa_train.evaluation.glossary import GLOSSARY


def test_only_accuracies_have_a_protocol() -> None:
    assert [name for name in GLOSSARY if protocol_of(f"test/{name}") and not name.endswith("_top1")] == []


@pytest.mark.parametrize(
    ("metric", "protocol"),
    [
        ("val/projector_top1", "online linear probe"),
        ("test/linear_projector_top1", "offline linear probe"),
        ("transfer/dtd/shot10_top1", "offline linear probe"),
        ("test/plain_sgd_top1", "offline linear probe"),
        ("test/knn20_projector_top1", "kNN"),
        ("test/finetune_top1", "fine-tuning"),
    ],
)
def test_the_protocol_is_that_of_the_name_without_its_split(metric: str, protocol: str) -> None:
    assert protocol_of(metric) == protocol


def test_the_terms_of_a_loss_are_no_other_numbers_of_training() -> None:
    others = ("lr", "images_per_s", "peak_memory_gb", "skipped_images", "skipped_steps", "embedding_std")
    names = ("loss", "rdmreg", "invariance", "nonzero_fraction", *others)
    runs = pd.DataFrame({f"train/{name}": [1.0] for name in names})
    assert loss_terms(runs) == ["train/invariance", "train/rdmreg"]
