"""Checkpoint files: atomic, refused in one line where they cannot be trusted, the one before as a reserve."""

import dataclasses
import errno
import functools
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from jepa_train.storage.local import LocalPath

from jepa_train.base.errors import ConfigError
from jepa_train.checkpoint import checkpoints
from jepa_train.checkpoint.checkpoints import (
    AnotherCellError,
    CheckpointError,
    Checkpoints,
    files_to_delete,
    read_checkpoint,
    restore,
)
from jepa_train.config import ProbeConfig, TrainConfig
from jepa_train.config.presets import DIGITS
from jepa_train.storage import local
from jepa_train.storage.storage import StorageError
from jepa_train.train.loop import train
from jepa_train.train.trainer import Trainer

CONFIG = TrainConfig()


def state(number: float) -> dict[str, Any]:
    return {"network": {"weight": torch.full((64, 64), number)}, "seconds": 0.5}


@pytest.fixture
def saves(tmp_path: Path) -> Iterator[Checkpoints]:
    """Two checkpoints, of steps 8 and 12."""
    with Checkpoints(tmp_path, CONFIG) as saves:
        for step in (4, 8, 12):
            saves.save(step, state(step), [{"epoch": 1.0}])
        saves.settle()
        yield saves


def on_its_way(monkeypatch: pytest.MonkeyPatch, way: Callable[[LocalPath], object]) -> None:
    """Let way(file) happen between the end of the writing and the file's arrival under its name."""
    honest = LocalPath.written

    @contextmanager
    def written(place: LocalPath) -> Iterator[Path]:
        with honest(place) as part:
            yield part
            way(place)

    monkeypatch.setattr(LocalPath, "written", written)


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what has arrived. A file arrives when somebody waits for it, and not before."""
    arrived: list[str] = []
    gate, honest = Event(), Future.result

    def way(file: LocalPath) -> None:
        assert gate.wait(60), "nobody waits for it"
        arrived.append(file.name)

    def result(future: Future, timeout: float | None = None) -> Any:
        gate.set()
        return honest(future, timeout)

    on_its_way(monkeypatch, way)
    monkeypatch.setattr(Future, "result", result)
    return arrived


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.name != "lock")


def resumed_step(folder: Path, config: TrainConfig = CONFIG) -> int | None:
    with Checkpoints(folder, config) as saves:
        return saves.resume().get("step")


def test_the_newest_is_resumed_and_the_one_before_is_kept(saves: Checkpoints, tmp_path: Path):
    assert names(tmp_path) == ["step-000000008.pt", "step-000000012.pt"]
    found = saves.resume()
    assert found["step"] == 12
    assert torch.equal(found["trainer"]["network"]["weight"], torch.full((64, 64), 12.0))


def test_nothing_is_resumed_from_an_empty_or_missing_folder_or_from_none(tmp_path: Path):
    assert resumed_step(tmp_path) is None
    assert resumed_step(tmp_path / "missing") is None
    assert Checkpoints(None, CONFIG).resume() == {}


def test_a_finished_run_keeps_weights_and_reports_alone(saves: Checkpoints, tmp_path: Path):
    reports = [{"epoch": 1.0, "val/probe_top1": 0.25}, {"epoch": 2.0, "test/knn_top1": 0.5}]
    saves.finish({"weight": torch.ones(2)}, reports)
    assert names(tmp_path) == ["final.pt"]
    assert saves.resume()["reports"] == reports


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def damaged(file: Path) -> None:
    """One bit in the middle of the weights."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def executing(file: Path) -> None:
    """A pickle that would create a file."""

    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(file.parent / "executed"),)

    torch.save(Payload(), file)


def somebody_elses(file: Path) -> None:
    torch.save({"model": torch.zeros(2)}, file)


def of_another_format(file: Path) -> None:
    content = torch.load(file, weights_only=True)
    torch.save(content | {"format": 0}, file)


