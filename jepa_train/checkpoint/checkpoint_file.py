"""One file of a checkpoint: read without executing anything, told apart from one that is damaged, or of other code."""

import errno
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from jepa_train.base.errors import ConfigError
from jepa_train.storage.base import StorageError, StoragePath
from jepa_train.storage.resolve import storage_path

FORMAT = 2  # raise it when older checkpoints can no longer be continued
# What a disk says that is not there, which says nothing of the file; a damaged file leads to other errors
_AWAY = {errno.ESTALE, errno.EIO, errno.EACCES, errno.EPERM, errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO}


class CheckpointError(ValueError):
    """A file that is no checkpoint of this run; the message is one line that says why."""


class AnotherCellError(CheckpointError):
    """It is a good checkpoint, but not of this run."""


def read_checkpoint(path: StoragePath | Path) -> dict[str, Any]:
    """The content of any checkpoint of this version, on the CPU; weights_only, so that it cannot execute anything.

    Raises:
        CheckpointError: it is truncated, damaged or of another version.
        StorageError: the storage is away.
    """
    try:
        with storage_path(path).local() as file:
            with zipfile.ZipFile(file) as archive:  # what torch.save writes; torch.load does not look at its checksums
                damaged = archive.testzip()
            if damaged:
                raise ValueError(f"{damaged} fails its checksum")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (StorageError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: there is no such file") from error
    except OSError as error:
        if error.errno in _AWAY:
            raise StorageError(f"checkpoint {path} cannot be read ({error.strerror})") from error
        raise CheckpointError(f"checkpoint {path} cannot be read ({error.strerror or error})") from error
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: it is none, or only a part of one") from error
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise CheckpointError(f"checkpoint {path} cannot be read ({type(error).__name__}: {reason})") from error
    if not isinstance(content, dict) or not {"format", "cell_key", "config"} <= content.keys():
        raise CheckpointError(f"checkpoint {path} is none of ours: it names no cell")
    if content["format"] != FORMAT:
        raise CheckpointError(f"checkpoint {path} has format {content['format']}, this version reads {FORMAT}")
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
