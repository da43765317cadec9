"""Runs killed at any step and started again: they end bit for bit like the run that nobody disturbed."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from jepa_train.checkpoint import checkpoints
from jepa_train.checkpoint.checkpoints import read_checkpoint
from jepa_train.config import ModelConfig, OptimConfig, ProbeConfig, TrainConfig
from jepa_train.config.flat import cell_fields
from jepa_train.config.presets import DIGITS
from jepa_train.methods import RectifiedLpJEPA
from jepa_train.storage import storage
from jepa_train.storage.storage import StorageError, StoragePath, storage_path
from jepa_train.train.loop import TrainingResult, train
from jepa_train.train.trainer import Trainer

STEPS = 4  # an epoch of 1,222 images
EPOCHS = 2
BASE = dataclasses.replace(
    DIGITS, global_batch=300, epochs=EPOCHS, optim=OptimConfig(warmup_epochs=1), probe=ProbeConfig(protocols="knn")
)
TIMES = {"train/images_per_s", "train/peak_memory_gb"}
CONFIGS = {
    "averaged": dataclasses.replace(BASE, model=dataclasses.replace(BASE.model, swa_decay=0.9)),
    "lars": dataclasses.replace(
        BASE,
        method=RectifiedLpJEPA(num_slices=64),
        optim=OptimConfig(name="lars", lr=0.3, warmup_epochs=1),
        precision="bf16",
        views=dataclasses.replace(BASE.views, global_size=24),
    ),
    "dropping": dataclasses.replace(
        BASE,
        model=ModelConfig(encoder="test_vit", drop_path=0.3),
        views=dataclasses.replace(BASE.views, global_size=16),
    ),
}
Undisturbed = dict[str, tuple[list[dict[str, float]], dict[str, torch.Tensor]]]


class Killed(Exception):
    """Stands for a process that dies."""


def run(
    config: TrainConfig, folder: StoragePath | Path, *, kill_at: int = -1, stop_after: int = -1
) -> tuple[TrainingResult, list[dict[str, float]]]:
    """The outcome and every report, without times; a checkpoint after every step, of which `kill_at` is the last."""
    reports: list[dict[str, float]] = []

    def report(metrics: dict[str, float]) -> bool:
        reports.append({name: value for name, value in metrics.items() if name not in TIMES})
        return metrics["epoch"] == stop_after

    whole = Trainer.train_step

    def dying(trainer: Trainer) -> None:
        if trainer.step == kill_at:
            raise Killed
        whole(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", dying)
        patch.setattr("jepa_train.train.loop.CHECK_STEPS", 1)
        patch.setattr(checkpoints, "INTERVAL_S", -1.0)
        torch.manual_seed(kill_at)  # another process has other global generators
        return train(config, report=report, checkpoints=folder), reports


def weights(folder: StoragePath | Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "final.pt")["network"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    found = {}
    for name, config in CONFIGS.items():
        folder = tmp_path_factory.mktemp(name)
        _, reports = run(config, folder)
        found[name] = reports, weights(folder)
    return found


@pytest.mark.parametrize("name", sorted(CONFIGS))
@settings(
    max_examples=2,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],  # a run costs seconds: no hundred more to find a smaller failure
    suppress_health_check=list(HealthCheck),
)
@given(steps=st.lists(st.integers(1, EPOCHS * STEPS - 1), min_size=1, max_size=2, unique=True))
def test_a_run_killed_at_any_steps_ends_bit_for_bit_like_the_undisturbed_one(
    name: str, steps: list[int], undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("killed")
    for step in sorted(steps):
        with pytest.raises(Killed):
            run(CONFIGS[name], folder, kill_at=step)
    trained: list[int] = []
    whole = Trainer.train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", lambda trainer: trained.append(trainer.step) or whole(trainer))
        _, after = run(CONFIGS[name], folder)
    expected, expected_weights = undisturbed[name]
    assert trained == list(range(max(steps), EPOCHS * STEPS)), "steps that were done are not taken again"
    assert after == expected, "the epochs of those that died are reported again"
    found = weights(folder)
    assert found.keys() == expected_weights.keys()
    assert [key for key, value in found.items() if not torch.equal(value, expected_weights[key])] == []


class Spot:
    """A machine that is about to be taken away from the `last`-th time on that it is asked."""

    def __init__(self, last: int) -> None:
        self.last, self.asked, self.kept = last, 0, 0

    def saved(self, _: float) -> None:
        self.kept += 1

    def leaving(self) -> bool:
        self.asked += 1
        return self.asked >= self.last


# within epochs, and before evaluations; between looks, which are at every second step, and at one
@pytest.mark.parametrize("step", [1, STEPS, STEPS + 2, STEPS + 3, EPOCHS * STEPS])
def test_a_run_whose_machine_leaves_goes_on_from_that_very_step(step: int, undisturbed: Undisturbed, tmp_path: Path):
    expected, expected_weights = undisturbed["averaged"]
    spot = Spot(last=step)
    monkey = pytest.MonkeyPatch()
    trained: list[int] = []
    whole = Trainer.train_step
    monkey.setattr(Trainer, "train_step", lambda trainer: trained.append(trainer.step) or whole(trainer))
    monkey.setattr("jepa_train.base.preemption.NOTICE_S", 0.0)  # asked after every step
    left = train(CONFIGS["averaged"], checkpoints=tmp_path, host=spot)
    assert (left.status, spot.asked) == ("preempted", step)
    assert spot.kept == 1 + (step - 1) // STEPS, "one at the notice, and one at the end of each epoch before"
    _, after = run(CONFIGS["averaged"], tmp_path)
    monkey.undo()
    assert trained == list(range(EPOCHS * STEPS)), "no step is taken twice"
    assert after == expected
    found = weights(tmp_path)
    assert [key for key, value in found.items() if not torch.equal(value, expected_weights[key])] == []


def test_a_run_killed_while_it_evaluates_takes_no_step_again(
    undisturbed: Undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A checkpoint that is due comes before an evaluation, which may take long."""

    def dies(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("jepa_train.train.loop.evaluate", dies)
        with pytest.raises(Killed):
            run(CONFIGS["averaged"], tmp_path)
    trained: list[int] = []
    whole = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda trainer: trained.append(trainer.step) or whole(trainer))
    _, after = run(CONFIGS["averaged"], tmp_path)
    expected, expected_weights = undisturbed["averaged"]
    assert trained == list(range(STEPS, EPOCHS * STEPS))
    assert after == expected
    assert all(torch.equal(value, expected_weights[key]) for key, value in weights(tmp_path).items())


