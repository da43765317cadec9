"""LanePool: long-lived TorchTrainer worker groups ("lanes") that run the cells of the trials.

A lane costs 12 s of CPU to start and nothing per trial, so the driver starts its lanes once and keeps them over all
sweeps of a command. Trials reach them through the mailbox.
"""

import contextlib
import os
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
import ray.cloudpickle
from ray.exceptions import RayActorError
from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util import remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jepa_train.storage.paths import results_dir
from sweeps.engine.cluster import node_check
from sweeps.engine.cluster.node_check import Expected, problem
from sweeps.engine.cluster.ray_private import controller_callback, is_start_timeout, skip_unused_processes
from sweeps.engine.lanes import mailbox as mailbox_module
from sweeps.engine.lanes import tasks
from sweeps.engine.lanes.mailbox import Mailbox
from sweeps.engine.lanes.worker import LaneConfig, Runner, Witness, nodes_alive, serve, train_cell

STARTS = 3  # attempts of a TorchTrainer at placing a worker group and setting up its process group
CLOSE_S = 10.0  # for workers to end by themselves
KILL_S = 5.0  # for a lane to end whose controller was killed

# By value: a node may have other code, which is what it is looked at for.
ray.cloudpickle.register_pickle_by_value(node_check)
# By value, because importing sweeps.engine brings torch and MLflow: the mailbox's process must start fast.
ray.cloudpickle.register_pickle_by_value(mailbox_module)
ray.cloudpickle.register_pickle_by_value(tasks)


class LanePool:
    """Starts the lanes on entering, without waiting for them, and ends them on leaving.

    Leaving waits for the workers to end, which they do at the next report of a cell that still runs. After CLOSE_S they
    are killed.

    Args:
        num_lanes: cells that run at the same time.
        workers: DDP processes of each lane.
        cpus_per_worker: CPUs (and torch threads) of each worker; a fraction lets workers share a core.
        gpus_per_worker: GPUs of each worker; 0 trains on the CPU.
        storage: where Ray Train keeps its files.
        runner: what trains one cell.
        expected: on a cluster, whose nodes may come and be taken away at any time: what each must have to get a cell.
    """

    mailbox: Any  # actor handle, for trials

    def __init__(
        self,
        *,
        num_lanes: int,
        workers: int,
        cpus_per_worker: float,
        gpus_per_worker: float,
        storage: Path,
        runner: Runner = train_cell,
        expected: Expected | None = None,
    ) -> None:
        self.num_lanes = num_lanes
        self._workers = workers
        self._resources = {"CPU": cpus_per_worker, "GPU": gpus_per_worker}
        self._storage = storage
        self._runner = runner
        self._expected = expected
        self._threads: list[threading.Thread] = []
        self._closing = False

    def __enter__(self) -> Self:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, max_concurrency=10_000, scheduling_strategy=here)(Mailbox)
        self.mailbox = actor.remote(self.num_lanes)  # beside the driver: another node may go, and the sweep with it
        for lane in range(self.num_lanes):
            thread = threading.Thread(target=self._keep, args=(lane,), name=f"lane-{lane}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self.mailbox.close.remote()
        deadline = time.monotonic() + CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for lane, thread in enumerate(self._threads):
            # a thread that speaks to Ray when Ray has been shut down would end this process
            if thread.is_alive() and (controller := ray.get(self.mailbox.controller.remote(lane))) is not None:
                ray.kill(controller)
        for thread in self._threads:
            thread.join(KILL_S)
        ray.kill(self.mailbox)

    def ready(self) -> int:
        """How many lanes have a worker group that takes cells, or had one."""
        return sum(groups > 0 for groups in ray.get(self.mailbox.groups.remote()))

    def refusal(self) -> str:
        """Why a node that came later gets no cells, and with it none of the others; "" where all are fit."""
        return str(ray.get(self.mailbox.refusal.remote()))

    def _keep(self, lane: int) -> None:
        """The lane's thread: a TorchTrainer, and another one where it ended early.

        Not where it had started no group: unless that was for want of machines, which on a cluster may yet come. The
        cell that it had does not wait for them.
        """
        groups, reason, scarce = -1, "", False
        with contextlib.suppress(RayActorError):  # the mailbox is gone, and the sweep with it
            while (so_far := ray.get(self.mailbox.groups.remote())[lane]) > groups or scarce:
                groups, (reason, scarce) = so_far, self._fit(lane)
                if (place := ray.get(self.mailbox.place.remote(lane))) is not None:
                    remove_placement_group(place)  # a controller that was killed leaves its workers' CPUs taken
                if self._closing:
                    return
                if scarce:
                    ray.get(self.mailbox.give_back.remote(lane, nodes_alive()))
            ray.get(self.mailbox.lose_lane.remote(lane, reason, nodes_alive()))

    def _fit(self, lane: int) -> tuple[str, bool]:
        """Why the lane's TorchTrainer ended, and whether no machine came to a cluster."""
        try:
            self._trainer(lane).fit()
        except Exception as error:  # noqa: BLE001 (it reaches the trials, by way of the mailbox)
            lines = [line for line in f"{type(error).__name__}: {error}".splitlines() if line.strip()]
            cause = error.controller_failure if isinstance(error, ControllerError) else error
            scarce = self._expected is not None and is_start_timeout(cause)
            return lines[-1 if lines[0].endswith(":") else 0].strip(), scarce  # Ray's announces what stands at its end
        return "its workers ended", False

    def _trainer(self, lane: int) -> TorchTrainer:
        mailbox, runner, threads = self.mailbox, self._runner, max(1, int(self._resources["CPU"]))
        on_gpu, expected, results = self._resources["GPU"] > 0, self._expected, str(results_dir())

        def work() -> None:
            wrong = problem(expected) if expected is not None else ""
            if wrong:
                ray.get(mailbox.refuse.remote(wrong))
                return
            if expected is not None:
                os.environ.setdefault("JEPA_RESULTS", results)  # where a node's own environment does not say it
            serve(mailbox, lane=lane, runner=runner, threads=threads, watched=expected is not None)

        witness = Witness(mailbox, lane)
        trainer = TorchTrainer(
            work,
            torch_config=LaneConfig(backend="nccl" if on_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=self._workers,
                use_gpu=on_gpu,
                resources_per_worker={name: amount for name, amount in self._resources.items() if amount > 0},
            ),
            run_config=RunConfig(
                name=f"lane-{lane}-{uuid.uuid4().hex[:8]}",
                storage_path=str(self._storage),
                callbacks=[controller_callback(witness.started, witness.failed)],
                # Lost groups are counted per cell, by the mailbox; a group that cannot even start is counted here.
                failure_config=FailureConfig(max_failures=-1, controller_failure_limit=STARTS),
            ),
        )
        return skip_unused_processes(trainer)
