"""Whole runs of train(): reports, divergence, collapse, and repeatability in one process.

Stopped runs are in test_resume.py, learning is in tests/slow/test_learning.py, rank equality is in
tests/integration/distributed/test_distributed.py.
Run: python -m pytest tests/integration/train/test_train.py
"""

import dataclasses
import math
import os

import pytest
import ranks
import torch

from jepa_train.config import ProbeConfig, TrainConfig
from jepa_train.config.flat import unflatten
from jepa_train.data.splits import load_splits
from jepa_train.evaluation.glossary import GLOSSARY, ON_TRAIN, ON_VAL, ON_VAL_BY_PROTOCOL
from jepa_train.methods import NCL, Method, RectifiedLpJEPA
from jepa_train.model.network import Network
from jepa_train.train.loop import TrainingResult, train
from jepa_train.train.trainer import Trainer
from sweeps.engine.lanes.process_state import FreshProcess

SMALL = ranks.SMALL
QUICK = dataclasses.replace(SMALL, probe=ProbeConfig(protocols=""))


def run(config: TrainConfig) -> tuple[TrainingResult, list[dict[str, float]]]:
    """The outcome and everything reported."""
    reports: list[dict[str, float]] = []
    return train(config, report=reports.append), reports


def weights_of(network: Network) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.fixture(scope="module")
def finished() -> tuple[TrainingResult, list[dict[str, float]]]:
    return run(dataclasses.replace(SMALL, epochs=2))


def test_every_epoch_is_reported_and_test_only_at_the_end_by_names_of_the_glossary(finished):
    outcome, reports = finished
    assert (outcome.status, outcome.reason) == ("finished", "")
    assert [report["epoch"] for report in reports] == [1.0, 2.0]
    assert [any(name.startswith("test/") for name in report) for report in reports] == [False, True]
    assert reports[-1] == outcome.metrics
    assert {name.partition("/")[2] for name in outcome.metrics if "/" in name} <= set(GLOSSARY)
    on_val = {*ON_VAL, *ON_VAL_BY_PROTOCOL["linear"], *ON_VAL_BY_PROTOCOL["knn"]}
    on_train = {*ON_TRAIN, "invariance", "sigreg"}
    assert {f"train/{name}" for name in on_train} == {name for name in outcome.metrics if name.startswith("train/")}
    assert {f"val/{name}" for name in on_val} == {name for name in outcome.metrics if name.startswith("val/")}


def test_a_run_is_bit_for_bit_the_first_whatever_a_run_before_it_left_in_the_process(finished, monkeypatch):
    monkeypatch.setenv("OF_THE_SWEEP", "kept")
    fresh = FreshProcess(torch.get_num_threads())
    with fresh.restored():
        torch.manual_seed(7)
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.set_float32_matmul_precision("medium")
        torch.use_deterministic_algorithms(True)
        os.environ["OF_THE_SWEEP"] = "changed"
    with fresh.restored():
        assert os.environ["OF_THE_SWEEP"] == "kept"
        _, again = run(dataclasses.replace(SMALL, epochs=2))
    for first, second in zip(finished[1], again, strict=True):
        unlike = {"train/images_per_s": 0, "train/peak_memory_gb": 0}
        assert first | unlike == second | unlike


@pytest.mark.parametrize(
    ("method", "rectified"),
    [(RectifiedLpJEPA(num_slices=8), True), (NCL(), True), (RectifiedLpJEPA(num_slices=8, rectified=False), False)],
)
def test_sparsity_in_training_is_that_of_the_last_steps_rectified_z(method: Method, rectified: bool):
    trainer = Trainer(dataclasses.replace(QUICK, method=method), load_splits(QUICK.data))
    shares = []
    trainer.network.projector.register_forward_hook(
        lambda _module, _x, z: shares.append((z != 0).double().mean().item())
    )
    for _ in range(2):
        trainer.train_step()
    found = trainer.means()
    assert ("train/nonzero_fraction" in found) == rectified
    if rectified:
        assert found["train/nonzero_fraction"] == pytest.approx(shares[-1], rel=1e-6)
        assert shares[0] != shares[1]
        assert 0.2 < shares[-1] < 0.8


def test_the_mean_of_epochs_is_evaluated_from_its_first_epoch_on_and_takes_no_part_in_training():
    """One step an epoch, for a method without a center."""
    few = dataclasses.replace(QUICK.data, train_images=60)
    base = dataclasses.replace(QUICK, method=RectifiedLpJEPA(num_slices=8), data=few, epochs=4, global_batch=40)
    weights, evaluated = {}, []
    for start in (0, 2):
        config = dataclasses.replace(base, model=dataclasses.replace(base.model, swa_start=start))
        trainer, steps = Trainer(config, load_splits(config.data)), []
        for _ in range(4):
            trainer.train_step()
            trainer.end_epoch()
            steps.append(weights_of(trainer.network))
            evaluated.append(trainer.evaluated is trainer.network)
        weights[start] = torch.stack(steps)
    assert evaluated == [True] * 5 + [False] * 3
    assert torch.equal(weights[0], weights[2])
    torch.testing.assert_close(weights_of(trainer.evaluated), weights[2][1:].mean(0), rtol=1e-5, atol=1e-6)


def test_an_embedding_that_is_not_finite_ends_the_run_even_if_the_loss_is_finite():
    """One step an epoch: the loss is measured before the step that ruins the weights."""
    ruin = {"optim.lr": 1e20, "optim.warmup_epochs": 0.0, "global_batch": 1200, "epochs": 2}
    outcome, reports = run(unflatten(ruin, base=QUICK))
    assert math.isfinite(reports[0]["train/loss"])
    assert outcome.status == "diverged"
    assert len(reports) == 1


def test_a_collapsed_embedding_ends_the_run_with_its_reason():
    """Nothing but invariance: the embedding shrinks to a point."""
    collapsing = {"method.lamb": 0.0, "optim.lr": 1e-2, "epochs": 30, "global_batch": 128}
    outcome, reports = run(unflatten(collapsing, base=QUICK))
    assert outcome.status == "collapsed"
    assert "embedding_std" in outcome.reason
    assert len(reports) < 30


def test_divergence_is_seen_within_the_epoch(monkeypatch: pytest.MonkeyPatch):
    """Four steps an epoch; the second one's loss is not finite, and after it comes the first look."""
    steps = []
    whole = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda trainer: steps.append(whole(trainer)))
    outcome, reports = run(unflatten({"optim.lr": 1e20, "optim.warmup_epochs": 0.0}, base=QUICK))
    assert (outcome.status, outcome.reason) == ("diverged", "train/loss is nan in epoch 1")
    assert (len(steps), len(reports)) == (2, 1)


@pytest.mark.parametrize(
    ("spreads", "status"), [((0.01, 1.0, 0.01, 1.0), "finished"), ((1.0, 0.01, 0.01), "collapsed")]
)
def test_two_narrow_spreads_in_a_row_are_a_collapse(
    spreads: tuple[float, ...], status: str, monkeypatch: pytest.MonkeyPatch
):
    """Two looks an epoch; the target's spread is 1."""
    looks = iter(spreads)
    monkeypatch.setattr("jepa_train.train.trainer.embedding_std", lambda _: torch.tensor(next(looks)))
    assert run(dataclasses.replace(QUICK, epochs=2))[0].status == status
    assert next(looks, None) is None
