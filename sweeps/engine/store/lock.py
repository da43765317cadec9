"""Lock of a sweep: one launch at a time, on this machine or on another; one that died is taken over.

Two kinds of evidence. A lock on a file under results/locks is exact wherever the folder is shared: the kernel frees it
when its process dies. A lease in the store, refreshed by a heartbeat every few seconds, serves launches that share only
a server: a lock owner on another machine whose heartbeat is a minute old is dead.
"""

import dataclasses
import fcntl
import json
import logging
import os
import platform
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from jepa_train.base.errors import ConfigError
from jepa_train.storage.paths import results_dir
from sweeps.engine.store.experiment import open_experiment
from sweeps.engine.store.mlflow_client import TROUBLE
from sweeps.engine.store.provenance import user
from sweeps.engine.store.reader import find_experiment, store_uri

logger = logging.getLogger(__name__)

_TAG = "sweep.holder"
_HEARTBEAT_S = 10.0  # between two heartbeats
_STALE_S = 60.0  # without one, an owner on another machine is taken for dead; their clocks agree within this
_TAKE_OVER = signal.SIGUSR1  # interrupts the launch whose sweep another has taken over
_POLL_S = 1.0  # between two looks at the lease of another machine
_SETTLE_S = 0.5  # between writing a lease and trusting it, at least


@dataclass(frozen=True, kw_only=True)
class LockOwner:
    """Lock owner: the launch that runs a sweep."""

    host: str
    pid: int
    user: str
    since: float  # seconds since 1970, by the clock of its host
    beat: float  # its last heartbeat
    lock: str  # its lock file
    id: str

    @property
    def description(self) -> str:
        """User and process, since when, and the age of the last heartbeat."""
        began, today = time.localtime(self.since), time.localtime()[:3]
        since = time.strftime("%H:%M" if began[:3] == today else "%Y-%m-%d %H:%M", began)
        ago = max(0.0, time.time() - self.beat)
        return f"{self.user}@{self.host} (process {self.pid}) since {since}, last heard of {ago:.0f} s ago"

    @property
    def text(self) -> str:
        """JSON, for the lock file and the store."""
        return json.dumps(dataclasses.asdict(self))


def holder_of(sweep: str) -> LockOwner | None:
    """The lock owner of a sweep, by either evidence, or None where there is no living one. Creates nothing.

    Raises:
        MlflowException: the store cannot be reached, and the lock says nothing.
    """
    file = _lock_file(sweep)
    with suppress(FileNotFoundError, NotADirectoryError), file.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _parsed(stream.read())
            if holder is not None:
                return dataclasses.replace(holder, beat=time.time())  # its lock is its life
    experiment = find_experiment(sweep, store_uri())
    lease = _parsed(experiment.tags.get(_TAG, "")) if experiment is not None else None
    return lease if lease is not None and _is_alive(lease, file) else None


@contextmanager
def hold(sweep: str, note: Callable[[str], object] = logger.info) -> Iterator[None]:
    """Hold the sweep for the block. Its experiment is created where it is missing.

    A launch on another machine that was heard of in the last minute is waited for until it gives a sign of life, or the
    minute is over: nobody sends a batch job once more that was killed, began again elsewhere and was refused.

    To be called in the main thread. Should another launch take it over, which did not hear of this one for a minute,
    the block is interrupted as by Ctrl-C.

    Args:
        note: told what is waited for.

    Raises:
        ConfigError: another launch holds the sweep, or has taken it over; MlflowException: the store cannot be reached.
    """
    now, file = time.time(), _lock_file(sweep)
    me = LockOwner(
        host=platform.node(), pid=os.getpid(), user=user(), since=now, beat=now, lock=str(file), id=uuid.uuid4().hex
    )
    with _locked(sweep, me):
        client, experiment = open_experiment(sweep)
        lease = _Lease(client, experiment.experiment_id, sweep, me)
        lease.acquire(note)
        # not SIGINT: in a script's background jobs that is ignored
        before = signal.signal(_TAKE_OVER, signal.default_int_handler)
        try:
            yield
        except KeyboardInterrupt:
            if lease.taken_by is None:
                raise
        finally:
            lease.release()
            signal.signal(_TAKE_OVER, before)
        if lease.taken_by is not None:
            raise ConfigError(
                f"sweep {sweep} was taken over by {lease.taken_by.description}, which had not heard of this launch for "
                f"{_STALE_S:.0f} s; it goes on there"
            )


