"""One training run: train(config, report). Plain PyTorch; the same code with one process or many."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jepa_train.base.allocator import keep_freed_memory
from jepa_train.base.errors import ConfigError
from jepa_train.base.preemption import Host, NoPreemption, Watch
from jepa_train.checkpoint.checkpoints import Checkpoints, read_finished, restore
from jepa_train.config import TrainConfig
from jepa_train.config.flat import cell_key, parse, unflatten
from jepa_train.data.splits import load_splits
from jepa_train.distributed import collectives
from jepa_train.evaluation.evaluate import evaluate, final_evaluation
from jepa_train.evaluation.metrics import UNSCALED_STD, collapse_reason
from jepa_train.model.device import to_training_device
from jepa_train.model.network import build_network
from jepa_train.model.weights import random_start
from jepa_train.storage.storage import StoragePath
from jepa_train.train.preflight import preflight
from jepa_train.train.trainer import Trainer

Report = Callable[[dict[str, float]], bool | None]  # True stops the run
Status = Literal["finished", "diverged", "collapsed", "stopped", "preempted"]

logger = logging.getLogger(__name__)

CHECK_STEPS = 25  # at most, between two checks of loss and spread, which synchronise with the device
_FINE: tuple[Status, str] = ("finished", "")
_LEAVING: tuple[Status, str] = ("preempted", "a machine of the run is about to be taken away")


@dataclass(frozen=True)
class TrainingResult:
    """Outcome of a run. Divergence and collapse are results, not errors; metrics are those of the last report."""

    status: Status
    reason: str
    metrics: dict[str, float]


def train(
    config: TrainConfig,
    *,
    report: Report = lambda _: False,
    checkpoints: StoragePath | Path | None = None,
    host: Host | None = None,
) -> TrainingResult:
    """Train and evaluate one config. Every rank of the process group, if there is one, calls this.

    With checkpoints, a run that was killed at any step resumes from its last one, and on a CPU ends bit for bit as an
    undisturbed one (except for times). It first repeats its reports up to there, as their receiver may have missed
    some; one more epoch may be reported twice, with equal values. A finished run repeats all its reports and trains
    nothing.

    Args:
        report: called on rank 0 after every epoch with {"epoch": .., "train/loss": .., "val/probe_top1": .., ...}, the
            last time with the test metrics too; returns True to stop the run, None or False to go on. With epochs=0 it
            is called once, with the evaluation of the randomly initialised encoder.
        checkpoints: a folder of this run alone, visible to all ranks; on a disk or in an object store.
        host: checked for a preemption notice every CHECK_STEPS, or every few seconds if these take longer. After a
            notice a checkpoint is written at once, and the run ends as "preempted"; it resumes from that step.

    Returns:
        The same outcome on every rank.

    Raises:
        ConfigError: the global batch does not fit the training split or the number of ranks.
        StorageError: the storage of the checkpoints does not respond at the start.
    """
    host = host or NoPreemption()
    if config.model.weights and not config.model.weights_id:  # two files would be one cell
        config = preflight(config)
    with Checkpoints(checkpoints, config, saved=host.saved) as saves:
        resumed = saves.resume()
        reports: list[dict[str, float]] = resumed.get("reports", [])
        for metrics in reports:
            stop = _reported(report, metrics)
            if stop and metrics["epoch"] < config.epochs:
                return _stopped(metrics)
        if "network" not in resumed:
            return _train(config, report, saves, resumed, reports, Watch(host))
        for key, wanted in (("probe.protocols", config.probe.protocols), ("probe.transfer", config.probe.transfer)):
            if resumed["config"].get(key, "") != wanted:
                logger.warning("this run finished with another %s than %s; evaluate its final.pt for more", key, wanted)
        return TrainingResult(*_FINE, reports[-1])


def _train(
    config: TrainConfig,
    report: Report,
    saves: Checkpoints,
    resumed: dict[str, Any],
    reports: list[dict[str, float]],
    watch: Watch,
) -> TrainingResult:
    """Train the remaining epochs."""
    keep_freed_memory()
    splits = load_splits(config.data)
    saves.norm = splits.train.norm.tolist()
    trainer = Trainer(random_start(config) if resumed else config, splits)
    if resumed:
        restore(trainer.load_state_dict, resumed["trainer"])
        logger.info("going on after step %d of %d", trainer.step, config.epochs * trainer.steps_per_epoch)
    target = {f"target/{name}": value for name, value in config.method.expected().items()}
    first = min(1 + len(reports), config.epochs)
    for epoch in range(first, config.epochs + 1):
        metrics: dict[str, float] = {"epoch": float(epoch)}
        verdict = _FINE
        if epoch > 0:
            verdict = _train_epoch(trainer, saves, reports, metrics, watch)
        if verdict == _LEAVING:
            return TrainingResult(*verdict, metrics)
        if verdict == _FINE:
            if epoch > 0:
                trainer.end_epoch()
            metrics |= evaluate(trainer.evaluated, splits.val, config, prefix="val")
            verdict = _verdict(metrics, trainer)
        if verdict == _FINE and epoch == config.epochs:
            metrics |= final_evaluation(trainer.evaluated, splits, config) | target
            verdict = _verdict(metrics, trainer)
        stop = _reported(report, metrics)
        reports.append(metrics)
        if verdict != _FINE:
            saves.clear()
            return TrainingResult(*verdict, metrics)
        if config.snapshot_epochs and epoch > 0 and epoch % config.snapshot_epochs == 0:
            saves.snapshot(epoch, trainer.evaluated.state_dict(), reports)
        if epoch == config.epochs:
            saves.finish(trainer.evaluated.state_dict(), reports)
            return TrainingResult(*_FINE, metrics)
        saves.save(trainer.step, trainer.state_dict(), reports)
        if stop:
            return _stopped(metrics)
    raise AssertionError("the last epoch returns")


def _reported(report: Report, metrics: dict[str, float]) -> bool:
    """Report on rank 0. Returns, on every rank, True to stop the run."""
    return collectives.broadcast_flag(collectives.is_main() and bool(report(metrics)))


def _stopped(metrics: dict[str, float]) -> TrainingResult:
    return TrainingResult("stopped", f"stopped from outside after epoch {metrics['epoch']:.0f}", metrics)


def evaluate_checkpoint(where: StoragePath | Path, words: Sequence[str] = ()) -> dict[str, float]:
    """Evaluate a finished run by its final.pt, or a snapshot of a run, with other protocols.

    Args:
        where: final.pt, epoch-*.pt, or the folder of final.pt.
        words: assignments such as "probe.protocols=kshot", "probe.transfer=cifar100" or "data.path=DIR"; none may
            change the cell.

    Returns:
        {"epoch": .., "test/shot1_top1": .., ...}: as a run with these protocols reports at its end.

    Raises:
        ConfigError: the file cannot be read, or a word is wrong or would have changed the training.
        StorageError: the storage does not answer.
    """
    _, content = read_finished(where)
    trained = unflatten(content["config"])
    config = unflatten(parse(words, base=trained), base=trained)
    if cell_key(config) != cell_key(trained):
        raise ConfigError(f"a finished run can be evaluated anew, not changed, got {' '.join(words)}; leave that out")
    config = preflight(random_start(config), read=True)
    splits = load_splits(config.data)
    network = build_network(config, len(splits.classes))
    restore(network.load_state_dict, content["network"])
    network = to_training_device(network, config)
    return {"epoch": content["reports"][-1]["epoch"]} | final_evaluation(network, splits, config)


def _train_epoch(
    trainer: Trainer, saves: Checkpoints, reports: list[dict[str, float]], metrics: dict[str, float], watch: Watch
) -> tuple[Status, str]:
    """Train the epoch's remaining steps, possibly none, and fill in the metrics. Ends early if the run has diverged or
    collapsed, or the machine is leaving."""
    looks = max(2, math.ceil(trainer.steps_per_epoch / CHECK_STEPS))
    every = math.ceil(trainer.steps_per_epoch / looks)  # evenly spaced, as collapse takes two narrow checks in a row
    end = int(metrics["epoch"]) * trainer.steps_per_epoch
    while True:
        if trainer.step < end:
            trainer.train_step()
        over = trainer.step == end
        look = over or trainer.steps_into_epoch % every == 0
        if look:
            metrics |= trainer.means()
            watch.pace(metrics["train/images_per_s"] / trainer.config.global_batch)
            verdict = _verdict(metrics, trainer)
            if verdict != _FINE:
                return verdict
        leaving = (look or watch.due(trainer.step)) and watch.leaving(trainer.step)
        if leaving or (look and saves.due):
            saves.save(trainer.step, trainer.state_dict(), reports)
        if leaving or over:
            return _LEAVING if leaving else _FINE


def _verdict(metrics: dict[str, float], trainer: Trainer) -> tuple[Status, str]:
    """Status and reason so far; equal on all ranks, as every metric is."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            return "diverged", f"{name} is {value} in epoch {metrics['epoch']:.0f}"
    # of training: on val, in evaluation mode, it is small until batch norm's averages have settled
    reason = collapse_reason(trainer.spread, trainer.config.method.expected().get("std", UNSCALED_STD))
    return ("collapsed", f"{reason} in epoch {metrics['epoch']:.0f}") if reason else _FINE
