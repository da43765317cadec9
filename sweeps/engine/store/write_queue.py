"""Write queue: one thread between a sweep and its store, so that nothing else waits for the store."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from sweeps.engine.store.mlflow_client import TROUBLE, Refused, root_cause
from sweeps.engine.store.mlflow_writer import MlflowWriter
from sweeps.engine.store.offline_queue import OfflineQueue, Operation
from sweeps.engine.store.reader import shown_uri

_PAUSE_S = 5.0  # between two flushes, of which larger ones cost less per metric; also while the store is away
_CLOSE_S = 120.0  # for the last flush, with the sweep's table and figures


@dataclass(kw_only=True)
class WriteQueue:
    """Writes operations in batches; while the store is away they are in the offline queue, and it is tried again.

    Args:
        sweep: its name.
        note: takes a line for the user when the store goes and when it comes back.
        flushed: called in the thread after a flush: True if a run ended in it, True if it is the last.
    """

    writer: MlflowWriter
    sweep: str
    note: Callable[[str], object]
    flushed: Callable[[bool, bool], object]

    def __post_init__(self) -> None:
        self._store = shown_uri()
        self._offline = OfflineQueue(self.sweep)
        self._refused: set[str] = set()  # cells whose refusal has been noted
        self._outage = ""  # why the store cannot be reached
        self._file = threading.Lock()  # guards the offline queue and _given_up; taken before _changed
        self._given_up = False  # the offline file is complete: only another launch may write or remove it
        self._changed = threading.Condition()  # guards the rest
        self._waiting: dict[str, list[Operation]] = {}  # by cell: what the store has not confirmed
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def put(self, operation: Operation) -> None:
        """Append an operation, in microseconds."""
        with self._changed:
            self._waiting.setdefault(operation.key, []).append(operation)
            self._changed.notify()

    def close(self) -> str:
        """Write what is left, if the store answers. Returns "" or one line on what waits in which file."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_CLOSE_S)
        with self._file:
            self._given_up = True
            left = self._left()
            saved = not left or self._offline.save(left)
        if not left:
            return ""
        why = f"the store {self._store} cannot be reached ({self._outage or 'it does not answer'})"
        if not saved:
            return f"{len(left)} records are lost: {why}, and {self._offline.file} cannot be written"
        return f"{len(left)} records wait in {self._offline.file}: {why}; the same command writes them first"

    def _run(self) -> None:
        """Write what waits until the queue is closed, then once more, or twice if the store is away."""
        while not self._closing:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._waiting)
            self._attempt()
            with self._changed:
                self._changed.wait_for(lambda: self._closing, _PAUSE_S)
        self._attempt(last=True)
        if self._outage:
            time.sleep(_PAUSE_S)
            self._attempt(last=True)

    def _attempt(self, *, last: bool = False) -> None:
        """Write all that waits, or save it offline."""
        try:
            ended = self._flush()
            self._end_outage()
            if not self._given_up:
                self.flushed(ended, last)
            if last:
                self._flush()  # what the call has added
        except TROUBLE as error:
            self._begin_outage(root_cause(error))

    def _flush(self) -> bool:
        """Write all that waits, cell by cell. Returns True if a run ended; raises anything of TROUBLE."""
        ended = False
        with self._changed:
            batch = {key: [*operations] for key, operations in self._waiting.items()}
        for key, operations in batch.items():
            if self._given_up:
                break
            try:
                self.writer.write(key, operations)
            except Refused as error:
                if key not in self._refused:
                    what = f"what cell {key} reports" if key else "the sweep's own tags, description or plan"
                    self.note(f"the store refuses {what} ({error}); it will be missing there")
                self._refused.add(key)
            with self._changed:
                del self._waiting[key][: len(operations)]
                if not self._waiting[key]:
                    del self._waiting[key]
            ended |= any(one.ends for one in operations)
        return ended

    def _begin_outage(self, reason: str) -> None:
        with self._file:
            if self._given_up:
                return
            place = f"in {self._offline.file}" if self._offline.save(self._left()) else "in memory"
        if not self._outage:
            self.note(f"the store {self._store} cannot be reached ({reason}); metrics wait {place}; training goes on")
        self._outage = reason

    def _end_outage(self) -> None:
        if self._outage:
            with self._file:
                if self._given_up:
                    return
                self._offline.file.unlink(missing_ok=True)
            self._outage = ""
            self.note(f"the store {self._store} answers again; the metrics that waited are written")

    def _left(self) -> list[Operation]:
        with self._changed:
            return [*chain(*self._waiting.values())]
