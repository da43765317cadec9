"""Price of a plan for display: without a finished cell, from a few training steps in Ray; with dollars on a cluster."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayError
from torch.utils.benchmark import Timer

from jepa_train.base.errors import ConfigError, config_errors, nearest, require, short_repr
from jepa_train.config import TrainConfig
from jepa_train.data.cache import only_cached
from jepa_train.data.splits import load_splits
from jepa_train.evaluation.evaluate import evaluate
from jepa_train.model.weights import random_start
from jepa_train.train.cuda_graph import EAGER_STEPS
from jepa_train.train.trainer import Trainer
from sweeps.engine.cluster.nodes import autoscaling, nodes_to_use
from sweeps.engine.cluster.resources import Request, alive, room, this_machine, workers_on
from sweeps.engine.cluster.session import cluster_address, ray_session
from sweeps.engine.plan.plan import Plan
from sweeps.engine.run.estimate import Estimate, Price, finished_estimates, kind_of_config
from sweeps.engine.spec.cells import num_unread

LIMIT_S = 120.0  # of a measurement, the preparation of the data included
STEPS_S = 3.0  # training time that is measured, after two steps that compile and allocate


def price(plan: Plan, note: Callable[[str], object]) -> Price:
    """The price of a plan, by finished cells of the sweep, else by a measurement of its first cell.

    Raises:
        ConfigError: a trial that cannot be placed; wrong prices in the cluster's file.
    """
    sweep = plan.sweep
    needs_ray = plan.todo and (cluster_address() or torch.cuda.device_count())
    with ray_session() if needs_ray else nullcontext():  # for the nodes and the names of their GPUs
        nodes = nodes_to_use(note) if ray.is_initialized() else this_machine()
        request = Request.of(nodes, workers=sweep.workers, cpus=sweep.cpus_per_worker, gpus=sweep.gpus_per_worker)
        at_once = room(nodes, request)
        estimates = finished_estimates(plan.entries.values(), request)
        if plan.todo and not estimates:
            first = (plan.missing or plan.stand_ins)[0].config
            if num_unread(first.data):
                estimate = Estimate(0.0, "not measured: a launch has to decode the images first")
            else:
                note("no cell has finished yet: a few steps are measured for the price")
                estimate = measured(first, request)
            estimates = {kind_of_config(first): estimate}
        return Price(plan, request, estimates, at_once, rate(autoscaling(), request))


def measured(config: TrainConfig, request: Request) -> Estimate:
    """Estimate from a task with the resources of one worker, in a Ray of its own if none is up; starts no machine."""
    with ray_session():
        if not workers_on(alive(ray.nodes()), request):
            return Estimate(0.0, "not measured: no machine that could run it is up")
        task = ray.remote(num_cpus=request.cpus, num_gpus=request.gpus, max_retries=0)(seconds_per_epoch)
        seconds = task.remote(config, workers=request.workers, threads=request.cpus)
        try:
            return Estimate(ray.get(seconds, timeout=LIMIT_S), "measured")
        except RayError as error:  # also after LIMIT_S
            ray.cancel(seconds, force=True)
            return Estimate(0.0, f"not measured: {failure(error)}")


def failure(error: RayError) -> str:
    """Reason of a failed measurement, in one line; with the kind of an error that was not meant for users."""
    cause = getattr(error, "cause", error)
    if isinstance(cause, GetTimeoutError):
        return f"it took longer than {LIMIT_S:.0f} s"
    text = str(cause) if isinstance(cause, ConfigError) else f"{type(cause).__name__}: {cause}"
    return text.strip().splitlines()[0]


def seconds_per_epoch(config: TrainConfig, *, workers: int = 1, threads: int = 1) -> float:
    """Seconds of an epoch and its evaluation on val, from a few steps.

    This process does the share of one worker. Communication, start-up and the final evaluation are not counted.

    Raises:
        ConfigError: as train; images that have not been decoded on this machine.
    """
    torch.set_num_threads(threads)
    with only_cached():
        splits = load_splits(config.data)
    batch, endless = max(2, config.global_batch // workers), max(config.epochs, 1_000_000)  # also for epochs=0
    trainer = Trainer(random_start(dataclasses.replace(config, global_batch=batch, epochs=endless)), splits)
    # on a GPU the steps after the captured one are replays of it
    before = EAGER_STEPS + 1 if torch.cuda.is_available() else 2
    step_s = _seconds_per_call(trainer.train_step, warm_up=before)
    part = splits.val.take(torch.arange(min(len(splits.val), max(64, int(batch / step_s)))))
    val_s = _seconds_per_call(lambda: evaluate(trainer.evaluated, part, config, prefix="val")) / len(part)
    return len(splits.train) // config.global_batch * step_s + len(splits.val) * val_s / workers


def _seconds_per_call(work: Callable[[], object], *, warm_up: int = 2) -> float:
    seconds = 0.0
    for _ in range(warm_up):
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
    if seconds > STEPS_S:
        return seconds
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=STEPS_S).mean


@config_errors()
def rate(spec: Mapping[str, Any], request: Request) -> float | None:
    """Dollars per device-hour, by `metadata: {prices: {node_type: dollars per hour}}` in the cluster's file.

    A node's price is shared among its GPUs; on a cluster without any, among the workers that its CPUs hold. Of several
    types of node that could hold a worker the dearest counts.

    Raises:
        ConfigError: prices that cannot be read.
    """
    prices = (spec.get("metadata") or {}).get("prices", {})
    types = {name: about.get("resources") or {} for name, about in (spec.get("available_node_types") or {}).items()}
    rule = "metadata.prices in the cluster's file must give dollars per hour by node type, as {gpu_worker: 3.06}"
    require(isinstance(prices, Mapping), f"{rule}, got {short_repr(prices)}")
    for name, dollars in prices.items():
        require(name in types, f"{rule}, got the type {name!r}{nearest(str(name), map(str, types))}")
        require(isinstance(dollars, int | float) and dollars >= 0, f"{rule}, got {short_repr(dollars)} for {name}")
    unit, each = ("GPU", 1) if request.gpus else ("CPU", request.cpus)
    held = {name: node.get(unit, 0) / each for name, node in types.items()}
    if not request.gpus and any(node.get("GPU") for node in types.values()):  # a cluster for GPUs
        return None
    return max((dollars / held[name] for name, dollars in prices.items() if held[name]), default=None)
