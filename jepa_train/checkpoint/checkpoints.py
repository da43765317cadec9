"""Checkpoints of one run: written atomically, beside the training; read without executing anything; one in reserve."""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import torch

from jepa_train.base.errors import ConfigError
from jepa_train.checkpoint.checkpoint_file import FORMAT, AnotherCellError, CheckpointError, read_checkpoint
from jepa_train.config import TrainConfig
from jepa_train.config.flat import cell_fields, cell_key, flatten
from jepa_train.distributed import collectives
from jepa_train.storage.base import InUse, StorageError, StoragePath
from jepa_train.storage.resolve import storage_path

logger = logging.getLogger(__name__)

_KEPT = 2  # the newest and, should that prove unreadable, the one before
_FINAL = "final.pt"
INTERVAL_S = 300.0  # between two checkpoints within an epoch
WAIT_S = 60.0  # for another process to leave the folder: a worker whose driver died ends within seconds

Reports = Sequence[dict[str, float]]


class Checkpoints:
    """The checkpoints of one cell in one folder: step-*.pt while it trains, final.pt (weights) at its end.

    Each holds the reports of all epochs so far: whoever was told of them may have died before they were stored.
    Rank 0 writes. A file is complete under its name or not there at all. A context manager: from resume on the folder
    is locked, where it can be, until the block ends, which waits for the file that is on its way.

    Args:
        folder: on a disk, made when missing, or in an object store; None keeps nothing.
        config: the run's; a checkpoint of another cell is refused.
        saved: told, by another thread, that a file has arrived, and how many seconds ago its state was taken.
    """

    def __init__(
        self, folder: StoragePath | Path | None, config: TrainConfig, saved: Callable[[float], None] = lambda _: None
    ) -> None:
        self._folder = None if folder is None else storage_path(folder)
        self._config = config
        self._saved = saved
        self._last = time.monotonic()
        self._foreign: dict[str, str] = {}  # names of other cells' checkpoints, and what they were refused with
        self._unread: set[str] = set()  # of those that were refused for other reasons: they are no reserve
        self._lock: IO[str] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._sent: Future[bool] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.settle()
        except Exception:
            if error is None:  # else what ended the run says more
                raise
        finally:
            self._thread.shutdown()
            if self._lock is not None:
                self._lock.close()

    @property
    def due(self) -> bool:
        """Whether the last one is older than INTERVAL_S by rank 0's clock. All ranks ask together."""
        late = self._folder is not None and time.monotonic() - self._last > INTERVAL_S
        return collectives.broadcast_flag(late)

    def save(self, step: int, state: dict[str, Any], reports: Reports) -> None:
        """Write the state after `step` steps, and drop all but the one before once it has arrived.

        The state is copied to a file before this returns; its way to the bucket, or for good onto the disk, goes on
        beside the training, one at a time. A full disk, or a store that is away, costs the checkpoint only.
        """
        self._last = time.monotonic()
        self._send(f"step-{step:09d}.pt", {"step": step, "trainer": state, "reports": list(reports)})

    def settle(self) -> bool:
        """Wait for the file that is on its way, if there is one, and tell whether it has arrived.

        Raises:
            Exception: whatever went wrong on the way, but for the storage, which is a warning.
        """
        sent, self._sent = self._sent, None
        return sent is not None and sent.result()

    def finish(self, network: dict[str, Any], reports: Reports) -> None:
        """Write final.pt, for later evaluation; drop the others when it has arrived."""
        if self._folder is None or not collectives.is_main():
            return
        self._send(_FINAL, {"network": network, "reports": list(reports)})
        if self.settle():
            self.clear()
        else:
            logger.error("the run is finished without its weights: %s is not there", self._folder / _FINAL)

    def clear(self) -> None:
        """Drop what a run that is over would have resumed from."""
        if collectives.is_main():
            self.settle()
            self._drop(lambda steps: [name for name in steps if name not in self._foreign])

    def resume(self) -> dict[str, Any]:
        """The newest checkpoint of this run that can be read, the same on every rank; {} where there is none.

        {"network", "reports"} of a finished run, {"step", "trainer", "reports"} of one in flight. A file that is
        damaged or of another run is named in a warning, and the one before it is used.

        Raises:
            ConfigError: the folder holds another run's, finished or without one of ours; or some rank does not see it.
            StorageError: the storage is away, and with it what this run may have left there; or another process is
                using the folder.
        """
        found, content, refusal = self._newest() if collectives.is_main() else ("", {}, None)
        away = collectives.broadcast_flag(isinstance(refusal, StorageError))
        found, text = collectives.broadcast_text(found), collectives.broadcast_text(str(refusal or ""))
        if text:
            raise (StorageError if away else ConfigError)(text)
        unread = ""
        if found and not collectives.is_main():
            try:
                content = self._read(found)
            except StorageError as error:
                unread = str(error)
            except CheckpointError:
                pass
        if collectives.any_rank(bool(unread)):
            raise StorageError(unread or f"{self._folder / found if self._folder else found} is away for another rank")
        if collectives.any_rank(bool(found) and not content):
            raise ConfigError(
                f"checkpoints must lie where every worker sees them, got {found} in {self._folder}, which some cannot "
                "read; set JEPA_STORAGE, or JEPA_RESULTS, to what all machines share"
            )
        return content

    def _newest(self) -> tuple[str, dict[str, Any], Exception | None]:
        """Name and content of what to resume, or why this folder cannot be used."""
        if self._folder is None:
            return "", {}, None
        try:
            # two writers would mix their steps: a worker whose driver was killed trains on until its next report
            self._lock = self._folder.lock(WAIT_S)
            names = self._folder.names()
            for part in [name for name in names if name.endswith(".part")]:  # of writers that were killed
                _removed(self._folder / part)
            for name in [*filter(_FINAL.__eq__, names), *_steps(names)]:
                try:
                    return name, self._read(name), None
                except AnotherCellError as error:
                    if name == _FINAL:
                        return "", {}, ConfigError(f"{error}; choose another folder")
                    self._foreign[name] = str(error)
                    logger.warning("%s; the one before it is used, if there is one", error)
                except CheckpointError as error:
                    self._unread.add(name)
                    logger.warning("%s; the one before it is used, if there is one", error)
        except InUse:
            text = f"checkpoints {self._folder} are being written by another process; wait until it has ended"
            return "", {}, StorageError(text)  # of a machine that died, a server may keep the lock for minutes
        except StorageError as error:
            return "", {}, error
        # to begin here would cost the other run its checkpoints
        refusal = next((ConfigError(f"{text}; choose another folder") for text in self._foreign.values()), None)
        return "", {}, refusal

    def _read(self, name: str) -> dict[str, Any]:
        """The content of a checkpoint of this run, on the CPU.

        Raises:
            CheckpointError: it is truncated, damaged, of another version or of another cell.
            StorageError: the storage is away.
        """
        assert self._folder is not None
        content = read_checkpoint(self._folder / name)
        if content["cell_key"] != cell_key(self._config):
            other = content["config"]
            differs = sorted(key for key, value in cell_fields(self._config).items() if other.get(key) != value)
            raise AnotherCellError(
                f"checkpoint {self._folder / name} is of another cell, {content['cell_key']} "
                f"(it differs in {', '.join(differs[:3])})"
            )
        return content

    def _drop(self, chosen: Callable[[list[str]], list[str]]) -> None:
        """Remove those chosen of the steps' files, newest first; a file too many is no reason to stop."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                for name in chosen(_steps(self._folder.names())):
                    _removed(self._folder / name)

    def _send(self, name: str, content: dict[str, Any]) -> None:
        """Write the content to a local file now, and let the thread bring it under its name."""
        if self._folder is None or not collectives.is_main():
            return
        self.settle()
        head = {"format": FORMAT, "cell_key": cell_key(self._config), "config": flatten(self._config)}
        target, taken = self._folder / name, time.monotonic()
        try:
            with ExitStack() as stack:
                local = stack.enter_context(target.written())
                torch.save(head | content, stack.enter_context(local.open("wb")))
                rest = stack.pop_all()  # to close the file, too: NFS writes it then
        except (OSError, RuntimeError) as error:  # torch.save raises either where the disk is full
            _lost(target, error)
        else:
            self._sent = self._thread.submit(self._arrives, target, rest, taken)

    def _arrives(self, target: StoragePath, rest: ExitStack, taken: float) -> bool:
        """In the thread."""
        try:
            rest.close()
        except OSError as error:
            _lost(target, error)
            return False
        self._saved(time.monotonic() - taken)
        self._foreign.pop(target.name, None)
        self._unread.discard(target.name)
        self._drop(lambda steps: self._outdated([name for name in steps if name < target.name]))
        return True

    def _outdated(self, older: list[str]) -> list[str]:
        """All but the reserve. What was refused when this run began is none; what is another cell's is not ours."""
        ours = [name for name in older if name not in self._foreign]
        reserve = [name for name in ours if name not in self._unread][: _KEPT - 1]
        return [name for name in ours if name not in reserve]


def _lost(target: StoragePath, error: Exception) -> None:
    logger.warning("checkpoint %s could not be written (%s); training goes on without it", target, error)


def _steps(names: list[str]) -> list[str]:
    """Newest first."""
    return sorted((name for name in names if name.startswith("step-") and name.endswith(".pt")), reverse=True)


def _removed(file: StoragePath) -> None:
    with contextlib.suppress(OSError):
        file.remove()
