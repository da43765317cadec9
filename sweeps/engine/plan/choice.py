"""Choice of the cells that a launch runs now, among those without a result: --only and --limit."""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.select.labels import LABELS, axis_labels
from jepa_train.base.errors import ConfigError, nearest
from jepa_train.config.flat import Scalar
from sweeps.engine.spec.sweep import Sweep

_TERM = re.compile(r"\s*([^=]*[^=\s])\s*=\s*(\S+)")  # names as "weight decay" have spaces, values have none


@dataclass(frozen=True, kw_only=True)
class CellChoice:
    """The cells that a launch may run, by their values, and their greatest number. By default all of them.

    Args:
        values: dotted key -> values as MLflow stores them.
        references: keys of the sweep's references, one of which must be in values for a reference to be chosen.
    """

    values: Mapping[str, frozenset[str]] = field(default_factory=dict)
    references: frozenset[str] = frozenset()
    limit: int = sys.maxsize

    def takes(self, flat: Mapping[str, Any], role: str = "cell") -> bool:
        """True for a cell to run, by its flat config or its logged parameters."""
        named = role == "cell" or not self.values or bool(self.references & self.values.keys())
        return named and all(str(flat.get(key, "")) in texts for key, texts in self.values.items())


def read_choice(sweep: Sweep, terms: Sequence[str], limit: int) -> CellChoice:
    """The choice of the words of --only and of --limit.

    Each word holds terms NAME=VALUE[,VALUE...]. A cell has to fit the terms of every name. Names are keys, their last
    parts, and the headers of the sweep's table.

    Raises:
        ConfigError: no such term, an unknown name or value, or a value that a search chooses.
    """
    offered = _offered(sweep)
    keys = _names(sweep, [*offered, *(key for key in ("seed", *sweep.space) if key not in offered)])
    chosen: dict[str, frozenset[str]] = {}
    for word in terms:
        if re.fullmatch(rf"({_TERM.pattern})+\s*", word) is None:
            raise ConfigError(f'--only must be NAME=VALUE, got {word!r}; write --only "lamb=0.05,0.1 seed=0"')
        for name, text in _TERM.findall(word):
            if name not in keys:
                raise ConfigError(f"--only {name}={text}: {name} does not vary in {sweep.name}{nearest(name, keys)}")
            key = keys[name]
            if key not in offered:
                raise ConfigError(
                    f"--only {name}={text}: {sweep.name} searches, and chooses the values of {key} as it goes; "
                    "--only takes the axes of its grid, --limit a number of cells"
                )
            chosen[key] = chosen.get(key, frozenset()) | _matching(name, text, key, offered[key])
    references = frozenset(key for point in sweep.references for key in point)
    return CellChoice(values=chosen, references=references, limit=limit)


def _offered(sweep: Sweep) -> dict[str, list[Scalar]]:
    """Dotted key -> the values from which --only may choose. The seeds of a search follow from its results."""
    points: list[Mapping[str, Sequence[Scalar]]] = [
        *sweep.grids,
        *({key: [value] for key, value in point.items()} for point in sweep.references),
    ]
    found: dict[str, list[Scalar]] = {} if sweep.space else {"seed": [*sweep.seeds]}
    for key, values in (axis for point in points for axis in point.items()):
        found[key] = [*dict.fromkeys([*found.get(key, []), *values])]
    return found


def _names(sweep: Sweep, keys: Sequence[str]) -> dict[str, str]:
    """Name on the command line -> dotted key."""
    ends = [key.rpartition(".")[2] for key in keys]
    short = {end: key for end, key in zip(ends, keys, strict=True) if ends.count(end) == 1}
    headers = axis_labels(keys) | dict(sweep.table.labels if sweep.table else {})
    return short | {headers[key]: key for key in keys} | {key: key for key in keys}


def _matching(name: str, text: str, key: str, values: Sequence[Scalar]) -> frozenset[str]:
    """The values that a term names, as MLflow stores them; several have commas between them."""
    found: set[str] = set()
    for part in text.split(","):
        fitting = [value for value in values if part.lower() in _texts(key, value) or _number(part) == _number(value)]
        if not fitting:
            raise ConfigError(f"--only {name}={part} fits no cell{_nearest_values(part, values)}")
        found |= {str(value) for value in fitting}
        found |= {str(float(value)) for value in fitting if type(value) is int}  # of a field of type float
    return frozenset(found)


def _texts(key: str, value: Scalar) -> set[str]:
    """A value as it is stored, and as tables show it."""
    shown = {str(value), f"{value:.4g}" if isinstance(value, float) else str(value)}
    shown |= {LABELS["method_name"]({"method": value})} if key == "method" else set()
    return {text.lower() for text in shown}


def _number(value: Scalar) -> float:
    """The value of a number, NaN for anything else."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except ValueError:
        return math.nan


def _nearest_values(text: str, values: Sequence[Scalar]) -> str:
    """End of an error message: the nearest numbers, or texts."""
    number = _number(text)
    if math.isnan(number) or any(math.isnan(_number(value)) for value in values):
        return nearest(text, map(str, values))
    close = sorted(values, key=lambda value: abs(_number(value) - number))[:3]
    return f"; the nearest are {', '.join(map(str, close))}" if len(close) > 1 else f"; it has only {close[0]}"
