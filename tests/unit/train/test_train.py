"""Whole runs of train(): reports, endings, and independence of the process and of the number of ranks."""

import dataclasses
import math

import pytest
import ranks
import torch

from jepa_train.base.errors import ConfigError
from jepa_train.config import ModelConfig, OptimConfig, ProbeConfig, TrainConfig
from jepa_train.config.augmentation_presets import LEJEPA_SMALL_VIEWS
from jepa_train.config.flat import unflatten
from jepa_train.config.presets import DIGITS
from jepa_train.evaluation.glossary import GLOSSARY, ON_VAL, ON_VAL_BY_PROTOCOL
from jepa_train.train.loop import TrainingResult, train
from jepa_train.train.trainer import Trainer

SMALL = ranks.SMALL


def run(config: TrainConfig, *, stop_after: float = math.inf) -> tuple[TrainingResult, list[dict[str, float]]]:
    """The outcome and everything reported."""
    reports: list[dict[str, float]] = []

    def report(metrics: dict[str, float]) -> bool:
        reports.append(metrics)
        return metrics["epoch"] >= stop_after

    return train(config, report=report), reports


@pytest.fixture(scope="module")
def finished() -> tuple[TrainingResult, list[dict[str, float]]]:
    return run(dataclasses.replace(SMALL["lejepa"], epochs=2))


def test_every_epoch_is_reported_and_test_only_at_the_end(finished):
    outcome, reports = finished
    assert (outcome.status, outcome.reason) == ("finished", "")
    assert [report["epoch"] for report in reports] == [1.0, 2.0]
    assert [any(name.startswith("test/") for name in report) for report in reports] == [False, True]
    assert reports[-1] == outcome.metrics


def test_every_reported_name_is_in_the_glossary(finished):
    names = {name.partition("/")[2] for name in finished[0].metrics if "/" in name}
    assert names <= set(GLOSSARY)


def test_what_a_sweep_may_rank_by_is_what_is_reported_on_val(finished):
    names = {*ON_VAL, *ON_VAL_BY_PROTOCOL["linear"], *ON_VAL_BY_PROTOCOL["knn"]}
    assert {f"val/{name}" for name in names} == {name for name in finished[0].metrics if name.startswith("val/")}


def test_the_loss_is_the_methods_convex_sum(finished):
    metrics, lamb = finished[0].metrics, SMALL["lejepa"].method.lamb
    expected = (1 - lamb) * metrics["train/invariance"] + lamb * metrics["train/sigreg"]
    assert metrics["train/loss"] == pytest.approx(expected, rel=1e-5)


def test_a_second_run_in_the_same_process_is_bit_for_bit_the_first(finished):
    torch.manual_seed(123)  # what another cell left behind
    _, again = run(dataclasses.replace(SMALL["lejepa"], epochs=2))
    for first, second in zip(finished[1], again, strict=True):
        unlike = {"train/images_per_s": 0, "train/peak_memory_gb": 0}
        assert first | unlike == second | unlike


def test_another_seed_is_another_run(finished):
    _, other = run(dataclasses.replace(SMALL["lejepa"], epochs=1, seed=1))
    assert other[0]["train/loss"] != finished[1][0]["train/loss"]


def test_training_beats_the_untrained_encoder_by_far():
    """15 of the preset's 50 epochs; 8 points are what the demo promises after all of them."""
    untrained, _ = run(dataclasses.replace(DIGITS, epochs=0))
    trained, _ = run(dataclasses.replace(DIGITS, epochs=15))
    assert untrained.metrics["epoch"] == 0
    assert trained.metrics["test/linear_top1"] > untrained.metrics["test/linear_top1"] + 0.08
    assert trained.metrics["test/knn_top1"] > untrained.metrics["test/knn_top1"] + 0.08


def test_a_loss_that_is_not_finite_ends_the_run_with_its_reason():
    outcome, reports = run(unflatten({"optim.lr": 1e20, "epochs": 3}, base=SMALL["lejepa"]))
    assert outcome.status == "diverged"
    assert outcome.reason == "train/loss is nan in epoch 1"
    assert len(reports) == 1


def test_an_embedding_that_is_not_finite_ends_the_run_though_its_loss_was():
    """One step an epoch: the loss is measured before the step that ruins the weights."""
    ruin = {"optim.lr": 1e20, "optim.warmup_epochs": 0.0, "global_batch": 1200, "epochs": 2}
    outcome, reports = run(unflatten(ruin, base=SMALL["lejepa"]))
    assert math.isfinite(reports[0]["train/loss"])
    assert outcome.status == "diverged"
    assert len(reports) == 1


