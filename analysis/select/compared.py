"""Cells that a table compares: those that the sweep asks for, also before they begin, or the best of each point."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.select.objectives import goals_of
from analysis.select.selection import (
    JUDGED,
    axes,
    by_seed,
    choices,
    column,
    current,
    grids_of,
    has_winners,
    is_fair,
    of_present_base,
    places_of,
    positions_by_place,
    present_base,
    searched,
    seeds_of,
    tags_of,
    trial_seeds,
    trials,
)
from analysis.select.tags import canonical, json_tag
from analysis.store.cell_list import recorded_cells
from analysis.store.frames import typed


def cells(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of a sweep whose numbers a table compares: all of the present grid or search, in the file's order.

    Cells of the grid that have not begun are rows of status "missing". A fair ablation has the runs of its winners and,
    where a point has none yet, its candidates without a result.
    """
    if not is_fair(runs):
        return _of_grid(runs)
    parts = []
    for choice in choices(runs):
        waiting = choice.candidates[choice.candidates["status"] != "finished"]
        parts.append(choice.winner if len(choice.winner) else waiting)
        if choice.candidates.empty:
            parts[-1] = _missing_rows(runs, [choice.point])
    return pd.concat([part.astype(object) for part in parts]).copy() if parts else runs.iloc[:0]


def best_over(found: pd.DataFrame, free: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """For each point of the other axes, the setting of the free ones that is best by the sweep's first goal.

    The settings compete as trials has them; of a fair ablation, whose winners have run with all seeds, with all of
    these. A point where none competes keeps all its cells.

    Returns:
        The cells of the winners, all seeds; a note on the choice, with the number of runs that competed, "" where none
        did.
    """
    goal, keys = goals_of(found)[0], [axis for axis in axes(found) if axis not in free]
    finished = goal.best_first(trials(found, found, within=keys, all_seeds=is_fair(found)))
    rivals, settings = positions_by_place(finished, keys), places_of(found, free)
    parts, judged = [], []
    for place, positions in positions_by_place(found, keys).items():
        if own := rivals[place]:
            competing = {*places_of(finished.iloc[own], free)}
            (best,) = places_of(finished.iloc[own[:1]], free)
            states = found["status"].iloc[[at for at in positions if settings[at] in competing]]
            judged.append(int(states.isin(JUDGED).sum()))
            positions = [at for at in positions if settings[at] == best]
        parts.append(found.iloc[positions])
    chosen = pd.concat(parts) if parts else found
    if not judged:
        return chosen, ""
    several = f"{min(judged)} to {max(judged)}" if min(judged) < max(judged) else str(judged[0])
    return chosen, f"{', '.join(free)} chosen by {goal.name} from {several} runs each"


class Winner(NamedTuple):
    """The best setting of a sweep.

    Args:
        runs: its finished runs in the order of the sweep's seeds; none where no setting competes.
        score: by which it was chosen: the mean of the first goal over `judged`.
        judged: of a search the seeds of a trial, else all runs with numbers.
        rivals: settings with a result, those that were pruned or diverged included.
    """

    runs: pd.DataFrame
    score: float
    judged: pd.DataFrame
    rivals: int


def winner(runs: pd.DataFrame) -> Winner:
    """The best setting of a sweep.

    Of a search, and of each point of a fair ablation, the winner of its table competes; else every setting, by the rule
    of best_over. Empty while none competes.
    """
    present, points = current(runs), choices(runs) if has_winners(runs) else []
    found = pd.concat([point.winner for point in points]) if points else present
    chosen, how = best_over(found, axes(runs)) if len(found) else (found, "")
    chosen = by_seed(chosen[(chosen["status"] == "finished") & bool(how)])
    scores = np.column_stack([goal.scores(chosen) for goal in goals_of(runs)])
    judged = chosen[np.isfinite(scores).all(axis=1)]
    if searched(runs) and not is_fair(runs):
        judged = judged[judged["seed"].isin(trial_seeds(runs))]
    score = fmean(goals_of(runs)[0].scores(judged)) if len(judged) else math.nan
    return Winner(chosen, score, judged, int(trials(runs)["status"].isin(JUDGED).sum()))


def missing(runs: pd.DataFrame) -> pd.DataFrame:
    """One row of status "missing" for each cell of the sweep's grid that has not begun; none for a search.

    It has the sweep's tags and the values of its point.
    """
    tags = tags_of(runs)
    requested, begun = recorded_cells(tags), {*column(runs, "cell_key"), *(json_tag(tags, "sweep.references") or [])}
    if searched(runs) or "sweep.grid" not in tags or (requested is not None and begun.issuperset(requested)):
        return runs.iloc[:0]
    keys = _point_keys(runs)
    held = {*places_of(current(runs), keys)}
    points = (dict(zip(keys, values, strict=True)) for values in _points(runs))
    return _missing_rows(runs, [point for point in points if tuple(map(canonical, point.values())) not in held])


def _missing_rows(runs: pd.DataFrame, points: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row of status "missing" for each point, with the values that all cells of the sweep share."""
    if not points:
        return runs.iloc[:0]
    present, base = of_present_base(runs), present_base(runs)
    texts = {key: text for key, text in json.loads(base or "{}").items() if key not in {*axes(runs), "seed"}}
    source = (present if len(present) else runs).iloc[0]
    about: dict[str, Any] = {name: source[name] for name in map(str, runs) if name.startswith("sweep")}
    about |= {name: source[name] for name in ({*texts, "data.path"} & {*runs}) - {*axes(runs)}}
    if present.empty:  # the runs have an earlier base
        about |= {key: typed(pd.Series([text])).iloc[0] for key, text in texts.items()}
    about |= dict.fromkeys(("reason", "run_id", "cell_key"), "") | {"role": "cell", "status": "missing", "base": base}
    return pd.DataFrame([{**about, **point} for point in points]).reindex(columns=[*dict.fromkeys([*runs, *points[0]])])


def _of_grid(runs: pd.DataFrame) -> pd.DataFrame:
    """The present cells, begun or not, in the order of the sweep's file."""
    lacking = missing(runs)
    found = pd.concat([current(runs).astype(object), lacking.astype(object)]) if len(lacking) else current(runs)
    if "sweep.grid" not in tags_of(runs) or searched(runs):
        return found
    points = dict.fromkeys(tuple(map(canonical, point)) for point in _points(runs))
    order = {point: number for number, point in enumerate(points)}
    positions = [order.get(place, len(order)) for place in places_of(found, _point_keys(runs))]
    return found.iloc[sorted(range(len(found)), key=positions.__getitem__)].copy()


def _points(runs: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """The values of each cell of the grid along _point_keys, in the order of the sweep's file."""
    seeds = {"seed": seeds_of(runs)} if seeds_of(runs) else {}
    for grid in grids_of(runs):
        if grid.keys() >= {*axes(runs)}:  # else an old store, without the values that the file lists
            yield from itertools.product(*((seeds | grid)[key] for key in _point_keys(runs)))


def _point_keys(runs: pd.DataFrame) -> list[str]:
    """The axes, and the seed where the store has the sweep's seeds."""
    return [*dict.fromkeys([*axes(runs), *(["seed"] if seeds_of(runs) else [])])]
