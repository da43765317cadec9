"""LanePool: long-lived TorchTrainer worker groups ("lanes") that run the cells of the trials.

A lane costs 8 s of CPU to start and nothing per trial, so the driver starts its lanes once and keeps them over all
sweeps of a command. Trials reach them through the mailbox.
"""

import contextlib
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RaySystemError
from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util import remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jepa_train.storage.paths import results_dir
from sweeps.engine.cluster.node_check import Expected, problem
from sweeps.engine.cluster.ray_private import (
    controller_callback,
    is_start_timeout,
    replace_callbacks,
    run_controller_here,
)
from sweeps.engine.lanes.mailbox import Mailbox
from sweeps.engine.lanes.worker import LaneConfig, Runner, failure_of, nodes_alive, serve, train_cell

STARTS = 3  # attempts of a TorchTrainer at placing a worker group and setting up its process group
CLOSE_S = 10.0  # for workers to end by themselves
KILL_S = 5.0  # for a lane to end whose workers were killed


@dataclass(kw_only=True)
class LanePool:
    """Starts the lanes on entering, without waiting for them, and ends them on leaving.

    Leaving waits for the workers to end, which they do at the next report of a cell that still runs. After CLOSE_S they
    are killed.

    Args:
        num_lanes: cells that run at the same time.
        workers: DDP processes of each lane.
        cpus_per_worker: CPUs (and torch threads) of each worker; a fraction lets workers share a core.
        gpus_per_worker: GPUs of each worker; 0 trains on the CPU.
        storage: folder of Ray Train's files.
        runner: trains one cell.
        expected: requirements of a node, on a cluster, whose nodes may come and be taken away at any time.
    """

    num_lanes: int
    workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    storage: Path
    runner: Runner = train_cell
    expected: Expected | None = None
    mailbox: Any = field(init=False)  # actor handle, for trials
    _threads: list[threading.Thread] = field(init=False, default_factory=list)
    _placements: dict[int, Any] = field(init=False, default_factory=dict)  # the latest placement group of each lane
    _closing: bool = field(init=False, default=False)
    _killed: bool = field(init=False, default=False)

    def __enter__(self) -> Self:
        # beside the driver: the loss of another node must not end the sweep
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, max_concurrency=10_000, scheduling_strategy=here)(Mailbox)
        self.mailbox = actor.remote(self.num_lanes)
        try:
            for lane in range(self.num_lanes):
                thread = threading.Thread(target=self._keep, args=(lane,), name=f"lane-{lane}", daemon=True)
                self._threads.append(thread)
                thread.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self.mailbox.close.remote()
        deadline = time.monotonic() + CLOSE_S
        started = [thread for thread in self._threads if thread.ident]
        for thread in started:
            thread.join(max(0.0, deadline - time.monotonic()))
        # A thread that calls Ray after ray.shutdown would end this process.
        if any(thread.is_alive() for thread in started):
            self._kill()
        for thread in started:
            thread.join(KILL_S)
        ray.kill(self.mailbox)

    def _kill(self) -> None:
        """Kill the workers, also those that are about to start."""
        self._killed = True
        for placement in list(self._placements.values()):
            remove_placement_group(placement)

    def refusal(self) -> str:
        """Why a node that came later is not fit, so that no more cells are given out; "" where all are fit."""
        return str(ray.get(self.mailbox.refusal.remote()))

    def _keep(self, lane: int) -> None:
        """Run the lane: a TorchTrainer, and another one where it ended early after it had started a group.

        On a cluster one that found no machine is tried again as well; the lane's cell is requeued meanwhile.
        """
        groups, reason, scarce = -1, "", False
        # the mailbox is gone, or Ray, and the sweep with it; or the lane is to end
        with contextlib.suppress(RayActorError, RaySystemError, SystemExit):
            while (now := ray.get(self.mailbox.groups.remote())[lane]) > groups or scarce:
                groups, (reason, scarce) = now, self._fit(lane)
                if lane in self._placements:
                    remove_placement_group(self._placements[lane])  # a controller that failed may leave CPUs taken
                if self._closing:
                    return
                if scarce:
                    ray.get(self.mailbox.release.remote(lane, nodes_alive()))
            ray.get(self.mailbox.release.remote(lane, nodes_alive(), reason))

    def _fit(self, lane: int) -> tuple[str, bool]:
        """Why the lane's TorchTrainer ended, and True if no machine came to a cluster."""
        try:
            self._trainer(lane).fit()
        except Exception as error:  # noqa: BLE001 (it reaches the trials, by way of the mailbox)
            cause = error.controller_failure if isinstance(error, ControllerError) else error
            line = f"{type(cause).__name__}: {cause}".splitlines()[0]
            return line, self.expected is not None and is_start_timeout(cause)
        return "its workers ended", False

    def _trainer(self, lane: int) -> TorchTrainer:
        mailbox, runner, threads = self.mailbox, self.runner, max(1, int(self.cpus_per_worker))
        on_gpu, expected, results = self.gpus_per_worker > 0, self.expected, str(results_dir())
        on_cluster = expected is not None
        resources = {"CPU": self.cpus_per_worker} | ({"GPU": self.gpus_per_worker} if on_gpu else {})

        def work() -> None:
            if expected is not None:
                if reason := problem(expected):
                    ray.get(mailbox.refuse.remote(reason))
                    return
                os.environ.setdefault("JEPA_RESULTS", results)  # where the node's own environment does not set it
            serve(mailbox, lane=lane, runner=runner, threads=threads, watched=on_cluster)

        def on_check(errors: Mapping[int, Exception]) -> None:
            if self._killed:  # and some worker cannot be reached
                sys.exit()  # ends this thread
            if not errors:
                return
            with contextlib.suppress(RayActorError):  # the mailbox is gone, and the sweep with it
                ray.get(mailbox.fail.remote(lane, *failure_of(errors)))

        trainer = TorchTrainer(
            work,
            torch_config=LaneConfig(backend="nccl" if on_gpu else "gloo"),
            scaling_config=ScalingConfig(num_workers=self.workers, use_gpu=on_gpu, resources_per_worker=resources),
            run_config=RunConfig(
                name=f"lane-{lane}-{uuid.uuid4().hex[:8]}",
                storage_path=str(self.storage),
                # The mailbox counts lost groups per cell; this counts groups that cannot even start.
                failure_config=FailureConfig(max_failures=-1, controller_failure_limit=STARTS),
            ),
        )
        trainer = replace_callbacks(trainer, controller_callback(on_check, watched=on_cluster))
        return run_controller_here(trainer, partial(self._place, lane), on_cluster=on_cluster)

    def _place(self, lane: int, make: Callable[[], Any]) -> Any:
        if self._closing:
            sys.exit()  # ends this thread
        handle = make()
        self._placements[lane] = handle.placement_group
        return handle
