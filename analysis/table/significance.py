"""Which numbers of a table are the best: seed-paired t tests against the best of a group, Holm-corrected."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ttest_rel

from analysis.table.cells import TableCell, levels

ALPHA = 0.05
LEAST = 3  # common seeds: with two a paired test has one degree of freedom and tells nothing apart


def paired_p(ours: Mapping[int, float], others: Mapping[int, float]) -> float | None:
    """Two-sided p of a paired t test over the seeds that both have: that seed by seed they do not differ on average.

    Returns:
        1 where they are equal seed by seed; None, no test, below three common seeds or where all differences are
        the same number, of which no test knows how much chance would vary it.
    """
    seeds = sorted(ours.keys() & others.keys())
    if len(seeds) < LEAST:
        return None
    left, right = (np.array([values[seed] for seed in seeds]) for values in (ours, others))
    differences = left - right
    if not differences.any():
        return 1.0
    if np.ptp(differences) <= 1e-9 * np.abs(differences).max():
        return None
    return float(ttest_rel(left, right).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values, each corrected for how many there are (Holm, 1979): the smallest of m by m, the next by m - 1."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = largest
    return adjusted


@dataclass
class Comparisons:
    """Counts of comparisons with the best of each group, for the note below the table."""

    compared: int = 0
    untested: int = 0
    seeds: set[int] = field(default_factory=set)  # how many seeds the numbers rest on

    def note(self, within: Sequence[str]) -> str:
        """What bold means, "" where nothing was compared."""
        if not self.compared:
            return ""
        where = f" at each value of {' and '.join(within)}" if within else ""
        if self.untested == self.compared and max(self.seeds) < LEAST:
            n = f"n={min(self.seeds)}" + (f" to {max(self.seeds)}" if len(self.seeds) > 1 else "")
            return f"bold: the best mean{where}; too few seeds for a test ({n}, {LEAST} in common are needed)"
        why = f"fewer than {LEAST} seeds in common, or no spread"
        if self.untested == self.compared:
            return f"bold: the best mean{where}; no comparison could be tested: {why}"
        text = f"bold: the best mean{where}, and what a seed-paired t test (Holm-corrected, {ALPHA:.0%})"
        untested = f"{self.untested} of {self.compared} comparisons untested: {why}"
        few = f"; {min(self.seeds)} seeds tell only large differences apart" if LEAST <= min(self.seeds) < 5 else ""
        return f"{text} cannot tell from it{few}" + (f"; {untested}" if self.untested else "")


def embolden(frame: pd.DataFrame, within: Sequence[str] = ()) -> tuple[pd.DataFrame, str]:
    """The frame with the best cells bold, and what bold means.

    Each metric with a direction is a group, or one group per combination of values of the levels `within`.
    """
    groups: dict[tuple[Any, ...], list[tuple[int, int]]] = defaultdict(list)
    for row, column, cell, place in cells_of(frame):
        if cell.quantity is not None and cell.quantity.direction and cell.n:
            own = tuple(place[name] for name in within if name in place)
            groups[(cell.quantity.metric, *own)].append((row, column))
    values, tally = frame.to_numpy(object).copy(), Comparisons()
    for positions in groups.values():
        for position, bold in zip(positions, _bold([values[position] for position in positions], tally), strict=True):
            values[position] = replace(values[position], bold=bold)
    marked = pd.DataFrame(values, index=frame.index, columns=frame.columns, dtype=object)
    marked.attrs = dict(frame.attrs)
    return marked, tally.note(within)


def seed_count_note(frame: pd.DataFrame) -> str:
    """The line that says on how many seeds the numbers rest; frame.attrs["n"] then spares every cell from saying it.

    Where no number has a seed, as in a table of times, they are repetitions. "" where the usual number is one.
    """
    measured = [
        cell for _, _, cell, _ in cells_of(frame) if cell.n and not (cell.quantity is not None and cell.quantity.theory)
    ]
    seeded = [cell for cell in measured if cell.seeds and -1 not in cell.seeds]
    counts = Counter(cell.n for cell in seeded or measured)
    if not counts or (usual := counts.most_common(1)[0][0]) == 1:
        return ""
    frame.attrs["n"] = usual
    return f"mean ± standard deviation over {usual} {'seeds' if seeded else 'repetitions'}" + (
        ", unless a cell says otherwise" if len(counts) > 1 else ""
    )


def cells_of(frame: pd.DataFrame) -> Iterator[tuple[int, int, TableCell, dict[str, Any]]]:
    """Every cell of a table: row, column, the TableCell, and the values of the named levels at which it stands."""
    rows = [dict(zip(frame.index.names, levels(label), strict=True)) for label in frame.index]
    columns = [dict(zip(frame.columns.names, levels(label), strict=True)) for label in frame.columns]
    for row, values in enumerate(frame.itertuples(index=False, name=None)):
        for column, cell in enumerate(values):
            if isinstance(cell, TableCell):
                place = rows[row] | columns[column]
                yield row, column, cell, {str(name): value for name, value in place.items() if name}


def _bold(cells: Sequence[TableCell], tally: Comparisons) -> list[bool]:
    """Which cells of one group are the best or cannot be told from it; alone, a number is the best of nothing."""
    if len(cells) < 2:
        return [False] * len(cells)
    sign = -1 if cells[0].quantity is not None and cells[0].quantity.direction == "min" else 1
    top = sign * max(sign * cell.mean for cell in cells)
    equal = [cell for cell in cells if math.isclose(cell.mean, top, rel_tol=1e-12)]
    best = max(equal, key=lambda cell: cell.n)
    others = [cell for cell in cells if cell is not best]
    p_values = [paired_p(_by_seed(best), _by_seed(cell)) for cell in others]
    tested = holm([p for p in p_values if p is not None])
    adjusted = iter(tested)
    verdicts = {id(cell): p is not None and next(adjusted) > ALPHA for cell, p in zip(others, p_values, strict=True)}
    tally.compared += len(others)
    tally.untested += p_values.count(None)
    tally.seeds |= {cell.n for cell in cells}
    return [cell in equal or verdicts[id(cell)] for cell in cells]


def _by_seed(cell: TableCell) -> dict[int, float]:
    return dict(zip(cell.seeds, cell.values, strict=True))
