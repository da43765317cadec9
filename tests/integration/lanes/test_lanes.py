"""Lanes: the mailbox as plain Python, then one lane of two workers under Ray, shared by the tests that need one."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.cloudpickle
import torch
from ray import tune
from ray.exceptions import ActorDiedError
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import ControllerError

from jepa_train.storage.storage import StorageError
from sweeps.engine.cluster.node_check import Expected
from sweeps.engine.cluster.session import ray_dir, ray_session
from sweeps.engine.lanes import mailbox as mailbox_module
from sweeps.engine.lanes import pool as lanes_module
from sweeps.engine.lanes import tasks, worker
from sweeps.engine.lanes import trial as trial_module
from sweeps.engine.lanes.mailbox import Mailbox
from sweeps.engine.lanes.pool import LanePool
from sweeps.engine.lanes.tasks import MAX_LOSSES, WorkerFailure, ending
from sweeps.engine.lanes.trial import make_trial

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test file
FINISHED = ending("finished")
NODES = ["head", "spot"]
ON_CLUSTER = Expected(code={}, versions={}, storage="", probe="")


# The mailbox, without Ray.


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox_module, "POLL_S", 0.05)
    monkeypatch.setattr(mailbox_module, "STATEMENTS_S", 0.05)


def scenario(play: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        asyncio.run(play())

    test.__doc__ = play.__doc__
    return test


@scenario
async def test_cells_are_handed_out_in_order_to_whichever_lane_is_idle() -> None:
    box = Mailbox(2)
    for lane in (0, 1):
        await box.begin(lane, None, NODES)
    tickets = [await box.submit(f"trial{n}", {"n": n}) for n in range(3)]
    assert [await box.next(lane, 1, 0) for lane in (0, 1)] == [(tickets[0], {"n": 0}), (tickets[1], {"n": 1})]
    assert await box.next(1, 1, tickets[1]) == (), "a rank is not given the same cell again while others still run it"
    await box.finish((1, 1, tickets[1]), FINISHED)
    assert await box.next(1, 1, tickets[1]) == (tickets[2], {"n": 2})


@scenario
async def test_every_rank_of_a_lane_gets_the_same_cell() -> None:
    box = Mailbox(1)
    group = await box.begin(0, None, NODES)
    first, second = [await box.submit(f"trial{n}", {"n": n}) for n in range(2)]
    assert await box.next(0, group, 0) == await box.next(0, group, 0) == (first, {"n": 0})
    await box.finish((0, group, first), FINISHED)
    assert await box.next(0, group, first) == await box.next(0, group, first) == (second, {"n": 1})


@scenario
async def test_reports_are_taken_once_and_then_the_ending() -> None:
    box = Mailbox(1)
    ticket = await box.submit("trial", {})
    await box.next(0, await box.begin(0, None, NODES), 0)
    claim = (0, 1, ticket)
    assert await box.report(claim, {"loss": 2.0}, False) is False
    assert await box.take(ticket, 0) == ([{"loss": 2.0}], None)
    await box.report(claim, {"loss": 1.0}, False)
    await box.finish(claim, ending("diverged", "loss is nan"))
    assert await box.take(ticket, 1) == ([{"loss": 1.0}], ending("diverged", "loss is nan"))


@scenario
async def test_an_abandoned_cell_stops_at_its_next_report_and_a_waiting_one_never_starts() -> None:
    box = Mailbox(1)
    group = await box.begin(0, None, NODES)
    running, waiting, wanted = [await box.submit(f"trial{n}", {"n": n}) for n in range(3)]
    await box.next(0, group, 0)
    await box.abandon(running)
    await box.abandon(waiting)
    assert await box.next(0, group, running) == (), "the lane is busy until its workers say so"
    assert await box.report((0, group, running), {"loss": 1.0}, False) is True
    await box.finish((0, group, running), ending("stopped"))
    assert await box.next(0, group, running) == (wanted, {"n": 2})
    assert await box.report((0, group, running), {"loss": 0.5}, False) is True, "a late report reaches nobody"
    assert await box.take(wanted, 0) == ([], None)


@scenario
async def test_a_trial_whose_process_died_finds_its_cell_where_it_is() -> None:
    box = Mailbox(1)
    ticket = await box.submit("trial", {"n": 0})
    await box.next(0, await box.begin(0, None, NODES), 0)
    await box.report((0, 1, ticket), {"epoch": 1}, False)
    await box.take(ticket, 0)
    assert await box.submit("trial", {"n": 0}) == ticket
    await box.finish((0, 1, ticket), FINISHED)
    assert await box.take(ticket, 0) == ([{"epoch": 1}], FINISHED)


@scenario
async def test_the_cell_of_a_trial_that_falls_silent_is_stopped() -> None:
    box = Mailbox(1)
    ticket = await box.submit("trial", {})
    await box.next(0, await box.begin(0, None, NODES), 0)
    assert await box.report((0, 1, ticket), {}, False) is False
    box._tasks[ticket].asked -= tasks.LEASE_S
    assert box._tasks[ticket].unwanted
    await box.beat(ticket)
    assert await box.report((0, 1, ticket), {}, False) is False, "Tune keeps it waiting"
    box._tasks[ticket].asked -= tasks.LEASE_S
    assert await box.report((0, 1, ticket), {}, False) is True
    await box.beat(ticket + 1)  # of a cell that is over


def test_a_trial_that_tune_keeps_waiting_goes_on_saying_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[int] = []
    thrice, waited = threading.Event(), []

    def beat(ticket: int) -> None:
        beats.append(ticket)
        if len(beats) == 3:
            thrice.set()

    calls = {"submit": lambda *_: 7, "take": lambda *_: ([{"epoch": 1}], FINISHED), "beat": beat, "abandon": print}
    mailbox = SimpleNamespace(**{name: SimpleNamespace(remote=call) for name, call in calls.items()})
    monkeypatch.setattr(trial_module, "BEAT_S", 0.01)
    monkeypatch.setattr(trial_module.ray, "get", lambda value: value)
    monkeypatch.setattr(tune, "get_context", lambda: SimpleNamespace(get_trial_id=lambda: "trial"))
    monkeypatch.setattr(tune, "report", lambda _: waited.append(thrice.wait(30)))  # the driver waits for the storage
    trial_module.trial({}, mailbox=mailbox, checkpoints="", rungs=())
    assert waited == [True, True]
    assert set(beats) == {7}
    for thread in threading.enumerate():
        if thread.name == "beat":
            thread.join(30)
            assert not thread.is_alive(), "no longer than its cell"


@scenario
async def test_at_a_rung_a_cell_waits_until_tune_goes_on_or_stops_it() -> None:
    box = Mailbox(1)
    ticket = await box.submit("trial", {})
    await box.next(0, await box.begin(0, None, NODES), 0)
    assert await box.report((0, 1, ticket), {"epoch": 1}, False) is False, "no rung: it does not wait"
    assert (await box.take(ticket, 0))[0] == [{"epoch": 1}]
    second = asyncio.create_task(box.report((0, 1, ticket), {"epoch": 2}, True))
    assert (await box.take(ticket, 1))[0] == [{"epoch": 2}]
    await asyncio.sleep(0.1)
    assert not second.done(), "Tune has not judged it yet"
    await box.take(ticket, 2)
    assert await second is False
    third = asyncio.create_task(box.report((0, 1, ticket), {"epoch": 3}, True))
    assert (await box.take(ticket, 2))[0] == [{"epoch": 3}]
    await box.abandon(ticket)
    assert await third is True


@scenario
async def test_a_new_worker_group_runs_the_lost_cell_again_up_to_three_times() -> None:
    box = Mailbox(1)
    ticket = await box.submit("trial", {"n": 0})
    for lost in range(tasks.MAX_LOSSES):
        group = await box.begin(0, None, NODES)
        assert group == lost + 1
        assert await box.next(0, group, 0) == (ticket, {"n": 0})
        await box.report((0, group, ticket), {"epoch": 4}, False)
        await box.blame(0, "its worker process died", "", False)
    assert await box.next(0, 1, 0) is None, "a rank of a former group ends"
    assert await box.report((0, 1, ticket), {"epoch": 5}, False) is True, "and speaks for nobody any more"
    await box.finish((0, 1, ticket), FINISHED)
    await box.begin(0, None, NODES)
    reports, end = await box.take(ticket, 0)
    assert end == ending("failed", "its worker process died (3 attempts)")
    note = "worker lost (its worker process died); goes on after epoch 4"
    assert [report.get("note") for report in reports] == [None, note, None, note, None]
    assert [report["epoch"] for report in reports if "note" not in report] == [4, 4, 4]


@scenario
async def test_an_error_of_memory_or_device_has_one_more_chance() -> None:
    box = Mailbox(1)
    ticket = await box.submit("trial", {"n": 0})
    for _ in range(2):
        await box.next(0, await box.begin(0, None, NODES), 0)
        assert (await box.take(ticket, 1))[1] is None
        await box.blame(0, "OutOfMemoryError: no room", "Traceback ...", True)
    await box.begin(0, None, NODES)
    assert (await box.take(ticket, 0))[1] == ending("failed", "OutOfMemoryError: no room (2 attempts)", "Traceback ...")


@scenario
async def test_a_storage_that_is_away_leaves_its_cell_to_the_next_launch() -> None:
    box = Mailbox(1)
    ticket = await box.submit("trial", {"n": 0})
    for _ in range(tasks.MAX_FAULTS):
        await box.next(0, await box.begin(0, None, NODES), 0)
        await box.blame(0, "StorageError: away", "", True, True)
    await box.begin(0, None, NODES)
    assert (await box.take(ticket, 0))[1] == ending("interrupted", "StorageError: away (2 attempts)")


@scenario
async def test_nodes_that_are_taken_away_are_not_held_against_a_cell() -> None:
    box = Mailbox(1)
    ticket = await box.submit("trial", {"n": 0})
    for attempt in range(3 * tasks.MAX_LOSSES):
        group = await box.begin(0, None, ["head", f"spot{attempt}"])
        await box.join(0, group - 1, "late", "10.0.0.9")
        for node, address in (("head", "10.0.0.1"), (f"spot{attempt}", "10.0.0.2")):
            await box.join(0, group, node, address)
        assert await box.next(0, group, 0) == (ticket, {"n": 0})
        await box.report((0, group, ticket), {"epoch": attempt}, False)
        await box.blame(0, "ActorDiedError", "", False)
    reports, end = await box.take(ticket, 0)
    assert end is None
    assert reports[-2]["note"] == "worker lost (node 10.0.0.2 is gone); goes on after epoch 7"
    assert reports[-1] == {"epoch": 8}


@scenario
async def test_a_group_that_leaves_its_machine_on_a_notice_is_not_held_against_its_cell_either() -> None:
    box = Mailbox(1)
    ticket = await box.submit("trial", {"n": 0})
    for _ in range(3 * tasks.MAX_LOSSES):
        group = await box.begin(0, None, NODES)
        await box.join(0, group, "spot", "10.0.0.2")
        assert await box.next(0, group, 0) == (ticket, {"n": 0})
        await box.leave((0, group, ticket + 1), ["spot"])  # of another cell: nobody's word
        await box.leave((0, group, ticket), ["spot"])
        await box.blame(0, "Preempted", "", False)
    await box.begin(0, None, NODES)
    reports, end = await box.take(ticket, 0)
    assert end is None
    assert reports[-1]["note"] == "worker lost (node 10.0.0.2 is about to be taken away); goes on after epoch 0"
    for _ in range(tasks.MAX_LOSSES):
        await box.begin(0, None, NODES)
    assert (await box.take(ticket, 0))[1] is not None, "without a notice it counts"


@scenario
async def test_what_a_lost_group_did_since_its_last_checkpoint_is_lost_and_the_wait_for_another_is_idle() -> None:
    box = Mailbox(1)
    ticket = await box.submit("trial", {"n": 0})
    group = await box.begin(0, None, NODES)
    await box.next(0, group, 0)
    task, lane = box._tasks[ticket], box._lanes[0]
    task.kept -= 900.0
    await box.saved((0, group, ticket), 100.0)  # it took so long to arrive
    await box.saved((0, group, ticket), 600.0)
    await box.blame(0, "its worker process died", "", False)
    task.kept -= 300.0
    lane.failed_at -= 300.0
    await box.begin(0, None, NODES)
    task.kept -= 50.0
    await box.begin(0, None, NODES)  # without a word of why
    first, second = [(report["lost_s"], report["idle_s"]) for report in (await box.take(ticket, 0))[0]]
    assert first == pytest.approx((100.0, 300.0), abs=10)
    assert second == pytest.approx((50.0, 0.0), abs=10)


@scenario
async def test_time_in_the_queue_is_idle_and_told_once_where_a_lane_had_to_start() -> None:
    box = Mailbox(2)
    ticket, soon = await box.submit("trial0", {"n": 0}), await box.submit("trial1", {"n": 1})
    box._tasks[ticket].queued -= 600.0  # a machine is found, started and set up
    await box.next(0, await box.begin(0, None, NODES), 0)
    await box.next(1, await box.begin(1, None, NODES), 0)
    assert await box.take(soon, 0) == ([], None), "a lane was there"
    (waited,) = (await box.take(ticket, 0))[0]
    assert waited == {"note": "", "lost_s": 0.0, "idle_s": pytest.approx(600.0, abs=10), "at": 0}
    await box.report((0, 1, ticket), {"epoch": 1}, False)
    await box.finish((1, 1, soon), FINISHED)
    await box.lose_lane(0, "its machine is gone", NODES)
    box._tasks[ticket].queued -= 60.0
    await box.next(1, 1, soon)
    lost, again = (await box.take(ticket, 2))[0]
    assert (lost["note"], lost["at"]) == ("worker lost (its worker group died); goes on after epoch 1", 2)
    assert again == {"note": "", "lost_s": 0.0, "idle_s": pytest.approx(60.0, abs=10), "at": 3}


@scenario
async def test_a_cell_that_no_lane_ever_took_had_no_device() -> None:
    box = Mailbox(1)
    ticket = await box.submit("trial", {"n": 0})
    box._tasks[ticket].queued -= 1800.0
    await box.lose_lane(0, "no machine came", NODES)
    (waited,), end = await box.take(ticket, 0)
    assert end is not None
    assert waited["idle_s"] == pytest.approx(1800.0, abs=1)


@scenario
async def test_a_node_that_is_not_fit_ends_the_sweep_with_its_name() -> None:
    box = Mailbox(2)
    running, waiting = [await box.submit(f"trial{n}", {"n": n}) for n in range(2)]
    await box.next(0, await box.begin(0, None, NODES), 0)
    assert await box.refusal() == ""
    await box.refuse("worker-2 runs other code")
    await box.refuse("worker-3 runs other code, too")
    ends = [(await box.take(ticket, 0))[1] for ticket in (running, waiting)]
    assert ends == [ending("interrupted", "worker-2 runs other code")] * 2
    assert await box.refusal() == "worker-2 runs other code"


@scenario
async def test_a_node_may_be_found_gone_long_after_its_workers() -> None:
    box = Mailbox(1)
    ticket = await box.submit("trial", {"n": 0})
    for attempt in range(3 * tasks.MAX_LOSSES):
        group = await box.begin(0, None, ["head", f"spot{attempt}", f"spot{attempt - 1}"])
        await box.join(0, group, f"spot{attempt}", "10.0.0.2")
        assert await box.next(0, group, 0) == (ticket, {"n": 0})
    assert (await box.take(ticket, 0))[1] is None


@scenario
async def test_a_lost_lane_leaves_its_cell_to_the_others_and_the_last_one_ends_the_trials() -> None:
    box = Mailbox(2)
    ticket = await box.submit("trial", {"n": 0})
    await box.next(0, await box.begin(0, None, NODES), 0)
    await box.lose_lane(0, "ImportError: no torch", NODES)
    assert await box.next(1, await box.begin(1, None, NODES), 0) == (ticket, {"n": 0})
    await box.lose_lane(1, "ImportError: no torch", NODES)
    end = ending("interrupted", "no lane is left to run cells: ImportError: no torch")
    assert (await box.take(ticket, 0))[1] == end


@scenario
async def test_a_cell_does_not_wait_for_a_machine_where_another_is_idle() -> None:
    box = Mailbox(2)
    first, second = [await box.submit(f"trial{n}", {"n": n}) for n in range(2)]
    await box.next(0, await box.begin(0, None, NODES), 0)
    await box.next(1, await box.begin(1, None, NODES), 0)
    await box.join(1, 1, "late", "10.0.0.2")
    await box.report((1, 1, second), {"epoch": 1}, False)
    await box.blame(1, "its worker process died", "", False)
    await box.finish((0, 1, first), FINISHED)
    await box.give_back(1, NODES)
    assert await box.next(0, 1, first) == (second, {"n": 1})
    notes = [report["note"] for report in (await box.take(second, 1))[0] if report.get("note")]
    assert notes == ["worker lost (node 10.0.0.2 is gone); goes on after epoch 1"]
    assert await box.begin(1, None, [*NODES, "new"]) == 2, "a machine came after all"
    third = await box.submit("trial2", {"n": 2})
    assert await box.next(1, 2, 0) == (third, {"n": 2})
    assert await box.report((0, 1, second), {"epoch": 2}, False) is False, "the other lane has it"


@scenario
async def test_ranks_fail_alike_only_when_all_of_them_do_and_for_one_reason() -> None:
    async def statements(*reasons: str) -> list[bool]:
        box = Mailbox(1)
        ticket = await box.submit("trial", {})
        await box.next(0, await box.begin(0, None, NODES), 0)
        return await asyncio.gather(
            *(box.alike((0, 1, ticket), rank, reason, 2) for rank, reason in enumerate(reasons))
        )

    assert await statements("ValueError: bad", "ValueError: bad") == [True, True]
    assert await statements("ValueError: bad", "OSError: disk") == [False, False]
    assert await statements("ValueError: bad") == [False]


# One rank's handling of errors, with a mailbox that answers at once.


@pytest.mark.parametrize(
    ("error", "alike", "recorded"),
    [
        (ValueError("bad\nvalue"), True, "ValueError: bad"),
        (ValueError("only this rank"), False, "ValueError: only this rank"),
        (torch.distributed.DistNetworkError("peer gone"), False, None),
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"), False, None),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), False, None),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False, None),
        (MemoryError(), False, None),
    ],
)
def test_a_rank_records_its_own_errors_and_restarts_its_group_unless_all_failed_alike(
    monkeypatch: pytest.MonkeyPatch, error: Exception, alike: bool, recorded: str | None
) -> None:
    ends: list[dict[str, str]] = []
    calls = {"alike": lambda *_: alike, "finish": lambda _, end: ends.append(end)}
    box = SimpleNamespace(**{name: SimpleNamespace(remote=call) for name, call in calls.items()})
    monkeypatch.setattr(worker.ray, "get", lambda answer: answer)

    def runner(*_: object) -> Any:
        raise error

    with contextlib.nullcontext() if alike else pytest.raises(type(error)):
        host = worker._Machines(box, (0, 1, 1), watched=False)
        worker._run(runner, {"cell": {}, "checkpoints": ""}, box, host, claim=(0, 1, 1), rank=1, workers=2)
    assert [end["reason"] for end in ends] == ([] if recorded is None else [recorded])
    assert all(end["status"] == "failed" and "Traceback" in end["traceback"] for end in ends)


def raised(error: Exception) -> Exception:
    error.add_note("Traceback ...")
    return error


PEER = raised(RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"))
DEAD = "its worker process died: killed, out of memory, crashed, or gone with its machine"


@pytest.mark.parametrize(
    ("errors", "failure"),
    [
        (
            {0: PEER, 1: raised(torch.OutOfMemoryError("no room\nat all"))},
            WorkerFailure("OutOfMemoryError: no room", "Traceback ...", True),
        ),
        (
            {0: raised(RuntimeError("CUDA error: unspecified launch failure")), 1: PEER},
            WorkerFailure(
                "RuntimeError: CUDA error: unspecified launch failure",
                "Traceback ...",
                True,
            ),
        ),
        (
            {0: PEER, 1: WorkerHealthCheckFailedError("rank 1", failure=ActorDiedError())},
            WorkerFailure(DEAD, "", False),
        ),
        (
            {0: raised(StorageError("s3://b cannot be read")), 1: PEER},
            WorkerFailure("StorageError: s3://b cannot be read", "Traceback ...", True, True),
        ),
        (
            {0: WorkerHealthCheckFailedError("rank 0", failure=RayOutOfMemoryError("0.95"))},
            WorkerFailure("Ray killed its worker: the machine's memory was nearly full", "", False),
        ),
    ],
)
def test_the_rank_that_failed_is_blamed_not_those_that_missed_it(
    errors: dict[int, Exception], failure: WorkerFailure
) -> None:
    found = worker.failure_of(errors)
    assert found._replace(traceback="") == failure._replace(traceback="")
    assert found.traceback.startswith(failure.traceback)


@pytest.mark.parametrize(("expected", "tries"), [(None, 1), (ON_CLUSTER, 6)], ids=["alone", "cluster"])
def test_a_lane_waits_for_machines_where_some_may_come(
    expected: Expected | None, tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [ControllerError(WorkerGroupStartupTimeoutError(1)) for _ in range(5)]
    errors += [ControllerError(ImportError("no torch")), AssertionError("once too often")]
    tried, lost, given_back = [], [], []

    def fit() -> None:
        tried.append(errors[len(tried)])
        raise tried[-1]

    pool = LanePool(
        num_lanes=1, workers=1, cpus_per_worker=1, gpus_per_worker=0, storage=tmp_path, runner=runner, expected=expected
    )
    calls = {"groups": lambda: [0], "place": lambda _: None, "lose_lane": lambda *words: lost.append(words)}
    calls["give_back"] = lambda *words: given_back.append(words)
    pool.mailbox = SimpleNamespace(**{name: SimpleNamespace(remote=call) for name, call in calls.items()})
    monkeypatch.setattr(pool, "_trainer", lambda _: SimpleNamespace(fit=fit))
    monkeypatch.setattr(lanes_module, "nodes_alive", lambda: NODES)
    monkeypatch.setattr(ray, "get", lambda value: value)
    pool._keep(0)
    assert len(tried) == tries
    assert given_back == [(0, NODES)] * (tries - 1)
    ((lane, reason, alive),) = lost
    assert (lane, alive) == (0, NODES)
    assert ("no torch" if expected else "The worker group startup timed out") in reason


# One lane of two workers under Ray. The last test closes it.


def runner(cell: dict[str, Any], report: Callable[[dict[str, float]], bool], *_: object) -> SimpleNamespace:
    """Each epoch adds up 1 + 2 over the two ranks, times the cell's number."""
    import torch.distributed as dist

    if cell["n"] == -1:
        raise ValueError("n must not be -1, got -1")
    once = Path(os.environ["JEPA_RESULTS"]) / "once"
    if cell["n"] == 13 and dist.get_rank() == 1 and not once.exists():
        once.touch()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
    for epoch in range(1, cell["epochs"] + 1):
        while cell["n"] == 13 and epoch == 2 and not once.with_name("struck").exists():
            time.sleep(0.05)  # until a worker is killed
        time.sleep(0.05)
        total = torch.tensor([float((dist.get_rank() + 1) * cell["n"])])
        dist.all_reduce(total)
        stop = torch.zeros(1)
        if dist.get_rank() == 0:
            with (Path(os.environ["JEPA_RESULTS"]) / f"epochs-{cell['n']}").open("a") as file:
                file.write("x")
            stop += report({"epoch": epoch, "total": total.item(), "worker": os.getpid()})
        dist.broadcast(stop, 0)
        if stop.item():
            return SimpleNamespace(status="stopped", reason="")
    return SimpleNamespace(status="finished", reason="")


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    results = tmp_path_factory.mktemp("lanes") / ("long" * 30)  # longer than a socket's path may be
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("JEPA_RESULTS", str(results))
        patch.setenv("RAY_ADDRESS", "local")
        before = descendants(os.getpid())  # of other tests
        stack.enter_context(ray_session(num_cpus=2))
        pool = LanePool(num_lanes=1, workers=2, cpus_per_worker=1, gpus_per_worker=0, storage=ray_dir(), runner=runner)
        mailbox = stack.enter_context(pool).mailbox
        deadline = time.monotonic() + 300
        while not pool.ready():  # else the first cell tells how long it waited
            assert time.monotonic() < deadline, "no worker group came up"
            time.sleep(0.1)
        yield SimpleNamespace(
            pool=pool,
            mailbox=mailbox,
            close=stack.close,
            results=results,
            before=before,
            epochs=lambda n: len((results / f"epochs-{n}").read_text()),  # trained by the workers
        )


