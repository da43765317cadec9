"""Ranks resume from the same checkpoint or are refused alike. Two threads stand for two ranks.

Run: python -m pytest tests/unit/checkpoint/test_resume_ranks.py
"""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from jepa_train.base.errors import ConfigError
from jepa_train.checkpoint.checkpoints import Checkpoints
from jepa_train.config import TrainConfig
from jepa_train.distributed import collectives
from jepa_train.storage.storage import StorageError, StoragePath

CONFIG = TrainConfig()
RANK = threading.local()


@pytest.fixture(autouse=True)
def _two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collectives between the two threads; outside of them, those of one process."""
    values, barrier = ["", ""], threading.Barrier(2, timeout=30)

    def gathered(value: str) -> list[str]:
        values[RANK.number] = value
        barrier.wait()
        found = [*values]
        barrier.wait()
        return found

    monkeypatch.setattr(collectives, "is_main", lambda: getattr(RANK, "number", 0) == 0)
    monkeypatch.setattr(collectives, "broadcast_text", lambda text: gathered(text)[0])
    monkeypatch.setattr(collectives, "any_rank", lambda flag: "yes" in gathered("yes" if flag else ""))


def resumed(rank: int, folder: Path, config: TrainConfig) -> str:
    RANK.number = rank
    try:
        with Checkpoints(folder, config) as saves:
            return str(saves.resume()["step"])
    except (ConfigError, StorageError) as error:
        return f"{type(error).__name__}: {error}"


def both(*folders: Path, config: TrainConfig = CONFIG) -> list[str]:
    with ThreadPoolExecutor(2) as ranks:
        return [*ranks.map(resumed, (0, 1), folders, (config, config))]


def test_ranks_resume_alike_or_are_refused_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with Checkpoints(tmp_path, CONFIG) as saves:
        saves.save(7, {"x": torch.ones(1)}, [{"epoch": 1.0}])
    file, read = f"{tmp_path}/step-000000007.pt", StoragePath.read_bytes
    assert both(tmp_path, tmp_path) == ["7", "7"]
    first, second = both(tmp_path, tmp_path, config=dataclasses.replace(CONFIG, seed=1))
    assert first == second
    assert first.startswith(f"ConfigError: checkpoint {file} is of another cell")
    for line in both(tmp_path, tmp_path / "own"):
        assert line.startswith("ConfigError: checkpoints must lie where every worker sees them, got step-000000007.pt")

    def unreachable_for_rank_1(path: StoragePath) -> bytes:
        if RANK.number == 1:
            raise StorageError("the network of this machine is down")
        return read(path)

    monkeypatch.setattr(StoragePath, "read_bytes", unreachable_for_rank_1)
    first, second = both(tmp_path, tmp_path)
    assert first.startswith("StorageError: checkpoints must lie where every worker sees them, got step-000000007.pt")
    assert second == "StorageError: the network of this machine is down"
