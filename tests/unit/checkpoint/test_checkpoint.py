"""Checkpoint files: exact state, retention, refusal of files that cannot be trusted, storage that fails.

Run: python -m pytest tests/unit/checkpoint/test_checkpoint.py
"""

import dataclasses
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from jepa_train.base.errors import ConfigError
from jepa_train.checkpoint import checkpoints
from jepa_train.checkpoint.checkpoints import Checkpoints, restore
from jepa_train.config import TrainConfig
from jepa_train.storage.storage import StorageError, StoragePath

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


def before_each_write(monkeypatch: pytest.MonkeyPatch, act: Callable[[StoragePath], object]) -> None:
    """Call act(file) in the thread, before it writes a file."""
    write = StoragePath.write_bytes

    def write_bytes(file: StoragePath, content: bytes) -> None:
        act(file)
        write(file, content)

    monkeypatch.setattr(StoragePath, "write_bytes", write_bytes)


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


def test_a_new_run_resumes_nothing(tmp_path: Path):
    (tmp_path / "step-000000004.pt.4711.part").write_bytes(b"half")
    assert resumed_step(tmp_path) is None
    assert resumed_step(tmp_path / "missing") is None
    assert Checkpoints(None, CONFIG).resume() == {}


def test_a_finished_run_keeps_weights_and_reports_alone(saves: Checkpoints, tmp_path: Path):
    reports = [{"epoch": 1.0, "val/probe_top1": 0.25}, {"epoch": 2.0, "test/knn_top1": 0.5}]
    saves.finish({"weight": torch.ones(2)}, reports)
    assert names(tmp_path) == ["final.pt"]
    assert saves.resume()["reports"] == reports


def test_a_state_of_other_code_is_one_line():
    with pytest.raises(ConfigError, match=r"^the checkpoint does not fit this version of the code \(RuntimeError: "):
        restore(torch.nn.Linear(2, 3).load_state_dict, torch.nn.Linear(3, 3).state_dict())


def test_training_goes_on_while_a_state_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A state that changes meanwhile is saved as it was; the next file, and the end of the block, wait."""
    gate, written = Event(), []
    before_each_write(monkeypatch, lambda file: (gate.wait(60), written.append(file.name)))
    content = state(4)
    with Checkpoints(tmp_path, CONFIG) as saves:
        saves.save(4, content, [])
        content["network"]["weight"].zero_()
        assert written == []
        gate.set()
        saves.save(8, content, [])
        assert written[0] == "step-000000004.pt"
    assert written == ["step-000000004.pt", "step-000000008.pt"]
    (tmp_path / written[1]).unlink()
    with Checkpoints(tmp_path, CONFIG) as saves:
        assert torch.equal(saves.resume()["trainer"]["network"]["weight"], state(4)["network"]["weight"])
        saves.save(8, content, [])
        saves.clear()
    assert names(tmp_path) == []


def test_an_error_of_the_code_while_writing_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before_each_write(monkeypatch, lambda _: 1 / 0)
    saves = Checkpoints(tmp_path, CONFIG)
    saves.save(4, state(4), [])
    with pytest.raises(ZeroDivisionError), saves:
        saves.resume()
    assert resumed_step(tmp_path) is None, "the folder is free"


def test_a_folder_in_use_is_waited_for_and_then_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "WAIT_S", 0.1)
    with Checkpoints(tmp_path, CONFIG) as first:
        first.resume()
        with pytest.raises(StorageError, match="is being written by another process; wait until"):
            resumed_step(tmp_path)
    assert resumed_step(tmp_path) is None


def flipped(content: bytes) -> bytes:
    """One bit in the middle of the weights."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def serialised(content: object) -> bytes:
    torch.save(content, buffer := io.BytesIO())
    return buffer.getvalue()


class Payload:
    """Creates a folder when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda content: content[:-100], "cannot be read"),
        (flipped, "cannot be read"),
        (lambda _: serialised(Payload()), "cannot be read"),
        (lambda _: serialised({"model": torch.zeros(2)}), "is none of ours"),
        (lambda _: serialised({"format": 0, "cell_key": "", "config": ""}), "has format 0, this version reads 2"),
    ],
)
def test_a_bad_file_is_named_and_the_one_before_is_used_and_kept(
    harm: Callable[[bytes], bytes], reason: str, saves: Checkpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    file = tmp_path / "step-000000012.pt"
    file.write_bytes(harm(file.read_bytes()))
    assert saves.resume()["step"] == 8
    (message,) = caplog.messages
    assert message.startswith(f"checkpoint {file} {reason}")
    assert "\n" not in message
    assert not Path("executed").exists()
    saves.save(10, state(10), [])
    saves.settle()
    assert names(tmp_path) == ["step-000000008.pt", "step-000000010.pt"]


@pytest.mark.usefixtures("saves")
def test_a_folder_of_another_cell_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"is of another cell, .* \(it differs in seed\); choose another folder$"):
        resumed_step(tmp_path, dataclasses.replace(CONFIG, seed=1))
    moved = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, path="/elsewhere"))
    assert resumed_step(tmp_path, moved) == 12


def test_a_file_that_cannot_be_written_costs_neither_of_the_two_before(
    saves: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(_: StoragePath) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        before_each_write(patch, full)
        saves.save(16, state(16), [])
        assert not saves.settle()
        saves.finish({"weight": torch.ones(2)}, [])
    assert "could not be written: No space left on device; training goes on without it" in caplog.text
    assert f"the run is finished without its weights: {tmp_path}/final.pt is not there" in caplog.text
    assert names(tmp_path) == ["step-000000008.pt", "step-000000012.pt"]


def test_snapshots_stay_and_no_checkpoint_is_ahead_of_one(
    saves: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The first attempt to write one fails: the checkpoint of its step is left out, and the next one writes both."""
    refused = []

    def refuse_once(place: StoragePath) -> None:
        if place.name.startswith("epoch") and not refused:
            refused.append(place.name)
            raise OSError("No space left on device")

    before_each_write(monkeypatch, refuse_once)
    reports = [{"epoch": 10.0}]
    saves.snapshot(10, {"encoder.weight": torch.ones(2)}, reports)
    saves.save(16, state(16), reports)
    assert not saves.settle()
    assert names(tmp_path) == ["step-000000008.pt", "step-000000012.pt"]
    saves.save(20, state(20), reports)
    assert saves.settle()
    assert names(tmp_path) == ["epoch-0010.pt", "step-000000012.pt", "step-000000020.pt"]
    saves.clear()
    assert names(tmp_path) == ["epoch-0010.pt"]
    assert saves.resume() == {}
    content = torch.load(tmp_path / "epoch-0010.pt", weights_only=True)
    assert torch.equal(content["network"]["encoder.weight"], torch.ones(2))
    assert content["reports"] == reports
