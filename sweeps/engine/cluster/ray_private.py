"""Private hooks into Ray, written for version 2.60. No other module uses a private name of Ray.

Ray Train and Tune, which take seconds to import, are imported inside the functions that need them.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray._private import auto_init_hook, ray_constants, state, worker
from ray._private.utils import read_ray_address

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

logger = logging.getLogger(__name__)


def address_of_this_machine() -> str:
    """host:port of the cluster that `ray start` has begun or joined on this machine; "" if none.

    Hook: read_ray_address. Without it, a launch on a cluster's head needs RAY_ADDRESS=auto.
    """
    return read_ray_address(None) or ""


def never_start_unasked() -> None:
    """Let calls of Ray fail where it is not running.

    Hook: auto_init_hook.enable_auto_connect. Without it, a lane's thread that outlives the session starts another Ray.
    """
    auto_init_hook.enable_auto_connect = False


def silence_raylets() -> None:
    """Send the warnings that raylets push to the driver to the log.

    Hook: replaces worker.print_to_stdstream. Without it, they are printed into the live view: log_to_driver=False does
    not stop them.
    """
    worker.print_to_stdstream = _log


def _log(data: dict[str, Any], ignore_prefix: bool) -> None:  # noqa: ARG001 (Ray's signature)
    logger.debug("%s: %s", data["pid"], "\n".join(data["lines"]))


@contextmanager
def on_loopback(directory: Path) -> Iterator[Mapping[str, str]]:
    """Arguments of ray.init for a Ray that listens on 127.0.0.1 and writes below `directory`.

    Hooks: ray_constants.ENABLE_RAY_CLUSTER, and the private arguments of ray.init. Without the first, Ray replaces
    127.0.0.1 by the machine's address, unless it takes this for a platform that cannot have clusters; then other
    machines reach its ports. Without the second, it writes to /tmp/ray.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield {"_node_ip_address": "127.0.0.1", "_temp_dir": str(directory)}
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def head_age_s() -> float:
    """Seconds since the head of the cluster was started, from the name of its session.

    Hook: worker._global_node. Without it, a launch cannot tell a cluster whose machines are about to come from one
    whose machines failed, and would always wait, or never.
    """
    began = worker._global_node.session_name.split("_")[1:3]
    return time.time() - time.mktime(time.strptime("_".join(began), "%Y-%m-%d_%H-%M-%S"))


def draining_nodes() -> Mapping[str, int]:
    """Deadlines of the nodes that drain, by id. They take no task.

    Hook: state.get_draining_nodes. Without it, a launch asks such a node whether it is fit, and waits for its answer
    in vain.
    """
    return dict(state.state.get_draining_nodes())


def keep_aws_keys_from_trials() -> None:
    """Leave the driver's AWS keys out of what Tune hands to its trials.

    Hook: class_cache.ENV_VARS_TO_PROPAGATE. Without it, Tune puts the keys into each trial's runtime environment,
    which Ray's agent writes into its log. Trials need none: only workers read or write storage.
    """
    from ray.tune.execution import class_cache

    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if "AWS" not in name}


def replace_callbacks(trainer: "TorchTrainer", ours: Any) -> "TorchTrainer":
    """Add a callback to a trainer, and remove two whose processes only Ray Data and trials killed by Tune need.

    Hook: _create_default_callbacks. Without it, each lane takes 3 s of CPU more to start, and the added callback must
    be picklable: Ray Train sends those of a RunConfig to the workers.
    """
    unused = ("DatasetsCallback", "PlacementGroupCleanerCallback")
    default = trainer._create_default_callbacks
    trainer._create_default_callbacks = lambda: [ours, *(one for one in default() if type(one).__name__ not in unused)]
    return trainer


def run_controller_here(
    trainer: "TorchTrainer", place: Callable[[Callable[[], Any]], Any], *, on_cluster: bool
) -> "TorchTrainer":
    """Let a trainer's controller run in the thread that calls fit, instead of in a process that imports torch.

    Hooks: _initialize_and_run_controller, TrainController, WorkerGroup._create_placement_group,
    RuntimeContext.current_actor (a handle that only checkpoints of Ray Train use), and on a Ray of this machine
    get_env_vars_to_propagate and the scaling policy's requests to an autoscaler. Without the first, each lane takes
    0.4 GB on the head and 4 s of CPU more to start; without the last two, none of the processes that Ray has started
    in advance can be used.

    Args:
        place: called with the function that makes a worker group's placement group; returns its result, or ends the
            thread where no worker group shall be started any more.
        on_cluster: nodes may come, and do not inherit this process's environment.
    """
    from ray.train.v2._internal.constants import get_env_vars_to_propagate
    from ray.train.v2._internal.execution.controller import TrainController
    from ray.train.v2._internal.execution.worker_group import worker_group

    class Placed(worker_group.WorkerGroup):
        def _create_placement_group(self, *context: Any) -> Any:
            make = super()._create_placement_group
            return place(lambda: make(*context))

    class Controller(TrainController):
        worker_group_cls = Placed

    def run(*, scaling_policy: Any, **arguments: Any) -> Any:
        if not on_cluster:
            scaling_policy.after_controller_start = lambda train_run_context: None  # noqa: ARG005
            scaling_policy._maybe_send_resource_request = lambda: None
        controller = Controller(scaling_policy=scaling_policy, **arguments)
        asyncio.run(controller.run())
        return controller.get_result()

    ray.runtime_context.RuntimeContext.current_actor = property(lambda _: None)
    worker_group.get_env_vars_to_propagate = get_env_vars_to_propagate if on_cluster else dict
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
    trainer._initialize_and_run_controller = run
    return trainer


def controller_callback(on_check: Callable[[Mapping[int, Exception]], None], *, watched: bool) -> Any:
    """Callback of a trainer. It runs in the thread of Ray Train's controller.

    Hooks: WorkerGroupCallback and mark_preempt. Without them, a cell whose worker group was lost has no reason for it,
    and each lane has a process of 0.11 GB that looks for preemption notices.

    Args:
        on_check: called after each check of the workers, with the exception of each rank that raised; if there are any,
            the worker group is about to be replaced.
        watched: nodes may be taken away with notice, which the ranks then find with get_preemption_info.
    """
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback
    from ray.train.v2.api.preemption import PreemptionInfo

    class Callback(WorkerGroupCallback):
        def after_worker_group_start(self, worker_group: Any) -> None:
            self.workers = worker_group.get_workers()
            self.noticed: dict[str, int] = {}

        def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
            on_check(worker_group_status.errors)
            if watched and not worker_group_status.errors:
                self._watch()

        def _watch(self) -> None:
            ranks: dict[str, list[int]] = {}
            for one in self.workers:
                ranks.setdefault(one.metadata.node_id, []).append(one.distributed_context.world_rank)
            leaving = {node: deadline for node, deadline in draining_nodes().items() if node in ranks}
            if leaving and leaving != self.noticed:
                self.noticed = leaving
                deadline_ms = min(filter(None, leaving.values()), default=None)  # 0 where it is unknown
                info = PreemptionInfo(deadline_ms, {node: sorted(ranks[node]) for node in leaving})
                for one in self.workers:
                    one.actor.mark_preempt.remote(info)

    return Callback()


def is_start_timeout(error: BaseException) -> bool:
    """True if Ray Train gave up because no machine came for its workers in time.

    Hook: WorkerGroupStartupTimeoutError. Without it, a lane ends for good where an autoscaler is slow.
    """
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    return isinstance(error, WorkerGroupStartupTimeoutError)
