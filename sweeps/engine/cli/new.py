"""python -m sweeps new NAME: a commented sweep file that runs as it is."""

import importlib
import importlib.util
import keyword
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import sweeps as package
from jepa_train.base.errors import ConfigError, nearest
from jepa_train.config.names import DATASET_NAMES
from jepa_train.methods import METHODS
from jepa_train.presets import PRESETS
from sweeps.engine.parser import LineParser

_COMMANDS = ("backup", "best", "doctor", "fetch", "list", "new", "notice")  # of python -m sweeps
_BUNDLED = ("digits", "digits_0_4", "digits_5_9")
_FILE = '''"""{method} on {data}: {varied}. Say here what you expect to find.

    python {file}{path} --dry-run     (lists the cells; without --dry-run, runs them)

docs/sweeps.md has all fields of Sweep, docs/config.md all keys.
"""

import dataclasses
import sys

from jepa_train.methods import {method}
from jepa_train.presets import PRESETS
{imports}

SWEEP = Sweep(
    name="{name}",  # the file's name
    purpose=__doc__,
    base=dataclasses.replace(PRESETS["{data}"], method={method}(), epochs={epochs}),
{fields}
)

if __name__ == "__main__":
    sys.exit(main(SWEEP, __file__))
'''
_GRID = """    grid={{"{key}": {values}}},  # key -> values; with several keys, each combination is a cell
    seeds=(0, 1, 2),  # each cell runs with all of them: the table shows mean and deviation"""
_SEARCH = """    space={space}.SPACE,  # key -> domain, as "optim.lr": FloatDistribution(1e-4, 1e-2, log=True)
    trials=9,  # points: first the base's own, then those that Optuna proposes
    early_stopping=Asha(first={first}),  # at epoch {first} and three times that, ..., the best third continues
    seeds=(0, 1, 2),  # the winner runs with all of them"""


def new(words: Sequence[str]) -> int:
    """Write sweeps/NAME.py in the checkout, elsewhere NAME.py in the current folder. Returns 0.

    Raises:
        ConfigError: a wrong name, method or dataset, or the file exists.
    """
    about = "Write a commented sweep file that runs as it is."
    parser = LineParser(prog="python -m sweeps new", description=about, allow_abbrev=False)
    parser.command, parser.remedy = "new: ", "write python -m sweeps new NAME [--method M] [--data D] [--search]"
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
        with file.open("x", encoding="utf-8") as stream:
            stream.write(_text(file, options.method, options.data, search=options.search))
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror}); try another name or folder") from None
    sys.stdout.write(f"wrote {file}; its cells: python {file} --dry-run\n")
    return 0


def _check_name(name: str, file: Path, folder: Path) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        rule = "NAME must be lower-case letters, digits and _, and no keyword of Python"
        raise ConfigError(f"{rule}, got {name!r}; try my_grid")
    if file.exists():
        raise ConfigError(f"{file} exists; choose another name, or edit the file")
    if (folder / file.name).exists() or name in _COMMANDS:
        kind = "command" if name in _COMMANDS else "sweep"
        raise ConfigError(f"NAME must be new, got {name!r}, a {kind} of python -m sweeps; try my_{name}")
    if importlib.util.find_spec(name) is not None:  # Python would import the sweep's file in its place
        raise ConfigError(f"NAME must be that of no Python module, got {name!r}; try my_{name}")


def _text(file: Path, method: str, data: str, *, search: bool) -> str:
    """The file's text: a search over the method's space, or a grid over the first key of that space."""
    space = importlib.import_module(f"search_spaces.{method}").SPACE
    base, key, kind = PRESETS[data], next(iter(space)), METHODS[method].__name__
    domain, default = space[key], getattr(METHODS[method](), key.partition(".")[2])
    values = getattr(domain, "choices", None) or (default / 2, default, min(2 * default, domain.high))
    own_names = ["from search_spaces import " + method] * search
    own_names += [f"from sweeps.engine import {'Asha, ' * search}Sweep, main"]
    first = int(base.optim.warmup_epochs) + 1
    return _FILE.format(
        name=file.stem,
        file=file,
        path="" if data in _BUNDLED else " data.path=DIR",
        method=kind,
        data=data,
        varied="a search" if search else key.partition(".")[2],
        imports="\n".join(own_names),
        epochs=10 if data in _BUNDLED else base.epochs,
        fields=_SEARCH.format(space=method, first=first) if search else _GRID.format(key=key, values=[*values]),
    )
