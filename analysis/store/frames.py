"""The tidy frame of an experiment's cells, with notes on runs that were left out."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from mlflow.entities import Experiment

from analysis.store.records import Record, base_of, one_per_cell, with_later

PLACES = {"data.path", "data.download"}  # locations of data, which do not change results
SYSTEM = "system/"  # metrics of the machine, for the MLflow UI; not results
_TAGS = {
    "mlflow.runName": "run_name",
    "mlflow.user": "user",
    "mlflow.source.name": "source",
    "mlflow.source.git.commit": "commit",
}
_STATUS = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted"}  # for runs without the tag
_NUMBERS = ("workers", "epoch", "device_seconds")  # tags


def frame_of(experiment: Experiment, records: Iterable[Record]) -> pd.DataFrame:
    """One row per cell, in the order of the records: see analysis.store.runs.all_runs. Empty without cells.

    attrs["notes"] has a line for each kind of run that was left out, with its count.

    Raises:
        ValueError: the experiment lacks a tag that every sweep has.
    """
    if missing := {"sweep.axes", "sweep.goals"} - experiment.tags.keys():
        raise ValueError(f"it has no tag {', '.join(sorted(missing))}; launch its file again, which writes them")
    runs, notes = _cells(records)
    if not runs:
        return pd.DataFrame()
    about = {"sweep": experiment.name} | {k: text for k, text in experiment.tags.items() if k.startswith("sweep.")}
    later = json.loads(about.get("sweep.later", "{}"))
    runs = [replace(run, params=with_later(run.params, later)) for run in runs]
    if later and "sweep.base" in about:
        about["sweep.base"] = json.dumps(base_of(about, later), sort_keys=True)
    shared = _shared_by(about, runs)
    frame = pd.DataFrame([about | _row(run, shared) for run in runs])
    types = json.loads(about.get("sweep.types", "{}"))
    for name in {name for run in runs for name in run.params}:
        frame[name] = typed(frame[name], types.get(name))
    for name in {*_NUMBERS} & {*frame}:
        frame[name] = typed(pd.Series(pd.to_numeric(frame[name], errors="coerce"), dtype=str))
    for name in ("start_time", "end_time"):
        frame[name] = pd.to_datetime(frame[name], unit="ms", utc=True)
    frame.loc[_half_written(frame, runs), ["status", "reason"]] = "incomplete", "its results are not in the store"
    if overrides := json.loads(about.get("sweep.overrides", "{}")):
        fields = " ".join(f"{key}={text}" for key, text in overrides.items())
        notes = [f"base with {fields}, by the command line of the launch", *notes]
    frame.attrs["notes"] = [f"{experiment.name}: {note}" for note in notes]
    return frame


def typed(texts: pd.Series, recorded: str | None = None) -> pd.Series:
    """A column of texts as int, float or bool if every text is one, else unchanged.

    Args:
        recorded: the type that the launch recorded for this parameter; without one it is guessed from the texts.
    """
    present, lacking = texts.dropna().astype(str), texts.isna().any()

    def fit(name: str, pattern: str) -> bool:
        return recorded in (None, name) and len(present) > 0 and bool(present.str.fullmatch(pattern).all())

    if fit("bool", "True|False"):
        return texts.map({"True": True, "False": False}).astype("boolean" if lacking else "bool")
    if fit("int", r"[+-]?\d{1,15}"):
        return pd.to_numeric(texts).astype("Int64" if lacking else "int64")
    return texts.astype(float) if fit("float", r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|inf|nan)") else texts


def _cells(records: Iterable[Record]) -> tuple[list[Record], list[str]]:
    """One record per cell, and counts of the other runs, without the sweep's own and those that a cell had before."""
    others = [record for record in records if record.tags.get("role") not in ("plan", "history")]
    keyed = [record for record in others if "cell_key" in record.tags]
    whole = [record for record in keyed if _is_int(record.params.get("seed")) and _is_int(record.params.get("epochs"))]
    cells = one_per_cell(whole)
    counts = {
        "runs without a cell key skipped": len(others) - len(keyed),
        "runs without a complete config skipped": len(keyed) - len(whole),
        "further runs of the same cells skipped": len(whole) - len(cells),
    }
    return cells, [f"{count} {what}" for what, count in counts.items() if count]


def _is_int(text: str | None) -> bool:
    return text is not None and text.removeprefix("-").isdecimal()


def _row(run: Record, shared: Iterable[str]) -> dict[str, Any]:
    """A row of the frame. Parameters and metrics replace tags of the same name, which users may have added."""
    tags = {_TAGS.get(key, key): text for key, text in run.tags.items()}
    usual = {"role": "cell", "status": _STATUS.get(run.status, "running"), "reason": "", "workers": None}
    row = usual | {key: text for key, text in tags.items() if not key.startswith(("mlflow.", SYSTEM))}
    if row["status"] == "running" and run.status in _STATUS:  # its driver was killed meanwhile
        row["status"] = "interrupted"
    return {
        **row,
        **{"run_id": run.run_id, "run_name": run.name, "start_time": run.start_time, "end_time": run.end_time},
        **run.params,
        **{name: value for name, value in run.metrics.items() if not name.startswith(SYSTEM)},
        "base": json.dumps({key: run.params[key] for key in shared if key in run.params}, sort_keys=True),
    }


def _half_written(frame: pd.DataFrame, runs: Sequence[Record]) -> pd.Series:
    """True for finished runs without any metric, or without test metrics where other runs have some."""
    measured = pd.Series([bool(run.metrics) for run in runs])
    tested = pd.Series([any(name.startswith("test/") for name in run.metrics) for run in runs])
    finished = frame["status"] == "finished"
    return finished & ~(tested if tested[finished].any() else measured)


def _shared_by(about: Mapping[str, str], runs: Iterable[Record]) -> list[str]:
    """The parameters that decide results and that the cells of one version of the sweep share.

    Those of the sweep's last launch; in a store without that tag all but axes, seed and locations of data.
    """
    if "sweep.base" in about:
        return [*json.loads(about["sweep.base"])]
    axes = json.loads(about["sweep.axes"])
    free = {*axes, *PLACES, "seed"}
    names = {name for run in runs for name in run.params if name not in free}
    return sorted(name for name in names if "method" not in axes or not name.startswith("method."))
