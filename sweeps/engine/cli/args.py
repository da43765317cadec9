"""Options of a sweep's command line."""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jepa_train.base.errors import ConfigError, check_utf8, nearest
from jepa_train.base.scale_names import SCALES, Scale
from sweeps.engine.parser import LineParser

_MOST_SEEDS = 1000


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of one command line."""

    names: tuple[str, ...] = ()  # of sweeps, for python -m sweeps
    overrides: tuple[str, ...] = ()  # assignments as epochs=5: fields of the base
    scale: Scale | None = None  # of sweep files that have several
    seeds: tuple[int, ...] = ()  # in place of those of the sweep
    only: tuple[str, ...] = ()  # values of the cells to run: see read_choice
    limit: int = sys.maxsize  # number of cells to run
    dry_run: bool = False
    status: bool = False
    watch: bool = False  # status again and again
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
    if parsed.limit < 1:
        raise ConfigError(f"--limit must be a number of cells above 0, got {parsed.limit}; leave it out for no limit")
    parsed.status |= parsed.watch
    _check_modes(parsed)
    if parsed.explain and not " ".join(parsed.explain).strip():
        raise ConfigError("--explain needs a key or a label, got a blank; --dry-run lists them")
    fields = vars(parsed)
    rest = fields.pop("words")
    fields |= {"retry": frozenset(parsed.retry), "explain": " ".join(parsed.explain), "only": tuple(parsed.only)}
    fields["seeds"] = _read_seeds(parsed.seeds) if parsed.seeds is not None else ()
    names, overrides = [word for word in rest if "=" not in word], [word for word in rest if "=" in word]
    return Options(names=tuple(names), overrides=tuple(overrides), **fields)


def _check_modes(parsed: argparse.Namespace) -> None:
    """Refuse options that would do nothing.

    Raises:
        ConfigError: one of them.
    """
    mode = next((name for name in ("dry_run", "explain", "evaluate", "status") if getattr(parsed, name)), "")
    shown, launches = f"--{mode.replace('_', '-')}", mode in ("", "dry_run")
    for wrong, rule, other in (
        (parsed.watch and mode != "status", "--watch refreshes --status", shown),
        (parsed.watch and parsed.json, "--watch is for reading", "--json"),
        (parsed.only and mode in ("status", "explain"), "--only chooses the cells that a launch runs", shown),
        (parsed.limit != sys.maxsize and not launches, "--limit is the number of cells that a launch runs", shown),
    ):
        if wrong:
            raise ConfigError(f"{rule}, got it with {other}; leave one out")


def _read_seeds(text: str) -> tuple[int, ...]:
    """The seeds of "0-4", "0,2,5" or "3".

    Raises:
        ConfigError: anything else.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})\s*(?:-\s*(\d{1,18})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < first + _MOST_SEEDS:
            raise ConfigError(f"--seeds must be like 0-4, 0,2,5 or 3, at most {_MOST_SEEDS} of them, got {text!r}")
        seeds += range(first, last + 1)
    return tuple(seeds)


def _parser(about: str, usage: str | None) -> argparse.ArgumentParser:
    parser = LineParser(about, usage=usage)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add, mode = parser.add_argument, parser.add_mutually_exclusive_group().add_argument
    add("--scale", choices=[*SCALES], help="; ".join(f"{name}: {about}" for name, about in SCALES.items()))
    mode("--dry-run", action="store_true", help="list the cells with their states and prices; run nothing")
    mode("--status", action="store_true", help="show the state of the sweep from the store, while it runs elsewhere")
    add("--watch", action="store_true", help="as --status, refreshed until Ctrl-C or until every cell has ended")
    # several words: `ray submit` joins words unquoted, and makes several of one label
    mode(
        "--explain",
        metavar="CELL",
        nargs="+",
        default=(),
        help="explain the state of a cell (key, its beginning, label; label without seed: every seed)",
    )
    mode("--evaluate", action="store_true", help="evaluate finished cells again (probe.protocols=...); train nothing")
    add("--seeds", metavar="LIST", help="0-4, 0,2,5 or 3: these seeds in place of the sweep's")
    only = "of the cells without a result, run those with these values, as lamb=0.05,0.1; several must all hold"
    add("--only", metavar="NAME=VALUE", action="append", default=[], help=only)
    add("--limit", type=int, default=sys.maxsize, metavar="N", help="run at most N cells of each sweep")
    retry = "run failed cells again; or those computed by other code than the present, from the start"
    add("--retry", choices=["failed", "outdated"], action="append", default=[], help=retry)
    add("--max-gpu-hours", type=float, default=math.inf, metavar="X", help="start no cell beyond X GPU-hours")
    add("--take-over", action="store_true", help="end the launch that runs the sweep elsewhere, and continue here")
    add("--json", action="store_true", help="print the same facts as one JSON document; progress goes to stderr")
    overrides = (
        "set a field of the sweep's base, as epochs=5 or data.path=DIR; a field that decides results: other cells"
    )
    add("words", nargs="*", metavar="KEY=VALUE", help=overrides)
    return parser
