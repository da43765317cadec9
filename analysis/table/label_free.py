"""Selection without labels (LeJEPA, Sec. 6.3): ranking of a sweep's runs by train loss / lamb^alpha.

C(alpha) is Spearman's correlation of -train/loss / lamb^alpha with test accuracy: positive where a lower loss goes with
a higher accuracy. The paper prints its absolute value.

Failed runs are kept, as in the paper. A run that diverged counts with an infinite loss, one that collapsed with the
loss of its last epoch. The accuracy of either is the online probe's last one on val, since it was never tested, or 0,
below every other, if it was never probed. Pruned and running runs, and those that infrastructure ended, are left out.
Only finished runs can be chosen: that a run failed is known without labels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.select.selection import axes, column, current, numbers
from analysis.table.cells import short, states_of
from analysis.table.layout import FinishedTable
from analysis.table.render import render

LAMB, LOSS, PROBE = "method.lamb", "train/loss", "val/probe_top1"
FAILED = ("diverged", "collapsed")
ALPHAS = tuple(number / 10 for number in range(-30, 31))
PAPERS = 0.4  # the paper's alpha
_COLUMNS = ["", "Spearman", "finished only", "chosen without labels", "its top-1 (%)", "regret"]
_NOTE = (
    "Spearman of -train/loss / lamb^alpha with {metric}: positive where a lower loss goes with a higher accuracy. The "
    "best alpha was found with the labels of this very sample: its line is optimistic. Regret: points of top-1 by "
    "which the setting of least loss, among those that finished, stays below the best one. A failed run counts with an "
    "infinite loss if it diverged, and with the online probe's last accuracy on val (0 if there is none)."
)


class Score(NamedTuple):
    """Ranking at one alpha.

    Args:
        spearman: C(alpha), with the failed runs.
        finished_only: C(alpha) without the failed runs.
        chosen: the setting of least train/loss / lamb^alpha among those that finished, means over its seeds.
        accuracy: of the chosen setting; regret: the best setting's accuracy minus this one.
    """

    alpha: float
    spearman: float
    finished_only: float
    chosen: str
    accuracy: float
    regret: float


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs with comparable losses.

    Args:
        name: "" for all runs, else the value that they share, as in "num_global=4".
        points: a row per run: loss, lamb, accuracy, failed, setting, run_name.
        scores: at alpha 0, at the paper's, and at the best in this sample.
        curve: C at ALPHAS.
    """

    name: str
    metric: str
    points: pd.DataFrame
    scores: tuple[Score, ...]
    curve: np.ndarray

    @property
    def best(self) -> Score:
        """At the alpha of the greatest C, found with the labels of this very sample: an optimistic number."""
        return self.scores[-1]


def label_free(runs: pd.DataFrame, *, metric: str = "test/probe_top1", by: str = "") -> list[Group]:
    """Rankings of the runs of one sweep, one group for each value of `by`; one group of all without it.

    Losses of runs with other numbers of views have other scales: there, compare by views.num_global.

    Args:
        metric: accuracy of finished runs.
    """
    found = points_of(runs, metric)
    groups = found.groupby(column(runs, by)[found.index]) if by else [("", found)]
    return [_group(f"{short(by)}={value}" if by else "", metric, own) for value, own in groups]


def points_of(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A row per finished or failed run with a positive lamb, as the head of this file defines loss and accuracy."""
    found = current(runs)
    states = np.array(states_of(found))
    failed = np.isin(states, FAILED)
    loss = np.where(states == "diverged", math.inf, numbers(found, LOSS))
    keys = [axis for axis in axes(runs) if axis in found]
    points = pd.DataFrame(
        {
            "loss": np.where(failed & np.isnan(loss), math.inf, loss),
            "lamb": numbers(found, LAMB),
            "accuracy": np.where(failed, np.nan_to_num(numbers(found, PROBE)), numbers(found, metric)),
            "failed": failed,
            "setting": found[keys].astype(object).map(str).agg(" ".join, axis=1) if keys else found["cell_key"],
            "run_name": found["run_name"],
        },
        index=found.index,
    )
    whole = points[["loss", "lamb", "accuracy"]].notna().all(axis=1) & (points["lamb"] > 0)
    return points[((states == "finished") | failed) & whole]


def correlations(points: pd.DataFrame) -> np.ndarray:
    """C at each of ALPHAS, where equal values share their mean rank.

    NaN where losses or accuracies are all equal, or below three runs.
    """
    scaled = pd.DataFrame({alpha: -points["loss"] / points["lamb"] ** alpha for alpha in ALPHAS})
    found = scaled.rank().corrwith(points["accuracy"].rank()).to_numpy()
    return found if len(points) > 2 else np.full(len(ALPHAS), math.nan)


def report(groups: Sequence[Group], format: str = "md") -> str:
    """The scores as md, latex, html or csv, a line per group and alpha, with their meaning in a note below."""
    rows, labels = [], []
    for group in groups:
        failed = int(group.points["failed"].sum())
        count = f"{len(group.points) - failed} finished" + (f", {failed} failed" if failed else "")
        for score in group.scores:
            labels.append((f"{group.name}: {count}" if group.name else count, f"{score.alpha:g}"))
            best, found = "best" if score is group.best else "", (score.spearman, score.finished_only)
            points = (round(100 * score.accuracy, 1), round(100 * score.regret, 1))
            rows.append([best, *(round(value, 3) for value in found), score.chosen, *points])
    index = pd.MultiIndex.from_tuples(labels, names=["runs", "alpha"])
    frame = pd.DataFrame(rows, index=index, columns=_COLUMNS, dtype=object)
    note = _NOTE.format(metric=groups[0].metric if groups else "test accuracy")
    return render(FinishedTable(frame=frame, title="Selection without labels", about_numbers=[note]), format)


def _group(name: str, metric: str, points: pd.DataFrame) -> Group:
    curve = correlations(points)
    highest = np.nanmax(curve) if np.isfinite(curve).any() else math.nan
    equals = [alpha for alpha, value in zip(ALPHAS, curve, strict=True) if np.isclose(value, highest)]
    best = min(equals, key=abs, default=PAPERS)  # of equals the one that changes least
    finished, scores = points[~points["failed"]], []
    alone = correlations(finished)
    for alpha in (0.0, PAPERS, best):
        at = ALPHAS.index(alpha)
        scores.append(Score(alpha, float(curve[at]), float(alone[at]), *_choice(finished, alpha)))
    return Group(name=name, metric=metric, points=points, scores=tuple(scores), curve=curve)


def _choice(points: pd.DataFrame, alpha: float) -> tuple[str, float, float]:
    """First run of the chosen setting, accuracy of the setting, and its regret."""
    if not len(points):
        return "-", math.nan, math.nan
    scaled = points.assign(scaled=points["loss"] / points["lamb"] ** alpha)
    means = scaled.groupby("setting")[["scaled", "accuracy"]].mean()
    chosen = means.iloc[int(means["scaled"].argmin())]
    name = str(scaled.loc[scaled["setting"] == chosen.name, "run_name"].iloc[0])
    return name, float(chosen["accuracy"]), float(means["accuracy"].max() - chosen["accuracy"])
