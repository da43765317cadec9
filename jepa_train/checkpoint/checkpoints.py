"""Checkpoints of one run: atomic files, written while training goes on, read without executing anything."""

import argparse
import io
import logging
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch

from jepa_train.base.checkout import commit
from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import cell_fields, cell_key, flatten
from jepa_train.data.pictures import RGB_NORM
from jepa_train.distributed import collectives
from jepa_train.storage.storage import StorageError, StoragePath, storage_path

logger = logging.getLogger(__name__)

FORMAT = 2  # raise it when older checkpoints can no longer be continued
INTERVAL_S = 300.0  # between two checkpoints within an epoch
WAIT_S = 60.0  # for another process to leave the folder: a worker whose driver died ends within seconds
_KEEP = 2  # the newest and, should that prove unreadable, the one before
_FINAL = "final.pt"

Reports = Sequence[dict[str, float]]


class CheckpointError(ConfigError):
    """A file that is no checkpoint of this version; the message is one line with the reason."""


class Checkpoints:
    """The checkpoints of one cell in one folder: step-*.pt while it trains, final.pt (weights) at its end.

    With config.snapshot_epochs also epoch-*.pt, of the same content as final.pt, which nothing here deletes. Each
    contains the reports of all epochs so far: their recipient may have died before it stored them. Rank 0 writes; files
    appear whole. A context manager: its end waits for the file that is being written and unlocks the folder, which
    resume locks if the disk has locks.

    Args:
        folder: on a disk or in an object store; None keeps nothing.
        config: the run's; a checkpoint of another cell is refused.
        saved: called from another thread when a file is complete, with the age of its state in seconds.

    Attributes:
        norm: normalization of the training images (Images.norm), which an exported encoder expects; written along.
    """

    def __init__(
        self, folder: StoragePath | Path | None, config: TrainConfig, saved: Callable[[float], None] = lambda _: None
    ) -> None:
        self._folder = None if folder is None else storage_path(folder)
        self._config = config
        self._saved = saved
        self.norm = RGB_NORM.tolist()
        self._last = time.monotonic()
        self._snapshots: list[tuple[StoragePath, memoryview]] = []  # to write before the next file
        self._kept: list[str] = []  # names of the good checkpoints that stay, newest first
        self._lock = ExitStack()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._upload: Future[bool] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            self.settle()
        except Exception:
            if error is None:  # else the error that ended the run says more
                raise
        finally:
            self._thread.shutdown()
            self._lock.close()

    def resume(self) -> dict[str, Any]:
        """Load the newest checkpoint of this run that can be read, the same on every rank; {} if there is none.

        {"network", "reports"} of a finished run, {"step", "trainer", "reports"} of one in flight. A damaged file is
        named in a warning, and the one before it is used.

        Raises:
            ConfigError: the newest good checkpoint is of another run, or some rank does not see it.
            StorageError: the storage does not answer, or another process is using the folder.
        """
        name = ""
        content: dict[str, Any] = {}
        with self._failing_alike():
            if collectives.is_main():
                name, content = self._newest()
                self._kept = [name]
        name = collectives.broadcast_text(name)
        if self._folder is None or not name:
            return {}
        with self._failing_alike(name):
            if not collectives.is_main():
                content = self._read(self._folder / name)
        return content

    @property
    def due(self) -> bool:
        """True if the last one is older than INTERVAL_S by rank 0's clock. All ranks ask together."""
        late = self._folder is not None and time.monotonic() - self._last > INTERVAL_S
        return collectives.broadcast_flag(late)

    def save(self, step: int, state: dict[str, Any], reports: Reports) -> None:
        """Write the state after `step` steps; once the file is complete, delete all but this one and the one before.

        The state is copied before this returns and written beside the training, one file at a time. A full disk, or a
        storage that does not answer, costs the checkpoint only.
        """
        self._last = time.monotonic()
        self._write(f"step-{step:09d}.pt", {"step": step, "trainer": state, "reports": list(reports)})

    def snapshot(self, epoch: int, network: dict[str, Any], reports: Reports) -> None:
        """Keep the weights after an epoch, as epoch-0010.pt. They are written along with the next file, and before it.

        So a checkpoint is there only if all snapshots up to its step are: a run that resumes from it misses none. One
        that could not be written is tried again with the next file, which waits for it.
        """
        if self._folder is not None and collectives.is_main():
            self.settle()
            content = self._serialise({"network": network, "reports": list(reports)})
            self._snapshots.append((self._folder / f"epoch-{epoch:04d}.pt", content))

    def settle(self) -> bool:
        """Wait for the file that is being written, if there is one; returns True if it is complete.

        Raises:
            Exception: any error of the thread except those of the storage, which are warnings.
        """
        upload, self._upload = self._upload, None
        return upload is not None and upload.result()

    def finish(self, network: dict[str, Any], reports: Reports) -> None:
        """Write final.pt, for later evaluation; delete the others when it is complete."""
        if self._folder is None or not collectives.is_main():
            return
        self._write(_FINAL, {"network": network, "reports": list(reports)})
        if self.settle():
            self.clear()
        else:
            logger.error("the run is finished without its weights: %s is not there", self._folder / _FINAL)

    def clear(self) -> None:
        """Delete the step files: the run has ended and is not resumed."""
        if collectives.is_main():
            self.settle()
            self._kept = []
            self._delete_others()

    def _newest(self) -> tuple[str, dict[str, Any]]:
        """Lock the folder and read the newest checkpoint of this run: its name and content; "", {} if there is none.

        Raises:
            ConfigError: the folder is another run's.
            StorageError: the storage does not answer, or another process is using the folder.
        """
        if self._folder is None:
            return "", {}
        # Two writers would mix their steps: a worker whose driver was killed trains on until its next report.
        self._lock.enter_context(self._folder.lock(WAIT_S))
        names = self._folder.names()
        for name in [*filter(_FINAL.__eq__, names), *sorted(filter(_is_step, names), reverse=True)]:
            try:
                return name, self._read(self._folder / name)
            except CheckpointError as error:
                logger.warning("%s; the one before it is used, if there is one", error)
        return "", {}

    def _read(self, file: StoragePath) -> dict[str, Any]:
        """The content of a checkpoint of this run, on the CPU.

        Raises:
            CheckpointError: it is truncated, damaged or of another version.
            ConfigError: it is of another cell; a run that went on here would delete it.
            StorageError: the storage does not answer.
        """
        content = read_checkpoint(file)
        if content["cell_key"] != cell_key(self._config):
            other = content["config"]
            differs = sorted(key for key, value in cell_fields(self._config).items() if other.get(key) != value)
            raise ConfigError(
                f"checkpoint {file} is of another cell, {content['cell_key']} (it differs in "
                f"{', '.join(differs[:3])}); choose another folder"
            )
        return content

    @contextmanager
    def _failing_alike(self, name: str = "") -> Iterator[None]:
        """Raise the same kind of error on every rank if the block fails on one, with the reason of rank 0 if it has."""
        failure: Exception | None = None
        try:
            yield
        except (ConfigError, StorageError) as error:
            failure = error
        if collectives.any_rank(failure is not None):
            kind = StorageError if collectives.any_rank(isinstance(failure, StorageError)) else ConfigError
            rule = f"checkpoints must lie where every worker sees them, got {name} in {self._folder}"
            elsewhere = f"{rule}, which some cannot read; set JEPA_STORAGE, or JEPA_RESULTS, to what all machines share"
            own = str(failure) if isinstance(failure, StorageError) else elsewhere
            raise kind(collectives.broadcast_text(str(failure or "")) or own)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        """Serialise the content now, and let the thread write it under its name."""
        if self._folder is None or not collectives.is_main():
            return
        self.settle()
        taken = time.monotonic()
        self._upload = self._thread.submit(self._complete, self._folder / name, self._serialise(content), taken)

    def _serialise(self, content: dict[str, Any]) -> memoryview:
        """The content with the cell that it belongs to, as torch.save writes it."""
        head = {"format": FORMAT, "cell_key": cell_key(self._config), "config": flatten(self._config)}
        head |= {"commit": commit(), "norm": self.norm}
        buffer = io.BytesIO()
        torch.save(head | content, buffer)
        return buffer.getbuffer()

    def _complete(self, target: StoragePath, content: memoryview, taken: float) -> bool:
        """Write the file and delete older ones, in the thread; returns False if the storage does not take it."""
        try:
            while self._snapshots:
                place, weights = self._snapshots[0]
                place.write_bytes(weights)
                del self._snapshots[0]
            target.write_bytes(content)
        except OSError as error:
            logger.warning("the checkpoint could not be written: %s; training goes on without it", error)
            return False
        self._saved(time.monotonic() - taken)
        self._kept = [target.name, *(name for name in self._kept if name != target.name)][:_KEEP]
        self._delete_others()
        return True

    def _delete_others(self) -> None:
        """Delete all checkpoints of steps except the kept ones, and what killed writers left."""
        if self._folder is not None:
            with suppress(OSError):  # a file too many is no reason to stop
                for name in self._folder.names():
                    if name.endswith(".part") or (_is_step(name) and name not in self._kept):
                        (self._folder / name).remove()