class Heard(tune.Callback):
    """What Tune heard from each trial, by the cell's number, in order."""

    def __init__(self) -> None:
        self.reports: dict[int, list[dict[str, Any]]] = {}

    def on_trial_result(self, *_: object, trial: Any, result: dict[str, Any], **__: object) -> None:
        self.reports.setdefault(trial.config["n"], []).append(dict(result))


def tuned(
    mailbox: Any,
    numbers: list[int],
    *,
    rungs: tuple[int, ...] = (),
    epochs: int = 3,
    heard: Heard | None = None,
    **run: Any,
) -> dict[int, list[dict[str, Any]]]:
    heard = heard or Heard()
    results = tune.Tuner(
        make_trial(mailbox, str(ray_dir()), rungs=rungs),
        param_space={"n": tune.grid_search(numbers), "epochs": epochs},
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(ray_dir()),
            verbose=0,
            callbacks=[heard],
            failure_config=tune.FailureConfig(max_failures=MAX_LOSSES),
            **run,
        ),
    ).fit()
    assert not results.errors
    return heard.reports


def submitted(mailbox: Any, cell: dict[str, Any]) -> Iterator[tuple[list[dict[str, float]], dict[str, str] | None]]:
    """A cell without Tune: what the mailbox gives a trial, message by message."""
    job = {"cell": cell, "checkpoints": "unused", "rungs": ()}
    ticket, taken, end = ray.get(mailbox.submit.remote(f"trial{cell['n']}", job)), 0, None
    while end is None:
        reports, end = ray.get(mailbox.take.remote(ticket, taken))
        taken += len(reports)
        yield reports, end
    ray.get(mailbox.abandon.remote(ticket))


