"""Evaluation of a network on splits: protocols, number of forward passes, values that are not finite.

Run: python -m pytest tests/unit/evaluation/test_evaluate.py
"""

import dataclasses
import math
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from view_forms import to_input

from jepa_train.base.seeds import generator
from jepa_train.config.flat import unflatten
from jepa_train.data import Images, Splits, device_transfer
from jepa_train.evaluation import evaluate as module
from jepa_train.evaluation.evaluate import embed, evaluate, final_evaluation
from jepa_train.model.network import Network
from jepa_train.train.trainer import Trainer

CONFIG = unflatten({"data.image_size": 8, "views.global_size": 8, "model.projector_dim": 4, "probe.protocols": ""})


class Encoder(nn.Module):
    """(N, 3, 8, 8) -> (N, 6), linear; counts the images it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 64, 6)
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.linear(x.flatten(1))


@pytest.fixture
def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network(
            encoder=Encoder(),
            projector=nn.Sequential(nn.Linear(6, 4), nn.ReLU()),
            predictor=nn.Identity(),
            probe=nn.Linear(6, 3),
            projector_probe=nn.Linear(4, 3),
        )


def images(count: int, *, seed: int) -> Images:
    """Noise over a brightness that is the class."""
    labels = torch.arange(3).repeat(count)
    noise = torch.randint(0, 60, (len(labels), 3, 8, 8), generator=generator("noise", seed))
    pixels = (noise + 80 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
    return Images(pixels=pixels, rows=torch.arange(len(labels)), labels=labels)


PARTS = {"train": images(12, seed=0), "val": images(20, seed=1), "test": images(30, seed=2)}
SPLITS = Splits(**PARTS, classes=("dark", "grey", "bright"), skipped=0)


def test_embeddings_keep_the_order_of_the_images(network: Network) -> None:
    many = images(200, seed=3)  # more than one forward pass takes
    found = embed(network, many, CONFIG)
    expected = network.eval().encode(to_input(many.pixels, 8))
    torch.testing.assert_close(found.features, expected.features)
    torch.testing.assert_close(found.z, expected.z)
    assert torch.equal(found.probe_predicted, expected.probe_logits.argmax(dim=1))
    assert torch.equal(found.projector_predicted, expected.projector_logits.argmax(dim=1))
    assert torch.equal(found.labels, many.labels)


def test_the_host_reads_from_the_device_once_per_report(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, from which nothing can be read; hsic and protocols decide on the host and read more."""
    reads = []

    def read(*groups: dict[str, Tensor]) -> list[dict[str, float]]:
        reads.append({value.device.type for group in groups for value in group.values()})
        return [dict.fromkeys(group, 1.0) for group in groups]

    monkeypatch.setattr(module, "_read", read)
    monkeypatch.setattr(module, "autocast", lambda *_: nullcontext())  # has no such device
    monkeypatch.setattr(module, "hsic", lambda _: torch.tensor(0.5))
    monkeypatch.setattr(device_transfer, "_free", lambda _: 10**9)
    monkeypatch.setattr(device_transfer, "_copied", {})
    evaluate(network.to("meta"), SPLITS.val, CONFIG, prefix="val")
    assert reads == [{"meta"}]
    assert final_evaluation(network, SPLITS, CONFIG)["test/entropy"] == 1.0
    assert reads == [{"meta"}] * 2


@pytest.mark.parametrize(("precision", "channels_last"), [("bf16", True), ("fp32", False)])
def test_images_are_embedded_in_precision_and_memory_format_of_training(precision: str, channels_last: bool) -> None:
    options = {"precision": precision, "model.channels_last": channels_last, "global_batch": 8}
    small = {"model.encoder": "test_resnet", "model.projector_hidden": 8, "method.num_slices": 4}
    config = unflatten(options | small, base=CONFIG)
    trainer = Trainer(config, SPLITS)
    seen: list[tuple[torch.dtype, bool]] = []

    def spy(_module: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> None:
        seen.append((output.dtype, output.is_contiguous(memory_format=torch.channels_last)))

    for part in trainer.network.encoder.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(spy)
    trainer.train_step()
    in_training = seen.copy()
    seen.clear()
    embed(trainer.network, SPLITS.val, config)
    assert seen == in_training
    assert {dtype for dtype, _ in seen} == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert seen[0][1] == channels_last


def test_only_requested_protocols_run_with_one_pass_over_the_images(network: Network) -> None:
    metrics = final_evaluation(network, SPLITS, unflatten({"probe.protocols": "sgd,knn"}, base=CONFIG))
    assert network.encoder.seen == 36 + 60 + 90
    cheap = evaluate(network, SPLITS.test, CONFIG, prefix="test")
    names = {f"test/{name}{part}_top1" for name in ("sgd", "knn", "knn20", "knn200") for part in ("", "_projector")}
    of_z = {"test/entropy"}  # too few dimensions of z vary for hsic
    assert {name for name in metrics if name.startswith("test/")} - {*cheap} == names | of_z
    assert cheap.items() <= metrics.items()
    found = embed(network, SPLITS.test, CONFIG)
    assert cheap["test/probe_top1"] == pytest.approx((found.probe_predicted == found.labels).float().mean().item())


def test_without_a_test_split_no_metric_is_called_test(network: Network) -> None:
    splits = dataclasses.replace(SPLITS, test=SPLITS.test.take(torch.empty(0, dtype=torch.int64)))
    config = unflatten({"probe.protocols": "knn"}, base=CONFIG)
    whole, found = (final_evaluation(network, part, config) for part in (SPLITS, splits))
    assert {name for name in found if name.startswith("test/")} == set()
    expected = {name for name in whole if name.startswith("val/")} | {
        *evaluate(network, SPLITS.val, CONFIG, prefix="val")
    }
    assert found.keys() == expected | {"val/entropy"}
    assert {name: found[name] for name in whole if name.startswith("val/")} == {
        name: value for name, value in whole.items() if name.startswith("val/")
    }


def test_embeddings_that_are_not_finite_are_reported_and_not_probed(network: Network) -> None:
    """Only a bright training image overflows: test alone would look healthy."""
    pixels = SPLITS.train.pixels.clone()
    pixels[5] = 255
    spoilt = dataclasses.replace(SPLITS, train=dataclasses.replace(SPLITS.train, pixels=pixels))

    def overflow(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        bright = inputs[0].flatten(1).mean(dim=1) >= to_input(pixels[5:6], 8).mean()
        return torch.where(bright[:, None], torch.inf, output)

    network.encoder.register_forward_hook(overflow)
    metrics = final_evaluation(network, spoilt, unflatten({"probe.protocols": "linear,knn"}, base=CONFIG))
    assert math.isnan(metrics.pop("train/embedding_std"))
    assert all(math.isfinite(value) for value in metrics.values())
    assert not any("linear" in name or "knn" in name for name in metrics)
