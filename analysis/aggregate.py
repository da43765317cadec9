"""From runs to the numbers of a table: cells over seeds, grids, rankings. A cell without a result is never a number."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import pandas as pd

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
    for status, value in zip(runs["status"], _column(runs, metric), strict=True):
        if status != "finished":
            states.append(status)
        elif math.isfinite(value):
            values.append(factor * value)
    if metric.startswith("target/"):
        values = sorted(set(values))
    return Cell(tuple(values), tuple(states))


def axes(runs: pd.DataFrame) -> list[str]:
    """The dotted keys that the sweep varies."""
    return json.loads(runs["sweep.axes"].iloc[0])


def current(runs: pd.DataFrame) -> pd.DataFrame:
    """The cells, without references, of the sweep's present base configuration (where it has none, of the latest).

    Whoever edits a sweep's base and runs it again gets new cells beside the old ones; a table that mixed them would
    compare different trainings. Of a grid, only the cells with values that it still lists.
    """
    cells = _of_present_base(runs)
    grids = _experiment_tag(cells, "sweep.grid") or [{}]
    inside = pd.Series(False, index=cells.index)
    for listed in grids if isinstance(grids, list) else [grids]:  # a store from before lists of grids has one
        here = pd.Series(True, index=cells.index)
        for key, values in listed.items():
            here &= _column(cells, key).map(_comparable).isin({_comparable(value) for value in values})
        inside |= here
    return cells[inside]


def grid(runs: pd.DataFrame, *, row: str, column: str, quantities: Mapping[str, tuple[str, float]]) -> pd.DataFrame:
    """Cells over two axes, one block of rows per quantity; further axes of the sweep become outer levels of the rows.

    Args:
        quantities: label -> (metric, factor).
    """
    cells = current(runs)
    further = [axis for axis in axes(runs) if axis not in (row, column)]
    keys = [*further, row]
    groups: dict[tuple[Any, ...], pd.DataFrame] = dict(iter(cells.groupby([*keys, column])))
    rows = sorted({key[:-1] for key in groups}) or [("-",) * len(keys)]  # before the first cell: one empty row
    columns: list[Any] = sorted({key[-1] for key in groups}) or ["-"]
    index = pd.MultiIndex.from_tuples(
        [(label, *key) for label in quantities for key in rows], names=["", *further, short(row)]
    )
    empty = cells.iloc[:0]
    table = [
        [cell_of(groups.get((*key, value), empty), metric, factor=factor) for value in columns]
        for metric, factor in quantities.values()
        for key in rows
    ]
    return pd.DataFrame(table, index=index, columns=pd.Index(columns, name=short(column)), dtype=object)


def ranked(runs: pd.DataFrame, columns: Mapping[str, tuple[str, float]]) -> pd.DataFrame:
    """Finished cells by the sweep's objective, highest first; then the unfinished; then the sweep's references.

    Equal objectives share a rank. The index says "1", "2", ..., or what a row is: "diverged", "random init", and the
    run's name for a trained reference.

    Args:
        columns: header -> (parameter or metric, factor).
    """
    objective = runs["sweep.objective"].iloc[0]
    cells = current(runs).assign(objective=lambda frame: _column(frame, objective))
    finished = cells["status"] == "finished"
    best_first = cells[finished].sort_values(["objective", "cell_key"], ascending=[False, True])
    ranks = best_first["objective"].rank(ascending=False, method="min")
    unfinished = cells[~finished].sort_values(["status", "start_time", "cell_key"])
    references = _references(runs).sort_values(["start_time", "cell_key"])
    labels = ["-" if math.isnan(rank) else int(rank) for rank in ranks]
    labels += [*unfinished["status"], *_reference_labels(references)]
    rows = [
        [_entry(run, *column) for column in columns.values()]
        for part in (best_first, unfinished, references)
        for _, run in part.iterrows()
    ]
    return pd.DataFrame(rows, index=pd.Index(labels, name="rank", dtype=object), columns=[*columns], dtype=object)


def summary(runs: pd.DataFrame) -> str:
    """How far each sweep is, with the reasons of the cells that ended badly, and what the table leaves out."""
    parts = []
    for sweep, own in runs.groupby("sweep", sort=False):
        cells = current(own)
        counts = [
            f"{len(group)} {status}" + _reasons(group["reason"])
            for status, group in sorted(cells.groupby("status"), key=lambda pair: (pair[0] != "finished", pair[0]))
        ]
        same_base = _of_present_base(own)
        if len(same_base) > len(cells):
            counts.append(f"{len(same_base) - len(cells)} outside the present grid left out")
        earlier = own[(own["role"] == "cell") & ~own["run_id"].isin(same_base["run_id"])]
        if len(earlier):
            differing = ", ".join(_differences({*earlier["base"]}, _present_base(same_base)))
            counts.append(f"{len(earlier)} of another configuration left out (they differ in {differing})")
        former = int((own["role"] == "reference").sum()) - len(_references(own))
        if former:
            counts.append(f"{former} former reference{'s'[: former > 1]} left out")
        parts.append(f"{sweep}: {', '.join(counts) or 'no cell yet'}")
    return "; ".join(parts)


def short(key: str, separator: str = ".") -> str:
    """The last part of a dotted key, as the papers write it: method.mu -> mu."""
    return key.rpartition(separator)[2]


def _column(runs: pd.DataFrame, name: str) -> pd.Series:
    return runs[name] if name in runs else pd.Series(math.nan, index=runs.index)


def _experiment_tag(runs: pd.DataFrame, name: str) -> Any:
    """What a JSON tag of the sweep says, or None where a store from before that tag does not have it."""
    text = runs[name].iloc[0] if name in runs and len(runs) else None
    return json.loads(text) if isinstance(text, str) else None


def _comparable(value: Any) -> float | str:
    """1, 1.0 and "1.0" are one value."""
    try:
        return float(str(value))
    except ValueError:
        return str(value)


def _of_present_base(runs: pd.DataFrame) -> pd.DataFrame:
    cells = runs[runs["role"] == "cell"]
    return cells[cells["base"] == _present_base(cells)]


def _references(runs: pd.DataFrame) -> pd.DataFrame:
    """The references that the sweep's file has now; those of an earlier base compare with other trainings."""
    references = runs[runs["role"] == "reference"]
    keys = _experiment_tag(references, "sweep.references")
    return references if keys is None else references[references["cell_key"].isin(keys)]