def test_a_failing_cell_is_a_result_and_the_others_reach_tune_whole(lane: SimpleNamespace) -> None:
    heard = tuned(lane.mailbox, [2, -1, 5])
    for n in (2, 5):
        assert [(one["epoch"], one["total"]) for one in heard[n]] == [(e, 3.0 * n) for e in (1, 2, 3, 3)]
        assert (heard[n][-1]["status"], heard[n][-1]["reason"]) == ("finished", "")
    (failed,) = heard[-1]
    assert (failed["status"], failed["reason"]) == ("failed", "ValueError: n must not be -1, got -1")
    assert "test_lanes.py" in failed["traceback"]
    assert heard[2][0]["worker"] == heard[5][0]["worker"], "a cell that fails alike on all ranks costs no worker group"


def test_a_trial_stopped_by_tune_frees_its_lane_and_leaves_no_report_behind(lane: SimpleNamespace) -> None:
    heard = tuned(lane.mailbox, [7, 11], stop=lambda _, result: result["total"] == 21.0)
    assert [one["epoch"] for one in heard[7]] == [1]
    assert [(one["epoch"], one["total"]) for one in heard[11]] == [(e, 33.0) for e in (1, 2, 3, 3)]


def test_at_a_rung_a_stopped_trial_trains_no_further(lane: SimpleNamespace) -> None:
    heard = tuned(
        lane.mailbox,
        [17, 19],
        epochs=9,
        rungs=(2,),
        stop=lambda _, result: result["total"] == 51.0 and result["epoch"] == 2,
    )
    assert [one["epoch"] for one in heard[17]] == [1, 2]
    assert lane.epochs(17) == 2, "the epoch after the rung was not begun"
    assert lane.epochs(19) == 9


