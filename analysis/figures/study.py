"""A search as Optuna sees it: importance of each axis, slices, and parallel coordinates, from the store alone."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from analysis.figures.style import series
from analysis.select.objectives import goals_of
from analysis.select.selection import axes as axes_of
from analysis.select.selection import column, current, searched, seeds_of
from analysis.table.cells import short, states_of

SWEEP = ""
FEWEST = 4  # finished trials, for an importance that says anything


def lacks(runs: pd.DataFrame) -> str:
    if not searched(runs):
        return "it is no search"
    done = len(_trials(runs))
    return "" if done >= FEWEST and _keys(_trials(runs)) else f"{done} finished trials are too few; {FEWEST} at least"


def draw(runs: pd.DataFrame) -> Figure:
    """Only finished candidates, with the first seed, by the first goal; the darkest lines are the best."""
    goal, trials = goals_of(runs)[0], _trials(runs)
    keys = _keys(trials)
    weights = importance(trials, keys, maximise=goal.direction == "max")
    figure = Figure(figsize=(max(6.4, 2.1 * len(keys)), 8.4))
    top, middle, bottom = np.asarray(figure.subfigures(3, 1, height_ratios=(0.9, 1, 1.2)))
    bars = top.subplots()
    names = sorted(weights, key=lambda key: weights[key])
    bars.barh([short(name) for name in names], [weights[name] for name in names], color=series(1)[0]["color"])
    bars.set(xlabel=f"importance for {goal.name} (fANOVA)", xlim=(0, 1), title=f"{len(trials)} finished trials")
    _slices(middle, trials, keys, goal.name)
    _parallel(bottom.subplots(), trials, keys, goal.name, maximise=goal.direction == "max")
    return figure


def importance(trials: pd.DataFrame, keys: list[str], *, maximise: bool) -> dict[str, float]:
    """Axis -> its share of the variance of `score`, by Optuna's fANOVA with a fixed seed.

    The domains are inferred from the values: a number that spans a factor of 20 counts on a logarithmic scale.
    """
    import optuna  # here alone in analysis, and only when drawn

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize" if maximise else "minimize")
        domains: dict[str, optuna.distributions.BaseDistribution] = {}
        for key in keys:
            values = trials[key]
            if _is_number(values):
                low, high = float(values.min()), float(values.max())
                domains[key] = optuna.distributions.FloatDistribution(low, high, log=_is_log(values))
            else:
                domains[key] = optuna.distributions.CategoricalDistribution(sorted({str(value) for value in values}))
        for _, trial in trials.iterrows():
            point = {key: float(trial[key]) if _is_number(trials[key]) else str(trial[key]) for key in keys}
            study.add_trial(optuna.create_trial(params=point, distributions=domains, value=float(trial["score"])))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(study, evaluator=evaluator, params=keys)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _trials(runs: pd.DataFrame) -> pd.DataFrame:
    """The finished candidates, of the seed that competes, in the order of their start, with the column `score`."""
    found = current(runs)
    first = seeds_of(found)[:1] or [found["seed"].min()]  # a store from before that tag does not say which is first
    found = found[found["seed"].isin(first)]
    found = found[[state == "finished" for state in states_of(found)]]
    found = found.assign(score=goals_of(runs)[0].scores(found)).sort_values(["start_time", "cell_key"])
    return found[np.isfinite(found["score"])]


def _keys(trials: pd.DataFrame) -> list[str]:
    return [axis for axis in axes_of(trials) if column(trials, axis).nunique() > 1] if len(trials) else []


def _is_number(values: pd.Series) -> bool:
    return bool(
        pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and values.notna().all()
    )


def _is_log(values: pd.Series) -> bool:
    return bool(_is_number(values) and values.min() > 0 and values.max() / values.min() >= 20)


def _slices(figure: SubFigure, trials: pd.DataFrame, keys: list[str], goal: str) -> None:
    places = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    order = np.arange(len(trials))
    for axes, key in zip(places, keys, strict=True):
        values = trials[key] if _is_number(trials[key]) else trials[key].astype(str)
        shown = axes.scatter(values, trials["score"], c=order, cmap="viridis_r", s=18, edgecolor="0.3", linewidth=0.3)
        axes.set(
            xlabel=short(key),
            xscale="log" if _is_log(trials[key]) else "linear" if _is_number(trials[key]) else axes.get_xscale(),
        )
    places[0].set_ylabel(goal)
    figure.colorbar(shown, ax=places, label="trial")


def _parallel(axes: Axes, trials: pd.DataFrame, keys: list[str], goal: str, *, maximise: bool) -> None:
    """Every axis scaled to [0, 1] between its ends, which stand at its foot and its head."""
    heights = np.column_stack([*(_scaled(trials[key]) for key in keys), _scaled(trials["score"])])
    rank = _scaled(trials["score"]) if maximise else 1 - _scaled(trials["score"])
    for number in np.argsort(rank, kind="stable"):  # the best on top
        axes.plot(heights[number], color=str(0.9 * (1 - rank[number])), linewidth=0.6 + 1.4 * rank[number])
    axes.set_xticks(range(len(keys) + 1), [*map(short, keys), goal])
    axes.set_yticks([])
    axes.set(xlim=(-0.3, len(keys) + 0.3), ylim=(-0.12, 1.12))
    for place, key in enumerate([*keys, "score"]):
        ends = (trials[key].min(), trials[key].max()) if _is_number(trials[key]) else _ends(trials[key])
        for end, height, side in zip(ends, (-0.04, 1.04), ("top", "bottom"), strict=True):
            text = f"{end:.4g}" if not isinstance(end, str) else end
            axes.text(place, height, text, ha="center", va=side, fontsize=7)


def _scaled(values: pd.Series) -> np.ndarray:
    if not _is_number(values):
        values = pd.Series(pd.factorize(values.astype(str), sort=True)[0])
    numeric = np.log(values.to_numpy(dtype=float)) if _is_log(values) else values.to_numpy(dtype=float)
    span = np.ptp(numeric)
    return (numeric - numeric.min()) / span if span else np.full(len(numeric), 0.5)


def _ends(values: pd.Series) -> tuple[str, str]:
    words = sorted({str(value) for value in values})
    return words[0], words[-1]
