"""Note below a table on numbers that other code made, with the command that computes them again."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import pandas as pd

from analysis.select.selection import column, records_of
from analysis.store.records import recorded_version
from analysis.table.significance import cells_of

_NAMED = 6  # outdated numbers that the note names


def code_note(frame: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Note on the numbers that other code made than the present, and the command that runs them again; "" for none.

    The present code is that of the last launch of the table's sweeps. Runs without a version, from before versions were
    recorded, are compared among each other by their commits.
    """
    ids = {run_id for _, _, cell, _ in cells_of(frame) for run_id in cell.run_ids}
    behind = runs[runs["run_id"].isin(ids)]
    if column(behind, "code_version").isna().all():
        return _commits_note(behind)
    launches = [json.loads(text) for text in column(runs, "sweep.code").dropna().unique()]
    launches.sort(key=lambda launch: int(launch["at"]))
    present = {own: version for launch in launches for own, version in launch["versions"].items()}
    old = [run for run in records_of(behind) if _is_outdated(run, present)]
    if not old:
        return ""
    names = [*dict.fromkeys(map(_label, old))]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    commands = " and ".join(dict.fromkeys(map(_command, old)))
    return (
        f"outdated: {', '.join(names[:_NAMED])}{more} ({len(old)} of {len(behind)} runs are by other code than the "
        f"present); {commands} runs them again"
    )


def version_of_row(run: Mapping[str, Any]) -> str:
    """Version of the code that made a run, from its row: see recorded_version."""
    columns = {"code_version": "code_version", "mlflow.source.git.commit": "commit", "git_dirty": "git_dirty"}
    return recorded_version({tag: run[name] for tag, name in columns.items() if isinstance(run.get(name), str)})


def _is_outdated(run: Mapping[str, Any], present: Mapping[str, str]) -> bool:
    """True for a run that other code made, or evaluated later, than the present code of its method and data."""
    version, own, by = version_of_row(run), run.get("code_modules"), run.get("evaluated_version")
    wanted = present.get(own, version) if isinstance(own, str) else ""
    return version != wanted or (isinstance(by, str) and by != wanted)


def _label(run: Mapping[str, Any]) -> str:
    """The label of a run without its seed."""
    return str(run["run_name"]).removesuffix(f"seed={run.get('seed')}").rstrip() or "base"


def _command(run: Mapping[str, Any]) -> str:
    """The command that runs a sweep's outdated cells again."""
    file, scale = PurePath(str(run.get("sweep.file", run["sweep"]))), run.get("sweep.scale")
    shown = f"sweeps/{file.name}" if file.parent.name == "sweeps" else file
    return f"python {shown} {f'--scale {scale} ' if isinstance(scale, str) else ''}--retry outdated"


def _commits_note(behind: pd.DataFrame) -> str:
    """Note with the commits of runs, "" if one committed version made them all."""
    columns = (column(behind, name) for name in ("commit", "git_dirty", "evaluated_by"))
    versions = Counter(
        ("unknown" if pd.isna(commit) or not commit else str(commit)[:7])
        + (" with uncommitted changes" if str(dirty).lower() == "true" else "")
        + (f" evaluated by {by[:7]}" if isinstance(by, str) and by != commit else "")
        for commit, dirty, by in zip(*columns, strict=True)
    )
    counts = sorted(versions.items(), key=lambda pair: (-pair[1], pair[0]))
    if len(counts) > 1:
        listed = ", ".join(f"{name} ({number} run{'s'[: number > 1]})" for name, number in counts)
        return f"code versions: {listed}"
    return next((f"made by code {name}" for name, _ in counts if "uncommitted" in name), "")
