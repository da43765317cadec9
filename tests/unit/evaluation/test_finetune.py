"""Fine-tuning: reported names, choice of the rate on val, unchanged network and generators.

Run: python -m pytest tests/unit/evaluation/test_finetune.py
"""

import pytest
import ranks
import torch
from torch import nn

from jepa_train.evaluation import finetune as module
from jepa_train.evaluation.finetune import RATES, finetune
from jepa_train.evaluation.glossary import GLOSSARY
from jepa_train.model import device
from jepa_train.model.network import build_network

CONFIG = ranks.FINETUNED


def test_metrics_are_of_the_glossary_and_network_and_generators_stay_unchanged() -> None:
    network = ranks.finetuned_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    found = ranks.finetuned(network)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert found.keys() == {f"{split}/finetune{shots}_top1" for split in ("val", "test") for shots in ("1", "")}
    assert {name.partition("/")[2] for name in found} <= set(GLOSSARY)
    assert all(0 <= value <= 1 for value in found.values())
    torch.manual_seed(5)
    assert ranks.finetuned(network) == found


def test_the_rate_is_chosen_on_val_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Val prefers the middle rate, test the others; the smallest of equals wins for one image per class."""
    seen = []

    def fit(_network: object, _splits: object, _config: object, job: module._Job) -> tuple[float, float]:
        seen.append(job)
        return torch.tensor([[0.5 if job.shots == 1 else float(job.rate == RATES[1]), job.rate]])

    monkeypatch.setattr(module, "_fit", fit)
    metrics = finetune(build_network(CONFIG, num_classes=10), ranks.few_digits(), CONFIG)
    assert metrics["test/finetune_top1"] == pytest.approx(RATES[1])
    assert metrics["val/finetune_top1"] == 1
    assert metrics["test/finetune1_top1"] == pytest.approx(RATES[0])
    assert [job.shots for job in seen] == [shots for shots in (1, 2, 5, 0) for _ in RATES]


@pytest.mark.parametrize(("kind", "formats"), [("cpu", [torch.channels_last]), ("mps", [])])
def test_the_copy_has_the_memory_format_of_training(
    kind: str, formats: list[torch.memory_format], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch has no MPS here: the calls that would bring the network there are recorded."""
    network, found = ranks.finetuned_network(), []
    monkeypatch.setattr(device, "training_device", lambda: torch.device(kind))
    monkeypatch.setattr(nn.Module, "to", lambda module, *_, **options: found.append(options) or module)
    module._copied(network, CONFIG, num_classes=10)
    assert [options["memory_format"] for options in found if options] == formats
