"""Bytes of a checkpoint by preset, without data: in flight, and the final one; how fast a disk takes it; what waits."""

import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.head_lanes import Measured
from jepa_train.checkpoint.checkpoints import Checkpoints
from jepa_train.config import TrainConfig
from jepa_train.config.presets import PRESETS
from jepa_train.model.network import Network, build_network
from jepa_train.model.optim import build_optimizer

_CLASSES = 100


def checkpoint_rows(names: tuple[str, ...], *, times: int) -> Iterator[Measured]:
    """By preset, and of the first one a real file that is written so many times."""
    for name in names:
        network = build_network(PRESETS[name], _CLASSES)
        weights = _bytes(network)
        copies = weights * (1 if PRESETS[name].model.swa_decay else 0)  # the averaged network
        moments = 8 * sum(each.numel() for each in network.parameters())  # AdamW: two in fp32
        at = f"{PRESETS[name].model.encoder} of {name}"
        yield Measured(what="checkpoint in flight", at=at, value=(weights + copies + moments) / 1e6, unit="MB")
        yield Measured(what="final checkpoint", at=at, value=weights / 1e6, unit="MB")
    yield from _written(names[0], times)


def _bytes(network: Network) -> int:
    return sum(each.numel() * each.element_size() for each in network.state_dict().values())


def _written(name: str, times: int) -> Iterator[Measured]:
    """What is computed above, seen on a disk."""
    config = PRESETS[name]
    state = _stepped(config)
    with tempfile.TemporaryDirectory() as folder:
        waits, seconds, size = [], [], 0
        with Checkpoints(Path(folder), config) as saves:
            for step in range(1, times + 1):
                started = time.perf_counter()
                saves.save(step, state, [])
                waits.append(time.perf_counter() - started)
                saves.settle()
                seconds.append(time.perf_counter() - started)
                size = max(file.stat().st_size for file in Path(folder).glob("*.pt"))
    yield Measured(what="checkpoint in flight, the file", at=name, value=size / 1e6, unit="MB")
    rate = size / 1e6 / median(seconds)
    yield Measured(what="writing it to a disk, with fsync", at=name, value=rate, unit="MB/s", n=times)
    yield Measured(what="training waits for it", at=name, value=median(waits), unit="s", n=times)


def _stepped(config: TrainConfig) -> dict[str, Any]:
    """The state after one step, as a trainer would save it."""
    network = build_network(config, _CLASSES)
    optimizer = build_optimizer(network, config, steps_per_epoch=10)
    loss = sum(((each - math.pi) ** 2).sum() for each in network.parameters())
    assert isinstance(loss, torch.Tensor)
    optimizer.step(loss)
    return {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
