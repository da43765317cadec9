"""Parser of command lines. What is wrong with one is answered in one line."""

import argparse
import re
from typing import NoReturn

from jepa_train.base.errors import ConfigError


class LineParser(argparse.ArgumentParser):
    """argparse would print its usage, of ten lines, above the one that matters."""

    command = ""  # begins the answer, e.g. "fetch: "
    remedy = "--help lists the options"  # ends it

    def error(self, message: str) -> NoReturn:
        problem = re.sub(": expected (one|at least one) argument", " needs a value", message.removeprefix("argument "))
        raise ConfigError(f"{self.command}{problem.removesuffix(', NAME')}; {self.remedy}")