@contextmanager
def _locked(sweep: str, me: LockOwner) -> Iterator[None]:
    file = _lock_file(sweep)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        stream = file.open("a+")
    except OSError as error:
        raise ConfigError(f"the results folder must be writable, but {file} is not ({error.strerror})") from None
    with stream:
        for attempt in range(10):  # holder_of takes the lock for a moment, and a new holder needs one to write its name
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                stream.seek(0)
                other = _parsed(stream.read())
                if attempt == 9:
                    raise _held_error(sweep, dataclasses.replace(other, beat=time.time()) if other else None) from None
                time.sleep(0.05)
        stream.truncate(0)
        with suppress(OSError):  # a full disk: the lock holds without a name
            stream.write(me.text)
            stream.flush()
        yield


class _Lease:
    """Lease: the lock owner's tag on the sweep's experiment, and the heartbeat thread that refreshes it."""

    def __init__(self, client: MlflowClient, experiment_id: str, sweep: str, me: LockOwner) -> None:
        self.taken_by: LockOwner | None = None
        self._client = client
        self._experiment_id = experiment_id
        self._sweep = sweep
        self._me = me
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._heartbeat, name="lease", daemon=True)

    def acquire(self, note: Callable[[str], object]) -> None:
        """Write the lease where there is no living one, and check that it stays."""
        first, told = self._read(), False
        began = time.monotonic()
        while (other := self._read()) is not None and _is_alive(other, Path(self._me.lock)):
            if other.host == platform.node() or other != first:  # it has given a sign of life
                raise _held_error(self._sweep, other)
            if not told:
                note(f"sweep {self._sweep} is held by {other.description}; waiting {_STALE_S:.0f} s for a sign of life")
            told = True
            time.sleep(_POLL_S)
            began = time.monotonic()
        try:
            self._write()
        except TROUBLE:  # another launch made the tag between the store's look and its insertion
            if self._read() is None:
                raise
        # Another launch that read before this one wrote has written by the end of this
        time.sleep(max(_SETTLE_S, 2 * (time.monotonic() - began)))
        other = self._read()
        if other is not None and other.id != self._me.id:
            raise _held_error(self._sweep, other)
        self._thread.start()

    def release(self) -> None:
        """Delete the lease, if it can be done at once."""
        self._over.set()
        self._thread.join(timeout=_SETTLE_S)
        with suppress(*TROUBLE):
            lease = self._read()
            if lease is not None and lease.id == self._me.id:
                self._client.delete_experiment_tag(self._experiment_id, _TAG)

    def _heartbeat(self) -> None:
        while not self._over.wait(_HEARTBEAT_S):
            with suppress(*TROUBLE):  # the store is away, and may come back
                other = self._read()
                if other is not None and other.id != self._me.id and _is_alive(other, Path(self._me.lock)):
                    self.taken_by = other
                    if not self._over.is_set():
                        signal.pthread_kill(threading.main_thread().ident or 0, _TAKE_OVER)
                    return
                self._write()

    def _read(self) -> LockOwner | None:
        return _parsed(self._client.get_experiment(self._experiment_id).tags.get(_TAG, ""))

    def _write(self) -> None:
        text = dataclasses.replace(self._me, beat=time.time()).text
        self._client.set_experiment_tag(self._experiment_id, _TAG, text)


def _is_alive(lease: LockOwner, free: Path) -> bool:
    """Check that a lease's owner lives, given that no other process has the lock file `free`."""
    if lease.host == platform.node():
        if lease.lock == str(free):
            return False
        try:
            os.kill(lease.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
    return abs(time.time() - lease.beat) < _STALE_S


def _held_error(sweep: str, holder: LockOwner | None) -> ConfigError:
    who = holder.description if holder is not None else "another launch"
    return ConfigError(f"sweep {sweep} is being run by {who}; watch it with --status, or stop it first")


def _lock_file(sweep: str) -> Path:
    return results_dir() / "locks" / f"{sweep}.lock"


def _parsed(text: str) -> LockOwner | None:
    try:
        return LockOwner(**json.loads(text))
    except (ValueError, TypeError):
        return None
