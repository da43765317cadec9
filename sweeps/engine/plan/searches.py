"""Studies: the search at each point of the grid, as the store holds it; its candidates, its winner, the winner's seeds.

A search alone is one study at the one empty point of no grid.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import Scalar, flatten
from sweeps.engine.plan.cell_state import Rules
from sweeps.engine.spec.cells import Cell, changed, grid_points, label_of, make_cell
from sweeps.engine.spec.objective import Goal
from sweeps.engine.spec.search_space import point_of, size
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import Entry

Place = tuple[str, ...]  # of a study: the values on the grid's axes, as MLflow stores them


@dataclass(frozen=True)
class Candidate:
    """A cell of a search that has a run."""

    cell: Cell
    point: dict[str, Scalar]  # of the space
    entry: Entry


@dataclass(frozen=True, kw_only=True)
class Study:
    """The search at one point of the grid.

    Args:
        point: of the grid; {} for a search alone.
        candidates: in the order in which they were begun.
        warm: finished cells of other sweeps that are points of this search.
        resumed: the candidates that this launch runs: begun without an end, or to be run again.
        proposals: points still to be proposed.
        open: whether a candidate has still to end.
        winner: the best finished candidate of a search that is no longer open.
        further: the winner's cells with the other seeds, done or not.
    """

    point: dict[str, Any]
    candidates: tuple[Candidate, ...]
    warm: tuple[Candidate, ...]
    resumed: tuple[Candidate, ...]
    proposals: int
    open: bool
    winner: Cell | None
    further: tuple[Cell, ...]


def place_of(sweep: Sweep, flat: Mapping[str, Any]) -> Place:
    """Where on the grid a cell lies, from its flat config or its logged parameters."""
    return tuple(str(flat.get(axis, "")) for axis in sweep.grid_axes)


def studies_of(
    sweep: Sweep, base: TrainConfig, entries: Iterable[Entry], warm: Iterable[Entry], rules: Rules
) -> tuple[Study, ...]:
    """The studies of a sweep over a space, in the order of the grid; none for a sweep without one.

    Args:
        entries: of the sweep.
        warm: of other sweeps.

    Raises:
        ConfigError: two equal points of the grid.
    """
    if not sweep.space:
        return ()
    points: dict[Place, dict[str, Any]] = {}
    for point in grid_points(sweep):
        place = place_of(sweep, flatten(changed(base, point)))
        if place in points:
            raise ConfigError(f"{sweep.name} has the same point of the grid twice, {label_of(point)!r}; keep one")
        points[place] = point
    own = _by_place(sweep, base, points, (entry for entry in entries if entry.role == "cell"))
    others = _by_place(sweep, base, points, (entry for entry in warm if entry.status == "finished"))
    return tuple(_study(sweep, base, points[place], own[place], others[place], rules) for place in points)


def winner(goal: Goal, scores: Mapping[str, float]) -> str:
    """The key with the best score, the smallest of several; "" where there is no number."""
    best = ""
    for key in sorted(scores):
        if goal.better(scores[key], scores.get(best, float("nan"))):
            best = key
    return best


def further_seeds(sweep: Sweep, base: TrainConfig, point: Mapping[str, Any], won: Cell) -> tuple[Cell, ...]:
    """The cells of a winner with the sweep's other seeds.

    Args:
        point: of the grid.
    """
    flat = flatten(won.config)
    whole = {**point, **{key: flat[key] for key in sweep.space}}
    return tuple(make_cell(sweep, base, whole, seed=seed) for seed in sweep.seeds[1:])


def without_winner(point: Mapping[str, Any]) -> str:
    """What is said where a search ends without a single finished candidate."""
    where = f" at {label_of(point)}" if point else ""
    return f"no candidate{where} finished: there is no winner to run with the other seeds"


def _by_place(
    sweep: Sweep, base: TrainConfig, points: Mapping[Place, Mapping[str, Any]], entries: Iterable[Entry]
) -> dict[Place, list[Candidate]]:
    found: dict[Place, list[Candidate]] = {place: [] for place in points}
    first = str(sweep.seeds[0])
    for entry in entries:
        place = place_of(sweep, entry.params)
        if entry.params.get("seed") != first or place not in points:
            continue
        searched = point_of(sweep.space, entry.params)
        if searched is None:
            continue
        cell = make_cell(sweep, base, {**points[place], **searched})
        if cell.key == entry.key:  # else it differs in more than the point: another base
            found[place].append(Candidate(cell, searched, entry))
    return found


def _study(
    sweep: Sweep,
    base: TrainConfig,
    point: dict[str, Any],
    candidates: Sequence[Candidate],
    warm: Sequence[Candidate],
    rules: Rules,
) -> Study:
    resumed = tuple(candidate for candidate in candidates if rules.due(candidate.entry))
    proposals = int(max(0, min(sweep.trials, size(sweep.space)) - len(candidates)))
    running = any(rules.state(candidate.entry) == "running" for candidate in candidates)
    still_open = bool(resumed or proposals or running)
    won = None
    if not still_open and len(sweep.goals) == 1:
        scores = {candidate.cell.key: candidate.entry.scores(sweep.goals)[0] for candidate in candidates}
        cells = {candidate.cell.key: candidate.cell for candidate in candidates}
        won = cells.get(winner(sweep.goals[0], scores))
    return Study(
        point=point,
        candidates=tuple(candidates),
        warm=tuple(warm),
        resumed=resumed,
        proposals=proposals,
        open=still_open,
        winner=won,
        further=further_seeds(sweep, base, point, won) if won else (),
    )
