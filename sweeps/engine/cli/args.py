"""Options of a sweep's command line."""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jepa_train.base.errors import ConfigError, check_utf8, nearest
from jepa_train.base.scale_names import SCALES, Scale
from sweeps.engine.parser import LineParser


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of one command line."""

    names: tuple[str, ...] = ()  # of sweeps, for python -m sweeps
    places: tuple[str, ...] = ()  # assignments as data.path=DIR: the data on this machine
    scale: Scale | None = None  # of sweep files that have several
    dry_run: bool = False
    status: bool = False
    explain: str = ""  # a cell: its key, the beginning of the key, or its label, also without the seed
    evaluate: bool = False
    retry: frozenset[str] = frozenset()  # "failed", "outdated": cells that run again
    max_gpu_hours: float = math.inf
    take_over: bool = False
    json: bool = False

    def announce(self, names: Sequence[str]) -> None:
        """Print a first line at once for what takes seconds to begin: a launch or an evaluation."""
        if not (self.dry_run or self.status or self.explain):
            sys.stderr.write(f"{', '.join(names)}: importing PyTorch, MLflow and Ray, reading the store\n")
            sys.stderr.flush()


def read_words(words: Sequence[str], *, about: str = "", usage: str | None = None) -> Options:
    """Parse a command line; --help prints and exits.

    Raises:
        ConfigError: an unknown option, a missing value, two modes at once.
    """
    for word in words:
        check_utf8(word, named="a word of the command line")
    parser = _parser(about, usage)
    parsed, unknown = parser.parse_known_intermixed_args(list(words))
    if unknown:
        known = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
        raise ConfigError(f"{unknown[0]} is not an option{nearest(unknown[0].partition('=')[0], known)}")
    if not parsed.max_gpu_hours > 0:
        raise ConfigError(f"--max-gpu-hours must be positive, got {parsed.max_gpu_hours:g}; leave it out for no limit")
    if parsed.explain and not " ".join(parsed.explain).strip():
        raise ConfigError("--explain needs a key or a label, got a blank; --dry-run lists them")
    fields = vars(parsed)
    rest = fields.pop("words")
    fields |= {"retry": frozenset(parsed.retry), "explain": " ".join(parsed.explain)}
    names, places = [word for word in rest if "=" not in word], [word for word in rest if "=" in word]
    return Options(names=tuple(names), places=tuple(places), **fields)


def _parser(about: str, usage: str | None) -> argparse.ArgumentParser:
    parser = LineParser(description=about, usage=usage, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add, mode = parser.add_argument, parser.add_mutually_exclusive_group().add_argument
    add("--scale", choices=[*SCALES], help="; ".join(f"{name}: {about}" for name, about in SCALES.items()))
    mode("--dry-run", action="store_true", help="list the cells with their states and prices; run nothing")
    mode("--status", action="store_true", help="show the state of the sweep from the store, while it runs elsewhere")
    # several words: `ray submit` joins words unquoted, and makes several of one label
    mode(
        "--explain",
        metavar="CELL",
        nargs="+",
        default=(),
        help="explain the state of a cell (key, its beginning, label; label without seed: every seed)",
    )
    mode("--evaluate", action="store_true", help="evaluate finished cells again (probe.protocols=...); train nothing")
    retry = "run failed cells again; or those computed by other code than the present, from the start"
    add("--retry", choices=["failed", "outdated"], action="append", default=[], help=retry)
    add("--max-gpu-hours", type=float, default=math.inf, metavar="X", help="start no cell beyond X GPU-hours")
    add("--take-over", action="store_true", help="end the launch that runs the sweep elsewhere, and continue here")
    add("--json", action="store_true", help="print the same facts as one JSON document; progress goes to stderr")
    add("words", nargs="*", metavar="data.path=DIR", help="the folder of the data on this machine")
    return parser
