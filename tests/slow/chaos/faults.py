"""Faults that strike a running sweep. Each returns True once it has struck, False if it could not."""

import contextlib
import random
import resource
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable

from chaos_sweep import ChaosSweep, send

Fault = Callable[[ChaosSweep, "subprocess.Popen[bytes]", random.Random], bool]

TRIAL, WORKER = "ray::ImplicitFunc", "RayTrainWorker"  # titles of Tune's trials and of training workers
REFUSED = ("metrics", "latest_metrics", "tags", "params")


def kill_driver(sweep: ChaosSweep, driver: "subprocess.Popen[bytes]", rng: random.Random) -> bool:  # noqa: ARG001
    """kill -9 of the command; its children remain."""
    alive = driver.poll() is None
    driver.kill()
    driver.wait()
    return alive


def kill_trial(sweep: ChaosSweep, driver: "subprocess.Popen[bytes]", rng: random.Random) -> bool:  # noqa: ARG001
    """kill -9 of the process of a Tune trial."""
    return _kill_one(sweep, rng, TRIAL)


def kill_worker(sweep: ChaosSweep, driver: "subprocess.Popen[bytes]", rng: random.Random) -> bool:  # noqa: ARG001
    """kill -9 of a training worker."""
    return _kill_one(sweep, rng, WORKER)


def corrupt_checkpoint(sweep: ChaosSweep, driver: "subprocess.Popen[bytes]", rng: random.Random) -> bool:  # noqa: ARG001
    """The newest checkpoint of an unfinished cell is damaged, and all workers are killed before they write another."""
    workers = sweep.processes(WORKER)
    for worker in workers:
        send(worker, signal.SIGSTOP)
    file = sweep.newest_checkpoint()
    if file is not None:
        content = bytearray(file.read_bytes())
        for _ in range(20):
            content[rng.randrange(len(content))] ^= 0xFF
        file.write_bytes(content)
    killed = [send(worker, signal.SIGKILL) for worker in workers]
    return any(killed) and file is not None


def stop_file_growth(sweep: ChaosSweep, driver: "subprocess.Popen[bytes]", rng: random.Random) -> bool:
    """No process can write to a file for some seconds, as on a full disk."""
    limits: dict[int, tuple[int, int]] = {}
    for pid in (driver.pid, *sweep.processes(WORKER)):
        with contextlib.suppress(ProcessLookupError):
            limits[pid] = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, limits[pid][1]))
    time.sleep(rng.uniform(2, 6))
    for pid, limit in limits.items():
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
    return len(limits) > 1


def refuse_writes(sweep: ChaosSweep, driver: "subprocess.Popen[bytes]", rng: random.Random) -> bool:  # noqa: ARG001
    """The store answers every insert with an error until an epoch has ended, and some seconds longer."""
    began, start, least = time.time(), time.monotonic(), rng.uniform(2, 6)
    where = f"file:{sweep.database}?mode=rw"
    with contextlib.closing(sqlite3.connect(where, uri=True, timeout=60, isolation_level=None)) as store:
        for table in REFUSED:
            store.execute(f"CREATE TRIGGER chaos_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END")
        try:
            while time.monotonic() < start + (least if sweep.last_epoch() > began else 10 * least):
                time.sleep(0.05)
        finally:
            for table in REFUSED:
                store.execute(f"DROP TRIGGER chaos_{table}")
    return sweep.last_epoch() > began


def _kill_one(sweep: ChaosSweep, rng: random.Random, title: str) -> bool:
    found = [*sweep.processes(title)]
    return bool(found) and send(rng.choice(found), signal.SIGKILL)


# At most two of them end worker groups of one launch: a cell that loses more is failed, by the engine's rules.
FAULTS: tuple[Fault, ...] = (
    kill_worker,
    kill_trial,
    refuse_writes,
    kill_driver,
    stop_file_growth,
    corrupt_checkpoint,
)
