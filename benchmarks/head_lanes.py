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

from jepa_train.config.flat import flatten
from jepa_train.config.presets import DIGITS
from sweeps.engine.lanes.mailbox import Mailbox
from sweeps.engine.lanes.pool import LanePool
from sweeps.engine.lanes.trial import make_trial

_METRICS = {f"val/metric{number}": 0.5 for number in range(40)}
_PACE_S = 0.5  # between two reports of a trial
_LOOK_S = 20.0  # for which CPU time is counted
_HURRIED = 200  # reports of each trial without a pause


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A line of the table."""

    what: str
    at: str
    value: float
    unit: str
    n: int = 1  # what the median is of

    HEADER: ClassVar[tuple[str, ...]] = ("what", "at", "value", "unit", "n")
    NOTE: ClassVar[str] = (
        "Memory: USS, what would be free if the process ended, the median of n. CPU: user and system time of the "
        "process that is named: as a share of a core the median of n such processes, in ms the mean of n; a database "
        "server's own is not in it. Rates and the disk's speed are of a machine of 2 cores that other work shared."
    )

    def cells(self) -> tuple[str, ...]:
        """The texts under HEADER."""
        return self.what, self.at, f"{self.value:,.4g}", self.unit, str(self.n)

    def record(self) -> dict[str, Any]:
        """The fields."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Process:
    """The driver, or what it has started."""

    kind: str
    memory: int  # USS, bytes
    cpu: float  # seconds so far


def lane_rows(lanes: int, folder: Path) -> Iterator[Measured]:
    """By kind of process, while every lane runs a trial: how many, memory, and CPU where it counts. Ray must be up.

    "once" counts those of a session without trials.
    """
    before = collections.Counter(process.kind for process in processes().values())
    look = _looked(lanes, folder)
    kinds: dict[str, list[int]] = collections.defaultdict(list)
    for pid, process in look.began.items():
        kinds[process.kind].append(pid)
    for kind, pids in sorted(kinds.items()):
        at = f"{before[kind]} once" if before[kind] else f"{len(pids)} with {lanes} trials at once"
        sizes = [look.began[pid].memory / 1e6 for pid in pids]
        yield Measured(what=f"memory, {kind}", at=at, value=median(sizes), unit="MB", n=len(pids))
    for kind, pids in sorted(kinds.items()):
        at = f"{lanes} trials that report {1 / _PACE_S:g} times a second"
        shares = [100 * (look.ended[pid].cpu - look.began[pid].cpu) / look.seconds for pid in pids if pid in look.ended]
        yield Measured(what=f"CPU, {kind}", at=at, value=median(shares), unit="% of a core", n=len(pids))
    at, results = f"{lanes} trials that report as fast as they can", len(look.hurried) - 1
    each = 1000 * (look.hurried[-1] - look.hurried[0]) / results
    yield Measured(what="driver, CPU of Tune per report", at=at, value=each, unit="ms", n=results)


class _Look(tune.Callback):
    """Looks at all processes once every trial has reported, again after a while, and then at the driver's CPU time
    while the trials hurry.

    Args:
        go: the file that tells them to.
    """

    def __init__(self, lanes: int, go: Path) -> None:
        self.began: dict[int, Process] = {}
        self.ended: dict[int, Process] = {}
        self.seconds = 0.0
        self.hurried: list[float] = []
        self._lanes = lanes
        self._go = go
        self._heard: collections.Counter[str] = collections.Counter()

    def on_trial_result(self, *_: object, trial: Any, result: Any, **__: object) -> None:
        self._heard[trial.trial_id] += 1
        least = min(self._heard.values()) if len(self._heard) == self._lanes else 0
        if result.get("hurried"):
            self.hurried.append(time.process_time())
        elif least >= 4 and not self.began:
            self.began, self.seconds = processes(), time.monotonic()
        elif least >= 4 + _LOOK_S / _PACE_S and not self.ended:
            self.ended, self.seconds = processes(), time.monotonic() - self.seconds
            self._go.touch()


def _looked(lanes: int, folder: Path) -> _Look:
    go = folder / "measured"

    def runner(cell: Any, report: Any, *_: Any) -> Any:  # noqa: ARG001 (of the runner's signature)
        epoch = 0.0
        while not go.exists():
            epoch += 1
            report({"epoch": epoch, **_METRICS})
            time.sleep(_PACE_S)
        for _hurried in range(_HURRIED):
            epoch += 1
            report({"epoch": epoch, "hurried": 1.0, **_METRICS})
        return SimpleNamespace(status="finished", reason="")

    look = _Look(lanes, go)
    one = {"workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0}
    with LanePool(num_lanes=lanes, **one, storage=folder / "train", runner=runner) as pool:  # type: ignore[arg-type]
        tune.Tuner(
            make_trial(pool.mailbox, str(folder)),
            param_space=flatten(DIGITS) | {"seed": tune.grid_search(list(range(lanes)))},
            tune_config=tune.TuneConfig(max_concurrent_trials=lanes, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=str(folder / "tune"), callbacks=[look], verbose=0),
        ).fit()
    return look


def processes() -> dict[int, Process]:
    """The driver and all that it has started, by process id."""
    me = psutil.Process()
    found = {}
    for process in [me, *me.children(recursive=True)]:
        try:
            used = process.cpu_times()
            kind = "driver" if process == me else _kind(process)
            found[process.pid] = Process(kind, process.memory_full_info().uss, used.user + used.system)
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