def _present_base(cells: pd.DataFrame) -> str:
    """What the sweep's file said at its last launch, if any cell has it; else what the latest cell has."""
    said = cells["sweep.base"].iloc[0] if "sweep.base" in cells and len(cells) else ""
    if (cells["base"] == said).any():
        return str(said)
    return cells.sort_values(["start_time", "run_id"])["base"].iloc[-1] if len(cells) else ""


def _entry(run: pd.Series, name: str, factor: float) -> Any:
    """A metric of a finished run, or a setting; a reference's settings were not chosen by the sweep and say nothing."""
    value = run.get(name, math.nan)
    if "/" not in name:
        return Cell() if run["role"] == "reference" or pd.isna(value) else value
    guessing = run["epochs"] == 0 and short(name, "/") in ONLINE
    return Cell((factor * value,)) if run["status"] == "finished" and math.isfinite(value) and not guessing else Cell()


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


def _reasons(reasons: pd.Series) -> str:
    told = sorted({reason for reason in reasons.fillna("") if reason})
    return f" ({'; '.join(told)})" if told else ""


def _differences(bases: Iterable[str], latest: str) -> list[str]:
    ours: dict[str, str] = json.loads(latest)
    others = [json.loads(base) for base in bases]
    return sorted({key for other in others for key in {*ours, *other} if ours.get(key) != other.get(key)})
