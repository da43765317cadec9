"""Storage on a disk of this machine, or one that machines share."""

import contextlib
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jepa_train.storage.base import InUse, StorageError

_LOCK = "lock"


@dataclass(frozen=True)
class LocalPath:
    """On a disk of this machine, or one that machines share (NFS)."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> "LocalPath":
        return LocalPath(self.path / name)

    def names(self) -> list[str]:
        try:
            with os.scandir(self.path) as entries:
                return sorted(entry.name for entry in entries if entry.is_file())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read ({error.strerror})") from error

    def is_there(self) -> bool:
        try:
            return stat.S_ISREG(self.path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StorageError(f"{self.path} cannot be read ({error.strerror})") from error

    @contextmanager
    def local(self) -> Iterator[Path]:
        yield self.path

    @contextmanager
    def written(self) -> Iterator[Path]:
        part = self.path.with_suffix(f".{socket.gethostname()}-{os.getpid()}.part")  # machines have equal numbers
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(self.path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def move(self, to: "LocalPath") -> None:
        self.path.rename(to.path)

    def lock(self, wait_s: float) -> IO[str] | None:
        """By flock, which the system drops when its holder dies. Not every file system has it, or room for the file."""
        deadline = time.monotonic() + wait_s
        with contextlib.suppress(OSError):
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / _LOCK).open("w")
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return file
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        file.close()
                        raise InUse from None
                    time.sleep(0.1)
                except OSError:
                    file.close()
                    raise
        return None
