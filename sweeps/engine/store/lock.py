"""Lock of a sweep: one launch at a time, on this machine or on another; a dead launch is taken over.

A file lock under results/locks excludes launches that share the folder; the kernel frees it when its process dies. A
tag of the experiment, refreshed by a heartbeat, excludes launches that share only the store: an owner whose heartbeat
is a minute old is dead.
"""

import errno
import json
import logging
import os
import platform
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from jepa_train.base.errors import ConfigError
from jepa_train.storage.paths import results_dir
from sweeps.engine.sigterm import exit_on_sigterm
from sweeps.engine.store.experiment import open_experiment
from sweeps.engine.store.mlflow_client import TROUBLE, when_free
from sweeps.engine.store.provenance import user
from sweeps.engine.store.reader import find_experiment

logger = logging.getLogger(__name__)

_TAG = "sweep.holder"
_HEARTBEAT_S = 10.0  # between two heartbeats
_FIRST_S = 1.0  # before the first, at which all but one of several simultaneous launches end
_STALE_S = 60.0  # age of a heartbeat at which its owner is dead; clocks agree within this
_POLL_S = 1.0  # between two looks at another owner's tag
_STOP_S = 30.0  # for a living owner to read that it has been taken over, and as much to end


@dataclass(frozen=True, kw_only=True)
class LockOwner:
    """Launch that runs a sweep."""

    host: str
    pid: int
    user: str
    since: float  # seconds since 1970, by the clock of its host
    beat: float  # its last heartbeat
    lock: str  # its lock file
    id: str

    @property
    def description(self) -> str:
        """User and process, start time, and the age of the last heartbeat."""
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        ago = max(0.0, time.time() - self.beat)
        return f"{self.user}@{self.host} (process {self.pid}) since {since}, last heard of {ago:.0f} s ago"


def holder_of(sweep: str) -> LockOwner | None:
    """The launch that runs a sweep, by its heartbeat, or None. Raises MlflowException if the store is away."""
    experiment = find_experiment(sweep)
    return _living_owner(experiment.tags) if experiment is not None else None


@contextmanager
def hold(sweep: str, note: Callable[[str], object] = logger.info, *, take_over: bool = False) -> Iterator[None]:
    """Hold the sweep for the block. Its experiment is created if it is missing.

    An owner on another machine is refused when it gives a sign of life, and taken over when its heartbeat is a minute
    old, so that a batch job which was killed and begins again elsewhere needs nobody. A launch that has lost the sweep
    says so and ends by SIGTERM, which raises SystemExit in the block.

    Args:
        note: takes a line for the user.
        take_over: take the sweep from a living owner as well.

    Raises:
        ConfigError: another launch holds the sweep; MlflowException: the store cannot be reached.
    """
    file = results_dir() / "locks" / f"{sweep}.lock"
    lease, lock = _Lease(sweep, file, note), FileLock(file)
    try:
        other = lease.take_over() if take_over else lease.owner()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_STOP_S if take_over else 0)
        except Timeout:
            raise _held_error(sweep, other) from None
        except OSError as error:
            rule = "on a file system that has locks" if error.errno == errno.ENOLCK else "writable"
            raise ConfigError(
                f"the results folder must be {rule}, but {file} is not ({error.strerror}); set JEPA_RESULTS"
            ) from None
        with exit_on_sigterm():
            lease.acquire()
            yield
    finally:
        lease.release()
        lock.release()


class _Lease:
    """Tag of the owner on the sweep's experiment, and the thread that refreshes it."""

    def __init__(self, sweep: str, file: Path, note: Callable[[str], object]) -> None:
        now = time.time()
        self._me = LockOwner(
            host=platform.node(), pid=os.getpid(), user=user(), since=now, beat=now, lock=str(file), id=uuid.uuid4().hex
        )
        self._sweep = sweep
        self._note = note
        self._client, experiment = open_experiment(sweep)
        self._experiment_id = experiment.experiment_id
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._heartbeat, name="lease", daemon=True)

    def owner(self) -> LockOwner | None:
        """The living launch whose tag is in the store."""
        return _living_owner(when_free(lambda: self._client.get_experiment(self._experiment_id)).tags)

    def take_over(self) -> LockOwner | None:
        """Write the tag again and again, until a living owner has read it. Returns that owner."""
        other = self.owner()
        if other is not None:
            self._note(f"taking sweep {self._sweep} over, in {_STOP_S:.0f} s, from {other.description}")
            for _ in range(round(_STOP_S / _POLL_S)):
                self._write()
                time.sleep(_POLL_S)
        return other

    def acquire(self) -> None:
        """Write the tag. The lock file is held, so that an owner of this machine with the same one is dead."""
        other = self.owner()
        mine = (self._me.host, self._me.lock)
        if other is not None and other.id != self._me.id and (other.host, other.lock) != mine:
            self._note(
                f"waiting {_STALE_S:.0f} s for a sign of life; sweep {self._sweep} is run by {other.description}"
            )
            while (now := self.owner()) == other:
                time.sleep(_POLL_S)
            if now is not None:
                raise _held_error(self._sweep, now)
        self._write()
        self._thread.start()

    def release(self) -> None:
        """Remove the tag, if it is still this launch's and the store answers at once."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_FIRST_S)
        with suppress(*TROUBLE):
            owner = self.owner()
            if owner is not None and owner.id == self._me.id:
                self._client.delete_experiment_tag(self._experiment_id, _TAG)

    def _heartbeat(self) -> None:
        pause = _FIRST_S
        while not self._over.wait(pause):
            pause = _HEARTBEAT_S
            with suppress(*TROUBLE):  # the store is away, and may come back
                other = self.owner()
                if other is not None and other.id != self._me.id:
                    self._note(f"sweep {self._sweep} was taken over by {other.description}; this launch ends")
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                self._write()

    def _write(self) -> None:
        def write() -> None:
            text = json.dumps(asdict(replace(self._me, beat=time.time())))
            self._client.set_experiment_tag(self._experiment_id, _TAG, text)

        try:
            when_free(write)
        except MlflowException:  # of two launches that write the first tag at once, one fails; then the row exists
            write()


def _held_error(sweep: str, owner: LockOwner | None) -> ConfigError:
    who = owner.description if owner is not None else "another launch"
    return ConfigError(f"sweep {sweep} is being run by {who}; watch it with --status, or end it with --take-over")


def _living_owner(tags: Mapping[str, str]) -> LockOwner | None:
    try:
        owner = LockOwner(**json.loads(tags.get(_TAG, "")))
    except (ValueError, TypeError):
        return None
    return owner if abs(time.time() - owner.beat) < _STALE_S else None
