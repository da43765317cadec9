"""One training run: train(config, report). Plain PyTorch; the same code with one process or many."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from jepa_train import distributed
from jepa_train.batch_norm import convert_batch_norm
from jepa_train.checks import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.data import Images
from jepa_train.data.split import load_splits
from jepa_train.evaluate import evaluate, final_evaluation
from jepa_train.metrics import collapse_reason, embedding_std
from jepa_train.models import Output, build_network
from jepa_train.optim import Optimizer, build_optimizer
from jepa_train.randomness import generator
from jepa_train.views import make_views

Report = Callable[[dict[str, float]], bool]
Status = Literal["finished", "diverged", "collapsed", "stopped"]

_FINE: tuple[Status, str] = ("finished", "")


@dataclass(frozen=True)
class Outcome:
    """How a run ended. Divergence and collapse are results, not errors; metrics are those of the last report."""

    status: Status
    reason: str
    metrics: dict[str, float]


def silent(_: dict[str, float]) -> bool:
    """A report that goes nowhere and never asks to stop."""
    return False


def train(config: TrainConfig, *, report: Report = silent) -> Outcome:
    """Train and evaluate one config; every rank of the process group, if there is one, calls this alike.

    Args:
        report: called on rank 0 after every epoch with {"epoch": .., "train/loss": .., "val/probe_top1": .., ...}, the
            last time with the test metrics too; returns True when the run is to stop. With epochs=0 it is called once,
            with the evaluation of the randomly initialised encoder.

    Returns:
        The same outcome on every rank.

    Raises:
        ConfigError: the global batch does not fit the training split or the number of ranks.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    splits = load_splits(config.data)
    share, steps_per_epoch = _share_of_batch(config, len(splits.train.labels))
    network = build_network(config, len(splits.classes)).to(device)
    network.to(memory_format=torch.channels_last)  # convolutions: 1.3 times as fast on a CPU, more on a GPU
    if distributed.world_size() > 1:
        convert_batch_norm(network)
    model = distributed.data_parallel(network)
    optimizer = build_optimizer(network, config, steps_per_epoch)
    images = splits.train.on(device)

    target = {f"target/{name}": value for name, value in config.method.expected().items()}
    for epoch in range(min(1, config.epochs), config.epochs + 1):
        metrics: dict[str, float] = {"epoch": float(epoch)}
        if epoch > 0:
            metrics |= _train_epoch(config, model, optimizer, images, share, steps_per_epoch, epoch)
        verdict = _verdict(metrics, config)
        if verdict == _FINE:
            metrics |= evaluate(network, splits.val, config, prefix="val")
            verdict = _verdict(metrics, config)
        if verdict == _FINE and epoch == config.epochs:
            metrics |= final_evaluation(network, splits, config) | target
            verdict = _verdict(metrics, config)
        stop = distributed.broadcast_flag(distributed.is_main() and report(metrics))
        if verdict != _FINE or epoch == config.epochs:
            return Outcome(*verdict, metrics)
        if stop:
            return Outcome("stopped", f"stopped from outside after epoch {epoch}", metrics)
    raise AssertionError("the last epoch returns")


def training_loss(config: TrainConfig, output: Output, labels: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """What one step minimises: the method's objective plus the cross-entropies of the detached online probes.

    Args:
        labels: (N,), of this rank's images.

    Returns:
        The scalar to call backward on, and the detached terms to report; loss and terms are of the global batch.
    """
    num_views = output.z.shape[0]
    loss, terms = config.method(output.z, num_global=config.views.num_global, step=step, seed=config.seed)
    labels = labels.repeat(num_views)  # (V * N,)
    probes = sum(
        functional.cross_entropy(logits.flatten(0, 1).float(), labels)
        for logits in (output.probe_logits, output.projector_logits)
    )
    return loss + probes, {"loss": loss.detach(), **terms}


def _train_epoch(
    config: TrainConfig,
    model: torch.nn.Module,
    optimizer: Optimizer,
    images: Images,
    share: slice,
    steps: int,
    epoch: int,
) -> dict[str, float]:
    """One pass over the training split: means over its steps of every term, and the throughput of all ranks."""
    started = time.perf_counter()
    device = images.labels.device
    order = torch.randperm(len(images), generator=generator(config.seed, epoch, "order"))
    totals: dict[str, Tensor] = {}
    model.train()
    for index in range(steps):
        step = (epoch - 1) * steps + index
        batch = order[index * config.global_batch :][: config.global_batch][share]
        pixels, labels = images.batch(batch)
        views = make_views(
            pixels,
            config.views,
            seed=config.seed,
            step=step,
            batch=share,
            global_batch=config.global_batch,
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            output = model(views)
        objective, terms = training_loss(config, output, labels, step)
        optimizer.step(objective)
        for name, value in terms.items():  # summed on the device: one synchronisation an epoch
            totals[name] = totals.get(name, torch.zeros((), device=device)) + value
    means = {f"train/{name}": (total / steps).item() for name, total in totals.items()}
    last_z = distributed.gather_rows(output.z.detach().flatten(0, 1))  # (V * global batch, D)
    means["train/embedding_std"] = embedding_std(last_z).item()
    seconds = time.perf_counter() - started
    return means | {"train/lr": optimizer.lr, "train/images_per_s": steps * config.global_batch / seconds}


def _share_of_batch(config: TrainConfig, num_images: int) -> tuple[slice, int]:
    """This rank's part of every global batch, and the steps per epoch; the last, incomplete batch is left out."""
    if config.global_batch > num_images:
        raise ConfigError(
            f"global_batch must not exceed the {num_images} training images of {config.data.name}, "
            f"got {config.global_batch}; lower it"
        )
    return distributed.rank_slice(config.global_batch), num_images // config.global_batch


def _verdict(metrics: dict[str, float], config: TrainConfig) -> tuple[Status, str]:
    """Status and reason so far. Every metric is equal on all ranks, so all come to the same verdict."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            return "diverged", f"{name} is {value} in epoch {metrics['epoch']:.0f}"
    if "train/embedding_std" in metrics:  # val's, in evaluation mode, is small until batch norm's averages have settled
        reason = collapse_reason(metrics["train/embedding_std"], config.method.expected()["std"])
        if reason:
            return "collapsed", f"{reason} in epoch {metrics['epoch']:.0f}"
    return _FINE
