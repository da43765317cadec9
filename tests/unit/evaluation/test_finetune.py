"""Fine-tuning: what is reported, which images it learns from, and that it leaves everything as it was."""

import dataclasses

import pytest
import ranks
import torch

from jepa_train.config import ProbeConfig
from jepa_train.data import Splits
from jepa_train.data.splits import load_splits
from jepa_train.evaluation import finetune as module
from jepa_train.evaluation.evaluate import embed, final_evaluation
from jepa_train.evaluation.finetune import RATES, finetune
from jepa_train.evaluation.glossary import GLOSSARY
from jepa_train.evaluation.linear_probe import Spectrum, linear_probe
from jepa_train.evaluation.probes import Labelled, standardised
from jepa_train.model.network import build_network

CONFIG = ranks.FINETUNED


@pytest.fixture(scope="module")
def few() -> Splits:
    return ranks.few_digits()


@pytest.fixture(scope="module")
def found() -> dict[str, float]:
    return ranks.finetuned()


def test_what_is_reported(found: dict[str, float]) -> None:
    names = {f"{split}/finetune{shots}_top1" for split in ("val", "test") for shots in ("1", "2", "5", "")}
    assert found.keys() == names
    assert {name.partition("/")[2] for name in names} <= set(GLOSSARY)
    assert all(0 <= value <= 1 for value in found.values())
    assert found["test/finetune_top1"] > 0.1


@pytest.mark.parametrize("world", [2])
def test_ranks_that_share_the_fits_find_what_one_finds(found: dict[str, float], world: int) -> None:
    for rank in ranks.results(world):
        assert rank["finetuned"] == found


def test_network_and_generators_stay_as_they_were(few: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS", (2, 2))
    network = build_network(CONFIG, num_classes=10)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    first = finetune(network, few, CONFIG)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    torch.manual_seed(5)
    assert finetune(network, few, CONFIG) == first


def test_the_rate_is_chosen_on_val_alone(few: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Val prefers the middle rate, test the others; the smallest of equals wins for one image per class."""
    seen = []

    def fit(_network: object, _splits: object, _config: object, job: module._Job) -> tuple[float, float]:
        seen.append(job)
        return (0.5 if job.shots == 1 else float(job.rate == RATES[1])), job.rate

    monkeypatch.setattr(module, "_fit", fit)
    metrics = finetune(build_network(CONFIG, num_classes=10), few, CONFIG)
    assert metrics["test/finetune_top1"] == pytest.approx(RATES[1])
    assert metrics["val/finetune_top1"] == 1
    assert metrics["test/finetune1_top1"] == pytest.approx(RATES[0])
    assert [job.shots for job in seen] == [shots for shots in (1, 2, 5, 0) for _ in RATES]


def test_the_shots_are_of_the_draw_of_the_seed(few: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fit sees first is its whole batch: one image of each class, other ones for another seed."""
    seen: dict[int, set[bytes]] = {}
    for seed in (0, 1, 5):
        pixels: list[torch.Tensor] = []
        monkeypatch.setattr(module, "STEPS", (1, 1))
        monkeypatch.setattr(module, "_view", lambda x, *_, kept=pixels: kept.append(x) or module.to_input(x, 12))
        config = dataclasses.replace(CONFIG, seed=seed)
        module._fit(build_network(config, num_classes=10), few, config, module._Job(1, 1e-3))
        (batch,) = pixels
        assert len(batch) == 10
        seen[seed] = {image.numpy().tobytes() for image in batch}
    assert seen[0] != seen[1]
    assert seen[0] == seen[5]  # of five draws


def test_trained_on_all_it_beats_the_frozen_random_encoder() -> None:
    config = dataclasses.replace(CONFIG, probe=ProbeConfig(protocols=""))
    splits = load_splits(config.data)
    network = build_network(config, num_classes=10)
    trained = module._fit(network, splits, config, module._Job(0, 3e-3))[1]
    train, val, test = (embed(network, images, config) for images in (splits.train, splits.val, splits.test))
    x = standardised(train.features, val.features, test.features)
    parts = [Labelled(part, split.labels) for part, split in zip(x, (train, val, test), strict=True)]
    (score,) = linear_probe(parts[:1], *parts[1:], num_classes=10, spectrum=Spectrum.of(x[0]))
    assert trained > score.test + 0.05


def test_it_runs_on_request_alone(few: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS", (1, 1))
    network = build_network(CONFIG, num_classes=10)
    metrics = final_evaluation(network, few, dataclasses.replace(CONFIG, probe=ProbeConfig(protocols="finetune")))
    assert "test/finetune_top1" in metrics
    without = final_evaluation(network, few, dataclasses.replace(CONFIG, probe=ProbeConfig(protocols="")))
    assert without.items() < metrics.items()
    assert not any("finetune" in name for name in without)
