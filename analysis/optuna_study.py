"""A sweep as an Optuna study, rebuilt from the store: for importances, and as a file that optuna-dashboard opens."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from analysis.select.objectives import Goal, goals_of
from analysis.select.selection import axes, by_seed, column, current, records_of, trials, violations
from analysis.store.runs import all_runs, histories_of
from analysis.store.sources import file_name, open_source, shown

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

_MEASURED = ("finished", "infeasible")  # states of points with numbers
_STATES = dict.fromkeys(_MEASURED, "COMPLETE") | {"running": "RUNNING", "pruned": "PRUNED"}  # else FAIL
_ABOUT = ["run_name", "cell_key", "run_id", "seed", "reason"]  # user attributes of a trial, besides its status
Evaluator = Literal["fANOVA", "PED-ANOVA"]


def write_study(sweep: str, store: str, folder: Path) -> Path:
    """Write folder/<sweep>.journal, in Optuna's journal format, in place of an earlier one.

    Raises:
        NothingToShow: no such store or sweep, or no run in it.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    source = open_source(store)
    runs = all_runs(sweep, source)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{file_name(sweep)}.journal"
    file.unlink(missing_ok=True)
    history = histories_of(current(runs), [goals_of(runs)[0].metric], source)
    study = study_of(runs, history, JournalStorage(JournalFileBackend(str(file))))
    study.set_user_attr("store", shown(store))
    return file


def trial_points(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of trials in the order of their start, of equally good ones the winner first.

    The texts of _ABOUT name every run of a row; start_time and end_time are the first and the last. `violations` has
    the worst of the seeds for each constraint.
    """
    found, points, (goal, *_) = by_seed(current(runs)), trials(runs), goals_of(runs)
    number = found["run_id"].map({run_id: row for row, ids in enumerate(points["run_ids"]) for run_id in ids})
    own = found.assign(end_time=column(found, "end_time")).groupby(number)
    worst = violations(found).groupby(number).max()
    points = points.reset_index(drop=True).assign(**own[_ABOUT].agg(_listed), violations=worst.to_numpy().tolist())
    points = points.assign(start_time=own["start_time"].min(), end_time=own["end_time"].max())
    points = points.sort_values(["start_time", "cell_key"])
    best = goal.best_first(points)
    equal = best.index[best[goal.name] == best[goal.name].head(1).squeeze()]  # of these Optuna names the first
    order = [*points.index]
    for place, label in zip(sorted(map(order.index, equal)), equal, strict=True):
        order[place] = label
    return points.loc[order].reset_index(drop=True)


def study_of(runs: pd.DataFrame, history: pd.DataFrame | None = None, storage: "BaseStorage | None" = None) -> "Study":
    """The study of a sweep, a trial per row of trial_points, in memory or in another storage of Optuna.

    The store has no domains, so that they are inferred from the values: a number that spans a factor of 20 is
    logarithmic, anything but a number is a category.

    Args:
        history: curves of the first goal's metric, in the form of histories_of: the intermediate values.
    """
    import optuna  # takes a second to import

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    goals, points = goals_of(runs), trial_points(runs)
    directions = [optuna.study.StudyDirection[f"{goal.direction}imize".upper()] for goal in goals]
    study = optuna.create_study(storage=storage, study_name=runs["sweep"].iloc[0], directions=directions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([goal.name for goal in goals])
    values = {axis: own for axis in axes(runs) if len(own := _values(points, axis))}
    domains = {axis: _domain(own) for axis, own in values.items()}
    curves = {} if history is None else _curves(points, runs, goals[0], history)
    starts, ends = (pd.to_datetime(points[name], utc=True).dt.as_unit("ms") for name in ("start_time", "end_time"))
    times = pd.DataFrame({"start": starts, "end": ends.fillna(starts)})
    for number, point in enumerate(records_of(points)):
        state = optuna.trial.TrialState[_STATES.get(point["status"], "FAIL")]
        params = {axis: own[number] for axis, own in values.items() if number in own}
        trial = optuna.create_trial(
            state=state,
            values=[point[goal.name] for goal in goals] if point["status"] in _MEASURED else None,
            params=params,
            distributions={axis: domains[axis] for axis in params},
            user_attrs={name: point[name] for name in [*_ABOUT, "status"]},
            system_attrs={"constraints": point["violations"]} if point["violations"] else {},
            intermediate_values=curves.get(number, {}),
        )
        trial.datetime_start = times["start"][number].to_pydatetime()
        trial.datetime_complete = times["end"][number].to_pydatetime() if state.is_finished() else None
        study.add_trial(trial)
    return study


def importance(runs: pd.DataFrame, goal: Goal, evaluator: Evaluator = "fANOVA") -> dict[str, float]:
    """Axis -> its importance for a goal over the finished points; they add to 1, or are 0 where all scores are equal.

    Args:
        evaluator: "fANOVA", with a fixed seed, for the share of the goal's variance; "PED-ANOVA", Optuna's default and
            that of optuna-dashboard, for being among the best tenth.
    """
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    points, at = finished_points(runs), goals_of(runs).index(goal)
    if points[goal.name].nunique() < 2:
        return dict.fromkeys(varied_axes(points), 0.0)
    chosen = FanovaImportanceEvaluator(seed=0) if evaluator == "fANOVA" else PedAnovaImportanceEvaluator()
    sign = -1 if evaluator == "PED-ANOVA" and goal.direction == "max" else 1  # it explains low values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of just that, and of few trials
        found = get_param_importances(study_of(runs), evaluator=chosen, target=lambda trial: sign * trial.values[at])
    return {axis: share for axis, share in found.items() if axis in varied_axes(points)}


def finished_points(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of trial_points that have numbers, those that break a constraint included."""
    points = trial_points(runs)
    return points[points["status"].isin(_MEASURED)]


def varied_axes(points: pd.DataFrame) -> list[str]:
    """The axes with several values among some points."""
    return [axis for axis in axes(points) if _values(points, axis).nunique() > 1] if len(points) else []


def is_number(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def is_log(values: pd.Series) -> bool:
    """True for numbers that span a factor of 20."""
    return bool(values.min() > 0 and values.max() / values.min() >= 20)


def _values(points: pd.DataFrame, axis: str) -> pd.Series:
    """The values of the points that have the axis: numbers, or texts."""
    own = column(points, axis)
    own = own[own.notna() & (own != "")]
    return own if is_number(own) else own.astype(str)


def _domain(values: pd.Series) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not is_number(values):
        return CategoricalDistribution(sorted({*values}))
    kind = IntDistribution if pd.api.types.is_integer_dtype(values) else FloatDistribution
    return kind(values.min().item(), values.max().item(), log=is_log(values))


def _curves(points: pd.DataFrame, runs: pd.DataFrame, goal: Goal, history: pd.DataFrame) -> dict[int, dict[int, float]]:
    """Number of a point -> epoch -> the goal, its mean over the seeds that have it."""
    ids = points["run_id"].str.split(", ").explode()
    history = history.rename(columns={"value": goal.metric}).merge(runs[["run_id", *filter(None, [goal.over])]])
    history = history.assign(score=goal.scores(history), number=history["run_id"].map(pd.Series(ids.index, ids)))
    means = history[np.isfinite(history["score"])].groupby(["number", "epoch"])["score"].mean()
    return {int(number): own.droplevel(0).to_dict() for number, own in means.groupby(level=0)}


def _listed(values: pd.Series) -> str:
    return ", ".join(dict.fromkeys(filter(None, map(str, values))))
