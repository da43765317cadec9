"""Cells that a table compares: those that the sweep asks for, also before they begin, or the best of each point."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.select.objectives import goals_of
from analysis.select.selection import (
    JUDGED,
    axes,
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

    Settings compete with the mean of the goal over seeds, and only those with the most finished seeds; ties go to the
    smallest cell key. A point without a finished cell keeps all its cells.

    Returns:
        The cells of the winners, all seeds; a note on the choice, with the number of runs that competed.
    """
    goal, keys = goals_of(found)[0], [axis for axis in axes(found) if axis not in free]
    settings = pd.Series(places_of(found, free), index=found.index, dtype=object)
    scored = found.assign(score=goal.scores(found), setting=settings)
    parts, judged = [], []
    for positions in positions_by_place(found, keys).values():
        own = scored.iloc[positions]
        done = own[(own["status"] == "finished") & own["score"].notna()]
        if len(done):
            ranked = done.groupby("setting", sort=False).agg(
                n=("score", "size"), score=("score", "mean"), key=("cell_key", "min")
            )
            ranked["score"] *= 1 if goal.direction == "min" else -1
            best = ranked.sort_values(["n", "score", "key"], ascending=[False, True, True]).index[0]
            competing = {*ranked.index[ranked["n"] == ranked["n"].max()]}
            judged.append(int((own["status"].isin(JUDGED) & own["setting"].isin(competing)).sum()))
            own = own[[setting == best for setting in own["setting"]]]
        parts.append(own)
    chosen = pd.concat(parts).drop(columns=["score", "setting"]) if parts else found
    if not judged:
        return chosen, ""
    several = f"{min(judged)} to {max(judged)}" if min(judged) < max(judged) else str(judged[0])
    return chosen, f"{', '.join(free)} chosen by {goal.name} from {several} runs each"


def winner(runs: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The best setting of a sweep: its finished runs, the sweep's first seed first, and the number that competed.

    Of a search, and of each point of a fair ablation, the winner of its table competes; of a grid every setting, by the
    rule of best_over. Empty while no run has finished.
    """
    present, points = current(runs), choices(runs) if has_winners(runs) else []
    found = pd.concat([point.winner for point in points]) if points else present
    chosen = best_over(found, axes(runs))[0] if len(found) else found
    first = ~chosen["seed"].isin(seeds_of(runs)[:1])
    chosen = chosen.assign(later=first).sort_values(["later", "seed"]).drop(columns="later")
    return chosen[chosen["status"] == "finished"], int(present["status"].isin(JUDGED).sum())


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
