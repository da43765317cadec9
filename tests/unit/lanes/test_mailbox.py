"""The mailbox between trials and lanes: order, reports, stops, and cells that run again after a loss.

Run: python -m pytest tests/unit/lanes/test_mailbox.py
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.engine.lanes import mailbox as mailbox_module
from sweeps.engine.lanes import tasks
from sweeps.engine.lanes.mailbox import Mailbox
from sweeps.engine.lanes.tasks import MAX_LOSSES, ending

FINISHED = ending("finished")
NODES = ["head", "spot"]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Short waits, and a clock that a test sets."""
    monkeypatch.setattr(mailbox_module, "POLL_S", 0.01)
    now = [1000.0]
    for module in (mailbox_module, tasks):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def scenario(play: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    def test(clock: list[float]) -> None:
        asyncio.run(play(*[clock][: play.__code__.co_argcount]))

    return test


async def submitted(box: Mailbox, count: int = 1) -> list[int]:
    return [await box.submit(f"trial{n}", {"n": n}) for n in range(count)]


async def started(
    box: Mailbox, ticket: int, lane: int = 0, *, nodes: dict[str, str] | None = None, alive: Sequence[str] = NODES
) -> Any:
    """A new worker group of the lane, on these nodes (id -> address), that has taken the cell; its claim."""
    group = await box.begin(lane, [*alive])
    for node, address in (nodes or {}).items():
        await box.join(lane, group, node, address)
    taken = await box.next(lane, group, 0)
    assert taken
    assert taken[0] == ticket
    return lane, group, ticket


def notes(reports: list[dict[str, Any]]) -> list[str]:
    return [report["note"] for report in reports if report.get("note")]


@scenario
async def test_idle_lanes_take_cells_in_order_and_all_ranks_get_the_same() -> None:
    box = Mailbox(2)
    first, second, third = await submitted(box, 3)
    await started(box, first)
    claim = await started(box, second, lane=1)
    assert await box.next(0, 1, 0) == (first, {"n": 0}), "the other rank"
    assert await box.next(1, 1, second) == (), "a rank waits while others still run its cell"
    await box.finish(claim, FINISHED)
    assert await box.next(1, 1, second) == await box.next(1, 1, second) == (third, {"n": 2})


@scenario
async def test_an_abandoned_cell_stops_at_its_next_report_and_a_waiting_one_never_starts() -> None:
    box = Mailbox(1)
    running, _, wanted = await submitted(box, 3)
    claim = await started(box, running)
    await box.abandon_trial("trial0")
    await box.abandon_trial("trial1")
    assert await box.next(0, 1, running) == (), "the lane is busy until its workers end"
    assert await box.report(claim, {"loss": 1.0}, False) is True
    await box.finish(claim, ending("stopped"))
    assert await box.next(0, 1, running) == (wanted, {"n": 2})
    assert await box.report(claim, {"loss": 0.5}, False) is True, "a late report reaches nobody"
    assert await box.take(wanted, 0) == ([], None)


@scenario
async def test_a_restarted_trial_finds_its_cell_with_all_reports() -> None:
    box = Mailbox(1)
    (ticket,) = await submitted(box)
    claim = await started(box, ticket)
    await box.report(claim, {"epoch": 1}, False)
    await box.take(ticket, 0)
    assert await submitted(box) == [ticket]
    await box.finish(claim, FINISHED)
    assert await box.take(ticket, 0) == ([{"epoch": 1}], FINISHED)


@scenario
async def test_at_a_rung_a_cell_waits_until_tune_continues_or_stops_it() -> None:
    box = Mailbox(1)
    (ticket,) = await submitted(box)
    claim = await started(box, ticket)
    assert await box.report(claim, {"epoch": 1}, False) is False, "no rung: it does not wait"
    waiting = asyncio.create_task(box.report(claim, {"epoch": 2}, True))
    assert [report["epoch"] for report in (await box.take(ticket, 0))[0]] in ([1], [1, 2])
    await asyncio.sleep(0.03)
    assert not waiting.done(), "Tune has not judged it yet"
    await box.take(ticket, 2)
    assert await waiting is False
    waiting = asyncio.create_task(box.report(claim, {"epoch": 3}, True))
    await asyncio.sleep(0)
    await box.abandon_trial("trial0")
    assert await waiting is True


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (("OutOfMemoryError: no room", "Traceback ..."), "failed"),
        (("StorageError: away", "", True), "interrupted"),  # the next launch resumes it
    ],
)
def test_a_new_worker_group_runs_a_lost_cell_again_a_few_times(failure: Any, status: str) -> None:
    async def play() -> None:
        box = Mailbox(1)
        (ticket,) = await submitted(box)
        for _ in range(MAX_LOSSES):
            claim = await started(box, ticket)
            await box.report(claim, {"epoch": 4}, False)
            await box.fail(0, *failure)
        await box.begin(0, NODES)
        assert await box.report(claim, {"epoch": 5}, False) is True, "a former group reports for nobody"
        assert await box.next(0, claim[1], 0) is None, "and ends"
        await box.finish(claim, FINISHED)
        reports, end = await box.take(ticket, 0)
        assert end == ending(status, f"{failure[0]} ({MAX_LOSSES} attempts)", failure[1])
        assert notes(reports) == [f"worker lost ({failure[0]}); goes on after epoch 4"] * (MAX_LOSSES - 1)

    asyncio.run(play())


