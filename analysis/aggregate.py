"""From runs to the numbers of a table: cells over seeds, grids, rankings. A cell without a result is never a number."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from analysis.goals import goals_of
from analysis.selection import axes, cells, choices, column, current, has_winners, is_fair, references, searched

ONLINE = {"probe_top1", "projector_top1"}  # of probes that learn along with the encoder: after 0 epochs they guess


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a value per seed that finished, and the states of those that did not."""

    values: tuple[float, ...] = ()
    states: tuple[str, ...] = ()

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

    def text(self, spec: str) -> str:
        """ "0.912", "0.912 ± 0.003 (n=3)", "0.912 (n=1, 1 diverged)", "diverged", or "-" where no run is."""
        if not self.values:
            return "/".join(sorted(set(self.states))) or "-"
        spread = f" ± {self.std:{spec}}" if self.n > 1 else ""
        remark = ", ".join(filter(None, [f"n={self.n}" if self.n > 1 or self.states else "", self.status]))
        return f"{self.mean:{spec}}{spread}" + (f" ({remark})" if remark else "")


def cell_of(runs: pd.DataFrame, metric: str, *, factor: float = 1) -> Cell:
    """The runs of one cell, one per seed, as one Cell; target/ metrics are theory and have no spread."""
    values, states = [], []
    for state, value in zip(states_of(runs), column(runs, metric), strict=True):
        if state != "finished":
            states.append(state)
        elif math.isfinite(value):
            values.append(factor * value)
    if metric.startswith("target/"):
        values = sorted(set(values))
    return Cell(tuple(values), tuple(states))


def states_of(runs: pd.DataFrame) -> list[str]:
    """What each run is, as people read it: "finished", "diverged", "pruned at 3" with the epoch that was its last."""
    return [
        f"pruned at {epoch:g}" if status == "pruned" and pd.notna(epoch) else status
        for status, epoch in zip(runs["status"], column(runs, "epoch"), strict=True)
    ]


def grid(runs: pd.DataFrame, *, row: str, column: str, quantities: Mapping[str, tuple[str, float]]) -> pd.DataFrame:
    """Cells over two axes, one block of rows per quantity; further axes of the sweep become outer levels of the rows.

    Of a fair ablation the cells are the winners of its points, over their seeds.

    Args:
        quantities: label -> (metric, factor).
    """
    compared = cells(runs)
    chosen = {row, column, *(searched(runs) if is_fair(runs) else ())}
    further = [axis for axis in axes(runs) if axis not in chosen]
    keys = [*further, row]
    groups: dict[tuple[Any, ...], pd.DataFrame] = dict(iter(compared.groupby([*keys, column])))
    rows = sorted({key[:-1] for key in groups}) or [("-",) * len(keys)]  # before the first cell: one empty row
    columns: list[Any] = sorted({key[-1] for key in groups}) or ["-"]
    index = pd.MultiIndex.from_tuples(
        [(label, *key) for label in quantities for key in rows], names=["", *further, short(row)]
    )
    empty = compared.iloc[:0]
    table = [
        [cell_of(groups.get((*key, value), empty), metric, factor=factor) for value in columns]
        for metric, factor in quantities.values()
        for key in rows
    ]
    return pd.DataFrame(table, index=index, columns=pd.Index(columns, name=short(column)), dtype=object)


def ranked(runs: pd.DataFrame, columns: Mapping[str, tuple[str, float]]) -> pd.DataFrame:
    """Finished cells by the sweep's first goal, best first; then the unfinished; then the sweep's references.

    Equal scores share a rank. The index says "1", "2", ..., or what a row is: "diverged", "pruned at 3", "random init",
    and the run's name for a trained reference. Candidates of a search compete with its first seed; of one that runs
    with all seeds, what was measured on test is a mean over them.

    Args:
        columns: header -> (parameter or metric, factor).
    """
    goal, found = goals_of(runs)[0], current(runs)
    over_seeds: dict[str, pd.DataFrame] = {}
    if has_winners(runs):
        points = choices(runs)
        found = pd.concat([point.candidates for point in points])
        over_seeds = {point.winner["cell_key"].iloc[0]: point.winner for point in points if len(point.winner)}
    finished = found["status"] == "finished"
    best_first = goal.best_first(found[finished])
    ranks = best_first["score"].rank(ascending=goal.direction == "min", method="min")
    unfinished = found[~finished].sort_values(["status", "start_time", "cell_key"])
    compared = references(runs).sort_values(["start_time", "cell_key"])
    labels = ["-" if math.isnan(rank) else int(rank) for rank in ranks]
    labels += [*states_of(unfinished), *_reference_labels(compared)]
    rows = [
        [_entry(run, over_seeds.get(run["cell_key"]), *asked) for asked in columns.values()]
        for part in (best_first, unfinished, compared)
        for _, run in part.iterrows()
    ]
    return pd.DataFrame(rows, index=pd.Index(labels, name="rank", dtype=object), columns=[*columns], dtype=object)


def winners(runs: pd.DataFrame, columns: Mapping[str, tuple[str, float]]) -> pd.DataFrame:
    """A fair ablation: one row per point of its grid, with what the winner among its candidates has.

    Settings, and metrics but those on test, are the chosen candidate's; those on test are means over its seeds. Below
    a winner that is not there yet stands what its candidates are doing. The last columns count seeds and candidates.

    Args:
        columns: header -> (parameter or metric, factor).
    """
    points = choices(runs)
    rows: list[list[Any]] = []
    for point in points:
        unfinished = Cell((), tuple(state for state in states_of(point.candidates) if state != "finished"))
        entries = [unfinished if "/" in name else Cell() for name, _ in columns.values()]
        if len(point.winner):
            best = point.winner.iloc[0]
            entries = [_entry(best, point.winner, *asked) for asked in columns.values()]
        n = int((point.winner["status"] == "finished").sum())
        rows.append([*entries, n, f"{len(point.candidates)}{_in_brackets(unfinished.status)}"])
    keys = [*points[0].point]
    labels = [tuple("-" if value == "" else value for value in point.point.values()) for point in points]
    index = pd.MultiIndex.from_tuples(labels, names=keys)
    return pd.DataFrame(rows, index=index, columns=[*columns, "n", "candidates"], dtype=object)


def short(key: str, separator: str = ".") -> str:
    """The last part of a dotted key, as the papers write it: method.mu -> mu."""
    return key.rpartition(separator)[2]


def _entry(run: pd.Series, seeds: pd.DataFrame | None, name: str, factor: float) -> Any:
    """A metric of a finished run, or a setting; a reference's settings were not chosen by the sweep and say nothing.

    Args:
        seeds: the run with its sisters, over which what is measured on test is averaged.
    """
    value = run.get(name, math.nan)
    if "/" not in name:
        return Cell() if run["role"] == "reference" or pd.isna(value) else value
    if seeds is not None and name.startswith("test/"):
        return cell_of(seeds, name, factor=factor)
    guessing = run["epochs"] == 0 and short(name, "/") in ONLINE
    return Cell((factor * value,)) if run["status"] == "finished" and math.isfinite(value) and not guessing else Cell()


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _reference_labels(references: pd.DataFrame) -> list[str]:
    """ "random init" where nothing was trained, with the rest of the run's name ("seed=1") if there are several."""
    several = (references["epochs"] == 0).sum() > 1
    labels = []
    for _, run in references.iterrows():
        label = str(run["run_name"])
        if run["epochs"] == 0:
            rest = [word for word in label.split() if several and word != "epochs=0"]
            label = " ".join(["random init", *rest])
        labels.append(label if run["status"] == "finished" else f"{label} ({run['status']})")
    return labels