def read_checkpoint(path: StoragePath | Path) -> dict[str, Any]:
    """The content of any checkpoint of this version, on the CPU; weights_only, so that it cannot execute anything.

    Raises:
        CheckpointError: it is truncated, damaged or of another version.
        StorageError: the storage does not answer.
    """
    try:
        content = tensors_of(storage_path(path).read_bytes(), f"checkpoint {path}")
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} cannot be read: there is no such file") from None
    if not isinstance(content, dict) or not {"format", "cell_key", "config"} <= content.keys():
        raise CheckpointError(f"checkpoint {path} is none of ours: it names no cell")
    if content["format"] != FORMAT:
        raise CheckpointError(f"checkpoint {path} has format {content['format']}, this version reads {FORMAT}")
    return content


def read_finished(where: StoragePath | Path) -> tuple[StoragePath, dict[str, Any]]:
    """File and content of final.pt, by itself or by its folder, or of a snapshot.

    Raises:
        CheckpointError: as read_checkpoint; a checkpoint of a run that has not finished.
        StorageError: the storage does not answer.
    """
    place = storage_path(where)
    is_file = place.name.endswith(".pt") or place.names() == [place.name]
    file = place if is_file else place / _FINAL
    content = read_checkpoint(file)
    if "network" not in content:
        raise CheckpointError(f"checkpoint {file} is of a run that has not finished; name its {_FINAL}")
    return file, content


