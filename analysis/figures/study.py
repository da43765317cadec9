"""A search by Optuna: importance of each axis, and the objective along each, from the store alone."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.style import log_axis, printable, series
from analysis.select.objectives import Goal, goals_of
from analysis.select.selection import axes as axes_of
from analysis.select.selection import column, current, searched, seeds_of
from analysis.table.cells import short, states_of

SWEEP = ""
FEWEST = 4  # finished trials: an importance of fewer means nothing
FEW = 10  # trials per axis: an importance of fewer is a hint


def lacks(runs: pd.DataFrame) -> str:
    if not searched(runs):
        return "it is no search"
    trials = _trials(runs, goals_of(runs)[0])
    if len(trials) < FEWEST or not _keys(trials):
        return f"{len(trials)} finished trials are too few; {FEWEST} at least"
    return "" if trials["score"].nunique() > 1 else "all finished trials have the same score"


def caution(runs: pd.DataFrame) -> str:
    """Number of finished trials, with a warning where they are few for the number of axes."""
    trials = _trials(runs, goals_of(runs)[0])
    axes, count = len(_keys(trials)), f"{len(trials)} finished trials"
    return count if len(trials) >= FEW * axes else f"{count}, few for {axes} axes: the importance is only a hint"


def draw(runs: pd.DataFrame) -> Figure:
    """Finished candidates with the first seed, by the first goal. MLflow's UI draws their parallel coordinates."""
    goal = goals_of(runs)[0]
    trials = _trials(runs, goal)
    keys, weights = _keys(trials), importance(runs, goal)
    figure = Figure(figsize=(max(6.4, 2.1 * len(keys)), 5.4))
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=(0.9, 1)))
    bars = top.subplots()
    names = sorted(weights, key=lambda key: weights[key])
    labels = {key: short(key) if [*map(short, keys)].count(short(key)) == 1 else key for key in keys}
    bars.barh([labels[name] for name in names], [weights[name] for name in names], color=series(1)[0]["color"])
    bars.set(xlabel=f"importance for {goal.name} (fANOVA)", xlim=(0, 1), title=caution(runs))
    panels = bottom.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, key in zip(panels, keys, strict=True):
        numeric = _is_number(trials[key])
        values, order = trials[key] if numeric else trials[key].astype(str).map(printable), np.arange(len(trials))
        shown = axes.scatter(values, trials["score"], c=order, cmap="viridis_r", s=18, edgecolor="0.3", linewidth=0.3)
        axes.set_xlabel(labels[key])
        if numeric and _is_log(trials[key]):
            log_axis(axes, "x")
    panels[0].set_ylabel(goal.name)
    bottom.colorbar(shown, ax=panels, label="trial")
    return figure


def importance(runs: pd.DataFrame, goal: Goal) -> dict[str, float]:
    """Axis -> its share of the variance of the goal over the finished trials, by Optuna's fANOVA with a fixed seed.

    Zero where all scores are equal. The domains are inferred from the values: a number that spans a factor of 20 counts
    on a logarithmic scale.
    """
    import optuna  # takes a second to import

    trials = _trials(runs, goal)
    keys = _keys(trials)
    if trials["score"].nunique() < 2:
        return dict.fromkeys(keys, 0.0)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if goal.direction == "max" else "minimize")
    points = trials[keys].astype({key: float if _is_number(trials[key]) else str for key in keys})
    domains: dict[str, optuna.distributions.BaseDistribution] = {}
    for key in keys:
        low, *_, high = values = sorted({*points[key]})
        domains[key] = (
            optuna.distributions.FloatDistribution(low, high, log=_is_log(points[key]))
            if _is_number(points[key])
            else optuna.distributions.CategoricalDistribution(values)
        )
    for point, score in zip(points.to_dict("records"), trials["score"], strict=True):
        study.add_trial(optuna.create_trial(params=point, distributions=domains, value=float(score)))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator, params=keys)


def _trials(runs: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """The finished candidates of the seed that competes, in the order of their start, with the column `score`."""
    found = current(runs)
    first = seeds_of(found)[:1] or [found["seed"].min()]  # older stores do not have the order of the seeds
    found = found[found["seed"].isin(first)]
    found = found[[state == "finished" for state in states_of(found)]]
    found = found.assign(score=goal.scores(found)).sort_values(["start_time", "cell_key"])
    return found[np.isfinite(found["score"])]


def _keys(trials: pd.DataFrame) -> list[str]:
    return [axis for axis in axes_of(trials) if column(trials, axis).nunique() > 1] if len(trials) else []


def _is_number(values: pd.Series) -> bool:
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return bool(numeric and values.notna().all())


def _is_log(values: pd.Series) -> bool:
    return bool(values.min() > 0 and values.max() / values.min() >= 20)
