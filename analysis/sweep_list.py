"""List of the sweeps of a store: python -m sweeps list; python -m analysis has it below its tables."""

import itertools
from collections.abc import Sequence

import pandas as pd

from analysis.device_time import unit_of
from analysis.select.compared import winner
from analysis.select.objectives import goals_of
from analysis.select.selection import JUDGED, column, numbers, requested
from analysis.store.runs import NothingToShow, sweeps_in
from analysis.store.sources import RunSource
from analysis.table.cells import short

_HEADER = ("sweep", "cells", "hours", "last (UTC)", "best")
_WIDTH = 80  # of a terminal


def sweep_lines(source: RunSource) -> list[str]:
    """A line per sweep that has runs, the latest activity first, and another one if cells are not finished.

    `cells` are those with a result, of all that the sweep asks for; `hours` device hours of all its runs; `last` the
    last start or end of a run; `best` the first goal of the best point, the mean over its seeds (see trials).
    """
    found = []
    for name, experiment in sweeps_in(source).items():
        try:
            runs = source.runs(name)
        except NothingToShow:  # no run yet
            continue
        states = requested(runs)["status"].value_counts().sort_index().to_dict()
        total = max(int(experiment.tags.get("sweep.total", 0)), sum(states.values()))
        states["missing"] = total - sum(states.values())
        others = ", ".join(f"{count} {state}" for state, count in states.items() if count and state != "finished")
        unit = unit_of([*column(runs, "resources").dropna(), ""][0]).partition("-")[0]
        hours = pd.Series(numbers(runs, "device_seconds")).sum() / 3600
        last = runs[["start_time", "end_time"]].max().max()
        done = sum(states.get(state, 0) for state in JUDGED)
        texts = (name, f"{done}/{total}", f"{hours:.2f} {unit}", f"{last:%m-%d %H:%M}", best_score(runs))
        found.append((last, others, texts))
    found.sort(key=lambda row: row[0], reverse=True)
    header, *rows = (line[:_WIDTH].rstrip() for line in aligned([_HEADER, *(texts for *_, texts in found)]))
    lines = [[line, f"  {others}"] if others else [line] for line, (_, others, _) in zip(rows, found, strict=True)]
    return [header, *itertools.chain(*lines)]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines, with columns of one width."""
    widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, texts, widths)).rstrip() for texts in rows]


def best_score(runs: pd.DataFrame) -> str:
    """The first goal of the best point, with its name; "-" where none competes."""
    goal, best = goals_of(runs)[0], winner(runs)
    if best.runs.empty:
        return "-"
    per = f" / {short(goal.over)}^{goal.power:g}" if goal.over else ""
    return f"{best.score:.4g} {short(goal.metric, '/')}{per}"
