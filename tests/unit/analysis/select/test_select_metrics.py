"""Protocols of accuracies.

Run: python -m pytest tests/unit/analysis/select/test_select_metrics.py
"""

import pytest

from analysis.select.metrics import protocol_of
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
