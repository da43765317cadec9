"""A sweep file that is wrong is answered in one line that names the file and the line, not with a traceback."""

import dataclasses
import inspect
import os
import re
import sys
import traceback
from pathlib import Path
from types import TracebackType

from optuna import distributions

from jepa_train import config as config_module
from jepa_train.checks import ConfigError, nearest
from jepa_train.methods import METHODS
from sweeps.engine import spec

_ROOT = Path(__file__).resolve().parents[2]
_OURS = ("jepa_train", "sweeps")


def one_line(error: BaseException) -> str | None:
    """The one line that answers the error, or None when it is no mistake in a sweep file.

    A mistake is made while the file is read: once the engine runs, a ValueError is its own and keeps its traceback.
    """
    frames = traceback.extract_tb(error.__traceback__)
    told = None if any(_is_engine(frame) for frame in frames) else _told(error, frames)
    return None if told is None else f"{_place(frames)}{' '.join(told.split())}"


def _told(error: BaseException, frames: traceback.StackSummary) -> str | None:
    if isinstance(error, ConfigError) or (isinstance(error, ValueError) and frames and _is_machinery(frames[-1])):
        return str(error)
    if not isinstance(error, TypeError) or not frames:
        return None
    if frames[-1].filename == distributions.__file__:  # Optuna compares bounds without looking at their types
        return str(error)
    call = re.fullmatch(r"(\w+)\.__init__\(\) (.+)", str(error))
    owner, problem = call.groups() if call else ("", "")
    fields = _fields_of(owner)
    if not fields:
        return None
    unknown = re.fullmatch(r"got an unexpected keyword argument '(\w+)'", problem)
    if unknown:
        return f"{owner} has no field {unknown.group(1)!r}{nearest(unknown.group(1), fields)}"
    return f"{owner}(...) {problem}; its fields are {', '.join(fields)}"


def install() -> None:
    """Answer the user's mistakes in one line and exit code 2; everything else keeps its traceback."""
    sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    line = one_line(error)
    if line is None:
        sys.__excepthook__(kind, error, trace)
    else:
        sys.stdout.flush()
        sys.stderr.write(f"error: {line}\n")
        sys.stderr.flush()
        os._exit(2)  # a hook cannot choose the exit code otherwise; the engine does not run, so nothing is cut off


def _place(frames: traceback.StackSummary) -> str:
    """The last line that a person typed as what to run: of a sweep file, or of a preset or space that it imports."""
    typed = [frame for frame in frames if frame.name == "<module>" or not _is_machinery(frame)]
    return f"{typed[-1].filename}:{typed[-1].lineno}: " if typed else ""


def _is_machinery(frame: traceback.FrameSummary) -> bool:
    """Whether a frame lies in our packages, or in what stands between them and the user; sweep files are the user's."""
    path = Path(frame.filename).resolve()
    if path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] in _OURS:
        return path.parent != _ROOT / "sweeps" or path.name == "__main__.py"
    between = (dataclasses.__file__, distributions.__file__, "<string>")  # <string>: a dataclass's generated __init__
    return frame.filename in between or frame.filename.startswith("<frozen ")


def _is_engine(frame: traceback.FrameSummary) -> bool:
    """Whether the engine runs; being imported, and checking a Sweep, it does not."""
    path = Path(frame.filename).resolve()
    return path.parent == _ROOT / "sweeps/engine" and path.name != "spec.py" and frame.name != "<module>"


def _fields_of(owner: str) -> list[str]:
    """The fields of one of the classes that a sweep file is made of."""
    modules = {**vars(distributions), **vars(config_module), **vars(spec)}
    found = {cls.__name__: cls for cls in (*modules.values(), *METHODS.values()) if inspect.isclass(cls)}.get(owner)
    return list(inspect.signature(found).parameters) if found else []
