"""A sweep file that is wrong is answered in one line that names the file and the line, not with a traceback."""

import contextlib
import dataclasses
import inspect
import os
import re
import sys
import traceback
import warnings
from pathlib import Path
from traceback import walk_tb
from types import FrameType, TracebackType

from optuna import distributions

from jepa_train.base.errors import ConfigError, nearest
from jepa_train.config import schema as config_module
from jepa_train.methods import METHODS
from sweeps.engine.search.optuna_private import WARNINGS_FILE
from sweeps.engine.spec import objective, sweep

_ROOT = Path(__file__).resolve().parents[3]
_OURS = ("jepa_train", "sweeps")
_OPTUNA = (distributions.__file__, WARNINGS_FILE)
_BETWEEN = (*_OPTUNA, contextlib.__file__, dataclasses.__file__, "<string>")  # <string>: a dataclass's __init__
_DECLARING = ("sweep.py", "objective.py", "named.py")  # what runs of the engine while a sweep file is read
_SLIPS = (NameError, AttributeError, ImportError, KeyError, TypeError)  # Python's words for a misspelt name


def answer_line(error: BaseException) -> str | None:
    """The one line that answers the error, or None when it is no mistake in a sweep file.

    A mistake is made while the file is read: once the engine runs, a ValueError is its own and keeps its traceback.
    """
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    told = None if any(_is_engine(frame) for frame in frames) else _told(error, frames)
    return None if told is None else f"{_place(frames)}{' '.join(told.split())}"


def install() -> None:
    """Answer the user's mistakes in one line and exit code 2; everything else keeps its traceback."""
    warnings.filterwarnings("error", message=".*not divisible by `step`")  # Optuna would change the range
    warnings.filterwarnings("ignore", message="Choices for a categorical distribution")  # a Sweep refuses them
    sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    line = answer_line(error)
    if line is None:
        sys.__excepthook__(kind, error, trace)
    else:
        sys.stdout.flush()
        sys.stderr.write(f"error: {line}\n")
        sys.stderr.flush()
        os._exit(2)  # a hook cannot choose the exit code otherwise; the engine does not run, so nothing is cut off


def _told(error: BaseException, frames: traceback.StackSummary) -> str | None:
    if isinstance(error, ConfigError) or not frames:
        return str(error) if isinstance(error, ConfigError) else None
    last = frames[-1]
    if last.filename in _OPTUNA:
        owners = [frame.f_locals.get("self") for frame, _ in walk_tb(error.__traceback__)]
        made = next((owner for owner in owners if isinstance(owner, distributions.BaseDistribution)), None)
        return f"{type(made).__name__}(...): {error}".replace("It will be replaced with", "Write")
    if isinstance(error, TypeError) and (call := re.fullmatch(r"(\w+)\.__init__\(\) (.+)", str(error))):
        owner, problem = call.groups()
        fields = _fields_of(owner)
        unknown = re.fullmatch(r"got an unexpected keyword argument '(\w+)'", problem)
        if fields and unknown:
            return f"{owner} has no field {unknown.group(1)!r}{nearest(unknown.group(1), fields)}"
        return f"{owner}(...) {problem}" + (f"; its fields are {', '.join(fields)}" if fields else "")
    if isinstance(error, ValueError) and _is_machinery(last):
        return str(error)
    if isinstance(error, _SLIPS) and (not _is_machinery(last) or last.filename in _BETWEEN):
        return f"{_words(error)}{_meant(error)}"
    return None


def _words(error: BaseException) -> str:
    return f"there is no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)


def _meant(error: BaseException) -> str:
    """The nearest of the names that Python knows in the place of a misspelt one."""
    name: str | None = None
    known: list[str] = []
    if isinstance(error, AttributeError):
        name, known = error.name, dir(error.obj)
    elif isinstance(error, NameError):
        frame = _innermost(error)
        name, known = error.name, [*frame.f_locals, *frame.f_globals, *frame.f_builtins]
    elif isinstance(error, ImportError) and error.name in sys.modules:
        wanted = re.match(r"cannot import name '(\w+)'", str(error))
        name, known = wanted and wanted.group(1), dir(sys.modules[error.name])
    return nearest(name, [word for word in known if not word.startswith("_")]) if name else ""


def _innermost(error: BaseException) -> FrameType:
    """The frame that raised."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return frame


def _place(frames: traceback.StackSummary) -> str:
    """The last line that a person typed as what to run: of a sweep file, or of a preset or space that it imports."""
    typed = [frame for frame in frames if frame.name == "<module>" or not _is_machinery(frame)]
    return f"{typed[-1].filename}:{typed[-1].lineno}: " if typed else ""


def _is_machinery(frame: traceback.FrameSummary) -> bool:
    """Whether a frame lies in our packages, or in what stands between them and the user; sweep files are the user's."""
    path = Path(frame.filename).resolve()
    if path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] in _OURS:
        return path.parent != _ROOT / "sweeps" or path.name == "__main__.py"
    return frame.filename in _BETWEEN or frame.filename.startswith("<frozen ")


def _is_engine(frame: traceback.FrameSummary) -> bool:
    """Whether the engine runs; being imported, and checking a Sweep, it does not."""
    path = Path(frame.filename).resolve()
    return path.is_relative_to(_ROOT / "sweeps/engine") and path.name not in _DECLARING and frame.name != "<module>"


def _fields_of(owner: str) -> list[str]:
    """The fields of one of the classes that a sweep file is made of."""
    modules = {**vars(distributions), **vars(config_module), **vars(objective), **vars(sweep)}
    found = {cls.__name__: cls for cls in (*modules.values(), *METHODS.values()) if inspect.isclass(cls)}.get(owner)
    return list(inspect.signature(found).parameters) if found else []
