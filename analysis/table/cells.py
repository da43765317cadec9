"""From runs to the numbers of a table: cells over seeds. A cell without a result is never a number."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

import pandas as pd

from analysis.select.selection import column, truncated


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What a table shows of its runs: a metric, or a setting.

    Args:
        label: the header, without arrow.
        metric: the column of the runs.
        direction: which numbers are good, as the header's arrow and the bold numbers say; "": neither.
        factor: 100 for percent.
    """

    label: str
    metric: str
    direction: Literal["max", "min", ""] = ""
    factor: float = 1.0
    spec: str = ".4g"

    @property
    def theory(self) -> bool:
        """Whether it was computed from the target, not measured: it has no seeds."""
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
    """One cell of a table: a value per seed that finished, and the states of those that did not.

    Args:
        run_ids, seeds: one per value.
        state_ids: the runs of the states, "" for a run that has not begun.
        remarks: marks behind the number, which a note below the table explains.
        bold: the best, or not to be told from it.
    """

    values: tuple[float, ...] = ()
    states: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    state_ids: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    quantity: Quantity | None = None
    bold: bool = False

    @property
    def n(self) -> int:
        """How many seeds the mean rests on."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """NaN where no seed finished."""
        return fmean(self.values) if self.values else math.nan

    @property
    def std(self) -> float:
        """The sample's (n - 1); NaN below two seeds."""
        return stdev(self.values) if self.n > 1 else math.nan

    @property
    def status(self) -> str:
        """What the seeds without a value are: "1 diverged, 2 running"."""
        return ", ".join(f"{count} {state}" for state, count in sorted(Counter(self.states).items()))

    def __float__(self) -> float:
        return self.mean

    def __str__(self) -> str:
        return self.text("")

    def text(self, spec: str | None = None, *, usual: int = 1) -> str:
        """ "0.912", "0.912 ± 0.003 (n=3)", "0.912 (n=1, 1 diverged)", "diverged", or "-" where no run is.

        Args:
            spec: by default the quantity's.
            usual: the n that goes without saying where no state is to be told.
        """
        if not self.values:
            return "/".join(sorted(set(self.states))) or "-"
        spec = spec if spec is not None else self.quantity.spec if self.quantity else ".4g"
        spread = f" ± {self.std:{spec}}" if self.n > 1 else ""
        remark = ", ".join(filter(None, [f"n={self.n}" if self._counts(usual) else "", self.status]))
        return f"{self.mean:{spec}}{spread}" + (f" ({remark})" if remark else "") + "".join(self.remarks)

    def _counts(self, usual: int) -> bool:
        """Whether n is to be told: a setting of the sweep, and a value from theory, have no seeds."""
        seedless = self.quantity is not None and (self.quantity.theory or "." in self.quantity.metric)
        return bool(self.states) or (self.n != usual and not seedless)


class CellBuilder:
    """What some runs measured, ready to be made into cells: thousands of cells take no time in pandas."""

    def __init__(self, runs: pd.DataFrame, quantities: Iterable[Quantity]) -> None:
        self._states = states_of(runs)
        self._ids = runs["run_id"].astype(str).tolist() if "run_id" in runs else [""] * len(runs)
        self._seeds = [-1 if pd.isna(seed) else int(seed) for seed in column(runs, "seed")]
        self._values = {
            one: one.factor * pd.to_numeric(column(runs, one.metric), errors="coerce").to_numpy(float)
            for one in quantities
        }

    def cell(self, positions: Iterable[int], quantity: Quantity) -> TableCell:
        """The runs at these positions, one per seed, as one TableCell. target/ metrics are theory: one seed tells what
        it is, without spread; a method without a target has none, and that is no gap in what was measured."""
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
        if theory and found:
            lost = []
        states, state_ids = zip(*sorted(lost), strict=True) if lost else ((), ())
        return TableCell(values, states, ids, seeds, state_ids, quantity=quantity)


def cell_of(runs: pd.DataFrame, quantity: Quantity) -> TableCell:
    """The runs of one cell, one per seed, as one TableCell."""
    return CellBuilder(runs, [quantity]).cell(range(len(runs)), quantity)


def states_of(runs: pd.DataFrame) -> list[str]:
    """What each run is, as people read it: "finished", "diverged", "pruned at 3" with the epoch that was its last.

    A run that says that it has finished, and whose last epoch is not the last of its config, is "truncated at 3".
    """
    last = pd.to_numeric(column(runs, "epoch"), errors="coerce")
    words = runs["status"].astype(object).mask(truncated(runs), "truncated")
    return [
        f"{word} at {epoch:g}" if word in ("pruned", "truncated") and math.isfinite(epoch) else word
        for word, epoch in zip(words.tolist(), last.astype(float).tolist(), strict=True)
    ]


def short(key: str, separator: str = ".") -> str:
    """The last part of a dotted key, as the papers write it: method.mu -> mu."""
    return key.rpartition(separator)[2]


def levels(label: Any) -> tuple[Any, ...]:
    """The label of a row or column as a tuple, whether it has one level or several."""
    return label if isinstance(label, tuple) else (label,)