def test_a_collapsed_embedding_ends_the_run_with_its_reason():
    """Nothing but invariance: the embedding shrinks to a point."""
    collapsing = {"method.lamb": 0.0, "optim.lr": 1e-2, "epochs": 30, "global_batch": 128}
    outcome, reports = run(unflatten(collapsing, base=SMALL["lejepa"]))
    assert outcome.status == "collapsed"
    assert "embedding_std" in outcome.reason
    assert len(reports) < 30


def test_divergence_is_seen_within_the_epoch(monkeypatch: pytest.MonkeyPatch):
    """Four steps an epoch; the second one's loss is not finite, and after it comes the first look."""
    steps = []
    whole = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda trainer: steps.append(whole(trainer)))
    outcome, _ = run(unflatten({"optim.lr": 1e20, "optim.warmup_epochs": 0.0}, base=SMALL["lejepa"]))
    assert outcome.status == "diverged"
    assert len(steps) == 2


@pytest.mark.parametrize(
    ("spreads", "status"), [((0.01, 1.0, 0.01, 1.0), "finished"), ((1.0, 0.01, 0.01), "collapsed")]
)
def test_one_narrow_look_is_no_collapse_but_two_in_a_row_are(
    spreads: tuple[float, ...], status: str, monkeypatch: pytest.MonkeyPatch
):
    """Two looks an epoch; the target's spread is 1."""
    looks = iter(spreads)
    monkeypatch.setattr("jepa_train.train.trainer.embedding_std", lambda _: torch.tensor(next(looks)))
    assert run(dataclasses.replace(SMALL["lejepa"], epochs=2))[0].status == status
    assert next(looks, None) is None


def test_report_can_stop_a_run():
    outcome, reports = run(dataclasses.replace(SMALL["lejepa"], epochs=3), stop_after=1)
    assert outcome.status == "stopped"
    assert len(reports) == 1


def test_a_batch_larger_than_the_training_split_is_refused():
    with pytest.raises(
        ConfigError, match=r"^global_batch must not exceed the 1222 training images of digits, got 2048"
    ):
        run(dataclasses.replace(SMALL["lejepa"], global_batch=2048))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_two_ranks_train_and_evaluate_like_one_process(name: str):
    """Views, order, slices, targets and batch norm are those of the global batch; what differs is rounding."""
    alone = train(SMALL[name]).metrics
    both = [rank["runs"][name] for rank in ranks.results(2)]
    assert {**both[0], "train/images_per_s": 0} == {**both[1], "train/images_per_s": 0}
    for metric in ("train/loss", "train/invariance", "train/embedding_std", "test/nonzero_fraction"):
        assert both[0][metric] == pytest.approx(alone[metric], rel=2e-3), metric
    # AdamW's first steps have the size of lr whatever the gradient's: rounding decides small ones; the rank shows it
    assert both[0]["val/effective_rank"] == pytest.approx(alone["val/effective_rank"], rel=2e-2)
    for metric in ("val/probe_top1", "test/linear_top1", "test/knn20_top1"):  # knn_top1 is at the k that val prefers
        assert both[0][metric] == pytest.approx(alone[metric], abs=0.02), metric


@pytest.mark.parametrize("encoder", ["test_vit", "test_convnext"])
def test_encoders_of_the_guides_train_on_two_global_and_six_local_views(encoder: str):
    """In short: 48 and 32 px, an averaged network, three epochs; well above chance, and with every term reported."""
    config = dataclasses.replace(
        SMALL["lejepa"],
        model=ModelConfig(encoder=encoder, small_stem=False, projector_dim=32, swa_decay=0.5),
        views=dataclasses.replace(LEJEPA_SMALL_VIEWS, flip=0.0, global_size=48, local_size=32),
        optim=OptimConfig(lr=2e-3, warmup_epochs=0.5),
        probe=ProbeConfig(lr=3e-2, protocols="knn"),
        global_batch=200,
        epochs=3,
    )
    outcome, reports = run(config)
    assert (config.views.num_global, config.views.num_local) == (2, 6)
    assert outcome.status == "finished"
    assert all(math.isfinite(value) for report in reports for value in report.values())
    assert reports[-1]["train/sigreg"] < reports[0]["train/sigreg"]
    assert outcome.metrics["test/knn_top1"] > 0.4
