"""Protocols: reported names, choices on val alone, draws of shots.

Run: python -m pytest tests/unit/evaluation/test_protocols.py
"""

import pytest
import torch

from jepa_train.config.flat import unflatten
from jepa_train.config.names import PROTOCOL_NAMES
from jepa_train.evaluation.glossary import GLOSSARY, ON_VAL_BY_PROTOCOL
from jepa_train.evaluation.linear_probe import Spectrum, linear_probe
from jepa_train.evaluation.probes import Labelled
from jepa_train.evaluation.protocols import PROTOCOLS, Frozen, shots_of


def frozen(*, per_class: int = 120, noise: float = 1.0) -> Frozen:
    """Three overlapping classes in 5 dimensions, the splits disjoint draws; fp32, of a scale of its own."""
    centers = torch.randn(3, 5, generator=torch.Generator().manual_seed(7))

    def split(seed: int, count: int) -> Labelled:
        labels = torch.arange(3).repeat(count)
        draws = torch.randn(len(labels), 5, generator=torch.Generator().manual_seed(seed))
        return Labelled(30 * (centers[labels] + noise * draws) + 100, labels)

    return Frozen(train=split(0, per_class), val=split(1, 50), test=split(2, 100), num_classes=3)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_protocol_reports_names_of_the_glossary_and_is_deterministic(name: str) -> None:
    before = torch.get_rng_state()
    found = PROTOCOLS[name](frozen())
    assert found == PROTOCOLS[name](frozen())
    assert torch.equal(torch.get_rng_state(), before)
    for metric, value in found.items():
        prefix, _, bare = metric.partition("/")
        assert prefix in ("val", "test")
        assert {bare, bare.replace("_top1", "_projector_top1")} <= set(GLOSSARY)
        assert bare.count("_top1") == 1  # what the projector's name is made of
        assert 0 <= value <= 1


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_protocol_chooses_on_val_alone(name: str) -> None:
    data = frozen()
    wrong = Frozen(
        train=data.train, val=data.val, test=data.test._replace(labels=(data.test.labels + 1) % 3), num_classes=3
    )
    plain, scrambled = PROTOCOLS[name](data), PROTOCOLS[name](wrong)
    on_val = [metric for metric in plain if metric.startswith("val/")]
    assert on_val
    assert [plain[metric] for metric in on_val] == [scrambled[metric] for metric in on_val]
    accuracies = [metric for metric in plain if metric.startswith("test/") and metric.endswith("_top1")]
    assert all(scrambled[metric] < plain[metric] for metric in accuracies)


def test_protocols_report_on_val_the_metrics_that_a_sweep_may_rank_by() -> None:
    data = frozen(per_class=1000)
    assert ON_VAL_BY_PROTOCOL.keys() == PROTOCOLS.keys() | {"finetune"} == {*PROTOCOL_NAMES}
    for name in PROTOCOLS:
        ranked = ON_VAL_BY_PROTOCOL[name]
        reported = {metric.removeprefix("val/") for metric in PROTOCOLS[name](data) if metric.startswith("val/")}
        assert reported | {metric.replace("_top1", "_projector_top1") for metric in reported} == set(ranked)


def test_kshot_is_the_linear_probe_on_each_draw() -> None:
    data = frozen()
    found = PROTOCOLS["kshot"](data)
    scaled = data.standardised
    draws = [shots_of(scaled.train.labels, 5, draw=draw) for draw in range(5)]
    scores = linear_probe(
        [Labelled(scaled.train.x[rows], scaled.train.labels[rows]) for rows in draws],
        scaled.val,
        scaled.test,
        num_classes=3,
        spectrum=Spectrum.of(scaled.train.x),
    )
    on_test = torch.tensor([score.test for score in scores], dtype=torch.float64)
    assert found["test/shot5_top1"] == pytest.approx(on_test.mean().item())
    assert found["test/shot5_top1_std"] == pytest.approx(on_test.std().item())
    assert found["test/shot5_top1_std"] > 0
    assert found["test/shot1_top1"] < found["test/shot100_top1"]


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
        ("linear,kn", "probe.protocols must list known protocols, got 'kn'; did you mean 'knn'?"),
        ("knn, linear,knn", "probe.protocols must name each protocol once, got 'knn, linear,knn'; drop the others"),
    ],
)
def test_wrong_protocol_lists_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="protocols") as error:
        unflatten({"probe.protocols": text})
    assert str(error.value) == message
