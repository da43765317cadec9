"""What a run will take, from a few steps of the real thing: its speed, its evaluations and its memory."""

import dataclasses
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from jepa_train.base.system_metrics import peak_memory_gb
from jepa_train.config import TrainConfig
from jepa_train.config.names import protocol_names
from jepa_train.data import Splits
from jepa_train.data.splits import load_splits
from jepa_train.evaluation.evaluate import evaluate, final_evaluation
from jepa_train.evaluation.finetune import views_seen
from jepa_train.evaluation.protocols import PROTOCOLS
from jepa_train.train.trainer import Trainer

T = TypeVar("T")

WARM_UP = 2  # steps that are not counted: allocators, kernels and caches come to rest
LEAST_STEPS = WARM_UP + 2  # of a measurement, however slow
STEPS, STEPS_S = 100, 3.0  # steps that are counted: so many, or as many as fit in these seconds, but at least one
AGAIN_S = 10.0  # a start that took longer is not measured again
CHUNK = 64  # images of val that are evaluated at least, otherwise those of a second of training; the time is scaled
FINAL_S = 10.0  # the final evaluation is run where its forward passes alone take no longer; else those are its price


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What one run of a config takes, measured."""

    images_per_s: float  # training, of the global batch
    epoch_s: float  # one epoch with its evaluation on val
    once_s: float  # the run's start and its final evaluation
    peak_gb: float  # of this process: what the allocator took of the GPU, or the resident set
    device_gb: float  # the GPU's whole memory; 0 on a CPU


class Bench:
    """Measures one config, in a process of its own."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config

    def images(self) -> int:
        """Training images, once all are ready."""
        return len(load_splits(self._config.data).train)

    def measure(self, *, workers: int = 1, threads: int = 1) -> Speed:
        """Train a few steps, evaluate once, time both.

        With several workers this process does the share of one. What they tell each other is not counted.

        Args:
            workers: processes that share the global batch.
            threads: CPU threads of each.

        Raises:
            ConfigError: what train would raise.
        """
        torch.set_num_threads(threads)
        config, splits = self._config, load_splits(self._config.data)
        share = dataclasses.replace(
            config,
            global_batch=max(2, config.global_batch // workers),
            epochs=max(config.epochs, 1_000_000),  # the schedule outlasts the measurement, also for epochs=0
        )
        trainer, start_s = timed(lambda: started(share, splits))
        if start_s < AGAIN_S:  # without the imports and kernels that a lane pays for once, not for every cell
            del trainer
            _forget()
            trainer, start_s = timed(lambda: started(share, splits))
        step_s = seconds_per_step(trainer)
        images_per_s = config.global_batch / step_s
        names = protocol_names(config.probe.protocols)
        on_frozen = ",".join(name for name in names if name in PROTOCOLS)
        frozen = dataclasses.replace(config, probe=dataclasses.replace(config.probe, protocols=on_frozen))
        val_s, final_s = evaluation_seconds(trainer, splits, frozen, images=max(CHUNK, int(images_per_s)))
        if "finetune" in names:  # it trains for minutes: by its views, which cost what those of a step do
            views = config.views.num_global + config.views.num_local
            final_s += views_seen(splits) / (images_per_s * views * workers)
        on_gpu = trainer.device.type == "cuda"
        return Speed(
            images_per_s=images_per_s,
            epoch_s=len(splits.train) // config.global_batch * step_s + val_s / workers,
            once_s=max(0.0, start_s - WARM_UP * step_s) + final_s,
            peak_gb=torch.cuda.max_memory_reserved() / 1e9 if on_gpu else peak_memory_gb(trainer.device),
            device_gb=torch.cuda.mem_get_info()[1] / 1e9 if on_gpu else 0.0,
        )


def started(config: TrainConfig, splits: Splits) -> Trainer:
    """A trainer after its first steps, which compile and allocate."""
    trainer = Trainer(config, splits)
    for _ in range(WARM_UP):
        trainer.train_step()
    return trainer


def seconds_per_step(trainer: Trainer) -> float:
    """The mean of as many steps as the time allows; waits for the device once, as training does."""
    _, once = timed(trainer.train_step)
    steps = max(1, min(STEPS, int(STEPS_S / once)))

    def work() -> None:
        for _ in range(steps):
            trainer.train_step()

    return timed(work)[1] / steps


def evaluation_seconds(trainer: Trainer, splits: Splits, config: TrainConfig, *, images: int) -> tuple[float, float]:
    """Seconds on val, and of the final evaluation, from so many images of val.

    All in this process: workers share the forward passes but not the protocols.
    """
    part = splits.val.take(torch.arange(min(images, len(splits.val))))
    evaluate(trainer.evaluated, part, config, prefix="val")
    _, seconds = timed(lambda: evaluate(trainer.evaluated, part, config, prefix="val"))
    per_image = seconds / len(part)
    passes = per_image * (len(splits.train) + len(splits.val) + len(splits.test))
    if passes <= FINAL_S:
        _, passes = timed(lambda: final_evaluation(trainer.evaluated, splits, config))
    return per_image * len(splits.val), passes


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What the work returns, and the seconds until the device is through with it."""
    _wait()
    started = time.perf_counter()
    result = work()
    _wait()
    return result, time.perf_counter() - started


def _forget() -> None:
    """Give back what lies about, or it would count as memory of the next trainer."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
