"""python -m sweeps new NAME: a commented sweep file that runs as it is."""

import importlib
import importlib.util
import keyword
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template

import sweeps as package
from jepa_train.base.errors import ConfigError, config_errors, nearest, require
from jepa_train.config.names import DATASET_NAMES
from jepa_train.methods import METHODS
from jepa_train.presets import PRESETS
from sweeps.__main__ import COMMANDS
from sweeps.engine.parser import LineParser
from sweeps.engine.spec.objective import is_labelled

_BUNDLED = ("digits", "digits_0_4", "digits_5_9")
_MARK = re.compile(r"\[(grid|search|folder)\] ")  # of a line of new_sweep.txt for one kind of sweep


def new(words: Sequence[str]) -> int:
    """Write sweeps/NAME.py in the checkout, elsewhere NAME.py in the current folder. Returns 0.

    Raises:
        ConfigError: a wrong name, method or dataset, or the file exists.
    """
    form = "new NAME [--method M] [--data D] [--search]"
    parser = LineParser("Write a commented sweep file that runs as it is.", form)
    parser.add_argument("name", metavar="NAME", help="lower-case letters, digits and _: the file, its sweep and table")
    parser.add_argument("--method", default="lejepa", metavar="M", help=f"default lejepa; {', '.join(METHODS)}")
    parser.add_argument("--data", default="digits", metavar="D", help=f"default digits; {', '.join(DATASET_NAMES)}")
    parser.add_argument("--search", action="store_true", help="an Optuna search in place of a grid with seeds")
    options = parser.parse_args(list(words))
    for option, value, known in (("--method", options.method, METHODS), ("--data", options.data, DATASET_NAMES)):
        if value not in known:
            raise ConfigError(f"{option} must be a known one, got {value!r}{nearest(value, known)}")
    folder = Path(package.__path__[0])
    file = Path("sweeps" if folder == Path("sweeps").resolve() else "", f"{options.name}.py")
    try:
        _check_name(options.name, file, folder)
        file.write_text(_text(file, options.method, options.data, search=options.search), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror}); try another name or folder") from None
    sys.stdout.write(f"wrote {file}; its cells: python {file}{_path(options.data)} --dry-run\n")
    return 0


@config_errors()
def _check_name(name: str, file: Path, folder: Path) -> None:
    rule = "NAME must be lower-case letters, digits and _, and no keyword of Python"
    valid = re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None and not keyword.iskeyword(name)
    require(valid, f"{rule}, got {name!r}; try my_grid")
    require(not file.exists(), f"{file} exists; choose another name, or edit the file")
    for what, taken in (
        ("sweep", (folder / file.name).exists()),
        ("command of python -m sweeps", name in (*COMMANDS, "doctor")),
        ("module of Python", importlib.util.find_spec(name) is not None),  # which would import the sweep's file
    ):
        require(not taken, f"NAME must be new, got {name!r}, a {what}; try my_{name}")


def _path(data: str) -> str:
    """Word of the command line that sets the folder of the images, with a space; "" for data that needs none."""
    return "" if data in _BUNDLED else " data.path=DIR"


def _text(file: Path, method: str, data: str, *, search: bool) -> str:
    """The file's text: a search over the method's space, or a grid over the first key of that space."""
    space, kind = importlib.import_module(f"search_spaces.{method}").SPACE, METHODS[method]
    base, key = PRESETS[data], next(iter(space))
    default = getattr(kind(), key.partition(".")[2])
    values = getattr(space[key], "choices", None) or (default / 2, default, min(2 * default, space[key].high))
    facts = {"name": file.stem, "file": file, "method": method, "class": kind.__name__, "data": data, "key": key}
    facts |= {"values": [*values], "varied": "a search" if search else key.partition(".")[2]}
    facts |= {"path": _path(data), "epochs": 10 if data in _BUNDLED else base.epochs}
    facts |= {"format": "" if is_labelled(base) else ", channels=1, bits=16"}
    facts["first"] = int(base.optim.warmup_epochs) + 1
    lines = Path(__file__).with_name("new_sweep.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    others = ("[grid]" if search else "[search]", *(("[folder]",) if data in _BUNDLED else ()))
    return Template("".join(_MARK.sub("", line) for line in lines if not line.startswith(others))).substitute(facts)
