"""Checkpoints of one run: written atomically, read without executing anything, the previous one kept as a reserve."""

import contextlib
import fcntl
import logging
import os
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import torch

from jepa_train import distributed
from jepa_train.checks import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.flat import cell_fields, cell_key, flatten

logger = logging.getLogger(__name__)

_FORMAT = 2  # raise it when older checkpoints can no longer be continued
_KEPT = 2  # the newest and, should that prove unreadable, the one before
_FINAL = "final.pt"
_LOCK = "lock"
INTERVAL_S = 300.0  # between two checkpoints within an epoch
WAIT_S = 60.0  # for another process to leave the folder: a worker whose driver died ends within seconds

Reports = Sequence[dict[str, float]]


class CheckpointError(ValueError):
    """A file that is no checkpoint of this run; the message is one line that says why."""


class AnotherCellError(CheckpointError):
    """It is a good checkpoint, but not of this run."""


class Checkpoints:
    """The checkpoints of one cell in one folder: step-*.pt while it trains, final.pt (weights) at its end.

    Each holds the reports of all epochs so far: whoever was told of them may have died before they were stored.
    Rank 0 writes. A file is complete under its name or not there at all. A context manager: from resume on the folder
    is locked, until the block ends.

    Args:
        folder: made when missing; None keeps nothing.
        config: the run's; a checkpoint of another cell is refused.
    """

    def __init__(self, folder: Path | None, config: TrainConfig) -> None:
        self._folder = folder
        self._config = config
        self._last = time.monotonic()
        self._foreign: dict[Path, str] = {}  # checkpoints of other cells, and what they were refused with
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()

    @property
    def due(self) -> bool:
        """Whether the last one is older than INTERVAL_S by rank 0's clock. All ranks ask together."""
        late = self._folder is not None and time.monotonic() - self._last > INTERVAL_S
        return distributed.broadcast_flag(late)

    def save(self, step: int, state: dict[str, Any], reports: Reports) -> bool:
        """Write the state after `step` steps and drop all but the one before. A full disk costs the checkpoint only.

        Returns:
            Whether it was written by this rank.
        """
        self._last = time.monotonic()
        if self._folder is None or not distributed.is_main():
            return False
        target = self._folder / f"step-{step:09d}.pt"
        written = self._write(target, {"step": step, "trainer": state, "reports": list(reports)})
        if written:
            # a newer one was refused when this run began: it is no reserve, and not ours to drop
            _drop([path for path in self._steps() if path.name < target.name][_KEPT - 1 :])
        return written

    def finish(self, network: dict[str, Any], reports: Reports) -> None:
        """Write final.pt, for later evaluation, and drop the others."""
        if self._folder is None or not distributed.is_main():
            return
        if self._write(self._folder / _FINAL, {"network": network, "reports": list(reports)}):
            self.clear()

    def clear(self) -> None:
        """Drop what a run that is over would have resumed from."""
        _drop([path for path in self._steps() if path not in self._foreign] if distributed.is_main() else [])

    def resume(self) -> dict[str, Any]:
        """The newest checkpoint of this run that can be read, the same on every rank; {} where there is none.

        {"network", "reports"} of a finished run, {"step", "trainer", "reports"} of one in flight. A file that is
        damaged or of another run is named in a warning, and the one before it is used.

        Raises:
            ConfigError: the folder holds another run's, finished or without one of ours; another process is using it;
                or some rank cannot read it.
        """
        path, content, refusal = self._newest() if distributed.is_main() else ("", {}, "")
        path, refusal = distributed.broadcast_text(path), distributed.broadcast_text(refusal)
        if refusal:
            raise ConfigError(refusal)
        if path and not distributed.is_main():
            with contextlib.suppress(CheckpointError):
                content = self._read(Path(path))
        if distributed.any_rank(bool(path) and not content):
            raise ConfigError(
                f"checkpoints must lie where every worker sees them, got {path}, which some cannot read; "
                "set JEPA_RESULTS to a folder that all machines share"
            )
        return content

    def _newest(self) -> tuple[str, dict[str, Any], str]:
        """Path and content of what to resume, or why this folder cannot be used."""
        if not self._locked():
            return "", {}, f"checkpoints {self._folder} are being written by another process; wait until it has ended"
        _drop(list(self._folder.glob("*.part")) if self._folder is not None else [])  # of writers that were killed
        for path in [*self._finals(), *self._steps()]:
            try:
                return str(path), self._read(path), ""
            except AnotherCellError as error:
                if path.name == _FINAL:
                    return "", {}, f"{error}; choose another folder"
                self._foreign[path] = str(error)
                logger.warning("%s; the one before it is used, if there is one", error)
            except CheckpointError as error:
                logger.warning("%s; the one before it is used, if there is one", error)
        refusal = next((f"{text}; choose another folder" for text in self._foreign.values()), "")
        return "", {}, refusal  # to begin here would cost the other run its checkpoints

    def _locked(self) -> bool:
        """Take the folder's lock, waiting a while for it; the system drops it when its holder dies.

        Two writers would mix their steps: a worker whose driver was killed trains on until its next report.
        """
        if self._folder is None:
            return True
        deadline = time.monotonic() + WAIT_S
        with contextlib.suppress(OSError):  # a full disk, or a file system without locks: train on without one
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self._folder / _LOCK).open("w")
            while True:
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        return False
                    time.sleep(0.1)
        return True

    def _read(self, path: Path) -> dict[str, Any]:
        """The content of a checkpoint of this run, on the CPU.

        Raises:
            CheckpointError: it is truncated, damaged, of another version or of another cell.
        """
        content = read_checkpoint(path)
        if content["cell_key"] != cell_key(self._config):
            other = content["config"]
            differs = sorted(key for key, value in cell_fields(self._config).items() if other.get(key) != value)
            raise AnotherCellError(
                f"checkpoint {path} is of another cell, {content['cell_key']} (it differs in {', '.join(differs[:3])})"
            )
        return content

    def _finals(self) -> list[Path]:
        return [*self._folder.glob(_FINAL)] if self._folder is not None else []

    def _steps(self) -> list[Path]:
        """Newest first."""
        return sorted(self._folder.glob("step-*.pt"), reverse=True) if self._folder is not None else []

    def _write(self, target: Path, content: dict[str, Any]) -> bool:
        head = {"format": _FORMAT, "cell_key": cell_key(self._config), "config": flatten(self._config)}
        part = target.with_suffix(f".{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(head | content, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except (OSError, RuntimeError) as error:  # torch.save raises either where the disk is full
            logger.warning("checkpoint %s could not be written (%s); training goes on without it", target, error)
            return False
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        return True


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of any checkpoint of this version, on the CPU; weights_only, so that it cannot execute anything.

    Raises:
        CheckpointError: it is truncated, damaged or of another version.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # what torch.save writes; torch.load does not look at its checksums
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"{damaged} fails its checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: there is no such file") from error
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: it is none, or only a part of one") from error
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise CheckpointError(f"checkpoint {path} cannot be read ({type(error).__name__}: {reason})") from error
    if not isinstance(content, dict) or not {"format", "cell_key", "config"} <= content.keys():
        raise CheckpointError(f"checkpoint {path} is none of ours: it names no cell")
    if content["format"] != _FORMAT:
        raise CheckpointError(f"checkpoint {path} has format {content['format']}, this version reads {_FORMAT}")
    return content


def restore(load: Callable[[dict[str, Any]], object], state: dict[str, Any]) -> None:
    """load(state), where a state of other code is a mistake in one line.

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


def _drop(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # a file too many is no reason to stop
            path.unlink()
