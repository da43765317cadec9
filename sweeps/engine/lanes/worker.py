"""Worker of a lane: runs one cell after another under Ray Train."""

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
import ray.train
import ray.train.collective
import ray.train.torch
import torch
from ray.exceptions import RayActorError
from ray.train.torch import TorchConfig
from ray.util import get_node_ip_address

from jepa_train.base.preemption import Host
from jepa_train.base.security import clean, hidden
from jepa_train.distributed.collectives import broadcast_flag
from jepa_train.storage.storage import StorageError
from sweeps.engine.cluster.network import use_interface_of
from sweeps.engine.lanes.process_state import FreshProcess
from sweeps.engine.lanes.tasks import Claim, WorkerFailure, ending

if TYPE_CHECKING:
    from jepa_train.train.loop import TrainingResult

Flat = Mapping[str, Any]
Report = Callable[[dict[str, float]], bool]


# What torch raises as a plain RuntimeError
_FAULTS = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "DefaultCPUAllocator", "unable to mmap", "NCCL error")
ASK_S = 2.0  # between two checks for a preemption notice: 2 ms for one rank and 10 for two, on two busy cores

# Arguments: the cell, its reports' receiver, the folder of the sweep's checkpoints, the preemption interface.
Runner = Callable[[Flat, Report, str, Host], "TrainingResult"]


def train_cell(cell: Flat, report: Report, checkpoints: str, host: Host) -> "TrainingResult":
    """Train a cell with jepa_train.train, resumed from its checkpoint if it has one. The runner of real sweeps.

    Args:
        cell: the complete flat config and `cell_key`, which names the folder of its checkpoints.
    """
    # Here, because the driver imports this module too and should not pay for timm.
    from jepa_train.base.system_metrics import SystemMetrics
    from jepa_train.config.flat import unflatten
    from jepa_train.storage.storage import storage_path
    from jepa_train.train.loop import train

    config = unflatten({name: value for name, value in cell.items() if name != "cell_key"})
    machine = SystemMetrics()
    folder = storage_path(checkpoints) / str(cell["cell_key"])
    return train(config, report=lambda metrics: report(metrics | machine.metrics()), checkpoints=folder, host=host)


class Preempted(Exception):
    """Raised on every rank of a worker group that gives up its cell, so that Ray Train restarts it on other nodes."""


class _RayHost:
    """Preemption interface of one cell: asks Ray Train for notices, tells the mailbox of checkpoints."""

    def __init__(self, mailbox: Any, claim: Claim, *, watched: bool) -> None:
        self.mailbox = mailbox
        self.claim = claim
        self._watched = watched
        self._asked = 0.0

    def saved(self, age_s: float) -> None:
        self.mailbox.saved.remote(self.claim, age_s)

    def leaving(self) -> bool:
        """Ray Train's answer. It costs a barrier of all ranks, so a small model does not ask at every look."""
        if not self._watched or not broadcast_flag(time.monotonic() - self._asked > ASK_S):
            return False
        self._asked = time.monotonic()
        return ray.train.get_preemption_info() is not None

    def leave(self) -> None:
        """Tell the mailbox, on every rank: the first rank that ends may end the others.

        Asking Train is a barrier, which holds the other ranks until rank 0 comes: when its checkpoint has arrived.
        """
        info = ray.train.get_preemption_info()
        ray.get(self.mailbox.leave.remote(self.claim, info.preempted_node_ids if info else []))


def serve(mailbox: Any, *, lane: int, runner: Runner, threads: int, watched: bool) -> None:
    """Run cells from the mailbox until it closes. Every rank of the lane's worker group runs this.

    A cell that raises is recorded as failed. A group of several ranks is then restarted by Ray Train, because the other
    ranks may hang in a collective. Two kinds of errors only restart the group, which runs the cell again: those of the
    collectives, where another rank died, and those of memory and of the device, which a fresh process may not have
    (the mailbox counts them).

    Args:
        mailbox: handle of the actor (sweeps/engine/lanes/mailbox.py).
        lane: this lane's number in the mailbox.
        runner: trains one cell; rank 0's outcome counts. One that ends as "preempted" on every rank continues in a new
            group, on other nodes.
        threads: CPU threads for torch.
        watched: nodes may be taken away with notice, for which Ray Train then watches.
    """
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cuda":  # Ray Train shows every worker of a node all of their GPUs
        torch.cuda.set_device(device)
    fresh = FreshProcess(threads)
    try:
        alive = nodes_alive()
        group = ray.get(mailbox.begin.remote(lane, alive)) if rank == 0 else 0
        group = ray.train.collective.broadcast_from_rank_zero(group)
        mailbox.join.remote(lane, group, ray.get_runtime_context().get_node_id(), get_node_ip_address())
        seen = 0
        while (task := ray.get(mailbox.next.remote(lane, group, seen))) is not None:
            if task:
                seen, job = task
                with fresh.restored():
                    host = _RayHost(mailbox, (lane, group, seen), watched=watched)
                    _run(runner, job, host, rank=rank, workers=workers)
    except RayActorError:
        return  # the mailbox is gone, and the sweep with it


