"""Which runs count: those of the sweep as its file is now, and of a fair ablation the winner of each point."""

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.select.objectives import goals_of

JUDGED = ("finished", "diverged", "collapsed", "pruned")  # runs that have had their chance


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What one point of the grid chose among its candidates.

    Args:
        point: the grid's axes and their values.
        candidates: its cells with the first seed.
        winner: the best finished candidate by the first goal, with all seeds, the candidate itself first; empty while
            none has finished.
    """

    point: Mapping[str, Any]
    candidates: pd.DataFrame
    winner: pd.DataFrame


def axes(runs: pd.DataFrame) -> list[str]:
    """The dotted keys that the sweep varies."""
    return json.loads(runs["sweep.axes"].iloc[0])


def searched(runs: pd.DataFrame) -> list[str]:
    """Those of its axes that a search proposes."""
    return said(runs, "sweep.searched") or []


def has_winners(runs: pd.DataFrame) -> bool:
    """Whether candidates compete, so that the best of each point runs with all seeds; of several goals none is best."""
    return bool(searched(runs)) and len(goals_of(runs)) == 1


def is_fair(runs: pd.DataFrame) -> bool:
    """Whether each point of a grid has a search of its own, with one winner."""
    return has_winners(runs) and runs["sweep.kind"].iloc[0] == "fair"


def choices(runs: pd.DataFrame) -> list[Choice]:
    """The points of the grid in order (of a search alone the one empty point), each with its candidates and winner."""
    present, free = current(runs), searched(runs)
    keys = [axis for axis in axes(runs) if axis not in free]
    (goal, *_), first = goals_of(runs), seeds_of(runs)[:1]
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for position, place in enumerate(places_of(present, keys)):
        groups[place].append(position)
    found = []
    for grid in grids_of(runs):
        for values in itertools.product(*(grid[key] for key in keys)):
            own = present.iloc[groups[tuple(map(comparable, values))]]
            candidates = own[own["seed"].isin(first)] if first else own
            ranked = goal.best_first(candidates[candidates["status"] == "finished"]).dropna(subset="score")
            winner = own.iloc[:0]
            if len(ranked):
                places = places_of(own, free)
                best = places[own.index.get_loc(ranked.index[0])]
                same = own[[place == best for place in places]].sort_values("seed")
                winner = same.sort_values("seed", key=lambda seeds: ~seeds.isin(first), kind="stable")
            found.append(Choice(point=dict(zip(keys, values, strict=True)), candidates=candidates, winner=winner))
    return found


def current(runs: pd.DataFrame) -> pd.DataFrame:
    """The cells, without references, of the sweep's present base configuration (where it has none, of the latest).

    Whoever edits a sweep's base and runs it again gets new cells beside the old ones; a table that mixed them would
    compare different trainings. Of a grid, only the cells with values and seeds that it still lists.
    """
    found = of_present_base(runs)
    inside = pd.Series(False, index=found.index)
    for grid in grids_of(found):
        here = pd.Series(True, index=found.index)
        for key, values in grid.items():
            here &= column(found, key).map(comparable).isin({comparable(value) for value in values})
        inside |= here
    return found[inside & (found["seed"].isin(seeds_of(found)) if seeds_of(found) else True)]


def of_present_base(runs: pd.DataFrame) -> pd.DataFrame:
    """The cells of the sweep's present base configuration, those that the grid no longer lists among them."""
    found = runs[runs["role"] == "cell"]
    return _honest(found[found["base"] == present_base(found)])


def present_base(cells: pd.DataFrame) -> str:
    """What the sweep's file said at its last launch, if any cell has it; else what the latest cell has."""
    told = cells["sweep.base"].iloc[0] if "sweep.base" in cells and len(cells) else ""
    if (cells["base"] == told).any():
        return str(told)
    return cells.sort_values(["start_time", "run_id"])["base"].iloc[-1] if len(cells) else ""


def references(runs: pd.DataFrame) -> pd.DataFrame:
    """The references that the sweep's file has now; those of an earlier base compare with other trainings."""
    found = _honest(runs[runs["role"] == "reference"])
    keys = said(found, "sweep.references")
    return found if keys is None else found[found["cell_key"].isin(keys)]


def truncated(runs: pd.DataFrame) -> pd.Series:
    """Whether a run says that it has finished, though its last epoch is not the last of its config."""
    last, asked = (pd.to_numeric(column(runs, name), errors="coerce").astype(float) for name in ("epoch", "epochs"))
    return (column(runs, "status") == "finished") & (last < asked)


def column(runs: pd.DataFrame, name: str) -> pd.Series:
    """A column, NaN where no run of the store has it."""
    return runs[name] if name in runs else pd.Series(math.nan, index=runs.index)


def records_of(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """A dictionary for each run."""
    return [{str(name): value for name, value in row.items()} for row in runs.to_dict("records")]


def said(runs: pd.DataFrame, name: str) -> Any:
    """What a JSON tag of the sweep says, or None where a store from before that tag does not have it."""
    text = runs[name].iloc[0] if name in runs and len(runs) else None
    return json.loads(text) if isinstance(text, str) else None


def grids_of(runs: pd.DataFrame) -> list[dict[str, list[Any]]]:
    """Every grid with values for each axis of any; one empty grid where the sweep has none."""
    grids = said(runs, "sweep.grid") or [{}]
    return grids if isinstance(grids, list) else [grids]  # a store from before lists of grids has one


def seeds_of(runs: pd.DataFrame) -> list[int]:
    """Those that the sweep runs; none where a store from before that tag does not say."""
    return said(runs, "sweep.seeds") or []


def places_of(runs: pd.DataFrame, keys: Sequence[str]) -> list[tuple[float | str, ...]]:
    """Where each run lies along some axes."""
    columns = [column(runs, key).map(comparable) for key in keys]
    return [*zip(*columns, strict=True)] if columns else [()] * len(runs)


def comparable(value: Any) -> float | str:
    """1, 1.0 and "1.0" are one value; what a method does not have is "", as in the sweep's grid."""
    if pd.isna(value):
        return ""
    try:
        return float(str(value))
    except ValueError:
        return str(value)


def _honest(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, those that were cut short by their right name."""
    short = truncated(runs)
    return runs.assign(status=runs["status"].mask(short, "truncated")) if short.any() else runs