def of_another_cell(file: Path) -> None:
    content = torch.load(file, weights_only=True)
    torch.save(content | {"cell_key": "0" * 16, "config": content["config"] | {"seed": 7}}, file)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (truncated, "cannot be read"),
        (emptied, "cannot be read"),
        (damaged, "cannot be read"),
        (executing, "cannot be read"),
        (somebody_elses, "is none of ours"),
        (of_another_format, "has format 0, this version reads 2"),
        (of_another_cell, "is of another cell, 0000000000000000 (it differs in seed)"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_named_and_the_one_before_is_used(
    harm: Any, reason: str, saves: Checkpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    harm(tmp_path / "step-000000012.pt")
    with caplog.at_level(logging.WARNING):
        assert saves.resume()["step"] == 8
    (message,) = caplog.messages
    assert message.startswith(f"checkpoint {tmp_path / 'step-000000012.pt'} {reason}")
    assert "\n" not in message
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("files", "keep", "saved", "deleted"),
    [
        ("", 2, "", ""),
        ("1", 2, "", ""),
        ("1 2 3 4", 2, "", "1 2"),
        ("1 2 3b 4", 2, "", "1 3"),  # a bad file is no reserve
        ("1b 2b", 2, "", "1 2"),
        ("1f 2 3f 4f 5", 2, "", ""),  # another run's counts for nothing and stays
        ("1f 2 3 4 5f", 1, "", "2 3"),
        ("1 2 3 4b 5f 6", 2, "3", "1"),  # what comes after the saved file stays
        ("1 2b 3f 4", 0, "", "1 2 4"),  # a run that is over keeps none
    ],
)
def test_files_to_delete(files: str, keep: int, saved: str, deleted: str):
    """Files by step; b: bad, f: another run's."""
    kinds = {"b": CheckpointError, "f": AnotherCellError}
    refused = {f"step-{file[0]}.pt": kinds[file[1]] for file in files.split() if file[1:]}
    names = ["final.pt", "lock", *(f"step-{file[0]}.pt" for file in files.split()), "step-0.4711.part"]
    found = files_to_delete(names, refused, keep=keep, saved=saved and f"step-{saved}.pt")
    assert sorted(found) == [f"step-{step}.pt" for step in deleted.split()]


@functools.cache
def contents() -> dict[str, bytes]:
    """A bad file, and one of another run."""
    with tempfile.TemporaryDirectory() as folder:
        with Checkpoints(Path(folder), dataclasses.replace(CONFIG, seed=1)) as saves:
            saves.save(1, state(1), [])
        foreign = (Path(folder) / "step-000000001.pt").read_bytes()
    return {"bad": foreign[:-100], "foreign": foreign}


class KilledAndHarmed(RuleBasedStateMachine):
    """Runs of one cell that are killed or cleared, and files that are harmed or put there between them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.files: dict[int, str] = {}  # the model: good, bad or foreign by step

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def of_kind(self, kind: str) -> list[int]:
        return sorted(step for step, found in self.files.items() if found == kind)

    @rule(
        harms=st.lists(st.tuples(st.integers(-1, 4), st.sampled_from(["bad", "foreign", "half"])), max_size=3),
        count=st.integers(0, 3),
        stride=st.integers(1, 3),
        cleared=st.sampled_from([False, False, False, True]),
    )
    def train(self, harms: list[tuple[int, str]], count: int, stride: int, cleared: bool) -> None:
        """One run, after files near the newest good one have been harmed or put there."""
        for offset, kind in harms:
            self.harm(max(1, max(self.of_kind("good"), default=0) + offset), kind)
        newest = max(self.of_kind("good"), default=0)
        with Checkpoints(self.folder, CONFIG) as saves:
            if self.of_kind("foreign") and not newest:
                with pytest.raises(ConfigError, match=r"is of another cell, .* \(it differs in seed\); choose another"):
                    saves.resume()
                assert names(self.folder) == self.expected()
                for step in self.of_kind("foreign"):  # the user moves them
                    (self.folder / f"step-{step:09d}.pt").unlink()
                    del self.files[step]
            else:
                assert saves.resume().get("step", 0) == newest
                steps = range(newest + stride, newest + stride * count + 1, stride)
                for step in steps:
                    saves.save(step, state(step), [])
                if cleared:
                    saves.clear()
                self.trained(newest, steps, cleared)
        assert names(self.folder) == self.expected()

    def harm(self, step: int, kind: str) -> None:
        if kind == "half":
            (self.folder / f"step-{step:09d}.host-4711.part").write_bytes(b"half")
        else:
            (self.folder / f"step-{step:09d}.pt").write_bytes(contents()[kind])
            self.files[step] = kind

    def trained(self, newest: int, steps: range, cleared: bool) -> None:
        """What is older than the resumed file was not read, and is taken for this run's."""
        refused = {step: kind for step, kind in self.files.items() if step > newest and step not in steps}
        own = {step: kind for step, kind in self.files.items() if step <= newest} | dict.fromkeys(steps, "good")
        if cleared:
            self.files = {step: kind for step, kind in refused.items() if kind == "foreign"}
        elif steps:
            stay = {step: kind for step, kind in refused.items() if kind == "foreign" or step > steps[-1]}
            self.files = stay | {step: own[step] for step in sorted(own)[-2:]}

    def expected(self) -> list[str]:
        return [f"step-{step:09d}.pt" for step in sorted(self.files)]


KilledAndHarmed.TestCase.settings = settings(max_examples=40, stateful_step_count=8, derandomize=True, deadline=None)
TestKilledAndHarmed = KilledAndHarmed.TestCase


@pytest.mark.parametrize("finished", [False, True])
def test_a_folder_of_another_cell_is_refused(finished: bool, saves: Checkpoints, tmp_path: Path):
    if finished:
        saves.finish({"weight": torch.ones(2)}, [{"epoch": 3.0}])
    before = names(tmp_path)
    with pytest.raises(ConfigError, match=r"is of another cell, .* \(it differs in seed\); choose another folder$"):
        resumed_step(tmp_path, dataclasses.replace(CONFIG, seed=1))
    assert names(tmp_path) == before


def test_a_state_of_other_code_is_a_mistake_in_one_line():
    with pytest.raises(ConfigError, match=r"^the checkpoint does not fit this version of the code \(RuntimeError: "):
        restore(torch.nn.Linear(2, 3).load_state_dict, torch.nn.Linear(3, 3).state_dict())


@pytest.mark.usefixtures("saves")
def test_a_data_set_that_has_moved_is_the_same_cell(tmp_path: Path):
    assert resumed_step(tmp_path, dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, path="/b"))) == 12