def nodes_alive() -> list[str]:
    """Ids of the cluster's nodes, as Ray knows them now."""
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def _run(runner: Runner, job: Mapping[str, Any], host: _RayHost, *, rank: int, workers: int) -> None:
    mailbox, claim = host.mailbox, host.claim

    def report(metrics: dict[str, float]) -> bool:
        floats = {name: float(value) for name, value in metrics.items()}
        return ray.get(mailbox.report.remote(claim, floats, metrics["epoch"] in job["rungs"]))

    try:
        outcome = runner(job["cell"], report, job["checkpoints"], host)
    except RayActorError:
        raise
    except Exception as error:
        clean(error)  # what is raised again, Ray writes into its logs
        trace = hidden(traceback.format_exc())
        if (workers > 1 and _lost_a_rank(error)) or _is_fault(error):
            error.add_note(trace)  # a note travels to Train's controller, a traceback does not
            raise
        reason = hidden(f"{type(error).__name__}: {error}".splitlines()[0])
        ray.get(mailbox.finish.remote(claim, ending("failed", reason, trace)))
        if workers > 1:
            raise
    else:
        if outcome.status == "preempted":
            host.leave()
            raise Preempted(outcome.reason)
        if rank == 0:
            ray.get(mailbox.finish.remote(claim, ending(outcome.status, outcome.reason)))


@dataclass
class LaneConfig(TorchConfig):
    """Process group whose ranks use, on each node, the network interface by which Ray reaches the node."""

    @property
    def backend_cls(self) -> type[Any]:
        return _LaneBackend


class _LaneBackend(TorchConfig().backend_cls):  # type: ignore[misc]  # the base class has no public name
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(lambda: use_interface_of(get_node_ip_address()))
        if len(worker_group) > 1:  # a single worker needs no process group, and no store that listens for others
            super().on_start(worker_group, backend_config)


def failure_of(errors: Mapping[int, Exception]) -> WorkerFailure:
    """The cause of a worker group's end, chosen from the exceptions of its ranks.

    A rank that raised because another one was gone is not the cause.
    """
    error = min(errors.values(), key=lambda error: (_lost_a_rank(error), not _is_fault(error)))
    silence = getattr(error, "health_check_failure", None)  # Ray Train's: why a worker did not answer
    if isinstance(silence, ray.exceptions.OutOfMemoryError):
        return WorkerFailure("Ray killed its worker: the machine's memory was nearly full", str(silence))
    if isinstance(silence, RayActorError):
        reason = "its worker process died: killed, out of memory, crashed, or gone with its machine"
        return WorkerFailure(reason, str(silence))
    line = next(iter(str(error).splitlines()), "")
    return WorkerFailure(
        reason=f"{type(error).__name__}: {line}",
        traceback="".join(getattr(error, "__notes__", [])),
        is_outage=isinstance(error, StorageError),
    )


def _lost_a_rank(error: Exception) -> bool:
    """True if a collective failed because another rank is gone, by gloo's message or the type of NCCL and TCPStore."""
    by_type = any(kind.__name__ == "DistError" for kind in type(error).__mro__)  # torch.distributed stays in one file
    return by_type or "gloo" in str(error)


def _is_fault(error: Exception) -> bool:
    """True if memory ran out, or the device or the storage failed: the config alone is not the cause."""
    by_type = isinstance(error, MemoryError | torch.OutOfMemoryError | torch.AcceleratorError | StorageError)
    return by_type or (isinstance(error, RuntimeError) and any(words in str(error) for words in _FAULTS))
