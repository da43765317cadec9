"""Runs of a sweep's frame that count: those that it asks for, and of a fair ablation the winner of each point."""

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from analysis.select.objectives import LOST, constraints_of, goals_of
from analysis.select.tags import canonical, json_tag
from analysis.store.cell_list import recorded_cells

JUDGED = ("finished", "infeasible", *LOST)  # states of runs that competed


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
    present, free, goal = current(runs), searched(runs), goals_of(runs)[0]
    keys = [axis for axis in axes(runs) if axis not in free]
    groups, found = positions_by_place(present, keys), []
    for grid in grids_of(runs):
        for values in itertools.product(*(grid[key] for key in keys)):
            own = present.iloc[groups[tuple(map(canonical, values))]]
            candidates = trials(runs, own)
            best = places_of(goal.best_first(candidates)[:1], free)
            winner = by_seed(own[[place in best for place in places_of(own, free)]])
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
    """The seeds with which every point of a search runs; the smallest one in a store without the sweep's seeds."""
    return seeds_of(runs)[: json_tag(tags_of(runs), "sweep.seeds_per_trial") or 1] or sorted({*runs["seed"]})[:1]


def by_seed(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs in the order of the sweep's seeds, runs of other seeds after them, the smallest first."""
    listed = [*seeds_of(runs), *sorted({*runs["seed"]})]
    return runs.sort_values("seed", key=lambda seeds: seeds.map(listed.index), kind="stable")


def trials(
    runs: pd.DataFrame, present: pd.DataFrame | None = None, *, within: Sequence[str] = (), all_seeds: bool = False
) -> pd.DataFrame:
    """One row per point of a search, or setting of a grid: the run of its first seed, with the state over its seeds.

    Every choice among settings is one among these rows, by Goal.best_first. Columns besides those of the run: `status`;
    each goal under its name, the mean over the seeds that finished with a number for each goal; `run_ids`, in the order
    of the seeds. Those with the status "finished" compete. They are the points of a search of which every seed of a
    trial has finished, with numbers, and the settings of a grid of which no fewer seeds have than of any other one.
    Else a seed that diverged, collapsed or was pruned decides the status, then one that breaks a constraint, then one
    that is not over; "interrupted" and "not measured" are rows that lack a seed or a number.

    Args:
        present: some of the runs of current; by default all.
        within: axes of a grid: settings compete with those that have equal values on them.
        all_seeds: compare the points of a search as settings of a grid, with all their seeds.
    """
    present, goals = current(runs) if present is None else present, goals_of(runs)
    own, each = by_seed(present[present["status"] != "missing"]), 0
    if searched(runs) and not all_seeds:
        own, each = own[own["seed"].isin(trial_seeds(runs))], len(trial_seeds(runs))
    values = np.column_stack([goal.scores(own) for goal in goals])  # (runs, goals)
    measured = own["status"].isin(["finished", "infeasible"]).to_numpy() & np.isfinite(values).all(axis=1)
    groups = [*positions_by_place(own, axes(runs)).values()]
    rows, states, run_ids = own.iloc[[group[0] for group in groups]], own["status"].tolist(), own["run_id"].tolist()
    places, counts = places_of(rows, within), [int(measured[group].sum()) for group in groups]
    most: Counter[tuple[float | str, ...]] = Counter()
    for place, count in zip(places, counts, strict=True):
        most[place] = max(most[place], count)
    found = []
    for group, place, count in zip(groups, places, counts, strict=True):
        state = _state_over_seeds([states[at] for at in group], count, each or most[place], grid=not each)
        means = map(fmean, values[group][measured[group]].T) if count else [math.nan] * len(goals)
        found.append((state, tuple(run_ids[at] for at in group), *means))
    names = ["status", "run_ids", *(goal.name for goal in goals)]
    return rows.assign(**pd.DataFrame(found, columns=names, index=rows.index))


def _state_over_seeds(states: Sequence[str], measured: int, needed: int, *, grid: bool) -> str:
    """State of a row of trials. measured: seeds with numbers; needed: those of a row that competes."""
    order = (*LOST, "infeasible", *states)
    worst = next((state for state in order if state in states and state != "finished"), "finished")
    if measured >= needed > 0 and (grid or worst == "finished"):
        return "finished"
    if worst == "finished" or (worst == "infeasible" and not measured):
        return "interrupted" if len(states) < needed else "not measured"
    return worst


def with_scores(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, each with its own scores: a column per goal, under the goal's name."""
    return runs.assign(**{goal.name: goal.scores(runs) for goal in goals_of(runs)})


def violations(runs: pd.DataFrame) -> pd.DataFrame:
    """A column per constraint of the sweep: Constraint.violation of each run, 1 for one without the metric."""
    limits = constraints_of(tags_of(runs))
    found = {one.name: [one.violation({one.metric: value}) for value in column(runs, one.metric)] for one in limits}
    return pd.DataFrame(found, index=runs.index).fillna(1.0)


def infeasible_note(runs: pd.DataFrame) -> str:
    """Note where candidates have finished, but none keeps the constraints: these, and the values of the nearest run;
    "" elsewhere."""
    found = current(runs)
    broken, states = found[found["status"] == "infeasible"], {*trials(runs, found)["status"]}
    if "infeasible" not in states or "finished" in states:
        return ""
    points = {run_id: number for number, ids in enumerate(trials(runs, found)["run_ids"]) for run_id in ids}
    beyond, number = violations(broken).clip(lower=0), broken["run_id"].map(points)
    best = beyond.groupby(number).max().sum(axis=1).idxmin()  # by the worst of the seeds
    nearest = broken.loc[beyond[number == best].sum(axis=1).idxmax()]
    limits = constraints_of(tags_of(runs))
    values = " and ".join(f"{limit.metric} {float(nearest.get(limit.metric, math.nan)):.4g}" for limit in limits)
    kept = " and ".join(limit.name for limit in limits)
    return f"no feasible candidate: none keeps {kept}; the nearest is {nearest['run_name']} with {values}"


def _mark_infeasible(runs: pd.DataFrame) -> pd.DataFrame:
    of_trial = (runs["status"] == "finished") & runs["seed"].isin(trial_seeds(runs))
    broken = (violations(runs) > 0).any(axis=1)
    return runs.assign(status=runs["status"].mask(of_trial & broken, "infeasible")) if broken.any() else runs


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
