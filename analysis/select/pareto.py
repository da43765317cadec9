"""Several goals at once: Pareto set, hypervolume and knee."""

from collections.abc import Sequence

import numpy as np

from analysis.select.objectives import Direction

Points = Sequence[Sequence[float]] | np.ndarray  # (n, goals)


def pareto_set(points: Points, directions: Sequence[Direction]) -> np.ndarray:
    """(n,) bool: the points that no other point dominates, that is, equals or beats in every goal and beats in one.

    Equal points are in the set together. A point with a number that is not finite is not in it, and dominates none.
    """
    high = _upwards(points, directions)
    finite = np.isfinite(high).all(axis=1)
    inside = finite.copy()
    for number in np.flatnonzero(finite):
        others = high[inside]  # dominance is transitive: a point outside is dominated by one inside
        beaten = (others >= high[number]).all(axis=1) & (others > high[number]).any(axis=1)
        inside[number] = not beaten.any()
    return inside


def hypervolume(points: Points, reference: Sequence[float], directions: Sequence[Direction]) -> float:
    """Exact volume of the region that the points dominate and that dominates the reference point.

    A point that is not better than the reference in every goal adds nothing.
    """
    (floor,) = _upwards([reference], directions)
    high = _upwards(points, directions)[pareto_set(points, directions)] - floor
    return _volume(np.unique(high[(high > 0).all(axis=1)], axis=0))


def hypervolumes(points: np.ndarray, reference: Sequence[float], directions: Sequence[Direction]) -> np.ndarray:
    """(n,) hypervolume of the first 1, 2, ..., n points."""
    members: list[int] = []
    volumes: list[float] = []
    for number in range(len(points)):
        tried = [*members, number]
        kept = [one for one, inside in zip(tried, pareto_set(points[tried], directions), strict=True) if inside]
        volumes.append(volumes[-1] if kept == members else hypervolume(points[kept], reference, directions))
        members = kept
    return np.array(volumes)


def knee(points: Points, directions: Sequence[Direction]) -> int | None:
    """The index of the point of the Pareto set where giving up a little of one goal gains the most of the other.

    Both goals are scaled to [0, 1] over the set; the knee is the point farthest from the chord between the two ends, on
    its better side (the first of equals). None with other than two goals, or where no point lies beyond the chord.
    """
    if len(directions) != 2:
        return None
    members = np.flatnonzero(pareto_set(points, directions))
    high = _upwards(points, directions)[members]
    if not len(high) or not (spread := np.ptp(high, axis=0)).all():
        return None
    beyond = ((high - high.min(axis=0)) / spread).sum(axis=1) - 1  # sqrt(2) times the distance from x + y = 1
    best = int(beyond.argmax())
    return int(members[best]) if beyond[best] > 1e-9 else None


def worst(points: Points, directions: Sequence[Direction]) -> list[float]:
    """The worst of each goal among the finite points: the reference point of the hypervolume."""
    high = _upwards(points, directions)
    low = high[np.isfinite(high).all(axis=1)].min(axis=0)
    return [float(value) for value in low * _signs(directions)]


def _upwards(points: Points, directions: Sequence[Direction]) -> np.ndarray:
    """(n, goals), larger is better."""
    return np.asarray(points, dtype=float).reshape(-1, len(directions)) * _signs(directions)


def _signs(directions: Sequence[Direction]) -> np.ndarray:
    return np.array([1.0 if direction == "max" else -1.0 for direction in directions])


def _volume(high: np.ndarray) -> float:
    """Volume of the union of boxes from 0 to each point, in slices of the last goal from its largest value down."""
    if not len(high):
        return 0.0
    if high.shape[1] == 1:
        return float(high.max())
    high = high[np.argsort(-high[:, -1], kind="stable")]
    depths = high[:, -1] - np.append(high[1:, -1], 0.0)
    return sum(float(depth) * _volume(high[:count, :-1]) for count, depth in enumerate(depths, 1) if depth > 0)
