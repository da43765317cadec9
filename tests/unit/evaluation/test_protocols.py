"""Protocols: reported names, choices on val alone, draws of shots.

Run: python -m pytest tests/unit/evaluation/test_protocols.py
"""

import dataclasses

import pytest
import torch

from jepa_train.config.flat import unflatten
from jepa_train.config.names import PROTOCOL_NAMES
from jepa_train.evaluation.glossary import GLOSSARY, ON_VAL_BY_PROTOCOL
from jepa_train.evaluation.probes import Frozen, Labelled
from jepa_train.evaluation.protocols import PROTOCOLS, shots_of


def frozen(*, per_class: int = 120, noise: float = 1.0) -> Frozen:
    """Three overlapping classes in 5 dimensions, the splits disjoint draws; fp32, of a scale of its own."""
    centers = torch.randn(3, 5, generator=torch.Generator().manual_seed(7))

    def split(seed: int, count: int) -> Labelled:
        labels = torch.arange(3).repeat(count)
        draws = torch.randn(len(labels), 5, generator=torch.Generator().manual_seed(seed))
        return Labelled(30 * (centers[labels] + noise * draws) + 100, labels)

    return Frozen(train=split(0, per_class), val=split(1, 50), test=split(2, 100), num_classes=3)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_protocol_is_deterministic_chooses_on_val_alone_and_reports_known_names(name: str) -> None:
    data, before = frozen(per_class=10), torch.get_rng_state()
    shifted = dataclasses.replace(data, test=data.test._replace(labels=(data.test.labels + 1) % 3))
    found, others = PROTOCOLS[name](data), PROTOCOLS[name](shifted)
    assert torch.equal(torch.get_rng_state(), before)
    on_val = {metric for metric in found if metric.startswith("val/")}
    assert {found[metric] == others[metric] for metric in on_val} == {True}
    accuracies = [metric for metric in found if metric.startswith("test/") and metric.endswith("_top1")]
    assert all(others[metric] < found[metric] for metric in accuracies)
    bare = {metric.partition("/")[2] for metric in found}
    both = bare | {metric.replace("_top1", "_projector_top1") for metric in bare}
    assert len(both) == 2 * len(bare)
    assert both <= set(GLOSSARY)
    ranked = {metric for metric in both if f"val/{metric.replace('_projector', '')}" in on_val}
    possible = [metric for metric in ON_VAL_BY_PROTOCOL[name] if "shot100" not in metric]
    assert ranked == set(possible), "what a sweep may rank by; 10 images per class give 1 to 10 shots"
    assert all(0 <= value <= 1 for value in found.values())


def test_a_config_may_name_every_protocol_and_no_other() -> None:
    assert ON_VAL_BY_PROTOCOL.keys() == PROTOCOLS.keys() | {"finetune", "collapse"} == {*PROTOCOL_NAMES}


def test_shots_are_balanced_nested_and_depend_on_the_draw() -> None:
    labels = torch.tensor([2, 0, 1, 1, 0, 2, 2, 0, 1, 2] * 5)
    one, three, other = (shots_of(labels, shots, draw=draw) for shots, draw in ((1, 0), (3, 0), (3, 1)))
    assert labels[three].bincount().tolist() == [3, 3, 3]
    assert len(three.unique()) == 9
    assert set(one.tolist()) < set(three.tolist())
    assert set(three.tolist()) != set(other.tolist())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("linear,kn", r"probe.protocols must list known protocols, got 'kn'; did you mean 'knn'\?$"),
        ("knn, linear,knn", "probe.protocols must name each protocol once, got 'knn, linear,knn'; drop the others$"),
    ],
)
def test_wrong_protocol_lists_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unflatten({"probe.protocols": text})