def test_a_finished_run_reports_its_epochs_again_without_training(
    undisturbed: Undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    outcome, reports = run(CONFIGS["averaged"], tmp_path)
    monkeypatch.setattr(Trainer, "__init__", None)
    again, repeated = run(CONFIGS["averaged"], tmp_path)
    assert repeated == reports == undisturbed["averaged"][0]
    assert again == outcome


def test_a_run_that_was_stopped_from_outside_is_stopped_again_or_goes_on(
    undisturbed: Undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected, expected_weights = undisturbed["averaged"]
    stopped, first = run(CONFIGS["averaged"], tmp_path, stop_after=1)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "__init__", None)
        again, repeated = run(CONFIGS["averaged"], tmp_path, stop_after=1)
    assert again == stopped
    assert repeated == first == expected[:1]
    assert run(CONFIGS["averaged"], tmp_path)[1] == expected
    assert all(torch.equal(value, expected_weights[key]) for key, value in weights(tmp_path).items())


@pytest.mark.parametrize("kind", ["a disk that machines share", "an object store"])
def test_a_killed_process_is_resumed_by_the_same_command(
    kind: str, undisturbed: Undisturbed, tmp_path: Path, request: pytest.FixtureRequest
):
    """One process dies of SIGKILL once its first epoch's checkpoint is safe; one with other results goes on."""
    where = request.getfixturevalue("s3") if kind == "an object store" else f"{tmp_path}/nfs/run"
    config, folder = CONFIGS["averaged"], storage_path(where)
    default = cell_fields(DIGITS)
    words = [f"{key}={value}" for key, value in cell_fields(config).items() if value != default[key]]
    words += ["probe.protocols=knn", "--checkpoints", where]
    machines = [os.environ | {"JEPA_RESULTS": f"{tmp_path}/{name}"} for name in ("first", "second")]
    first = ended([sys.executable, "-c", DYING, *words], env=machines[0])
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert _steps(folder) == ["step-000000004.pt"]
    again = ended([sys.executable, "-m", "jepa_train", *words], env=machines[1])
    assert again.returncode == 0, again.stderr
    assert "going on after step 4 of 8" in again.stderr
    found, expected = weights(folder), undisturbed["averaged"][1]
    assert all(torch.equal(value, expected[key]) for key, value in found.items())
    assert [name for name in folder.names() if name != "lock"] == ["final.pt"]


# The command, which dies as soon as another process can see its first checkpoint.
DYING = """
import os, runpy, signal, sys, time
from jepa_train.checkpoint.checkpoints import Checkpoints
from jepa_train.storage.storage import storage_path
save, folder = Checkpoints.save, storage_path(sys.argv[-1])
def dying(*given):
    save(*given)
    while not any(name.startswith("step-") and name.endswith(".pt") for name in folder.names()):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
Checkpoints.save = dying
runpy.run_module("jepa_train", run_name="__main__")
"""


def ended(command: list[str], *, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=env)


def _steps(folder: StoragePath) -> list[str]:
    return [name for name in folder.names() if name.startswith("step-") and name.endswith(".pt")]


def test_a_store_that_goes_away_costs_the_checkpoint_and_is_not_taken_for_an_empty_one(
    undisturbed: Undisturbed, s3: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The bucket of the run is another one, which is not there: at the start, and while it trains."""
    monkeypatch.setattr(storage, "PAUSES_S", ())
    config, folder, gone = CONFIGS["averaged"], storage_path(s3), storage_path(s3.replace("s3://", "s3://no-"))
    with pytest.raises(Killed):
        run(config, folder, kill_at=3)
    with pytest.raises(StorageError, match="NO_SUCH_BUCKET"):
        run(config, gone)
    whole = Trainer.train_step
    path = StoragePath.path.fget
    assert path is not None

    def leaving(trainer: Trainer) -> None:
        if trainer.step == 4:
            monkeypatch.setattr(StoragePath, "path", property(lambda place: f"no-{path(place)}"))
        whole(trainer)

    monkeypatch.setattr(Trainer, "train_step", leaving)
    outcome, reports = run(config, folder)
    assert outcome.status == "finished"
    assert reports == undisturbed["averaged"][0]
    assert "final.pt" in caplog.text
    assert "could not be written" in caplog.text
    monkeypatch.undo()
    assert _steps(folder) == ["step-000000003.pt", "step-000000004.pt"]