def test_a_trial_whose_process_is_killed_goes_on_with_the_same_cell(lane: SimpleNamespace) -> None:
    class Killing(Heard):
        """Kills the trial's process at its second report."""

        starts, recoveries, errors, killed = 0, 0, 0, False

        def on_trial_start(self, *_: object, **__: object) -> None:
            self.starts += 1

        def on_trial_recover(self, *_: object, **__: object) -> None:
            self.recoveries += 1

        def on_trial_error(self, *_: object, **__: object) -> None:
            self.errors += 1

        def on_trial_result(self, *words: object, trial: Any, result: dict[str, Any], **more: object) -> None:
            super().on_trial_result(*words, trial=trial, result=result, **more)
            if result["epoch"] == 2 and not self.killed:
                self.killed = True
                os.kill(result["pid"], signal.SIGKILL)

    heard = Killing()
    reports = tuned(lane.mailbox, [23], epochs=5, heard=heard)[23]
    assert [one["epoch"] for one in reports if "status" not in one][-5:] == [1, 2, 3, 4, 5]
    assert reports[-1]["status"] == "finished"
    assert (heard.starts, heard.errors) == (2, 0)
    assert lane.epochs(23) == 5, "nothing was trained twice"


def test_a_cell_runs_again_in_a_new_worker_group_when_memory_runs_out_and_when_a_worker_is_killed(
    lane: SimpleNamespace,
) -> None:
    heard: list[dict[str, Any]] = []
    ended = None
    for reports, end in submitted(lane.mailbox, {"n": 13, "epochs": 5}):
        metrics = [report for report in reports if "note" not in report]
        if metrics and not any("note" not in report for report in heard):
            os.kill(int(metrics[0]["worker"]), signal.SIGKILL)
            (lane.results / "struck").touch()
        heard += reports
        ended = end
    assert ended == FINISHED
    memory, dead = [report["note"] for report in heard if "note" in report]
    assert (
        memory == "worker lost (OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB); goes on after epoch 0"
    )
    assert dead.startswith(f"worker lost ({DEAD}); goes on after epoch ")
    assert [(one["epoch"], one["total"]) for one in heard[-5:]] == [(e, 39.0) for e in (1, 2, 3, 4, 5)]
    assert len({one["worker"] for one in heard if "worker" in one}) == 2


def test_closing_leaves_no_process_and_no_file_outside_the_results(lane: SimpleNamespace) -> None:
    started = descendants(os.getpid()) - lane.before
    short_path = Path(ray._private.worker._global_node.get_temp_dir_path())
    assert lane.pool.ready() == 1
    assert len(started) > 5
    assert short_path.resolve() == lane.results / "ray"
    lane.close()
    deadline = time.monotonic() + 60
    while (left := started & running()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    assert not short_path.parent.exists()


def processes() -> dict[int, int]:
    """pid -> parent's pid of everything that runs and is not a zombie."""
    lines = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in lines.splitlines()]
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}


def running() -> set[int]:
    return set(processes())


def descendants(ancestor: int) -> set[int]:
    parents = processes()
    found = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {ancestor}
