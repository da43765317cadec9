"""Lanes whose runner only reports, as a head sees them: its processes with their memory, and the mailbox's CPU time."""

import asyncio
import collections
import dataclasses
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, ClassVar

import psutil
import ray
from ray import tune

from jepa_train.flat import flatten
from jepa_train.presets import DIGITS
from sweeps.engine.lanes import LanePool
from sweeps.engine.mailbox import Mailbox
from sweeps.engine.trial import make_trial

_METRICS = {f"val/metric{number}": 0.5 for number in range(40)}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A line of the table."""

    what: str
    at: str
    value: float
    unit: str
    n: int = 1  # what the median is of

    HEADER: ClassVar[tuple[str, ...]] = ("what", "at", "median", "unit", "n")
    NOTE: ClassVar[str] = (
        "Memory: USS, what would be free if the process ended. CPU: user and system time of the processes that are "
        "named, other work on the machine counts little. On a machine of 2 cores that other work shared."
    )

    def cells(self) -> tuple[str, ...]:
        """The texts under HEADER."""
        return self.what, self.at, f"{self.value:,.4g}", self.unit, str(self.n)

    def record(self) -> dict[str, Any]:
        """The fields."""
        return dataclasses.asdict(self)


def lane_rows(lanes: int, folder: Path) -> Iterator[Measured]:
    """Memory by kind of process, while every lane runs a trial, and how many of a kind. Ray must be up.

    "once" counts those of a session without trials.
    """
    before = collections.Counter(kind for kind, _ in _processes())
    for kind, sizes in sorted(_while_trials_run(lanes, folder).items()):
        per = f"{before[kind]} once" if before[kind] else f"{len(sizes)} with {lanes} trials at once"
        yield Measured(what=f"memory, {kind}", at=per, value=median(sizes) / 1e6, unit="MB", n=len(sizes))


def _while_trials_run(lanes: int, folder: Path) -> dict[str, list[int]]:
    go, found = folder / "measured", dict[str, list[int]]()

    def runner(cell: Any, report: Any, *_: Any) -> Any:  # noqa: ARG001 (of the runner's signature)
        epoch = 0
        while not go.exists():
            epoch += 1
            report({"epoch": float(epoch), **_METRICS})
            time.sleep(0.5)
        return SimpleNamespace(status="finished", reason="")

    class Look(tune.Callback):
        """Measures once all trials have reported."""

        heard: ClassVar[collections.Counter[str]] = collections.Counter()

        def on_trial_result(self, *_: object, trial: Any, **__: object) -> None:
            self.heard[trial.trial_id] += 1
            if len(self.heard) == lanes and min(self.heard.values()) >= 4 and not go.exists():
                for kind, size in _processes():
                    found.setdefault(kind, []).append(size)
                go.touch()

    one = {"workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0}
    with LanePool(num_lanes=lanes, **one, storage=folder / "train", runner=runner) as pool:  # type: ignore[arg-type]
        tune.Tuner(
            make_trial(pool.mailbox, str(folder)),
            param_space=flatten(DIGITS) | {"seed": tune.grid_search(list(range(lanes)))},
            tune_config=tune.TuneConfig(max_concurrent_trials=lanes, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=str(folder / "tune"), callbacks=[Look()], verbose=0),
        ).fit()
    return found


def _processes() -> list[tuple[str, int]]:
    """(kind, USS) of the driver and of all that it has started."""
    me = psutil.Process()
    found = [("driver", me.memory_full_info().uss)]
    for process in me.children(recursive=True):
        try:
            found.append((_kind(process), process.memory_full_info().uss))
        except psutil.NoSuchProcess:
            continue
    return found


def _kind(process: psutil.Process) -> str:
    title = " ".join(process.cmdline())
    if title.startswith("ray::"):
        return f"Ray: {re.split(r'[ .(]', title[5:])[0]}"
    name = next((word for word in ("gcs_server", "raylet", "dashboard", "log_monitor", "monitor") if word in title), "")
    return f"Ray: {name or process.name()}"


def mailbox_rows(lanes: Sequence[int], *, reports: int) -> Iterator[Measured]:
    """CPU time of the mailbox's process per report that a trial takes, with so many trials at once; and the rate."""
    for count in lanes:
        yield from _one_mailbox(count, max(1, reports // count))


def _one_mailbox(lanes: int, each: int) -> Iterator[Measured]:
    box = ray.remote(num_cpus=0, max_concurrency=10_000)(Mailbox).remote(lanes)
    process = psutil.Process(ray.get(box.__ray_call__.remote(lambda _: os.getpid())))

    async def played(lane: int) -> None:
        ticket = await box.submit.remote(f"trial{lane}", {})
        group = await box.begin.remote(lane, None, [])
        got = ()
        while not got:
            got = await box.next.remote(lane, group, 0)
        claim = (lane, group, got[0])

        async def relayed() -> None:
            taken = 0
            while taken < each:
                heard, _ = await box.take.remote(ticket, taken)
                taken += len(heard)

        async def reported() -> None:
            for epoch in range(each):
                await box.report.remote((lane, group, claim[2]), {"epoch": float(epoch), **_METRICS}, False)

        await asyncio.gather(relayed(), reported())

    async def all_lanes() -> None:
        await asyncio.gather(*(played(lane) for lane in range(lanes)))

    began, before = time.perf_counter(), process.cpu_times()
    asyncio.run(all_lanes())
    seconds, after = time.perf_counter() - began, process.cpu_times()
    used = after.user + after.system - before.user - before.system
    at, count = f"{lanes} trials at once", lanes * each
    yield Measured(what="mailbox, CPU per report and taking it", at=at, value=1000 * used / count, unit="ms", n=count)
    yield Measured(what="mailbox, reports, all on this machine", at=at, value=count / seconds, unit="per s", n=count)
    ray.kill(box)
