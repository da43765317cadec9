"""Evaluation of a network on splits: protocols, number of forward passes, values that are not finite.

Run: python -m pytest tests/unit/evaluation/test_evaluate.py
"""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from jepa_train.base.seeds import generator
from jepa_train.config.flat import unflatten
from jepa_train.data import Images, Splits
from jepa_train.data.augment import to_input
from jepa_train.evaluation.evaluate import embed, evaluate, final_evaluation
from jepa_train.model.network import Network

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
