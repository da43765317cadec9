"""Bad input on a command line or in a sweep file: one line on stderr and exit code 2."""

import argparse
import re
import sys
from types import TracebackType
from typing import NoReturn

from jepa_train.base.errors import ConfigError
from jepa_train.base.security import hidden


class LineParser(argparse.ArgumentParser):
    """Parser that raises a ConfigError of one line; argparse would print ten lines of usage above it.

    Args:
        form: a command of python -m sweeps and its words; "" for the command line of sweeps.
    """

    def __init__(self, about: str, form: str = "", usage: str | None = None) -> None:
        command = form.partition(" ")[0]
        prog = f"python -m sweeps {command}" if command else None
        super().__init__(prog=prog, description=about, usage=usage, allow_abbrev=False)
        self._ends = (f"{command}: ", f"write python -m sweeps {form}") if form else ("", "--help lists the options")

    def error(self, message: str) -> NoReturn:
        problem = re.sub(": expected (one|at least one) argument", " needs a value", message.removeprefix("argument "))
        raise ConfigError(f"{self._ends[0]}{problem.removesuffix(', NAME')}; {self._ends[1]}")


def refuse(error: Exception | str) -> int:
    """Print an error in one line, without secrets. Returns the exit code of bad input."""
    text = str(error).replace("\n", "\\n")  # in a path
    sys.stderr.write(f"error: {hidden(text)}\n")
    return 2


def interrupted() -> int:
    """Print that Ctrl-C ended the command. Returns its exit code."""
    sys.stderr.write("stopped; the same command goes on where this one stopped\n")
    return 130


def report_config_errors() -> None:
    """Let `python sweeps/NAME.py` answer a ConfigError of the file in one line, and Ctrl-C during the imports too.

    Other errors keep their traceback.
    """
    sys.excepthook = _report


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, ConfigError):
        sys.exit(refuse(error))
    if isinstance(error, KeyboardInterrupt):
        sys.exit(interrupted())
    sys.__excepthook__(kind, error, trace)
