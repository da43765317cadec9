"""One lane of two workers under Ray and Tune: reports, stops, failures, a killed worker; lanes that find no machine.

Run: python -m pytest tests/integration/lanes/test_lanes.py
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
from ray import tune
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2.api.exceptions import ControllerError
from stores import until

from sweeps.engine.cluster.node_check import Expected
from sweeps.engine.lanes import pool as pool_module
from sweeps.engine.lanes.pool import LanePool
from sweeps.engine.lanes.tasks import ending
from sweeps.engine.lanes.trial import make_trial

RUNG = 2


@pytest.fixture(scope="module")
def lane(shared_ray: Path) -> Iterator[SimpleNamespace]:
    def runner(cell: dict[str, Any], report: Any, *_: object) -> SimpleNamespace:
        """Each epoch adds up 1 + 2 over the two ranks, times the cell's number."""
        import torch
        import torch.distributed as dist

        if cell["n"] == -1:
            raise ValueError("n must not be -1, got -1")
        for epoch in range(1, 4):
            total = torch.tensor([float((dist.get_rank() + 1) * cell["n"])])
            dist.all_reduce(total)
            stop = torch.zeros(1)
            if dist.get_rank() == 0:
                with (shared_ray / f"epochs-{cell['n']}").open("a") as file:
                    file.write("x")
                stop += report({"epoch": epoch, "total": total.item(), "worker": os.getpid()})
            dist.broadcast(stop, 0)
            while cell["n"] == 13 and not (shared_ray / "killed").exists():
                time.sleep(0.05)  # until a worker is killed
            if stop.item():
                return SimpleNamespace(status="stopped", reason="")
        return SimpleNamespace(status="finished", reason="")

    one: dict[str, Any] = {"num_lanes": 1, "workers": 2, "cpus_per_worker": 1, "gpus_per_worker": 0}
    before = set(psutil.Process().children(recursive=True))
    with LanePool(**one, storage=shared_ray / "ray", runner=runner) as pool:
        until(
            lambda: all(ray.get(pool.mailbox.groups.remote())), 300, "no worker group came up"
        )  # else the first cell waits
        yield SimpleNamespace(mailbox=pool.mailbox, results=shared_ray)
    started = set(psutil.Process().children(recursive=True)) - before
    workers = [process for process in started if "RayTrainWorker" in process.name()]
    psutil.wait_procs(workers, timeout=60)
    assert not any(process.is_running() for process in workers), "closing the pool ends its workers"


@pytest.mark.parametrize(("after_s", "cpus"), [(0, 1), (1, 1), (1, 1000)], ids=["at once", "starting", "no machine"])
def test_lanes_that_are_closed_while_they_start_end(
    after_s: float, cpus: float, shared_ray: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "CLOSE_S", 0.1)
    monkeypatch.setattr(pool_module, "KILL_S", 2.0)  # less than lanes take to start and end by themselves
    pool = LanePool(num_lanes=2, workers=1, cpus_per_worker=cpus, gpus_per_worker=0, storage=shared_ray / "ray")
    with pool:
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("lane-")]
        time.sleep(after_s)
    assert len(threads) == 2
    assert not any(thread.is_alive() for thread in threads)


class Heard(tune.Callback):
    """Reports that Tune received of each trial, by the cell's number, in order."""

    def __init__(self) -> None:
        self.reports: dict[int, list[dict[str, Any]]] = {}

    def on_trial_result(self, *_: object, trial: Any, result: dict[str, Any], **__: object) -> None:
        self.reports.setdefault(trial.config["n"], []).append(dict(result))


def test_reports_reach_tune_and_a_stopped_trial_trains_no_further_than_its_rung(lane: SimpleNamespace) -> None:
    heard = Heard()
    results = tune.Tuner(
        make_trial(lane.mailbox, str(lane.results), rungs=(RUNG,)),
        param_space={"n": tune.grid_search([2, 7, 5])},
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(lane.results / "ray"),
            verbose=0,
            callbacks=[heard],
            stop=lambda _, result: result["total"] == 21.0 and result["epoch"] == RUNG,
        ),
    ).fit()
    assert not results.errors
    for n in (2, 5):
        assert [(one["epoch"], one["total"]) for one in heard.reports[n]] == [(e, 3.0 * n) for e in (1, 2, 3, 3)]
        assert (heard.reports[n][-1]["status"], heard.reports[n][-1]["reason"]) == ("finished", "")
    assert [one["epoch"] for one in heard.reports[7]] == [1, 2]
    assert len((lane.results / "epochs-7").read_text()) == RUNG, "the epoch after the rung was not begun"
    assert heard.reports[2][0]["worker"] == heard.reports[5][0]["worker"], "one worker group serves all cells"


def test_a_cell_of_a_killed_worker_runs_again_and_a_failed_one_is_a_result(lane: SimpleNamespace) -> None:
    reports, ends = [], []
    for number in (13, -1):
        job = {"cell": {"n": number}, "checkpoints": "", "rungs": ()}
        ticket, taken, end = ray.get(lane.mailbox.submit.remote(f"trial{number}", job)), 0, None
        while end is None:
            new, end = ray.get(lane.mailbox.take.remote(ticket, taken))
            taken += len(new)
            reports += [one for one in new if one.get("note") != ""]
            if new and number == 13 and not (lane.results / "killed").exists():
                os.kill(int(new[0]["worker"]), signal.SIGKILL)
                (lane.results / "killed").touch()
        ends.append(end)
    assert ends[0] == ending("finished")
    (note,) = [one["note"] for one in reports if "note" in one]
    assert note.startswith("worker lost (its worker process died: ")
    assert [(one["epoch"], one["total"]) for one in reports[-3:]] == [(e, 39.0) for e in (1, 2, 3)]
    assert len({one["worker"] for one in reports if "worker" in one}) == 2
    assert (ends[1]["status"], ends[1]["reason"]) == ("failed", "ValueError: n must not be -1, got -1")
    assert "in runner" in ends[1]["traceback"]


@pytest.mark.parametrize("on_cluster", [False, True])
def test_a_lane_waits_for_machines_only_where_some_may_come(
    on_cluster: bool, shared_ray: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [ControllerError(WorkerGroupStartupTimeoutError(1)) for _ in range(3)] + [ImportError("no torch")]
    left = iter(errors)

    def fit() -> None:
        raise next(left)

    trainer = SimpleNamespace(fit=fit, _create_default_callbacks=list)
    monkeypatch.setattr(pool_module, "TorchTrainer", lambda *_, **__: trainer)
    expected = Expected(versions={}, storage="", probe="") if on_cluster else None
    one: dict[str, Any] = {"num_lanes": 1, "workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0}
    with LanePool(**one, storage=shared_ray, expected=expected) as pool:
        ticket, end = ray.get(pool.mailbox.submit.remote("trial", {})), None
        while end is None:
            _, end = ray.get(pool.mailbox.take.remote(ticket, 0))
    assert end["status"] == "interrupted"
    assert ("ImportError: no torch" if on_cluster else "startup timed out") in end["reason"]


@pytest.mark.usefixtures("shared_ray")
def test_a_private_ray_listens_on_loopback_only() -> None:
    processes = {process.pid for process in psutil.Process().children(recursive=True)}
    listening = [one.laddr for one in psutil.net_connections() if one.pid in processes and one.status == "LISTEN"]
    assert len(listening) >= 3, "GCS, raylet and agents"
    assert {address.ip.removeprefix("::ffff:") for address in listening} <= {"127.0.0.1", "::1"}
