"""The words of a sweep's command line. What is wrong with them is answered in one line."""

import argparse
import math
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from jepa_train.base.errors import ConfigError, nearest
from jepa_train.base.scale_names import SCALES, Scale
from sweeps.engine.parser import LineParser

_MODES = ("--dry-run", "--status", "--explain", "--evaluate")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a command line asks for."""

    names: tuple[str, ...] = ()  # of sweeps, for python -m sweeps
    places: tuple[str, ...] = ()  # data.path=DIR: where the data lies on this machine
    scale: Scale | None = None  # of sweep files that have several
    dry_run: bool = False
    status: bool = False
    explain: str = ""  # the cell: its key, the beginning of it, or its label
    evaluate: bool = False
    retry: frozenset[str] = frozenset()  # states that run again although they are over
    max_gpu_hours: float = math.inf
    take_over: bool = False
    json: bool = False

    def announce(self, names: Sequence[str]) -> None:
        """Print a first line at once for what takes seconds to begin: a launch or an evaluation."""
        if not (self.dry_run or self.status or self.explain):
            sys.stderr.write(f"{', '.join(names)}: importing PyTorch, MLflow and Ray, reading the store\n")
            sys.stderr.flush()


def read_words(
    words: Sequence[str], *, about: str = "", usage: str | None = None, names: Collection[str] = ()
) -> Options:
    """The options that the words spell; --help prints and exits.

    Args:
        names: of sweeps, where words may name them: what follows --explain is a label but for these.

    Raises:
        ConfigError: an unknown word, a missing value, two modes at once.
    """
    parser = _parser(about, usage)
    options, unknown = parser.parse_known_intermixed_args(list(words))
    if unknown:
        known = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
        raise ConfigError(f"{unknown[0]} is not an option{nearest(unknown[0].partition('=')[0], known)}")
    modes = (options.dry_run, options.status, bool(options.explain), options.evaluate)
    given = [mode for mode, on in zip(_MODES, modes, strict=True) if on]
    if len(given) > 1:
        raise ConfigError(f"one of {', '.join(_MODES)} goes at a time, got {' and '.join(given)}; keep one")
    if not options.max_gpu_hours > 0:
        raise ConfigError(f"--max-gpu-hours must be positive, got {options.max_gpu_hours:g}; leave it out for no limit")
    label = [word for word in options.explain[:1] if not _is_place(word)]
    label += [word for word in options.explain[1:] if not _is_place(word) and word not in names]
    words = [*options.words, *(word for word in options.explain if word not in label)]
    return Options(
        names=tuple(word for word in words if "=" not in word),
        places=tuple(word for word in words if "=" in word),
        scale=options.scale,
        dry_run=options.dry_run,
        status=options.status,
        explain=" ".join(label),
        evaluate=options.evaluate,
        retry=frozenset(options.retry),
        max_gpu_hours=options.max_gpu_hours,
        take_over=options.take_over,
        json=options.json,
    )


def _is_place(word: str) -> bool:
    """Whether a word that follows --explain is none of a cell's label, in which no number and no name begins so."""
    return word.startswith(("data.path=", "data.download=", "data.on_corrupt=", "probe."))


def _parser(about: str, usage: str | None) -> argparse.ArgumentParser:
    parser = LineParser(description=about, usage=usage, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    say = parser.add_argument
    say("--scale", choices=[*SCALES], help="; ".join(f"{name}: {about}" for name, about in SCALES.items()))
    say("--dry-run", action="store_true", help="list the cells with their states and prices; run nothing")
    say("--status", action="store_true", help="show how the sweep stands, from the store, while it runs elsewhere")
    # several words: a launcher that joins them unquoted (ray submit) makes several of one label
    say("--explain", metavar="CELL", nargs="+", default=(), help="say why a cell (key, its beginning, label) is so")
    say("--evaluate", action="store_true", help="finished cells once more (probe.protocols=...); train nothing")
    say("--retry", choices=["failed"], action="append", default=[], help="run failed cells again")
    say("--max-gpu-hours", type=float, default=math.inf, metavar="X", help="begin no cell beyond so many GPU-hours")
    say("--take-over", action="store_true", help="end the launch that runs the sweep elsewhere, and go on here")
    say("--json", action="store_true", help="the same facts as one JSON document; progress goes to stderr")
    say("words", nargs="*", metavar="data.path=DIR", help="where the data lies on this machine")
    return parser
