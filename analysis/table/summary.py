"""Notes below a table: progress of each sweep, choice of winners, and runs that were left out."""

import json
import re
from collections import Counter

import pandas as pd

from analysis.select.compared import missing
from analysis.select.front import front_of
from analysis.select.objectives import goals_of
from analysis.select.selection import (
    JUDGED,
    choices,
    current,
    has_winners,
    infeasible_note,
    is_fair,
    of_present_base,
    present_base,
    references,
    trial_seeds,
)

_STOPPED = re.compile(r"early stopping at epoch (\d+): ")  # the reason of a run that early stopping ended


def progress_note(runs: pd.DataFrame) -> str:
    """Progress of each sweep, with the reasons of cells that ended badly, and counts of runs that were left out."""
    parts = []
    for sweep, own in runs.groupby("sweep", sort=False):
        cells = current(own)
        counts = []
        for status, group in sorted(cells.groupby("status"), key=lambda pair: (pair[0] != "finished", pair[0])):
            counts.append(f"{len(group)} {status}{_reasons(group['reason'])}")
        if lacking := len(missing(own)):
            counts.append(f"{lacking} missing")
        same_base = of_present_base(own)
        outside = int((~same_base["run_id"].isin(cells["run_id"])).sum())
        if outside:
            counts.append(f"{outside} outside the present grid left out")
        earlier = own[(own["role"] == "cell") & ~own["run_id"].isin([*same_base["run_id"], *cells["run_id"]])]
        if len(earlier):
            ours, others = json.loads(present_base(own)), [json.loads(base) for base in {*earlier["base"]}]
            differing = {key for other in others for key in {*ours, *other} if ours.get(key) != other.get(key)}
            listed = ", ".join(sorted(differing))
            counts.append(f"{len(earlier)} of another configuration left out (they differ in {listed})")
        former = int((own["role"] == "reference").sum()) - len(references(own))
        if former:
            counts.append(f"{former} former reference{'s'[: former > 1]} left out")
        counts += filter(None, [infeasible_note(own)])
        choice = _choice_note(own)
        parts.append(f"{sweep}: {', '.join(counts) or 'no cell yet'}" + (f"; {choice}" if choice else ""))
    return "; ".join(parts)


def _reasons(reasons: pd.Series) -> str:
    """Reasons of cells with one status: " at epoch 3 (12), at 9 (4)" where early stopping stopped them, else all."""
    texts = [reason for reason in reasons.fillna("") if reason]
    stopped = [_STOPPED.match(reason) for reason in texts]
    epochs = sorted(Counter(int(match[1]) for match in stopped if match).items())
    others = "; ".join(sorted({reason for reason, match in zip(texts, stopped, strict=True) if not match}))
    grouped = ", at ".join(f"{epoch} ({count})" for epoch, count in epochs)
    return (f" at epoch {grouped}" if epochs else "") + (f" ({others})" if others else "")


def _choice_note(runs: pd.DataFrame) -> str:
    """The Pareto set of several goals; or the choice of winners among candidates, if they run with several seeds."""
    front = front_of(runs)
    if front is not None:
        return front.note
    if not has_winners(runs) or not (is_fair(runs) or current(runs)["seed"].nunique() > 1):
        return ""
    candidates = [choice.candidates["status"] for choice in choices(runs) if len(choice.winner)]
    judged = [int(states.isin(JUDGED).sum()) for states in candidates]
    if not judged:
        return ""
    goal = goals_of(runs)[0]
    where = "on val" if goal.metric.startswith("val/") else f"by {goal.name}"
    several = f"{min(judged)} to {max(judged)}" if min(judged) < max(judged) else str(judged[0])
    seeds = len(trial_seeds(runs))
    where += f", by the mean over {seeds} seeds," if seeds > 1 else ""
    return f"chosen {where} from {several} candidates" + (" each" if is_fair(runs) else "")
