"""Runs of a sweep's frame that count: those that it asks for, and of a fair ablation the winner of each point."""

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.select.objectives import goals_of
from analysis.select.tags import canonical, json_tag
from analysis.store.cell_list import recorded_cells

JUDGED = ("finished", "diverged", "collapsed", "pruned")  # states of runs that competed


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The candidates and the winner at one point of the grid.

    Args:
        point: the grid's axes and their values.
        candidates: its cells with the first seed.
        winner: the best finished candidate by the first goal, with all seeds, the candidate itself first; empty while
            none has finished.
    """

    point: dict[str, Any]
    candidates: pd.DataFrame
    winner: pd.DataFrame


def axes(runs: pd.DataFrame) -> list[str]:
    """The dotted keys that the sweep varies."""
    return json.loads(runs["sweep.axes"].iloc[0])


def searched(runs: pd.DataFrame) -> list[str]:
    """The axes whose values a search proposes."""
    return json_tag(tags_of(runs), "sweep.searched") or []


def has_winners(runs: pd.DataFrame) -> bool:
    """True if candidates compete and the best of each point runs with all seeds: a search with one goal."""
    return bool(searched(runs)) and len(goals_of(runs)) == 1


def is_fair(runs: pd.DataFrame) -> bool:
    """True if each point of a grid has a search of its own, with one winner."""
    return has_winners(runs) and runs["sweep.kind"].iloc[0] == "fair"


def choices(runs: pd.DataFrame) -> list[Choice]:
    """The points of the grid in order (of a search alone the one empty point), each with its candidates and winner."""
    present, free = current(runs), searched(runs)
    keys = [axis for axis in axes(runs) if axis not in free]
    (goal, *_), first = goals_of(runs), seeds_of(runs)[:1]
    groups, found = positions_by_place(present, keys), []
    for grid in grids_of(runs):
        for values in itertools.product(*(grid[key] for key in keys)):
            own = present.iloc[groups[tuple(map(canonical, values))]]
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
    """The cells, without references, that the sweep asks for.

    A sweep whose base was edited has new cells beside the old ones; a table of both would compare different trainings.
    """
    return mark_truncated(runs[(runs["role"] == "cell") & _are_current(runs)])


def requested(runs: pd.DataFrame) -> pd.DataFrame:
    """The cells and references that the sweep asks for, unchanged."""
    return runs[_are_current(runs)]


def references(runs: pd.DataFrame) -> pd.DataFrame:
    """The references that the sweep asks for; those of an earlier base compare with other trainings."""
    return mark_truncated(runs[(runs["role"] == "reference") & _are_current(runs)])


def of_present_base(runs: pd.DataFrame) -> pd.DataFrame:
    """The cells of the sweep's present base configuration, including those that it no longer asks for."""
    return mark_truncated(runs[(runs["role"] == "cell") & (runs["base"] == present_base(runs))])


def present_base(runs: pd.DataFrame) -> str:
    """The base of the sweep's last launch, as JSON. In a store without a list of cells, if no cell has that base, the
    base of the latest cell."""
    tags, bases = tags_of(runs), runs.loc[runs["role"] == "cell", "base"]
    if "sweep.base" in tags and (recorded_cells(tags) is not None or (bases == tags["sweep.base"]).any()):
        return tags["sweep.base"]
    return bases.iloc[-1] if len(bases) else ""


def truncated(runs: pd.DataFrame) -> pd.Series:
    """True for each run with status "finished" whose last epoch is not the last of its config."""
    return (column(runs, "status") == "finished") & (numbers(runs, "epoch") < numbers(runs, "epochs"))


def column(runs: pd.DataFrame, name: str) -> pd.Series:
    """A column, NaN where no run of the store has it."""
    return runs[name] if name in runs else pd.Series(math.nan, index=runs.index)


def numbers(runs: pd.DataFrame, name: str) -> np.ndarray:
    """A column as floats, NaN where there is none or no number."""
    return pd.to_numeric(column(runs, name), errors="coerce").to_numpy(dtype=float, na_value=math.nan)


def records_of(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """A dictionary for each run."""
    return [{str(name): value for name, value in row.items()} for row in runs.to_dict("records")]


def tags_of(runs: pd.DataFrame) -> dict[str, str]:
    """The tags of the sweep's experiment, which are columns with one value."""
    names = [name for name in map(str, runs) if name.startswith("sweep.")] if len(runs) else []
    return {name: text for name in names if isinstance(text := runs[name].iloc[0], str)}


def grids_of(runs: pd.DataFrame) -> list[dict[str, list[Any]]]:
    """Every grid with values for each axis of any; one empty grid where the sweep has none."""
    return json_tag(tags_of(runs), "sweep.grid") or [{}]


def seeds_of(runs: pd.DataFrame) -> list[int]:
    """The seeds that the sweep runs; none in a store without that tag."""
    return json_tag(tags_of(runs), "sweep.seeds") or []


def places_of(runs: pd.DataFrame, keys: Sequence[str]) -> list[tuple[float | str, ...]]:
    """The values of each run along some axes."""
    columns = [column(runs, key).map(canonical) for key in keys]
    return [*zip(*columns, strict=True)] if columns else [()] * len(runs)


def positions_by_place(runs: pd.DataFrame, keys: Sequence[str]) -> defaultdict[tuple[float | str, ...], list[int]]:
    """Values along some axes -> positions of the runs that have them, in the order of the runs."""
    groups: defaultdict[tuple[float | str, ...], list[int]] = defaultdict(list)
    for position, place in enumerate(places_of(runs, keys)):
        groups[place].append(position)
    return groups


def mark_truncated(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, with status "truncated" instead of "finished" for those that were cut short."""
    short = truncated(runs)
    return runs.assign(status=runs["status"].mask(short, "truncated")) if short.any() else runs


def _are_current(runs: pd.DataFrame) -> pd.Series:
    """True for each run whose cell or reference the sweep asks for.

    The recorded list of cells decides. In a store or an export without that list: for references their own list, for
    cells base, grid and seeds.
    """
    tags, keys = tags_of(runs), column(runs, "cell_key")
    requested, references = recorded_cells(tags), json_tag(tags, "sweep.references")
    if requested is not None:
        return keys.isin(requested)
    grids = [({"seed": seeds_of(runs)} if seeds_of(runs) else {}) | grid for grid in grids_of(runs)]
    places = {key: column(runs, key).map(canonical) for grid in grids for key in grid}
    in_grid = pd.Series(False, index=runs.index)
    for grid in grids:
        inside = [places[key].isin([*map(canonical, values)]) for key, values in grid.items()]
        in_grid |= np.logical_and.reduce([runs["base"] == present_base(runs), *inside])
    is_reference = (runs["role"] == "reference") & (True if references is None else keys.isin(references))
    return is_reference | ((runs["role"] == "cell") & in_grid)
