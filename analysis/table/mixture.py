"""Whether the numbers of a table may stand side by side: made by one version of the code, judged in one way."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.select.selection import axes, column
from analysis.table.cells import short
from analysis.table.ranking import ONLINE
from analysis.table.significance import cells_of

CODE, EVALUATION = "†", "‡"
_JUDGED_ON = ("data.name", "data.fingerprint", "data.image_size", "data.val_frac")
_ONLINE_PROBE = ("probe.lr", "probe.weight_decay")


class MixedRuns(ValueError):
    """Numbers that should not be compared unseen; the message is one line that names them and the remedy."""


def mark_mixed(frame: pd.DataFrame, runs: pd.DataFrame, *, allow: bool) -> tuple[pd.DataFrame, list[str]]:
    """The frame with marks at the numbers of another code version or evaluation than most, and what they mean.

    The name of a metric says which protocol it comes from, so that runs that list different protocols are judged alike
    in what both have; another split, other images or other online probes are another evaluation of the same metric.

    Args:
        allow: else what is mixed is refused.

    Raises:
        MixedRuns: it is mixed, and not allowed.
    """
    codes, judged = code_versions(runs), _evaluations(runs)
    of_code: dict[str, list[str]] = {}  # run -> its version
    of_metric: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for _, _, cell, _ in cells_of(frame):
        metric = cell.quantity.metric if cell.quantity is not None else ""
        for run_id in cell.run_ids:
            if run_id in codes:
                of_code[run_id] = [codes[run_id]]
                of_metric[metric][run_id] = judged[short(metric, "/") in ONLINE][run_id]
    notes: list[str] = []
    marks: dict[str, dict[str, str]] = {}  # metric, or "" for all -> run -> mark
    usual, counted = _usual(of_code)
    if len(counted) > 1:
        notes.append(f"code versions: {', '.join(counted)}")
        marks[""] = {run: CODE for run, values in of_code.items() if values != usual}
    for metric, values_of in of_metric.items():
        usual, counted = _usual(values_of)
        if len(counted) > 1:
            notes.append(f"evaluations of {metric}: {', '.join(counted)}")
            marks[metric] = {run: EVALUATION for run, values in values_of.items() if values != usual}
    if notes and not allow:
        raise MixedRuns(f"the table would mix {'; '.join(notes)}; --allow-mixed shows it all the same, marked")
    if not notes:
        return frame, [f"made by code {one}" for one in uncommitted_versions(of_code)]
    return _marked(frame, marks), [
        f"{CODE if note.startswith('code') else EVALUATION} another than the first of these {note}" for note in notes
    ]


def code_versions(runs: pd.DataFrame) -> dict[str, str]:
    """Run id -> "9101bc4", "9101bc4 with uncommitted changes", "9101bc4 evaluated by 5ab0a3f", or "unknown"."""
    commits, dirty = column(runs, "commit"), column(runs, "git_dirty").astype(str).str.lower()
    later = column(runs, "evaluated_by")
    return {
        run_id: ("unknown" if pd.isna(commit) or not commit else str(commit)[:7])
        + (" with uncommitted changes" if changed == "true" else "")
        + (f" evaluated by {by[:7]}" if isinstance(by, str) and by != commit else "")
        for run_id, commit, changed, by in zip(runs["run_id"], commits, dirty, later, strict=True)
    }


def uncommitted_versions(of_code: Mapping[str, list[str]]) -> list[str]:
    """The version, if all runs have one and the tree was not as committed: no commit says what it was."""
    return [one for (one,) in {tuple(values) for values in of_code.values()} if "uncommitted" in one]


def _evaluations(runs: pd.DataFrame) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Run id -> how its metrics were judged, offline and by online probes, but for what the sweeps vary on purpose."""
    varied = {axis for _, own in runs.groupby("sweep") for axis in axes(own)} if "sweep.axes" in runs else set()
    several_data = any(axis.startswith("data.") for axis in varied)
    offline = [key for key in _JUDGED_ON if key in runs and not several_data]
    found = []
    for keys in (offline, [*offline, *(key for key in _ONLINE_PROBE if key in runs and key not in varied)]):
        rows = zip(*(runs[key].astype(str) for key in keys), strict=True) if keys else [()] * len(runs)
        texts = [[f"{key}={value}" for key, value in zip(keys, row, strict=True)] for row in rows]
        found.append(dict(zip(runs["run_id"], texts, strict=True)))
    return found[0], found[1]


def _usual(values_of: Mapping[str, list[str]]) -> tuple[list[str], list[str]]:
    """The most frequent value, and each value told by what not all have in common: "9101bc4 (12 runs)"."""
    counts = Counter(tuple(values) for values in values_of.values())
    if not counts:
        return [], []
    ordered = sorted(counts, key=lambda values: (-counts[values], values))
    common = set.intersection(*map(set, ordered)) if len(ordered) > 1 else set()
    counted = []
    for values in ordered:
        telling = " ".join(value for value in values if value not in common)
        counted.append(f"{telling} ({counts[values]} run{'s'[: counts[values] > 1]})")
    return list(ordered[0]), counted


def _marked(frame: pd.DataFrame, marks: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    values: Any = frame.to_numpy(object).copy()
    for row, position, cell, _ in cells_of(frame):
        metric = cell.quantity.metric if cell.quantity is not None else ""
        found = {marks[key][run] for key in ("", metric) if key in marks for run in cell.run_ids if run in marks[key]}
        if found:
            values[row, position] = replace(cell, remarks=(*cell.remarks, *sorted(found)))
    marked = pd.DataFrame(values, index=frame.index, columns=frame.columns, dtype=object)
    marked.attrs = dict(frame.attrs)
    return marked
