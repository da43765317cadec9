"""Processes of one experiment, found by a mark in their environment: whoever their parents were, and no others."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

MARK = "JEPA_CHAOS"  # the environment variable; Ray hands it on to every process that it starts


@dataclass(frozen=True)
class Process:
    """A living process of the experiment."""

    pid: int
    title: str  # the command line, which Ray's workers replace by what they are

    def kill(self) -> bool:
        """Whether it was there to be killed."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
            return True
        return False

    def freeze(self) -> None:
        """Stop it in its tracks."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGSTOP)


def marked(mark: str, *, title: str = "") -> list[Process]:
    """All living processes with this mark whose title contains the word; zombies have ended."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it may end while it is looked at
            if wanted in (folder / "environ").read_bytes().split(b"\0") and not _is_zombie(folder):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if title in words:
                    found.append(Process(int(folder.name), words))
    return found


def gone(mark: str, *, within_s: float) -> list[Process]:
    """Those that are still there after a while."""
    until = time.monotonic() + within_s
    while (left := marked(mark)) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def _is_zombie(folder: Path) -> bool:
    return (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