def test_a_full_disk_costs_the_checkpoint_and_nothing_else(
    saves: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(_: object, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", full)
    saves.save(16, state(16), [])
    assert names(tmp_path) == ["step-000000008.pt", "step-000000012.pt"]
    assert "No space left on device" in caplog.text
    assert saves.resume()["step"] == 12


def test_checkpoints_fall_due_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = 1000.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    with Checkpoints(tmp_path, CONFIG) as saves:
        assert not saves.due
        now += checkpoints.INTERVAL_S + 1
        assert saves.due
        saves.save(1, state(1), [])
        assert not saves.due
    assert not Checkpoints(None, CONFIG).due


def test_the_next_step_does_not_wait_for_a_file_to_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """That of the first epoch arrives once the second one trains."""
    next_epoch, whole = Event(), Trainer.train_step

    def step(trainer: Trainer) -> None:
        if trainer.step == trainer.steps_per_epoch:
            next_epoch.set()
        whole(trainer)

    monkeypatch.setattr(Trainer, "train_step", step)
    found: list[tuple[str, bool]] = []
    on_its_way(monkeypatch, lambda file: found.append((file.name, next_epoch.wait(60))))
    config = dataclasses.replace(DIGITS, epochs=2, global_batch=600, probe=ProbeConfig(protocols="knn"))
    assert train(config, checkpoints=tmp_path).status == "finished"
    assert found == [("step-000000002.pt", True), ("final.pt", True)]


def test_the_next_file_waits_for_the_one_before(tmp_path: Path, arrived: list[str], monkeypatch: pytest.MonkeyPatch):
    honest = torch.save

    def serialise(content: dict[str, Any], file: Any) -> None:
        arrived.append(f"and {content['step']} is written")
        honest(content, file)

    monkeypatch.setattr(checkpoints.torch, "save", serialise)
    with Checkpoints(tmp_path, CONFIG) as saves:
        saves.save(4, state(4), [])
        assert arrived == ["and 4 is written"]
        saves.save(8, state(8), [])
    assert arrived == ["and 4 is written", "step-000000004.pt", "and 8 is written", "step-000000008.pt"]


def test_a_state_is_what_it_was_though_it_arrives_later(tmp_path: Path, arrived: list[str]):
    content = state(4)
    with Checkpoints(tmp_path, CONFIG) as saves:
        saves.save(4, content, [])
        content["network"]["weight"].zero_()
        assert arrived == []
    with Checkpoints(tmp_path, CONFIG) as saves:
        assert torch.equal(saves.resume()["trainer"]["network"]["weight"], state(4)["network"]["weight"])


def test_a_file_that_does_not_arrive_costs_neither_of_the_two_before(
    saves: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def away(_: LocalPath) -> None:
        raise OSError("the network is down")

    with monkeypatch.context() as patch:
        on_its_way(patch, away)
        saves.save(16, state(16), [])
        assert not saves.settle()
        assert names(tmp_path) == ["step-000000008.pt", "step-000000012.pt"]
        assert "16.pt could not be written (the network is down); training goes on without it" in caplog.text
        saves.finish({"weight": torch.ones(2)}, [])
    assert names(tmp_path) == ["step-000000008.pt", "step-000000012.pt"]
    (error,) = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert error == f"the run is finished without its weights: {tmp_path}/final.pt is not there"
    saves.save(20, state(20), [])
    saves.settle()
    assert names(tmp_path) == ["step-000000012.pt", "step-000000020.pt"]


def test_a_mistake_on_the_way_is_not_taken_for_the_storages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def wrong(_: LocalPath) -> None:
        raise TypeError("a mistake of ours")

    def trained() -> None:
        with Checkpoints(tmp_path, CONFIG) as saves:
            saves.resume()
            saves.save(4, state(4), [])

    on_its_way(monkeypatch, wrong)
    with pytest.raises(TypeError, match="a mistake of ours"):
        trained()
    assert resumed_step(tmp_path) is None, "the folder is free"


def test_a_run_that_is_over_leaves_nothing_though_a_file_was_on_its_way(tmp_path: Path, arrived: list[str]):
    with Checkpoints(tmp_path, CONFIG) as saves:
        saves.save(4, state(4), [])
        saves.clear()
    assert arrived == ["step-000000004.pt"]
    assert names(tmp_path) == []


def test_what_was_trained_while_a_file_was_on_its_way_is_not_told_as_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now = 1000.0

    def slow(_: LocalPath) -> None:
        nonlocal now
        now += 30.0

    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    on_its_way(monkeypatch, slow)
    ages: list[float] = []
    with Checkpoints(tmp_path, CONFIG, saved=ages.append) as saves:
        saves.save(4, state(4), [])
        saves.save(8, state(8), [])
    assert ages == [30.0, 30.0]


class Leaving:
    """A machine that is about to be taken away."""

    def __init__(self) -> None:
        self.ages: list[float] = []

    def saved(self, age_s: float) -> None:
        self.ages.append(age_s)

    def leaving(self) -> bool:
        return True


def test_a_run_whose_machine_leaves_ends_when_its_checkpoint_has_arrived(tmp_path: Path, arrived: list[str]):
    host = Leaving()
    assert train(DIGITS, checkpoints=tmp_path, host=host).status == "preempted"
    assert (arrived, names(tmp_path)) == (["step-000000001.pt"], ["step-000000001.pt"])
    assert len(host.ages) == 1


def test_a_folder_in_use_is_waited_for_and_then_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "WAIT_S", 0.3)
    with Checkpoints(tmp_path, CONFIG) as first:
        first.resume()
        with pytest.raises(StorageError, match=r"^checkpoints .* are being written by another process; wait until"):
            resumed_step(tmp_path)
    assert resumed_step(tmp_path) is None


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path):
    holding = f"""
import sys, time
from pathlib import Path
from jepa_train.checkpoint.checkpoints import Checkpoints
from jepa_train.config import TrainConfig
with Checkpoints(Path({str(tmp_path)!r}), TrainConfig()) as saves:
    saves.resume()
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", holding], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    Timer(0.5, holder.kill).start()
    started = time.monotonic()
    assert resumed_step(tmp_path) is None
    assert 0.4 < time.monotonic() - started < 10
    holder.wait()


def test_a_folder_that_cannot_be_locked_is_used_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(local.fcntl, "flock", unsupported)
    assert resumed_step(tmp_path) is None


def test_reading_a_file_that_is_not_there_names_it(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"^checkpoint .*gone\.pt cannot be read: there is no such file"):
        read_checkpoint(tmp_path / "gone.pt")


@pytest.mark.parametrize(
    "error", [OSError(errno.ESTALE, "Stale file handle"), OSError(errno.EIO, "Input/output error"), MemoryError()]
)
def test_a_disk_that_does_not_answer_is_no_damaged_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Else the run would begin anew, and drop what it cannot read."""
    with Checkpoints(tmp_path, TrainConfig()) as saves:
        saves.save(3, {"x": torch.ones(1)}, [])

    def refuse(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", refuse)
        expected = StorageError if isinstance(error, OSError) else MemoryError
        with pytest.raises(expected), Checkpoints(tmp_path, TrainConfig()) as saves:
            saves.resume()
    with Checkpoints(tmp_path, TrainConfig()) as saves:
        assert saves.resume()["step"] == 3
