"""Points of a figure: numbers over seeds, labels, and reasons why a figure has nothing to draw."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.style import printable
from analysis.select.compared import best_over
from analysis.select.selection import axes, choices, current, is_fair, numbers, searched
from analysis.table.cells import short
from analysis.table.pivot import that_differ

VIEWS = ("views.num_global", "views.num_local")
TOP1 = "test/probe_top1"


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The present cells with a result; of a fair ablation those of its winners."""
    found = pd.concat([point.winner for point in choices(runs)]) if is_fair(runs) else current(runs)
    return found[found["status"] == "finished"]


def varied(runs: pd.DataFrame) -> list[str]:
    """The axes along which points may differ: all, of a fair ablation those of its grid, each with one winner."""
    return [axis for axis in axes(runs) if not (is_fair(runs) and axis in searched(runs))]


def grouped(table: pd.DataFrame, keys: Sequence[str]) -> list[tuple[Any, pd.DataFrame]]:
    """Rows with the same values along some axes, in the order of these values; one group without axes."""
    return [*table.groupby([*keys], dropna=False)] if keys else [((), table)]


def over_seeds(runs: pd.DataFrame, metrics: Sequence[str], keys: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per setting: its values on the axes, and for each metric the columns `<metric>`, the mean over seeds,
    `<metric> std` (0 with one seed) and `<metric> n`; settings without any number are left out."""
    keys = [key for key in (axes(runs) if keys is None else keys) if key in runs]
    values = {metric: pd.Series(numbers(runs, metric), runs.index) for metric in metrics}
    found = runs[keys].assign(**{metric: own.where(np.isfinite(own)) for metric, own in values.items()})
    parts = {"": "mean", " std": "std", " n": "count"}
    asked = {f"{metric}{part}": (metric, name) for metric in values for part, name in parts.items()}
    table = found.groupby([*keys] or (lambda _: 0), dropna=False).agg(**asked).reset_index(drop=not keys)
    table = table.fillna({f"{metric} std": 0.0 for metric in values})
    return table.dropna(subset=[*metrics], how="all").reset_index(drop=True)


def with_numbers(runs: pd.DataFrame, metrics: Iterable[str]) -> list[str]:
    """Those of the metrics that a run has, as a finite number."""
    return [metric for metric in metrics if np.isfinite(numbers(runs, metric)).any()]


def label_of(row: pd.Series, keys: Iterable[str]) -> str:
    """ "p=1 mu=-0.5": the values of a setting along some axes.

    Axes that its method lacks are left out; an encoder or a method has no word before its name.
    """
    words = []
    for key in keys:
        value = row[key]
        if value == "" or (not isinstance(value, str) and pd.isna(value)):
            continue
        numeric = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        text = f"{value:.4g}" if numeric else str(value)
        words.append(text if key in ("model.encoder", "method") else f"{short(key)}={text}")
    return printable(" ".join(words))


def seed_range(table: pd.DataFrame, *metrics: str) -> str:
    """Number of seeds behind the means: "n=3", "n=1 to 3"."""
    counts = sorted({int(count) for metric in metrics for count in table[f"{metric} n"] if count})
    return f"n={counts[0]}" if len(counts) == 1 else f"n={counts[0]} to {counts[-1]}" if counts else "n=0"


def best_setting(runs: pd.DataFrame) -> pd.DataFrame:
    """The finished runs of the best setting, chosen as in tables; none where none competes."""
    chosen, how = best_over(runs, axes(runs)) if len(runs) else (runs, "")
    return chosen if how else runs.iloc[:0]


def lacking(
    runs: pd.DataFrame,
    *,
    varies: Sequence[str] = (),
    measured: Sequence[str] = (),
    any_of: Sequence[str] = (),
    only: Sequence[str] | None = None,
) -> str:
    """The reason why a figure has nothing to draw of these runs, in a few words; "" where it has.

    Args:
        varies: axes along which it draws, which a grid has to vary: values that a search proposed are scattered.
        measured: metrics that finished runs must have, each of them; any_of: at least one of them.
        only: the axes that it distinguishes, if not all: over others it would average.
    """
    for axis in varies:
        if axis not in axes(runs):
            return f"the sweep does not vary {axis}"
        if axis in searched(runs):
            return f"a search proposed {axis}: no grid varies it"
    found = finished(runs)
    for metric in measured:
        if not with_numbers(found, [metric]):
            return f"no finished run has {metric} yet"
    if any_of and not with_numbers(found, any_of):
        return f"no finished run has {any_of[0]} or another of its {len(any_of)} metrics yet"
    if only is None:
        return ""
    drawn = found.dropna(subset=[axis for axis in varies if axis in found])
    mixed = that_differ(drawn, only, [axis for axis in varied(runs) if axis not in only])
    return f"it would average over {mixed[0]}" if mixed else ""


def groups_by_views(runs: pd.DataFrame) -> str:
    """The axis within whose values losses can be compared: the number of views, if the sweep varies it, else ""."""
    return next((axis for axis in VIEWS if axis in axes(runs)), "")
