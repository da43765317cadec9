"""Faults that strike a running sweep. Each returns True once it has struck, False if it could not."""

import contextlib
import os
import random
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


def refuse_writes(sweep: ChaosSweep, driver: "subprocess.Popen[bytes]", rng: random.Random) -> bool:  # noqa: ARG001
    """The store answers every insert with an error until an epoch has ended, and some seconds longer."""
    create = "CREATE TRIGGER chaos_{0} BEFORE INSERT ON {0} BEGIN SELECT RAISE(ABORT, 'no'); END"
    begin = [create.format(table) for table in REFUSED]
    return _between(sweep, rng, begin, [f"DROP TRIGGER chaos_{table}" for table in REFUSED])


def lock_store(sweep: ChaosSweep, driver: "subprocess.Popen[bytes]", rng: random.Random) -> bool:  # noqa: ARG001
    """Another process holds the store's lock until an epoch has ended, and some seconds longer."""
    return _between(sweep, rng, ["BEGIN EXCLUSIVE"], ["ROLLBACK"])


def damage_checkpoint(sweep: ChaosSweep, driver: "subprocess.Popen[bytes]", rng: random.Random) -> bool:  # noqa: ARG001
    """The newest checkpoint of a running cell is cut short, then all workers get kill -9 before they write another."""
    workers = sweep.processes(WORKER)
    for worker in workers:
        send(worker, signal.SIGSTOP)
    newest = sweep.newest_checkpoint()
    if newest is not None:
        os.truncate(newest, rng.randrange(newest.stat().st_size))
    killed = [send(worker, signal.SIGKILL) for worker in workers]
    return any(killed) and newest is not None


def _between(sweep: ChaosSweep, rng: random.Random, begin: list[str], end: list[str]) -> bool:
    """Wait some seconds and for the end of an epoch between two groups of statements in the store."""
    began, start, least = time.time(), time.monotonic(), rng.uniform(2, 6)
    where = f"file:{sweep.database}?mode=rw"
    with contextlib.closing(sqlite3.connect(where, uri=True, timeout=60, isolation_level=None)) as store:
        for statement in begin:
            store.execute(statement)
        try:
            while time.monotonic() < start + (least if sweep.last_epoch() > began else 10 * least):
                time.sleep(0.05)
        finally:
            for statement in end:
                store.execute(statement)
    return sweep.last_epoch() > began


def _kill_one(sweep: ChaosSweep, rng: random.Random, title: str) -> bool:
    found = [*sweep.processes(title)]
    return bool(found) and send(rng.choice(found), signal.SIGKILL)


FAULTS: tuple[Fault, ...] = (kill_worker, kill_trial, refuse_writes, kill_driver, damage_checkpoint, lock_store)