@pytest.mark.parametrize("notice", [True, False])
def test_the_loss_of_a_node_does_not_count_as_an_attempt(notice: bool) -> None:
    async def play() -> None:
        box = Mailbox(1)
        (ticket,) = await submitted(box)
        for attempt in range(3 * MAX_LOSSES):
            claim = await started(box, ticket, nodes={f"spot{attempt}": "10.0.0.2"}, alive=["head", f"spot{attempt}"])
            if notice:
                await box.leave(claim, [f"spot{attempt}"])
            await box.fail(0, "ActorDiedError")
        await box.begin(0, ["head", f"spot{attempt}"] if notice else ["head"])
        reports, end = await box.take(ticket, 0)
        assert end is None
        cause = "is about to be taken away" if notice else "is gone"
        assert notes(reports)[-1] == f"worker lost (node 10.0.0.2 {cause}); goes on after epoch 0"

    asyncio.run(play())


@scenario
async def test_training_since_the_last_checkpoint_is_lost_and_a_wait_is_idle(now: list[float]) -> None:
    box = Mailbox(1)
    (ticket,) = await submitted(box)
    claim = await started(box, ticket)
    now[0] += 900
    await box.saved(claim, 100.0)  # it took so long to arrive
    await box.saved(claim, 600.0)
    await box.fail(0, "its worker process died")
    now[0] += 300
    await box.begin(0, NODES)
    now[0] += 50
    await box.begin(0, NODES)  # without a cause
    assert [(note["lost_s"], note["idle_s"]) for note in (await box.take(ticket, 0))[0]] == [(100, 300), (50, 0)]


@scenario
async def test_a_long_wait_in_the_queue_is_reported_as_idle_once(now: list[float]) -> None:
    box = Mailbox(1)
    (ticket,) = await submitted(box)
    now[0] += 600  # a machine is found, started and set up
    claim = await started(box, ticket)
    assert (await box.take(ticket, 0))[0] == [{"note": "", "lost_s": 0.0, "idle_s": 600.0, "at": 0}]
    await box.report(claim, {"epoch": 1}, False)
    assert (await box.take(ticket, 1))[0] == [{"epoch": 1}]


@scenario
async def test_a_node_that_is_not_fit_ends_the_sweep_with_its_name() -> None:
    box = Mailbox(2)
    running, waiting = await submitted(box, 2)
    await started(box, running)
    assert await box.refusal() == ""
    await box.refuse("worker-2 has torch 2.1")
    await box.refuse("worker-3 has torch 2.1")
    ends = [(await box.take(ticket, 0))[1] for ticket in (running, waiting)]
    assert ends == [ending("interrupted", "worker-2 has torch 2.1")] * 2
    assert await box.refusal() == "worker-2 has torch 2.1"


@scenario
async def test_a_lost_lane_leaves_its_cell_to_the_others_and_the_last_one_ends_the_trials(now: list[float]) -> None:
    box = Mailbox(2)
    (ticket,) = await submitted(box)
    await started(box, ticket)
    await box.release(0, NODES, "ImportError: no torch")
    await started(box, ticket, lane=1)
    now[0] += 1800
    await box.release(1, NODES, "ImportError: no torch")
    now[0] += 30
    reports, end = await box.take(ticket, 0)
    assert end == ending("interrupted", "no lane is left to run cells: ImportError: no torch")
    assert [report["idle_s"] for report in (await box.take(ticket, 0))[0]][-1] == 30
    assert len(notes(reports)) == 2


@scenario
async def test_closing_stops_every_cell_and_ends_the_lanes() -> None:
    box = Mailbox(1)
    (ticket,) = await submitted(box)
    claim = await started(box, ticket)
    await box.close()
    assert await box.report(claim, {}, False) is True
    assert await box.next(0, 1, ticket) is None
    await box.finish(claim, ending("stopped"))
    assert await box.take(ticket, 0) == ([], ending("stopped", "the lanes were closed"))
