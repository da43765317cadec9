"""The worker of a lane: runs one cell after another under Ray Train. The only `import ray` in this package."""

import gc
import random
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import ray
import ray.train
import ray.train.collective
import ray.train.torch
import torch
from ray.exceptions import RayActorError
from ray.util import get_current_placement_group

Flat = Mapping[str, Any]
Report = Callable[[dict[str, float]], bool]


class Outcome(Protocol):
    """What a runner returns; jepa_train.train.Outcome is one."""

    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...


Runner = Callable[[Flat, Report, Path], Outcome]  # the cell, where its reports go, where its sweep keeps checkpoints


def train_cell(cell: Flat, report: Report, checkpoints: Path) -> Outcome:
    """The runner of real sweeps: a complete flat config through jepa_train.train, resumed where it was begun before."""
    # Here, because the driver and Train's controller import this module too and should not pay for timm.
    from jepa_train.flat import cell_key, unflatten
    from jepa_train.train import train

    config = unflatten(cell)
    return train(config, report=report, checkpoints=checkpoints / cell_key(config))


def serve(mailbox: Any, *, lane: int, runner: Runner, threads: int) -> None:
    """Run cells from the mailbox until it closes. Every rank of the lane's worker group runs this.

    A cell that raises is recorded as failed. The group goes on where every rank raised alike; otherwise a rank may
    hang in a collective, so the error is raised again and Ray Train starts the group anew. An error of the collectives
    themselves means that another rank died: not the cell's fault, so the new group runs it again.

    Args:
        mailbox: handle of the actor (sweeps/engine/mailbox.py).
        lane: this lane's number in the mailbox.
        runner: trains one cell; rank 0's outcome counts.
        threads: CPU threads for torch.
    """
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cuda":  # Ray Train shows every worker of a node all of their GPUs
        torch.cuda.set_device(device)
    try:
        group = ray.get(mailbox.begin.remote(lane, get_current_placement_group())) if rank == 0 else 0
        group = ray.train.collective.broadcast_from_rank_zero(group)
        seen = 0
        while (got := ray.get(mailbox.next.remote(lane, group, seen))) is not None:
            if got:
                seen, job = got
                _like_a_fresh_process(threads)
                _run(runner, job, mailbox, ticket=seen, rank=rank, workers=workers)
    except RayActorError:
        return  # the mailbox is gone, and the sweep with it


def _run(runner: Runner, job: Mapping[str, Any], mailbox: Any, *, ticket: int, rank: int, workers: int) -> None:
    def report(metrics: dict[str, float]) -> bool:
        return ray.get(mailbox.report.remote(ticket, {name: float(value) for name, value in metrics.items()}))

    try:
        outcome = runner(job["cell"], report, Path(job["checkpoints"]))
    except RayActorError:
        raise
    except Exception as error:
        if workers > 1 and _lost_a_rank(error):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        alike = workers == 1 or ray.get(mailbox.alike.remote(ticket, rank, reason, workers))
        end = {"status": "failed", "reason": reason, "traceback": traceback.format_exc()}
        ray.get(mailbox.finish.remote(ticket, end))
        if not (alike and _device_works()):
            raise
    else:
        if rank == 0:
            end = {"status": outcome.status, "reason": outcome.reason, "traceback": ""}
            ray.get(mailbox.finish.remote(ticket, end))


def _like_a_fresh_process(threads: int) -> None:
    """What the cells before may have left behind: memory, torch's thread count, global random state."""
    gc.collect()
    gc.freeze()  # what survives is modules: looking through them again would take 0.2 s per cell
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def _lost_a_rank(error: Exception) -> bool:
    """Whether a collective failed because another rank is gone. gloo says so in words, NCCL and TCPStore by type."""
    by_type = any(kind.__name__ == "DistError" for kind in type(error).__mro__)  # torch.distributed stays in one file
    return by_type or "gloo" in str(error)


def _device_works() -> bool:
    """False after an error that leaves a CUDA context unusable: every later cell would fail too."""
    if not torch.cuda.is_available():
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
