"""Two ranks compute what one process computes on the global batch: every method of METHODS, batch norm, collectives,
fine-tuning and a whole run.

Run: python -m pytest tests/integration/distributed/test_distributed.py
"""

from typing import Any

import pytest
import ranks
import torch
from torch import nn

from jepa_train.model.batch_norm import convert_batch_norm
from jepa_train.train.loop import train


@pytest.fixture(scope="module")
def both() -> list[dict[str, Any]]:
    return ranks.results()


@pytest.mark.parametrize("name", ranks.CASES)
def test_two_ranks_compute_what_one_process_computes(name: str, both: list[dict[str, Any]]) -> None:
    compute, tolerance = ranks.CASES[name]
    alone = compute()
    for rank in both:
        torch.testing.assert_close(rank[name], alone, rtol=tolerance, atol=tolerance, check_stride=False)


def test_two_ranks_train_and_evaluate_like_one_process(both: list[dict[str, Any]]) -> None:
    """Views, order, slices, targets and batch norm are those of the global batch; the difference is rounding."""
    alone = train(ranks.SMALL).metrics
    first, second = (rank["run"] for rank in both)
    assert {**first, "train/images_per_s": 0} == {**second, "train/images_per_s": 0}
    for metric in ("train/loss", "train/invariance", "train/embedding_std", "test/nonzero_fraction"):
        assert first[metric] == pytest.approx(alone[metric], rel=2e-3), metric
    # AdamW's first steps have size lr for any gradient, so rounding decides small ones; effective_rank shows it
    assert first["val/effective_rank"] == pytest.approx(alone["val/effective_rank"], rel=2e-2)
    for metric in ("val/probe_top1", "test/linear_top1", "test/knn20_top1"):  # knn_top1 depends on the k chosen on val
        assert first[metric] == pytest.approx(alone[metric], abs=0.02), metric


def test_two_ranks_average_epochs_in_fp16_like_one_process(both: list[dict[str, Any]]) -> None:
    """The evaluated network is a mean of epochs with renewed batch norm; no step is skipped."""
    alone = train(ranks.AVERAGED).metrics
    first, second = (rank["averaged run"] for rank in both)
    assert {**first, "train/images_per_s": 0} == {**second, "train/images_per_s": 0}
    assert first["train/skipped_steps"] == alone["train/skipped_steps"] == 0
    for metric in ("train/loss", "train/embedding_std", "val/embedding_std", "val/effective_rank"):
        assert first[metric] == pytest.approx(alone[metric], rel=2e-2), metric


def test_uneven_batches_are_refused_on_every_rank(both: list[dict[str, Any]]) -> None:
    for rank in both:
        *uneven, indivisible = rank["refusals"]
        assert set(uneven) == {
            "every rank must hold equally many images of the global batch, got 4, 5; "
            "leave out the last, incomplete batch"
        }
        assert indivisible == "global_batch must be divisible by the number of workers, got 7 for 2; try 6"


def test_converted_batch_norm_keeps_parameters_names_and_values() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()).double()
    ranks.fill(model, seed=3)
    x = ranks.draw("x", 12, 4, 3, 3)
    expected, names, parameters = model(x), list(model.state_dict()), list(model.parameters())
    converted = convert_batch_norm(model)
    assert list(converted.state_dict()) == names
    assert [id(parameter) for parameter in converted.parameters()] == [id(parameter) for parameter in parameters]
    torch.testing.assert_close(converted(x), expected, rtol=0, atol=0)
