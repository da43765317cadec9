"""Table cells: mean and spread over seeds, or the states of the runs without a result, which are never a number."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

import pandas as pd

from analysis.select.selection import column, numbers, truncated


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A metric or setting of runs, as a column of a table.

    Args:
        label: the header, without arrow.
        metric: the column of the runs.
        direction: whether large or small numbers are good (arrow of the header, bold numbers); "": neither.
        factor: 100 for percent.
    """

    label: str
    metric: str
    direction: Literal["max", "min", ""] = ""
    factor: float = 1.0
    spec: str = ".4g"

    @property
    def theory(self) -> bool:
        """True if it is computed from the target and not measured: it has no seeds."""
        return self.metric.startswith("target/")

    @property
    def header(self) -> str:
        """The label with its arrow."""
        return self.label + {"max": " ↑", "min": " ↓", "": ""}[self.direction]


def percent(label: str, metric: str, spec: str = ".2f") -> Quantity:
    """An accuracy as the papers print it."""
    return Quantity(label=label, metric=metric, direction="max", factor=100.0, spec=spec)


@dataclass(frozen=True)
class TableCell:
    """One cell of a table: a value per finished seed, and the states of the other runs.

    Args:
        run_ids, seeds: one per value.
        state_ids: one per state, "" for a run that has not begun.
        bold: the best of its group, or not significantly worse.
    """

    values: tuple[float, ...] = ()
    states: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    state_ids: tuple[str, ...] = ()
    quantity: Quantity | None = None
    bold: bool = False

    @property
    def n(self) -> int:
        """Number of seeds behind the mean."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """NaN where no seed finished."""
        return fmean(self.values) if self.values else math.nan

    @property
    def std(self) -> float:
        """Sample standard deviation (n - 1); NaN below two seeds."""
        return stdev(self.values) if self.n > 1 else math.nan

    @property
    def status(self) -> str:
        """Counts of the states: "1 diverged, 2 running"."""
        return ", ".join(f"{count} {state}" for state, count in sorted(Counter(self.states).items()))

    @property
    def theory(self) -> bool:
        """See Quantity.theory."""
        return self.quantity is not None and self.quantity.theory

    @property
    def setting(self) -> bool:
        """True for a parameter of the sweep, which has no seeds."""
        return self.quantity is not None and "." in self.quantity.metric and "/" not in self.quantity.metric

    def __str__(self) -> str:
        """ "0.912", "0.912 ± 0.003 (n=3)", "0.912 (n=1, 1 diverged)", "diverged", or "-" where no run is."""
        return with_remark(self.number(), self.remark()) or "-"

    def number(self) -> str:
        """ "0.912", "0.912 ± 0.003", with equal decimals; "" where no seed finished."""
        spec = self.quantity.spec if self.quantity else ".4g"
        mean = f"{self.mean:{spec}}" if self.values else ""
        if self.n < 2:
            return mean
        decimals = spec if "e" in mean else f".{len(mean.partition('.')[2])}f"
        return f"{mean} ± {self.std:{decimals}}"

    def remark(self, usual: int = 1) -> str:
        """ "n=1, 1 diverged", "diverged"; "" where the usual number of seeds finished, or no run is."""
        if not self.values:
            return "/".join(sorted(set(self.states)))
        n = f"n={self.n}" if self.states or not (self.n == usual or self.theory or self.setting) else ""
        return ", ".join(filter(None, [n, self.status]))


class CellBuilder:
    """Columns of some runs as plain lists, so that thousands of cells are built quickly."""

    def __init__(self, runs: pd.DataFrame, quantities: Iterable[Quantity]) -> None:
        self._states = states_of(runs)
        self._ids = runs["run_id"].astype(str).tolist() if "run_id" in runs else [""] * len(runs)
        self._seeds = [-1 if pd.isna(seed) else int(seed) for seed in column(runs, "seed")]
        self._values = {one: one.factor * numbers(runs, one.metric) for one in quantities}

    def cell(self, positions: Iterable[int], quantity: Quantity) -> TableCell:
        """The runs at these positions, one per seed, as one TableCell.

        Theory needs one finished run, whatever became of the others, and has no gap where a method has no target.
        """
        theory = quantity.theory
        found: list[tuple[int, float, str]] = []
        lost: list[tuple[str, str]] = []
        for at in positions:
            value = float(self._values[quantity][at])
            if self._states[at] != "finished":
                lost.append((self._states[at], self._ids[at]))
            elif math.isfinite(value):
                if not (theory and any(value == known for _, known, _ in found)):
                    found.append((self._seeds[at], value, self._ids[at]))
            elif not theory:
                lost.append(("not measured", self._ids[at]))
        seeds, values, ids = zip(*sorted(found), strict=True) if found else ((), (), ())
        lost = [] if theory and found else sorted(lost)
        states, state_ids = zip(*lost, strict=True) if lost else ((), ())
        return TableCell(values, states, ids, seeds, state_ids, quantity=quantity)


def cell_of(runs: pd.DataFrame, quantity: Quantity) -> TableCell:
    """The runs of one cell, one per seed, as one TableCell."""
    return CellBuilder(runs, [quantity]).cell(range(len(runs)), quantity)


def states_of(runs: pd.DataFrame) -> list[str]:
    """State of each run for display: "finished", "diverged", "pruned at 3" with its last epoch.

    A finished run whose last epoch is not the last of its config is "truncated at 3".
    """
    words = runs["status"].astype(object).mask(truncated(runs), "truncated")
    return [
        f"{word} at {epoch:g}" if word in ("pruned", "truncated") and math.isfinite(epoch) else word
        for word, epoch in zip(words.tolist(), numbers(runs, "epoch"), strict=True)
    ]


def with_remark(number: str, remark: str) -> str:
    """ "0.912 (n=1, 1 diverged)"; the remark alone where there is no number."""
    return f"{number} ({remark})" if number and remark else number or remark


def short(key: str, separator: str = ".") -> str:
    """The last part of a dotted key, as the papers write it: method.mu -> mu."""
    return key.rpartition(separator)[2]


def levels(label: Any) -> tuple[Any, ...]:
    """The label of a row or column as a tuple, also if it has one level."""
    return label if isinstance(label, tuple) else (label,)