def tensors_of(content: bytes, named: str, *, safe: bool = False, remedy: str = "") -> Any:
    """The content of a file of torch.save or safetensors, on the CPU; weights_only, so that it cannot execute anything.

    Args:
        named: the file, for the message.
        safe: it is a file of safetensors.
        remedy: end of the message.

    Raises:
        CheckpointError: it is truncated or damaged, or holds more than tensors and plain values.
    """
    file = io.BytesIO(content)
    try:
        if safe:
            return safetensors.torch.load(content)
        if zipfile.is_zipfile(file):  # torch.load does not test its checksums; torch before 1.6 wrote another format
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
            if damaged:
                raise ValueError(f"{damaged} fails its checksum")
        file.seek(0)
        with torch.serialization.safe_globals([argparse.Namespace]):  # options beside the weights, as DINO and MAE have
            return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise CheckpointError(f"{named} cannot be read ({type(error).__name__}: {reason}){remedy}") from error


def restore(load: Callable[[dict[str, Any]], object], state: dict[str, Any]) -> None:
    """Call load(state); a state of other code is an error of one line.

    Raises:
        ConfigError: the state does not fit.
    """
    try:
        load(state)
    except (RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"the checkpoint does not fit this version of the code ({type(error).__name__}: {reason}); "
            "delete it to train anew"
        ) from error


def _is_step(name: str) -> bool:
    return name.startswith("step-") and name.endswith(".pt")
