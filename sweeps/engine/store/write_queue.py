"""The write queue: one thread between a sweep and its store. Whatever the store does, nobody else waits for it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from math import inf

from sweeps.engine.store.mlflow_client import TROUBLE, Refused, root_cause
from sweeps.engine.store.mlflow_writer import MlflowWriter
from sweeps.engine.store.offline_queue import OfflineQueue, Operation
from sweeps.engine.store.reader import shown_uri

_REST_S = (2.0, 10.0)  # between two flushes: the shortest and the longest
_SHARE = 0.005  # of a CPU that flushes take; larger ones cost less per metric
_BACKOFF_S = (1.0, 15.0)  # between two attempts to reach the store: the first, the longest
_GRACE_S = 5.0  # at the end, for a store that is away
_PATIENCE_S = 12.0  # at the end, without an answer: a little more than an HTTP request may take


class _GivenUp(Exception):
    """`close` has stopped waiting for the thread, and has saved what waited itself."""


class WriteQueue:
    """Writes operations in batches; while the store is away they are in the offline queue, and it is tried again.

    Args:
        sweep: its name.
        note: told when the store goes and when it comes back, in one line.
        flushed: called in the thread after a flush: whether a run ended in it, whether it is the last.
    """

    def __init__(
        self,
        writer: MlflowWriter,
        sweep: str,
        *,
        note: Callable[[str], object],
        flushed: Callable[[bool, bool], object],
    ) -> None:
        self._writer = writer
        self._store = shown_uri()
        self._note = note
        self._flushed = flushed
        self._offline = OfflineQueue(sweep)
        self._refused: set[str] = set()  # cells of which it was told
        self._backoff = 0.0
        self._news = threading.Condition()  # guards the rest
        self._waiting: dict[str, list[Operation]] = {}  # by cell: what the store has not confirmed
        self._unsaved: list[Operation] = []  # of these, during an outage: what is not in the offline queue
        self._outage = ""  # why the store cannot be reached
        self._closing = self._given_up = False
        self._patience_until = 0.0  # when `close` gives the thread up, unless the store has answered by then
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def put(self, operation: Operation) -> None:
        """Takes microseconds."""
        with self._news:
            self._waiting.setdefault(operation.key, []).append(operation)
            if self._outage:
                self._unsaved.append(operation)
            self._news.notify()

    def close(self) -> str:
        """Write what is left, for as long as the store answers; "" or one line that says how much waits where."""
        with self._news:
            self._closing = True
            self._patience_until = max(self._patience_until, time.monotonic() + _PATIENCE_S)
            self._news.notify()
        while self._thread.is_alive() and time.monotonic() < self._patience_until:
            self._thread.join(timeout=0.2)
        with self._news:
            self._given_up = True
            left = [*chain(*self._waiting.values())]
            unsaved = self._unsaved if self._outage else left
            saved = not unsaved or self._offline.append(unsaved)
        if not left:
            return ""
        why = f"the store {self._store} cannot be reached ({self._outage or 'it does not answer'})"
        if not saved:
            return f"{len(unsaved)} of {len(left)} records are lost: {why}, and {self._offline.file} cannot be written"
        return f"{len(left)} records wait in {self._offline.file}: {why}; the same command writes them first"

    def _run(self) -> None:
        """Write what waits, again and again, until the queue is closed and all is written or time is up."""
        with suppress(_GivenUp):
            pause = 0.0
            while not self._wait(pause):
                pause = self._attempt()
            give_up_at = time.monotonic() + _GRACE_S
            pause = self._attempt(last=True)
            while self._outage and time.monotonic() < give_up_at:
                time.sleep(min(pause, _GRACE_S))
                pause = self._attempt(last=True)

    def _wait(self, pause: float) -> bool:
        """Wait for operations and until the pause is over, while those of an outage are saved; True once closing."""
        until = time.monotonic() + pause
        with self._news:
            self._news.wait_for(lambda: self._closing or self._waiting)
            while not self._closing and (left := until - time.monotonic()) > 0:
                self._save()
                self._news.wait_for(lambda: self._closing, min(left, _REST_S[0]))
            return self._closing

    def _attempt(self, *, last: bool = False) -> float:
        """Write all that waits, or begin an outage. Returns the seconds until the next attempt."""
        began = time.thread_time()
        try:
            ended = self._flush()
            spent = time.thread_time() - began
            self._end_outage()
            self._call_flushed(ended, last)
            if last:
                self._flush()  # what the call has added
        except TROUBLE as error:
            self._begin_outage(root_cause(error))
            self._backoff = min(_BACKOFF_S[1], max(_BACKOFF_S[0], 2 * self._backoff))
            return self._backoff
        self._backoff = 0.0
        return min(_REST_S[1], max(_REST_S[0], spent / _SHARE))

    def _flush(self) -> bool:
        """Write all that waits, cell by cell; whether a run ended. Raises anything of TROUBLE."""
        ended = False
        with self._news:
            batch = {key: [*operations] for key, operations in self._waiting.items()}
        for key, operations in batch.items():
            self._write(key, operations)
            with self._in_charge():
                del self._waiting[key][: len(operations)]
                if not self._waiting[key]:
                    del self._waiting[key]
                self._patience_until = time.monotonic() + _PATIENCE_S
            ended |= any(one.ends for one in operations)
        return ended

    def _write(self, key: str, operations: list[Operation]) -> None:
        """Write one cell's operations; a store that was there a moment ago is asked twice."""
        for last in (True,) if self._outage else (False, True):
            try:
                self._writer.write(key, operations)
            except Refused as error:
                if key not in self._refused:
                    self._note(f"the store refuses what cell {key} reports ({error}); it will be missing there")
                self._refused.add(key)
            except TROUBLE:
                if last:
                    raise
                continue
            return

    def _begin_outage(self, reason: str) -> None:
        """Save what waits to the offline queue; told once."""
        with self._in_charge():
            first, self._outage = not self._outage, reason
            if first:
                self._unsaved = [*chain(*self._waiting.values())]
            self._save()
            place = "in memory" if self._unsaved else f"in {self._offline.file}"
        if first:
            self._note(f"the store {self._store} cannot be reached ({reason}); metrics wait {place}; training goes on")

    def _end_outage(self) -> None:
        if self._outage:
            self._note(f"the store {self._store} answers again; the metrics that waited are written")
            with self._in_charge():
                self._offline.remove()
                self._outage, self._unsaved = "", []

    def _save(self) -> None:
        if self._unsaved and self._offline.append(self._unsaved):
            self._unsaved = []

    def _call_flushed(self, ended: bool, last: bool) -> None:
        """Let the sweep's table be made, for which `close` waits as long as it takes."""
        with self._news:
            self._patience_until = inf
        self._flushed(ended, last)
        with self._news:
            self._patience_until = time.monotonic() + _PATIENCE_S

    @contextmanager
    def _in_charge(self) -> Iterator[None]:
        """The lock, for the thread, unless it has been given up."""
        with self._news:
            if self._given_up:
                raise _GivenUp
            yield
