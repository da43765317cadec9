"""Notes below a table: commits, progress of each sweep, choice of winners, and runs that were left out."""

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
    column,
    current,
    has_winners,
    is_fair,
    of_present_base,
    present_base,
    references,
)
from analysis.table.significance import cells_of

_STOPPED = re.compile(r"early stopping at epoch (\d+): ")  # the reason of a run that early stopping ended


def code_note(frame: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Footnote with the commits behind the numbers of a table; "" if one committed version made them all."""
    columns = (column(runs, name) for name in ("run_id", "commit", "git_dirty", "evaluated_by"))
    versions = {
        run_id: ("unknown" if pd.isna(commit) or not commit else str(commit)[:7])
        + (" with uncommitted changes" if str(dirty).lower() == "true" else "")
        + (f" evaluated by {by[:7]}" if isinstance(by, str) and by != commit else "")
        for run_id, commit, dirty, by in zip(*columns, strict=True)
    }
    behind = {run_id for _, _, cell, _ in cells_of(frame) for run_id in cell.run_ids if run_id in versions}
    counts = sorted(Counter(versions[run_id] for run_id in behind).items(), key=lambda pair: (-pair[1], pair[0]))
    if len(counts) > 1:
        listed = ", ".join(f"{name} ({number} run{'s'[: number > 1]})" for name, number in counts)
        return f"code versions: {listed}"
    return next((f"made by code {name}" for name, _ in counts if "uncommitted" in name), "")


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
    return f"chosen {where} from {several} candidates" + (" each" if is_fair(runs) else "")
