"""The worker of a lane: runs one cell after another under Ray Train."""

import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import ray
import ray.train
import ray.train.collective
import ray.train.torch
import torch
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError
from ray.exceptions import RayActorError
from ray.train.backend import Backend
from ray.train.torch import TorchConfig
from ray.util import get_current_placement_group, get_node_ip_address

from jepa_train.base.preemption import Host
from jepa_train.base.security import clean, hidden
from jepa_train.distributed.collectives import broadcast_flag
from jepa_train.storage.storage import StorageError
from sweeps.engine.cluster.network import use_interface_of
from sweeps.engine.lanes.process_state import FreshProcess
from sweeps.engine.lanes.tasks import WorkerFailure

Flat = Mapping[str, Any]
Report = Callable[[dict[str, float]], bool]


class CellOutcome(Protocol):
    """Result of a runner; jepa_train.train.loop.TrainingResult is one."""

    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...


# What torch raises as a plain RuntimeError
_FAULTS = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "DefaultCPUAllocator", "unable to mmap", "NCCL error")
ASK_S = 2.0  # between two questions whether the nodes stay: 2 ms for one rank and 10 for two, on two busy cores

# the cell, where its reports go, where its sweep keeps checkpoints, and whether its machines stay
Runner = Callable[[Flat, Report, str, Host], CellOutcome]


def train_cell(cell: Flat, report: Report, checkpoints: str, host: Host) -> CellOutcome:
    """The runner of real sweeps: a cell through jepa_train.train, resumed where it was begun before.

    Args:
        cell: the complete flat config and `cell_key`, which names the folder of its checkpoints.
    """
    # Here, because the driver and Train's controller import this module too and should not pay for timm.
    from jepa_train.base.system_metrics import SystemMetrics
    from jepa_train.config.flat import unflatten
    from jepa_train.storage.storage import storage_path
    from jepa_train.train.loop import train

    config = unflatten({name: value for name, value in cell.items() if name != "cell_key"})
    machine = SystemMetrics()

    def told(metrics: dict[str, float]) -> bool:
        return report(metrics | machine.metrics())

    return train(config, report=told, checkpoints=storage_path(checkpoints) / str(cell["cell_key"]), host=host)


class Preempted(Exception):
    """Raised on every rank of a worker group that gives its cell up, so that Ray Train starts it anew elsewhere."""


class _Machines:
    """The host of one cell: Ray Train knows which nodes are about to be taken away, the mailbox what was saved."""

    def __init__(self, mailbox: Any, claim: tuple[int, int, int], *, watched: bool) -> None:
        self._mailbox = mailbox
        self._claim = claim
        self._watched = watched
        self._asked = 0.0

    def saved(self, age_s: float) -> None:
        self._mailbox.saved.remote(self._claim, age_s)

    def leaving(self) -> bool:
        """Ray Train's word, which costs a barrier of all ranks through an actor: not at every look of a small model."""
        if not self._watched or not broadcast_flag(time.monotonic() - self._asked > ASK_S):
            return False
        self._asked = time.monotonic()
        return ray.train.get_preemption_info() is not None

    def leave(self) -> None:
        """Tell the mailbox, on every rank: the first one that ends may end the others. The question is a barrier: it
        holds them until rank 0 comes, which it does when its checkpoint has arrived."""
        info = ray.train.get_preemption_info()
        ray.get(self._mailbox.leave.remote(self._claim, info.preempted_node_ids if info else []))


def serve(mailbox: Any, *, lane: int, runner: Runner, threads: int, watched: bool) -> None:
    """Run cells from the mailbox until it closes. Every rank of the lane's worker group runs this.

    A cell that raises is recorded as failed. The group goes on where every rank raised alike; otherwise a rank may
    hang in a collective, so the error is raised again and Ray Train starts the group anew. Two kinds of errors are
    only raised again, and the new group runs the cell once more: those of the collectives, where another rank died,
    and those of memory and of the device, which a fresh process may not have (the mailbox counts).

    Args:
        mailbox: handle of the actor (sweeps/engine/lanes/mailbox.py).
        lane: this lane's number in the mailbox.
        runner: trains one cell; rank 0's outcome counts. One that ends as "preempted" on every rank goes on in a new
            group, on other nodes.
        threads: CPU threads for torch.
        watched: whether nodes may be taken away with notice, which Ray Train then watches for.
    """
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cuda":  # Ray Train shows every worker of a node all of their GPUs
        torch.cuda.set_device(device)
    fresh = FreshProcess(threads)
    try:
        place = get_current_placement_group()
        group = ray.get(mailbox.begin.remote(lane, place, nodes_alive())) if rank == 0 else 0
        group = ray.train.collective.broadcast_from_rank_zero(group)
        mailbox.join.remote(lane, group, ray.get_runtime_context().get_node_id(), get_node_ip_address())
        seen = 0
        while (got := ray.get(mailbox.next.remote(lane, group, seen))) is not None:
            if got:
                seen, job = got
                with fresh.restored():
                    host = _Machines(mailbox, (lane, group, seen), watched=watched)
                    _run(runner, job, mailbox, host, claim=(lane, group, seen), rank=rank, workers=workers)
    except RayActorError:
        return  # the mailbox is gone, and the sweep with it


