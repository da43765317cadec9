"""The writer: one thread between a sweep and its store. Whatever the store does, nobody else waits for it."""

import threading
import time
from collections.abc import Callable

from sweeps.engine.store.mlflow_runs import TROUBLE, Refused, Runs, one_line
from sweeps.engine.store.offline_queue import Operation, Spool

_REST_S = (2.0, 10.0)  # between two flushes: the shortest and the longest
_SHARE = 0.005  # of a CPU that flushes take; larger ones cost less per metric
_BACKOFF_S = (1.0, 15.0)  # between two attempts to reach the store: the first, the longest
_GRACE_S = 5.0  # at the end, for a store that is away
_PATIENCE_S = 12.0  # at the end, without an answer: a little more than an HTTP request may take


class Writer:
    """Applies operations in batches; while the store is away they are in a spool, and the store is tried again.

    Args:
        name: of the sweep.
        store: the store, as messages name it.
        note: told when the store goes and when it comes back, in one line.
        settled: called in the writer's thread after a flush: whether a run ended in it, whether it is the last.
    """

    def __init__(
        self,
        runs: Runs,
        *,
        name: str,
        store: str,
        note: Callable[[str], object],
        settled: Callable[[bool, bool], object],
    ) -> None:
        self._runs = runs
        self._name = name
        self._store = store
        self._note = note
        self._settled = settled
        self._spool = Spool(name)
        self._news = threading.Condition()  # guards the next five
        self._queue: list[Operation] = []
        self._pending: dict[str, list[Operation]] = {}  # by cell, taken from the queue
        self._unsaved: list[Operation] = []  # pending while the store is away, and not in the spool
        self._closing = False
        self._abandoned = False
        self._away = ""  # why the store cannot be reached
        self._backoff = 0.0
        self._resume_at = 0.0
        self._heard_at = self._closed_at = time.monotonic()
        self._settling = False
        self._refused: set[str] = set()
        self._thread = threading.Thread(target=self._loop, name="ledger", daemon=True)
        self._thread.start()

    def put(self, operation: Operation) -> None:
        """Takes microseconds."""
        with self._news:
            self._queue.append(operation)
            self._news.notify()

    def close(self) -> str:
        """Write what is left, for as long as the store answers; "" or one line that says how much waits where."""
        self._heard_at = self._closed_at = time.monotonic()
        with self._news:
            self._closing = True
            self._news.notify()
        while self._thread.is_alive() and (self._settling or time.monotonic() - self._heard_at < _PATIENCE_S):
            self._thread.join(timeout=0.2)
        with self._news:
            self._abandoned = True
            left = [one for several in self._pending.values() for one in several] + self._queue
            unsaved = (self._unsaved if self._away else left[: len(left) - len(self._queue)]) + self._queue
            saved = self._spool.save(unsaved) if left else True
        if not left:
            return ""
        why = f"the store {self._store} cannot be reached ({self._away or 'it does not answer'})"
        if not saved:
            return f"{len(unsaved)} of {len(left)} records are lost: {why}, and {self._spool.file} cannot be written"
        return f"{len(left)} records wait in {self._spool.file}: {why}; the same command writes them first"

    def _loop(self) -> None:
        closing = False
        while not closing or (self._away and time.monotonic() < self._closed_at + _GRACE_S):
            closing = self._take(closing)
            if not self._away or closing or time.monotonic() >= self._resume_at:
                ended = self._flush()
                if not self._away:
                    self._settle(ended, closing)
            if self._away:
                self._save()

    def _take(self, closing: bool) -> bool:
        """Wait for news, or until it is time to try again; whether these are the last."""
        with self._news:
            if closing:
                self._news.wait(max(0.0, self._resume_at - time.monotonic()))
            elif self._away:
                self._news.wait_for(lambda: self._closing, min(_REST_S[0], self._resume_at - time.monotonic()))
            else:
                self._news.wait_for(lambda: self._closing or self._queue)
                self._news.wait_for(lambda: self._closing, self._resume_at - time.monotonic())
            self._pend()
            return self._closing

    def _pend(self) -> None:
        for one in self._queue:
            self._pending.setdefault(one.key, []).append(one)
        self._unsaved += self._queue if self._away else []
        self._queue = []

    def _flush(self) -> bool:
        """Apply what is pending; whether a run ended."""
        began, ended = time.thread_time(), False
        for key, operations in [*self._pending.items()]:
            if not self._apply(key, operations):
                return ended
            ended |= any(one.status not in ("", "RUNNING") for one in operations)
            with self._news:
                if self._abandoned:
                    return ended
                del self._pending[key]
            self._heard_at = time.monotonic()
        self._resume_at = time.monotonic() + min(_REST_S[1], max(_REST_S[0], (time.thread_time() - began) / _SHARE))
        if self._away:
            self._note(f"the store {self._store} answers again; the metrics that waited are written")
            self._spool.file.unlink(missing_ok=True)
            self._spool = Spool(self._name)
            self._away, self._backoff, self._unsaved = "", 0.0, []
        return ended

    def _apply(self, key: str, operations: list[Operation]) -> bool:
        """Whether the store took them, or never will; a store that was there a moment ago is asked twice."""
        for last in (True,) if self._away else (False, True):
            try:
                self._runs.write(key, operations)
            except Refused as error:
                if key not in self._refused:
                    self._note(f"the store refuses what cell {key} reports ({error}); it will be missing there")
                self._refused.add(key)
            except TROUBLE as error:
                if last:
                    self._lose(one_line(error))
                    return False
                continue
            return True
        raise AssertionError("the last attempt answers")

    def _lose(self, reason: str) -> None:
        """The store is away: what is pending goes to the spool."""
        first, self._away = not self._away, reason
        self._backoff = min(_BACKOFF_S[1], max(_BACKOFF_S[0], 2 * self._backoff))
        self._resume_at = time.monotonic() + self._backoff
        if first:
            with self._news:
                self._unsaved = [one for several in self._pending.values() for one in several]
            self._save()
            place = "in memory" if self._unsaved else f"in {self._spool.file}"
            self._note(f"the store {self._store} cannot be reached ({reason}); metrics wait {place}; training goes on")

    def _save(self) -> None:
        with self._news:
            if self._unsaved and not self._abandoned and self._spool.save(self._unsaved):
                self._unsaved = []

    def _settle(self, ended: bool, closing: bool) -> None:
        """Let the sweep's table be made, and write it."""
        self._settling = True
        self._settled(ended, closing)
        self._heard_at, self._settling = time.monotonic(), False
        if closing:
            with self._news:
                self._pend()
            self._flush()
