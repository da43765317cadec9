"""From runs to what is drawn: numbers over seeds, labels, and why a figure has nothing to draw."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.select.compared import best_over
from analysis.select.objectives import goals_of
from analysis.select.selection import axes, choices, column, current, is_fair, searched
from analysis.table.cells import short, states_of
from analysis.table.pivot import that_differ

VIEWS = ("views.num_global", "views.num_local")
TOP1 = "test/linear_top1"


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The present cells that have a result, of a fair ablation those of its winners: no other run becomes a point."""
    found = pd.concat([point.winner for point in choices(runs)]) if is_fair(runs) else current(runs)
    return found[[state == "finished" for state in states_of(found)]]


def varied(runs: pd.DataFrame) -> list[str]:
    """The axes along which points may differ: all, of a fair ablation those of its grid, each with one winner."""
    return [axis for axis in axes(runs) if not (is_fair(runs) and axis in searched(runs))]


def over_seeds(runs: pd.DataFrame, metrics: Sequence[str], keys: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per setting: its values on the axes, and for each metric the columns `<metric>`, the mean over seeds,
    `<metric> std` (0 with one seed) and `<metric> n`; settings without a number for the first metric are left out."""
    keys = [key for key in (axes(runs) if keys is None else keys) if key in runs]
    metrics = [*dict.fromkeys(metrics)]
    rows: list[dict[str, Any]] = []
    groups = runs.groupby([*keys], dropna=False, sort=True) if keys else [((), runs)]
    for place, group in groups:
        row: dict[str, Any] = dict(zip(keys, place, strict=True))
        for metric in metrics:
            values = numbers(group, metric)
            values = values[np.isfinite(values)]
            row[metric] = values.mean() if len(values) else math.nan
            row[f"{metric} std"] = values.std(ddof=1) if len(values) > 1 else 0.0
            row[f"{metric} n"] = len(values)
        rows.append(row)
    table = pd.DataFrame(rows, columns=[*keys, *(f"{m}{part}" for m in metrics for part in ("", " std", " n"))])
    return table[np.isfinite(table[metrics[0]].astype(float))].reset_index(drop=True)


def numbers(runs: pd.DataFrame, name: str) -> np.ndarray:
    """A column as floats, NaN where there is none or no number."""
    return pd.to_numeric(column(runs, name), errors="coerce").to_numpy(dtype=float, na_value=np.nan)


def with_views(runs: pd.DataFrame) -> pd.DataFrame:
    """With the column V, the number of all views."""
    return runs.assign(V=sum(numbers(runs, name) for name in VIEWS))


def label_of(row: pd.Series, keys: Iterable[str]) -> str:
    """ "p=1 mu=-0.5": what a setting has on these axes; axes that its method lacks are not said, and an encoder or a
    method needs no word before its name."""
    named = ("model.encoder", "method")
    present = [key for key in keys if not _absent(row[key])]
    return " ".join(value_text(row[key]) if key in named else f"{short(key)}={value_text(row[key])}" for key in present)


def value_text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float | np.number) and not isinstance(value, bool) else str(value)


def seeds_said(table: pd.DataFrame, metric: str) -> str:
    """ "n=3", "n=1 to 3": how many seeds the means rest on."""
    counts = sorted({int(count) for count in table[f"{metric} n"] if count})
    return f"n={counts[0]}" if len(counts) == 1 else f"n={counts[0]} to {counts[-1]}" if counts else "n=0"


def best_setting(runs: pd.DataFrame) -> pd.DataFrame:
    """Of finished runs those of the one setting that a table names the best as well; none where none has a score."""
    scored = runs[goals_of(runs)[0].scores(runs).notna()] if len(runs) else runs
    return best_over(scored, axes(runs))[0] if len(scored) else scored


def lacking(
    runs: pd.DataFrame, *, varies: Sequence[str] = (), measured: Sequence[str] = (), only: Sequence[str] | None = None
) -> str:
    """Why a figure has nothing to draw of these runs, in a few words; "" where it has.

    Args:
        varies: axes along which it draws, which a grid has to vary: what a search proposed lies scattered.
        measured: metrics that a finished run must have.
        only: all that it tells apart, where it does not draw every axis: over others it would average.
    """
    for axis in varies:
        if axis not in axes(runs):
            return f"the sweep does not vary {axis}"
        if axis in searched(runs):
            return f"a search proposed {axis}: no grid varies it"
    found = finished(runs)
    for metric in measured:
        if not np.isfinite(numbers(found, metric)).any():
            return f"no finished run has {metric} yet"
    if only is None:
        return ""
    drawn = found.dropna(subset=[axis for axis in varies if axis in found])
    mixed = that_differ(drawn, only, [axis for axis in varied(runs) if axis not in only])
    return f"it would average over {mixed[0]}" if mixed else ""


def _absent(value: Any) -> bool:
    return value == "" or (not isinstance(value, str) and pd.isna(value))


def groups_by_views(runs: pd.DataFrame) -> str:
    """The axis within whose values losses can be compared: the number of views, where the sweep varies it, else ""."""
    return next((axis for axis in VIEWS if axis in axes(runs)), "")
