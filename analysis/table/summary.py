"""What a table rests on, in one line: how far each sweep is, how its winners were chosen, what was left out."""

import json
from collections import Counter
from collections.abc import Iterable

import pandas as pd

from analysis.select.compared import missing
from analysis.select.front import front_of
from analysis.select.objectives import goals_of
from analysis.select.selection import (
    JUDGED,
    Choice,
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
    """How far each sweep is, with the reasons of the cells that ended badly, and what the table leaves out."""
    parts = []
    for sweep, own in runs.groupby("sweep", sort=False):
        cells = current(own)
        counts = [
            f"{len(group)} {status}" + _reasons(group["reason"])
            for status, group in sorted(cells.groupby("status"), key=lambda pair: (pair[0] != "finished", pair[0]))
        ]
        if lacking := len(missing(own)):
            counts.append(f"{lacking} missing")
        same_base = of_present_base(own)
        outside = int((~same_base["run_id"].isin(cells["run_id"])).sum())
        if outside:
            counts.append(f"{outside} outside the present grid left out")
        earlier = own[(own["role"] == "cell") & ~own["run_id"].isin([*same_base["run_id"], *cells["run_id"]])]
        if len(earlier):
            differing = ", ".join(_differences({*earlier["base"]}, present_base(own)))
            counts.append(f"{len(earlier)} of another configuration left out (they differ in {differing})")
        former = int((own["role"] == "reference").sum()) - len(references(own))
        if former:
            counts.append(f"{former} former reference{'s'[: former > 1]} left out")
        parts.append("; ".join([f"{sweep}: {', '.join(counts) or 'no cell yet'}", *_how_chosen(own)]))
    return "; ".join(parts)


def _how_chosen(runs: pd.DataFrame) -> list[str]:
    """How winners were chosen among candidates, and what is to be said of several goals."""
    front = front_of(runs)
    if front is not None:
        return [str(front)]
    judged = [len(choice.candidates[choice.candidates["status"].isin(JUDGED)]) for choice in _decided(runs)]
    if not judged:
        return []
    goal = goals_of(runs)[0]
    where = "on val" if goal.metric.startswith("val/") else f"by {goal.name}"
    several = f"{min(judged)} to {max(judged)}" if min(judged) < max(judged) else str(judged[0])
    return [f"chosen {where} from {several} candidates" + (" each" if is_fair(runs) else "")]


def _decided(runs: pd.DataFrame) -> list[Choice]:
    """The points that have a winner; a search that runs with one seed ranks and chooses nothing."""
    if not has_winners(runs) or not (is_fair(runs) or current(runs)["seed"].nunique() > 1):
        return []
    return [choice for choice in choices(runs) if len(choice.winner)]


def _reasons(reasons: pd.Series) -> str:
    texts = sorted({reason for reason in reasons.fillna("") if reason})
    return f" ({'; '.join(texts)})" if texts else ""


def _differences(bases: Iterable[str], latest: str) -> list[str]:
    ours: dict[str, str] = json.loads(latest)
    others = [json.loads(base) for base in bases]
    return sorted({key for other in others for key in {*ours, *other} if ours.get(key) != other.get(key)})
