"""A sweep file that is wrong is answered in one line that names the file and the line, not with a traceback."""

import dataclasses
import os
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType

from jepa_train import config as config_module
from jepa_train.checks import ConfigError, nearest
from jepa_train.methods import METHODS
from sweeps.engine import spec

_OURS = ("jepa_train", "search_spaces", "sweeps")


def one_line(error: BaseException) -> str | None:
    """The one line that answers the error, or None when it is no mistake in a sweep file."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, ConfigError):
        return f"{_place(frames)}{error}"
    if isinstance(error, ValueError) and frames and _is_ours(frames[-1].filename):
        return f"{_place(frames)}{error}"
    unknown = re.fullmatch(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if isinstance(error, TypeError) and unknown:
        owner, field = unknown.groups()
        known = _fields_of(owner)
        if known:
            return f"{_place(frames)}{owner} has no field {field!r}{nearest(field, known)}"
    return None


def install() -> None:
    """Answer the user's mistakes in one line and exit code 2; everything else keeps its traceback."""
    sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    line = one_line(error)
    if line is None:
        sys.__excepthook__(kind, error, trace)
    else:
        sys.stderr.write(f"error: {line}\n")
        sys.stderr.flush()
        os._exit(2)  # a hook cannot choose the exit code otherwise; nothing has been started yet


def _place(frames: traceback.StackSummary) -> str:
    """The last frame outside our packages, or in a sweep file: where the user typed it."""
    typed = [frame for frame in frames if not _is_ours(frame.filename) and frame.filename != dataclasses.__file__]
    return f"{typed[-1].filename}:{typed[-1].lineno}: " if typed else ""


def _is_ours(filename: str) -> bool:
    """Whether a file is part of the machinery; the sweep files themselves are the user's."""
    root = Path(__file__).resolve().parents[2]
    path = Path(filename).resolve()
    if not path.is_relative_to(root) or path.relative_to(root).parts[0] not in _OURS:
        return filename == "<string>"  # a dataclass's generated __init__
    return path.parent != root / "sweeps" or path.name == "__main__.py"


def _fields_of(owner: str) -> list[str]:
    classes = [*METHODS.values(), spec.Sweep, spec.BestOf, *vars(config_module).values()]
    found = next((cls for cls in classes if isinstance(cls, type) and cls.__name__ == owner), None)
    return [field.name for field in dataclasses.fields(found)] if dataclasses.is_dataclass(found) else []
