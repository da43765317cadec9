"""Runs of a sweep's frame that count: those that it asks for, and of a fair ablation the winner of each point."""

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from analysis.select.objectives import constraints_of, goals_of
from analysis.select.tags import canonical, json_tag
from analysis.store.cell_list import recorded_cells

_LOST = ("diverged", "collapsed", "pruned")  # states of a seed that decide that of its point, the worst first
JUDGED = ("finished", "infeasible", *_LOST)  # states of runs that competed


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The candidates and the winner at one point of the grid.

    Args:
        point: the grid's axes and their values.
        candidates: one row each, as in trials.
        winner: the best finished candidate by the first goal, with all seeds, those of its trial first; empty while
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
    (goal, *_), first = goals_of(runs), trial_seeds(runs)
    groups, found = positions_by_place(present, keys), []
    for grid in grids_of(runs):
        for values in itertools.product(*(grid[key] for key in keys)):
            own = present.iloc[groups[tuple(map(canonical, values))]]
            candidates = trials(own)
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
    A finished run of a trial that breaks a constraint has the status "infeasible"; keys whose conditions do not hold
    have no value.
    """
    found = mark_truncated(runs[(runs["role"] == "cell") & _are_current(runs)])
    for key, conditions in (json_tag(tags_of(runs), "sweep.when") or {}).items():
        holds = [column(found, other).map(canonical).isin([*map(canonical, of)]) for other, of in conditions.items()]
        found = found.assign(**{key: column(found, key).where(np.logical_and.reduce(holds))})
    return _mark_infeasible(found)


def trial_seeds(runs: pd.DataFrame) -> list[int]:
    """The seeds with which every point of a search runs; none in a store without the sweep's seeds."""
    return seeds_of(runs)[: json_tag(tags_of(runs), "sweep.seeds_per_trial") or 1]


def trials(present: pd.DataFrame) -> pd.DataFrame:
    """The points of a search, in the order of their runs: with one seed per trial its run; with several the first run,
    with the worst status of all and the means of their metrics. A grid has its runs unchanged.

    Args:
        present: of current.
    """
    seeds = trial_seeds(present)
    if not searched(present) or not seeds:
        return present
    own = present[present["seed"].isin(seeds)]
    if len(seeds) == 1:
        return own
    groups = pd.Series([*map(repr, places_of(own, axes(own)))], index=own.index)
    measured = [name for name in own if "/" in str(name) and pd.api.types.is_numeric_dtype(own[name])]
    means = own[measured].groupby(groups).transform(fmean)  # as the engine, to the last digit
    states = own["status"].groupby(groups).transform(lambda states: _state_over_seeds([*states], len(seeds)))
    merged = own.assign(status=states, **{str(name): means[name] for name in measured})
    return merged[~groups.duplicated()].copy()  # else pandas warns of a frame in pieces


def runs_of_trials(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Cell key of a row of trials -> the runs of its seeds, where there are several; infeasible ones as finished."""
    if not searched(runs) or len(trial_seeds(runs)) < 2:
        return {}
    present = current(runs).replace({"status": {"infeasible": "finished"}})
    own = present[present["seed"].isin(trial_seeds(runs))]
    groups = positions_by_place(own, axes(own)).values()
    return {own["cell_key"].iloc[positions[0]]: own.iloc[positions] for positions in groups}


def _state_over_seeds(states: Sequence[str], count: int) -> str:
    order = (*_LOST, "infeasible", *states)
    worst = next((state for state in order if state in states and state != "finished"), "finished")
    return "interrupted" if worst == "finished" and len(states) < count else worst


def _mark_infeasible(runs: pd.DataFrame) -> pd.DataFrame:
    limits = constraints_of(tags_of(runs))
    if not limits:
        return runs
    broken = [any(not limit.violation(run) <= 0 for limit in limits) for run in records_of(runs)]
    of_trial = (runs["status"] == "finished") & runs["seed"].isin(trial_seeds(runs))
    return runs.assign(status=runs["status"].mask(of_trial & np.array(broken, dtype=bool), "infeasible"))


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
