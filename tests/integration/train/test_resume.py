"""Runs killed, preempted or stopped at any step and started again end bit for bit like an undisturbed run.

tests/slow/test_resume_process.py kills the process of the command line.
Run: python -m pytest tests/integration/train/test_resume.py
"""

import dataclasses
import functools
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from folders_of_images import folder_config, write_folder

from jepa_train.base.preemption import Host
from jepa_train.checkpoint import checkpoints
from jepa_train.checkpoint.checkpoints import read_checkpoint
from jepa_train.config import DataConfig, ModelConfig, OptimConfig, ProbeConfig
from jepa_train.config.presets import DIGITS
from jepa_train.methods import RectifiedLpJEPA
from jepa_train.model.network import build_network
from jepa_train.storage import storage
from jepa_train.storage.storage import StorageError, StoragePath, storage_path
from jepa_train.train.loop import TrainingResult, evaluate_checkpoint, train
from jepa_train.train.preflight import preflight
from jepa_train.train.trainer import Trainer

STEPS = 4  # an epoch of 170 images
EPOCHS = 2
BASE = dataclasses.replace(
    DIGITS,
    data=dataclasses.replace(DIGITS.data, train_images=200),
    global_batch=42,
    epochs=EPOCHS,
    optim=OptimConfig(warmup_epochs=1),
    probe=ProbeConfig(protocols="knn"),
)
TIMES = {"train/images_per_s", "train/peak_memory_gb"}
CONFIGS = {
    "averaged": dataclasses.replace(
        BASE,
        model=dataclasses.replace(BASE.model, swa_decay=0.9, embed_dim=16),
        probe=ProbeConfig(protocols="knn", features="embedding"),
    ),
    "lars": dataclasses.replace(
        BASE,
        method=RectifiedLpJEPA(num_slices=64),
        optim=OptimConfig(name="lars", lr=0.3, warmup_epochs=1),
        probe=ProbeConfig(protocols="knn", norm="none", optimizer="encoder", schedule="constant"),
        precision="bf16",
        views=dataclasses.replace(BASE.views, global_size=24),
    ),
    "fp16": dataclasses.replace(
        BASE,
        method=RectifiedLpJEPA(num_slices=64),
        optim=OptimConfig(name="lars", lr=0.3, warmup_epochs=1),
        precision="fp16",
    ),
    "swa": dataclasses.replace(
        BASE,
        model=ModelConfig(encoder="test_vit", drop_path=0.3, swa_start=1),
        optim=OptimConfig(warmup_epochs=1, swa_lr=1e-3, swa_anneal_epochs=1),
        views=dataclasses.replace(BASE.views, global_size=16),
        snapshot_epochs=1,
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Configs on whole pictures, with others for the local views, and on 16-bit ones without labels: 4 batches each."""
    folder = write_folder(tmp_path_factory.mktemp("folder") / "photos")
    data = folder_config(folder, image_size=16, fit="whole", local_image_size=20, eval_fov=0.875)
    views = dataclasses.replace(BASE.views, num_local=2)
    cells = tmp_path_factory.mktemp("cells")
    for number in range(9):
        values = np.random.default_rng(number).integers(0, 9999, (2, 16, 16), np.uint16)
        np.save(cells / f"{number}.npy", values)
    deep = DataConfig(name="unlabelled_folder", path=str(cells), channels=2, bits=16)
    probe = ProbeConfig(protocols="")
    CONFIGS["unlabelled"] = dataclasses.replace(BASE, data=deep, probe=probe, global_batch=2)
    CONFIGS["whole"] = dataclasses.replace(BASE, data=data, views=views, global_batch=2)


class KilledError(Exception):
    """Stands for the death of the process."""


def killed(*_: object, **__: object) -> None:
    raise KilledError


class Run(NamedTuple):
    """Outcome, reports without times, and the steps that were trained."""

    outcome: TrainingResult
    reports: list[dict[str, float]]
    steps: list[int]


def run(
    name: str, folder: StoragePath | Path, *, kill_at: int | str = -1, stop_after: int = -1, host: Host | None = None
) -> Run:
    """Train with a look and a checkpoint after every step; `kill_at` is a number of steps or "evaluation"."""
    reports: list[dict[str, float]] = []
    steps: list[int] = []
    whole = Trainer.train_step

    def report(metrics: dict[str, float]) -> bool:
        reports.append({name: value for name, value in metrics.items() if name not in TIMES})
        return metrics["epoch"] == stop_after

    def train_step(trainer: Trainer) -> None:
        if trainer.step == kill_at:
            raise KilledError
        steps.append(trainer.step)
        whole(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", train_step)
        if kill_at == "evaluation":
            patch.setattr("jepa_train.train.loop.evaluate", killed)
        patch.setattr("jepa_train.train.loop.CHECK_STEPS", 1)
        patch.setattr(checkpoints, "INTERVAL_S", -1.0)
        torch.manual_seed(int(time.time()))  # another process has other global generators
        return Run(train(CONFIGS[name], report=report, checkpoints=folder, host=host), reports, steps)


@functools.cache
def undisturbed(name: str) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """Reports and weights, snapshots too, of a run in one go."""
    with tempfile.TemporaryDirectory() as folder:
        return run(name, Path(folder)).reports, kept_weights(folder)


def kept_weights(folder: StoragePath | Path | str) -> dict[str, torch.Tensor]:
    """Weights by file and name, and of each file the number of its reports."""
    place, found = storage_path(folder), {}
    for file in (name for name in place.names() if name.endswith(".pt")):
        content = read_checkpoint(place / file)
        found |= {f"{file} {name}": value for name, value in content["network"].items()}
        found[f"{file} reports"] = torch.tensor(len(content["reports"]))
    return found


def assert_as_undisturbed(name: str, folder: StoragePath | Path, reports: list[dict[str, float]]) -> None:
    expected, weights = undisturbed(name)
    assert reports == expected
    found = kept_weights(folder)
    assert found.keys() == weights.keys()
    assert [key for key, value in found.items() if not torch.equal(value, weights[key])] == []


@pytest.mark.parametrize(
    ("name", "kills"),
    [
        ("averaged", [1, 6]),
        ("averaged", ["evaluation"]),
        ("lars", [5]),
        ("fp16", [2, 6]),
        ("swa", [3, 6]),
        ("swa", ["evaluation"]),
        ("whole", [6]),
        ("unlabelled", [6]),
    ],
)
def test_a_killed_run_repeats_no_step(name: str, kills: list[int | str], tmp_path: Path) -> None:
    """Also in its evaluation, which may take long: a checkpoint that is due is written before it."""
    for step in kills:
        with pytest.raises(KilledError):
            run(name, tmp_path, kill_at=step)
    again = run(name, tmp_path)
    assert again.steps == list(range(STEPS if kills == ["evaluation"] else max(kills), EPOCHS * STEPS))
    assert_as_undisturbed(name, tmp_path, again.reports)


class Spot:
    """Host of a machine that leaves at its `last`-th check."""

    def __init__(self, last: int) -> None:
        self.last, self.checks, self.checkpoints = last, 0, 0

    def saved(self, _: float) -> None:
        self.checkpoints += 1

    def leaving(self) -> bool:
        self.checks += 1
        return self.checks >= self.last


@pytest.mark.parametrize("step", [1, STEPS, STEPS + 3])
def test_a_preempted_run_resumes_from_that_step(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check after every step, a look after every second one, and no checkpoints but at epochs and at the notice."""
    spot, trained, whole = Spot(last=step), [], Trainer.train_step
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", lambda trainer: trained.append(trainer.step) or whole(trainer))
        patch.setattr("jepa_train.base.preemption.NOTICE_S", 0.0)
        left = train(CONFIGS["averaged"], checkpoints=tmp_path, host=spot)
    assert (left.status, spot.checks) == ("preempted", step)
    assert spot.checkpoints == 1 + (step - 1) // STEPS, "one at the notice, and one at the end of each epoch before"
    again = run("averaged", tmp_path)
    assert trained + again.steps == list(range(EPOCHS * STEPS))
    assert_as_undisturbed("averaged", tmp_path, again.reports)


def test_stopped_and_finished_runs_report_again_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped run is stopped again, or goes on if nobody stops it; a finished one can be evaluated again."""
    for stop_after in (1, -1):
        first = run("averaged", tmp_path, stop_after=stop_after)
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "__init__", None)
            again = run("averaged", tmp_path, stop_after=stop_after)
        assert again.reports == first.reports
        assert again.outcome == first.outcome
        assert first.outcome.status == ("stopped" if stop_after == 1 else "finished")
    assert_as_undisturbed("averaged", tmp_path, again.reports)
    later = evaluate_checkpoint(tmp_path, ["probe.protocols=linear,knn"])
    assert later.pop("test/linear_top1") > 0.1
    final = again.reports[-1]
    assert {name: value for name, value in later.items() if "linear" not in name} == {
        name: final[name] for name in later if "linear" not in name
    }


def test_an_outage_of_the_storage_costs_checkpoints_and_is_not_an_empty_folder(
    s3: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests go to a bucket that does not exist: at the start, and from the fourth step on."""
    monkeypatch.setattr(storage, "PAUSES_S", ())
    folder = storage_path(s3)
    with pytest.raises(KilledError):
        run("averaged", folder, kill_at=3)
    with pytest.raises(StorageError, match="NO_SUCH_BUCKET"):
        run("averaged", storage_path(s3.replace("s3://", "s3://no-")))
    whole, path = Trainer.train_step, StoragePath.path.fget
    assert path is not None

    def train_step(trainer: Trainer) -> None:
        if trainer.step == 4:
            monkeypatch.setattr(StoragePath, "path", property(lambda place: f"no-{path(place)}"))
        whole(trainer)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    outcome, reports, _ = run("averaged", folder)
    assert (outcome.status, reports) == ("finished", undisturbed("averaged")[0])
    assert "final.pt" in caplog.text
    assert "could not be written" in caplog.text
    monkeypatch.undo()
    assert sorted(name for name in folder.names() if name.endswith(".pt")) == ["step-000000003.pt", "step-000000004.pt"]


def test_snapshots_of_the_evaluated_network_can_be_evaluated(tmp_path: Path) -> None:
    """With swa_start=1 both are means, the first of one epoch."""
    reports = run("swa", tmp_path).reports
    files = sorted(file.name for file in tmp_path.glob("*.pt"))
    assert files == ["epoch-0001.pt", "epoch-0002.pt", "final.pt"]
    first = evaluate_checkpoint(tmp_path / "epoch-0001.pt", ["probe.protocols="])
    assert first["epoch"] == 1.0
    last = evaluate_checkpoint(tmp_path / "epoch-0002.pt", ["probe.protocols="])
    assert {name: reports[-1][name] for name in last} == last
    assert first["test/embedding_std"] != last["test/embedding_std"]


def test_a_resumed_run_needs_its_initial_weights_no_more(tmp_path: Path) -> None:
    """The file is gone when it resumes, and a random start would end otherwise."""
    file, reports = tmp_path / "weights.pt", list[dict[str, float]]()
    torch.save(build_network(dataclasses.replace(BASE, seed=9), 10).encoder.state_dict(), file)
    config = preflight(dataclasses.replace(BASE, model=dataclasses.replace(BASE.model, weights=str(file))))
    whole = train(config)
    assert train(config, report=lambda _: True, checkpoints=tmp_path / "run").status == "stopped"
    file.unlink()
    again = train(config, report=reports.append, checkpoints=tmp_path / "run")
    assert len(reports) == EPOCHS
    alike = {name: value for name, value in whole.metrics.items() if name not in TIMES}
    assert {name: again.metrics[name] for name in alike} == alike
    assert evaluate_checkpoint(tmp_path / "run", ["probe.protocols="])["epoch"] == EPOCHS
    assert train(BASE).metrics["train/loss"] != whole.metrics["train/loss"]
