"""Errors of one rank: what is recorded as the cell's failure, and what restarts the worker group.

Run: python -m pytest tests/unit/lanes/test_worker.py
"""

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from jepa_train.storage.storage import StorageError
from sweeps.engine.lanes import worker
from sweeps.engine.lanes.tasks import WorkerFailure

GLOO = "[gloo/transport/tcp/pair.cc:547] Connection closed by peer"


@pytest.mark.parametrize(
    ("error", "workers", "recorded", "restarts"),
    [
        (ValueError("bad\nvalue"), 1, "ValueError: bad", False),
        (ValueError("bad"), 2, "ValueError: bad", True),  # the other rank may wait in a collective
        (torch.distributed.DistNetworkError("peer gone"), 2, None, True),
        (RuntimeError(GLOO), 2, None, True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 1, None, True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), 1, None, True),
        (MemoryError(), 1, None, True),
    ],
)
def test_a_cells_own_error_is_recorded_and_a_fault_only_restarts_the_group(
    monkeypatch: pytest.MonkeyPatch, error: Exception, workers: int, recorded: str | None, restarts: bool
) -> None:
    ends: list[dict[str, str]] = []
    mailbox = SimpleNamespace(finish=SimpleNamespace(remote=lambda _, end: ends.append(end)))
    monkeypatch.setattr(worker.ray, "get", lambda answer: answer)

    def runner(*_: object) -> Any:
        raise error

    with pytest.raises(type(error)) if restarts else contextlib.nullcontext():
        host = worker._RayHost(mailbox, (0, 1, 1), watched=False)
        worker._run(runner, {"cell": {}, "checkpoints": ""}, host, rank=1, workers=workers)
    assert [end["reason"] for end in ends] == ([] if recorded is None else [recorded])
    assert all(end["status"] == "failed" and "Traceback" in end["traceback"] for end in ends)


def noted(error: Exception) -> Exception:
    error.add_note("Traceback ...")
    return error


PEER = noted(RuntimeError(GLOO))
DEAD = "its worker process died: killed, out of memory, crashed, or gone with its machine"


@pytest.mark.parametrize(
    ("errors", "failure"),
    [
        ([PEER, noted(torch.OutOfMemoryError("no room\nat all"))], ("OutOfMemoryError: no room", False)),
        ([noted(RuntimeError("CUDA error: bad")), PEER], ("RuntimeError: CUDA error: bad", False)),
        ([PEER, WorkerHealthCheckFailedError("rank 1", failure=ActorDiedError())], (DEAD, False)),
        ([noted(StorageError("s3://b is away")), PEER], ("StorageError: s3://b is away", True)),
        (
            [WorkerHealthCheckFailedError("rank 0", failure=OutOfMemoryError("0.95"))],
            ("Ray killed its worker: the machine's memory was nearly full", False),
        ),
    ],
)
def test_the_cause_is_the_rank_that_failed_not_those_that_missed_it(errors: list[Exception], failure: Any) -> None:
    found: WorkerFailure = worker.failure_of(dict(enumerate(errors)))
    assert (found.reason, found.is_outage) == failure
    assert ("Traceback ..." in found.traceback) == ("Error: " in found.reason)
