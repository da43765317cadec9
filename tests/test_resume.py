"""Runs killed at any step and started again: they end bit for bit like the run that nobody disturbed."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jepa_train import checkpoint
from jepa_train.checkpoint import CheckpointError, read_checkpoint
from jepa_train.config import TrainConfig
from jepa_train.flat import unflatten
from jepa_train.methods import RectifiedLpJEPA
from jepa_train.presets import DIGITS
from jepa_train.train import Outcome, train
from jepa_train.trainer import Trainer

STEPS = 4  # an epoch of 1,222 images
BASE = dataclasses.replace(DIGITS, global_batch=300, epochs=3)
TIMES = {"train/images_per_s"}
CONFIGS = {
    "lejepa": BASE,
    "rectified_lpjepa": dataclasses.replace(BASE, method=RectifiedLpJEPA(num_slices=64)),
}


class Killed(Exception):
    """Stands for a process that dies."""


def run(config: TrainConfig, folder: Path | None, *, kill_at: int = -1) -> tuple[Outcome, list[dict[str, float]]]:
    """The outcome and every report; the process dies after `kill_at` steps of training."""
    reports: list[dict[str, float]] = []

    def report(metrics: dict[str, float]) -> bool:
        reports.append({name: value for name, value in metrics.items() if name not in TIMES})
        return False

    whole = Trainer.train_step

    def dying(trainer: Trainer) -> None:
        if trainer.step == kill_at:
            raise Killed
        whole(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", dying)
        outcome = train(config, report=report, checkpoints=folder)
    return outcome, reports


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A checkpoint after every step."""
    monkeypatch.setattr("jepa_train.train.CHECK_STEPS", 1)
    monkeypatch.setattr(checkpoint, "INTERVAL_S", -1.0)
    return


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "final.pt")["network"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[dict[str, float]], dict]]:
    found = {}
    for name, config in CONFIGS.items():
        folder = tmp_path_factory.mktemp(name)
        _, reports = run(config, folder)
        found[name] = reports, weights(folder)
    return found


@pytest.mark.parametrize("name", sorted(CONFIGS))
@settings(max_examples=3, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.integers(0, 3 * STEPS - 1), min_size=1, max_size=2, unique=True))
def test_a_run_killed_at_any_steps_ends_bit_for_bit_like_the_undisturbed_one(
    name: str, steps: list[int], undisturbed, every_step, tmp_path_factory
):
    folder, reports = tmp_path_factory.mktemp("killed"), {}
    for step in sorted(steps):
        with pytest.raises(Killed):
            run(CONFIGS[name], folder, kill_at=step)
    _, after = run(CONFIGS[name], folder)
    expected, expected_weights = undisturbed[name]
    assert after == expected[len(expected) - len(after) :]
    assert len(after) >= 1 + (3 * STEPS - 1 - max(steps)) // STEPS
    assert all(torch.equal(value, expected_weights[key]) for key, value in weights(folder).items()), reports
