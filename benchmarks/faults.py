"""Faults: each strikes an arena, lasts for a while, and tells whether it has really struck."""

import contextlib
import errno
import random
import resource
import sqlite3
import time
from collections.abc import Callable

from benchmarks.arena import Arena
from benchmarks.processes import Process, marked

Fault = Callable[[Arena, random.Random], bool]

TRIAL, WORKER = "ray::ImplicitFunc", "RayTrainWorker"  # what Ray calls the processes of Tune's trials and of the lanes
LOSSES = 2  # a cell that loses more worker groups than this in one launch is failed for good, as it should be
_REFUSED = ("metrics", "latest_metrics", "tags", "params")


def kill_driver(arena: Arena, rng: random.Random) -> bool:  # noqa: ARG001 (every fault is called alike)
    """kill -9 of the command itself; what it started is on its own."""
    assert arena.driver is not None
    alive = arena.driver.poll() is None
    arena.driver.kill()
    arena.driver.wait()
    return alive


def kill_trial(arena: Arena, rng: random.Random) -> bool:
    """kill -9 of the process in which Tune runs a trial."""
    return _spared(arena) and _kill_one(arena, rng, TRIAL)


def kill_worker(arena: Arena, rng: random.Random) -> bool:
    """kill -9 of a TorchTrainer worker, which trains."""
    return _spared(arena) and _kill_one(arena, rng, WORKER)


def kill_server(arena: Arena, rng: random.Random) -> bool:
    """kill -9 of the MLflow server, which comes back some seconds later."""
    assert arena.server is not None
    struck = arena.server.kill()
    while arena.server.answers():
        time.sleep(0.05)
    time.sleep(rng.uniform(1, 6))
    arena.server.start()
    return struck


def fill_disk(arena: Arena, rng: random.Random) -> bool:
    """No byte is left on the results disk for some seconds; without a disk of their own, no file may grow."""
    until = time.monotonic() + rng.uniform(2, 6)
    if not arena.mounted:
        return _stop_growth(arena, until)
    ballast, full = arena.disk / "ballast", False
    try:
        while time.monotonic() < until:  # what others delete is taken as well
            full |= _fill(ballast)
            time.sleep(0.05)
    finally:
        ballast.unlink(missing_ok=True)
    return full


def refuse_writes(arena: Arena, rng: random.Random) -> bool:
    """The store answers every write with an error until an epoch has ended, and some seconds on."""
    begin = "CREATE TRIGGER chaos_{0} BEFORE INSERT ON {0} BEGIN SELECT RAISE(ABORT, 'no'); END"
    return _with_store(
        arena, rng, [begin.format(table) for table in _REFUSED], [f"DROP TRIGGER chaos_{table}" for table in _REFUSED]
    )


def lock_store(arena: Arena, rng: random.Random) -> bool:
    """Somebody else holds the store's lock until an epoch has ended, and some seconds on."""
    return _with_store(arena, rng, ["BEGIN EXCLUSIVE"], ["ROLLBACK"])


def corrupt_checkpoint(arena: Arena, rng: random.Random) -> bool:
    """The newest checkpoint of a running cell is cut short or altered; every worker is killed before it writes anew."""
    if not _spared(arena):
        return False
    workers = marked(arena.mark, title=WORKER)
    for worker in workers:
        worker.freeze()
    file = arena.newest()
    struck = bool(workers) and file is not None
    if file is not None:
        content = bytearray(file.read_bytes())
        if rng.random() < 0.5:
            content = content[: rng.randrange(len(content))]
        else:
            for _ in range(20):
                content[rng.randrange(len(content))] ^= 0xFF
        file.write_bytes(content)
    _count_losses(arena)
    return [worker.kill() for worker in workers].count(True) > 0 and struck


FAULTS: dict[str, Fault] = {
    "kill -9 of the driver": kill_driver,
    "kill -9 of a trial": kill_trial,
    "kill -9 of a TorchTrainer worker": kill_worker,
    "kill -9 of the MLflow server": kill_server,
    "a full results disk": fill_disk,
    "a store that refuses writes": refuse_writes,
    "a store that is locked": lock_store,
    "a corrupt checkpoint, then a killed worker": corrupt_checkpoint,
}


def _spared(arena: Arena) -> bool:
    """Whether no cell that runs has lost as much as it may; a fourth loss is the cell's fault by the engine's rules."""
    return all(arena.lost[key] < LOSSES for key in arena.running())


def _with_store(arena: Arena, rng: random.Random, begin: list[str], end: list[str]) -> bool:
    """Whether an epoch ended between the statements; nothing happens where the sweep has not made its store yet."""
    try:
        where = f"file:{arena.database}?mode=rw"
        with contextlib.closing(sqlite3.connect(where, uri=True, timeout=60, isolation_level=None)) as store:
            for statement in begin:
                store.execute(statement)
            try:
                return _epoch_ends(arena, rng.uniform(2, 6))
            finally:
                for statement in end:
                    store.execute(statement)
    except sqlite3.OperationalError:
        return False


def _count_losses(arena: Arena) -> None:
    """To all cells that run: which of them the process had is not to be seen from here."""
    arena.lost.update(arena.running())


def _kill_one(arena: Arena, rng: random.Random, title: str) -> bool:
    found: list[Process] = marked(arena.mark, title=title)
    if found:
        _count_losses(arena)
    return bool(found) and rng.choice(found).kill()


def _epoch_ends(arena: Arena, seconds: float) -> bool:
    """Stay so long, and at most ten times longer for an epoch to end; whether one did, so that it was to be told."""
    began, start = time.time(), time.monotonic()
    while time.monotonic() < start + seconds or (arena.progress() < began and time.monotonic() < start + 10 * seconds):
        time.sleep(0.05)
    return arena.progress() > began


def _fill(ballast: object) -> bool:
    """Whether the disk is full now."""
    block = bytes(1 << 20)
    with open(str(ballast), "ab", buffering=0) as file:
        while block:
            try:
                file.write(block)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                block = block[: len(block) // 2]  # to the last byte
    return True


def _stop_growth(arena: Arena, until: float) -> bool:
    """What a disk without space does to a process, by its own limit on the size of files."""
    before: list[tuple[int, tuple[int, int]]] = []
    assert arena.driver is not None
    pids = [arena.driver.pid, *(worker.pid for worker in marked(arena.mark, title=WORKER))]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            limit = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, limit[1]))
            before.append((pid, limit))
    time.sleep(max(0.0, until - time.monotonic()))
    for pid, limit in before:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
    return len(before) > 1
