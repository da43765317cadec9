"""Choice of the cells that a launch runs now, among those without a result: --only and --limit."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jepa_train.base.errors import ConfigError, nearest
from jepa_train.config.flat import Scalar
from sweeps.engine.spec.sweep import Sweep


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


def read_choice(sweep: Sweep, words: Sequence[str], limit: int) -> CellChoice:
    """The choice of the words of --only and of --limit.

    Each word holds terms NAME=VALUE[,VALUE...]. A cell has to fit the terms of every name: a key, or its last part.

    Raises:
        ConfigError: no such term, an unknown name or value, or a value that a search chooses.
    """
    offered = _offered(sweep)
    varied = dict.fromkeys([*offered, "seed", *sweep.space])
    ends = Counter(key.rpartition(".")[2] for key in varied)
    keys = {end: key for key in varied if ends[end := key.rpartition(".")[2]] == 1} | {key: key for key in varied}
    chosen: dict[str, frozenset[str]] = {}
    for term in (term for word in words for term in word.split() or [word]):
        name, _, text = term.partition("=")
        if not (name and text):
            raise ConfigError(f'--only must be NAME=VALUE, got {term!r}; write --only "lamb=0.05,0.1 seed=0"')
        if name not in keys:
            raise ConfigError(f"--only {term}: {name} does not vary in {sweep.name}{nearest(name, keys)}")
        key = keys[name]
        if key not in offered:
            raise ConfigError(
                f"--only {term}: {sweep.name} searches, and chooses the values of {key} as it goes; "
                "--only takes the axes of its grid, --limit a number of cells"
            )
        chosen[key] = chosen.get(key, frozenset()) | _matching(name, text, offered[key])
    references = frozenset(key for point in sweep.references for key in point)
    return CellChoice(values=chosen, references=references, limit=limit)


def _offered(sweep: Sweep) -> dict[str, list[Scalar]]:
    """Dotted key -> the values from which --only may choose. The seeds of a search follow from its results."""
    found: dict[str, list[Scalar]] = {} if sweep.space else {"seed": [*sweep.seeds]}
    for key, values in (axis for grid in sweep.grids for axis in grid.items()):
        found.setdefault(key, []).extend(values)
    for key, value in (change for point in sweep.references for change in point.items()):
        found.setdefault(key, []).append(value)
    return {key: [*dict.fromkeys(values)] for key, values in found.items()}


def _matching(name: str, text: str, values: Sequence[Scalar]) -> frozenset[str]:
    """The values that a term names, as MLflow stores them; several have commas between them."""
    found: set[str] = set()
    for part in text.split(","):
        fitting = [value for value in values if _fits(part, value)]
        if not fitting:
            raise ConfigError(f"--only {name}={part} fits no cell{nearest(part, map(str, values))}")
        found |= {str(value) for value in fitting}
        found |= {str(float(value)) for value in fitting if type(value) is int}  # of a field of type float
    return frozenset(found)


def _fits(text: str, value: Scalar) -> bool:
    """True for a value's text in upper or lower case, and for an equal number in another form."""
    try:
        return text.lower() == str(value).lower() or (type(value) in (int, float) and float(text) == float(value))
    except ValueError:
        return False
