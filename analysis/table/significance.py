"""Bold numbers of a table: seed-paired t tests against the best of a group, Holm-corrected."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ttest_rel

from analysis.table.cells import TableCell, levels

ALPHA = 0.05
LEAST = 3  # common seeds: a paired test of two has one degree of freedom and finds nothing


def paired_p(ours: Mapping[int, float], others: Mapping[int, float]) -> float | None:
    """Two-sided p value of a paired t test over common seeds. The null hypothesis: no difference on average.

    Returns:
        1 if both are equal at each seed; None, no test, below three common seeds or where all differences are equal.
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
    """p values corrected for multiple comparisons (Holm, 1979): the smallest of m times m, the next times m - 1."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = largest
    return adjusted


def embolden(frame: pd.DataFrame, within: Sequence[str] = ()) -> tuple[pd.DataFrame, str]:
    """The frame with the best cells bold, and a note on the meaning of bold, "" where nothing was compared.

    Each metric with a direction is a group, or one group per combination of values of the levels `within`.
    """
    groups: dict[tuple[Any, ...], list[tuple[int, int]]] = defaultdict(list)
    for row, column, cell, place in cells_of(frame):
        if cell.quantity is not None and cell.quantity.direction and cell.n:
            own = tuple(place[name] for name in within if name in place)
            groups[(cell.quantity.metric, *own)].append((row, column))
    values = frame.to_numpy(object).copy()
    tested: list[bool] = []
    seeds: set[int] = set()
    for positions in groups.values():
        if len(positions) > 1:  # alone, a number is the best of nothing
            cells = [values[position] for position in positions]
            bold, tests = _bold(cells)
            tested += tests
            seeds |= {cell.n for cell in cells}
            for position, cell, best in zip(positions, cells, bold, strict=True):
                values[position] = replace(cell, bold=best)
    marked = pd.DataFrame(values, index=frame.index, columns=frame.columns, dtype=object)
    marked.attrs = dict(frame.attrs)
    return marked, _note(tested, seeds, within) if tested else ""


def seed_count_note(frame: pd.DataFrame) -> str:
    """Note on the number of seeds. Sets frame.attrs["n"] to the usual number, which cells then do not print.

    Where no number has a seed, as in a table of times, they are repetitions. "" where the usual number is one.
    """
    measured = [cell for _, _, cell, _ in cells_of(frame) if cell.n and not cell.theory]
    seeded = [cell for cell in measured if cell.seeds and -1 not in cell.seeds]
    counts = Counter(cell.n for cell in seeded or measured)
    if not counts or (usual := counts.most_common(1)[0][0]) == 1:
        return ""
    frame.attrs["n"] = usual
    note = f"mean ± standard deviation over {usual} {'seeds' if seeded else 'repetitions'}"
    return note + (", unless a cell says otherwise" if len(counts) > 1 else "")


def cells_of(frame: pd.DataFrame) -> Iterator[tuple[int, int, TableCell, dict[str, Any]]]:
    """Every TableCell of a table with its row, its column, and the values of the named levels at its place."""
    rows = [dict(zip(frame.index.names, levels(label), strict=True)) for label in frame.index]
    columns = [dict(zip(frame.columns.names, levels(label), strict=True)) for label in frame.columns]
    for row, values in enumerate(frame.itertuples(index=False, name=None)):
        for column, cell in enumerate(values):
            if isinstance(cell, TableCell):
                place = rows[row] | columns[column]
                yield row, column, cell, {str(name): value for name, value in place.items() if name}


def _note(tested: Sequence[bool], seeds: set[int], within: Sequence[str]) -> str:
    best = "bold: the best mean" + (f" at each value of {' and '.join(within)}" if within else "")
    why = f"fewer than {LEAST} seeds in common, or no spread"
    if not any(tested) and max(seeds) < LEAST:
        n = f"n={min(seeds)}" + (f" to {max(seeds)}" if len(seeds) > 1 else "")
        return f"{best}; too few seeds for a test ({n}, {LEAST} in common are needed)"
    if not any(tested):
        return f"{best}; no comparison could be tested: {why}"
    few = f"; {min(seeds)} seeds tell only large differences apart" if LEAST <= min(seeds) < 5 else ""
    untested = tested.count(False)
    rest = f"; {untested} of {len(tested)} comparisons untested: {why}" if untested else ""
    return f"{best}, and what a seed-paired t test (Holm-corrected, {ALPHA:.0%}) cannot tell from it{few}{rest}"


def _bold(cells: Sequence[TableCell]) -> tuple[list[bool], list[bool]]:
    """For each cell of a group, true if it is best or not significantly worse; for each other than the best, true if
    it could be tested."""
    sign = -1 if cells[0].quantity is not None and cells[0].quantity.direction == "min" else 1
    top = sign * max(sign * cell.mean for cell in cells)
    equal = [cell for cell in cells if math.isclose(cell.mean, top, rel_tol=1e-12)]
    best = max(equal, key=lambda cell: cell.n)
    others = [cell for cell in cells if cell is not best]
    by_seed = {id(cell): dict(zip(cell.seeds, cell.values, strict=True)) for cell in cells}
    p_values = [paired_p(by_seed[id(best)], by_seed[id(cell)]) for cell in others]
    adjusted = iter(holm([p for p in p_values if p is not None]))
    close = {id(cell): p is not None and next(adjusted) > ALPHA for cell, p in zip(others, p_values, strict=True)}
    return [cell in equal or close[id(cell)] for cell in cells], [p is not None for p in p_values]