def nodes_alive() -> list[str]:
    """The ids of the cluster's nodes, as Ray knows them now."""
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def _run(
    runner: Runner,
    job: Mapping[str, Any],
    mailbox: Any,
    host: _Machines,
    *,
    claim: tuple[int, int, int],
    rank: int,
    workers: int,
) -> None:
    def report(metrics: dict[str, float]) -> bool:
        told = {name: float(value) for name, value in metrics.items()}
        return ray.get(mailbox.report.remote(claim, told, metrics["epoch"] in job["rungs"]))

    try:
        outcome = runner(job["cell"], report, job["checkpoints"], host)
    except RayActorError:
        raise
    except Exception as error:
        clean(error)  # what is raised again, Ray writes into its logs
        if (workers > 1 and _lost_a_rank(error)) or _is_fault(error):
            error.add_note(hidden(traceback.format_exc()))  # a note travels to Train's controller, a traceback does not
            raise
        reason = hidden(f"{type(error).__name__}: {error}".splitlines()[0])
        alike = workers == 1 or ray.get(mailbox.alike.remote(claim, rank, reason, workers))
        end = {"status": "failed", "reason": reason, "traceback": hidden(traceback.format_exc())}
        ray.get(mailbox.finish.remote(claim, end))
        if not (alike and _device_works()):
            raise
    else:
        if outcome.status == "preempted":
            host.leave()
            raise Preempted(outcome.reason)
        if rank == 0:
            end = {"status": outcome.status, "reason": outcome.reason, "traceback": ""}
            ray.get(mailbox.finish.remote(claim, end))


@dataclass
class LaneConfig(TorchConfig):
    """A process group whose ranks, on whatever nodes, find the network by which Ray reaches them."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _LaneBackend


class _LaneBackend(TorchConfig().backend_cls):  # type: ignore[misc]  # the base class has no public name
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(lambda: use_interface_of(get_node_ip_address()))
        if len(worker_group) > 1:  # a single worker needs no process group, and no store that listens for others
            super().on_start(worker_group, backend_config)


class Witness:
    """Tells the mailbox what only Ray Train's controller knows; see controller_callback."""

    def __init__(self, mailbox: Any, lane: int) -> None:
        self._mailbox = mailbox
        self._lane = lane

    def started(self, controller: Any) -> None:
        """Pass on the controller's actor, so that a lane which does not end can be ended."""
        self._mailbox.controlled.remote(self._lane, controller)

    def failed(self, errors: Mapping[int, Exception]) -> None:
        """Pass on why the worker group is about to be replaced."""
        with suppress(RayActorError):  # the mailbox is gone, and the sweep with it
            ray.get(self._mailbox.blame.remote(self._lane, *failure_of(errors)))


def failure_of(errors: Mapping[int, Exception]) -> WorkerFailure:
    """The failure that ended a worker group, from the exceptions of its ranks.

    A rank that raised because another one was gone explains nothing.
    """
    error = min(errors.values(), key=lambda error: (_lost_a_rank(error), not _is_fault(error)))
    silence = getattr(error, "health_check_failure", None)  # Ray Train's: why a worker did not answer
    if isinstance(silence, RayOutOfMemoryError):
        return WorkerFailure("Ray killed its worker: the machine's memory was nearly full", str(silence))
    if isinstance(silence, RayActorError):
        reason = "its worker process died: killed, out of memory, crashed, or gone with its machine"
        return WorkerFailure(reason, str(silence))
    line = next(iter(str(error).splitlines()), "")
    return WorkerFailure(
        reason=f"{type(error).__name__}: {line}",
        traceback="".join(getattr(error, "__notes__", [])),
        is_fault=_is_fault(error),
        is_outage=isinstance(error, StorageError),
    )


def _lost_a_rank(error: Exception) -> bool:
    """Whether a collective failed because another rank is gone. gloo says so in words, NCCL and TCPStore by type."""
    by_type = any(kind.__name__ == "DistError" for kind in type(error).__mro__)  # torch.distributed stays in one file
    return by_type or "gloo" in str(error)


def _is_fault(error: Exception) -> bool:
    """Whether memory ran out, or the device or the storage failed: nothing that the config alone would bring about."""
    by_type = isinstance(error, MemoryError | torch.OutOfMemoryError | torch.AcceleratorError | StorageError)
    return by_type or (isinstance(error, RuntimeError) and any(words in str(error) for words in _FAULTS))


def _device_works() -> bool:
    """False after an error that leaves a CUDA context unusable: every later cell would fail too."""
    if not torch.cuda.is_available():
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
