"""Report of one sweep as one HTML page without other files: python -m analysis report SWEEP."""

import base64
import html
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from mlflow.entities import Experiment

from analysis import figures, tables
from analysis.device_time import device_time, unit_of
from analysis.figures import study
from analysis.figures.points import groups_by_views
from analysis.optuna_study import Evaluator, importance
from analysis.select.objectives import goals_of
from analysis.select.selection import axes, column, current, numbers, searched, seeds_of
from analysis.store.runs import NothingToShow, all_runs, store_uri, sweeps_in
from analysis.store.sources import file_name
from analysis.table import label_free
from analysis.table.cells import states_of
from analysis.table.layout import FinishedTable
from analysis.table.render import render
from analysis.table.summary import progress_note

_STYLE = """<style>
body {font: 15px/1.45 sans-serif; color: #222; background: #fff; max-width: 1120px; margin: 24px auto; padding: 0 20px}
h1 {font-size: 26px; margin: 0 0 4px} h2 {font-size: 19px; margin: 32px 0 8px; border-bottom: 1px solid #ccc}
p, ul {max-width: 80ch} img {max-width: 100%} .wide {overflow-x: auto} code {font-size: 13px}
figure {display: inline-block; vertical-align: top; margin: 12px 20px 16px 0; break-inside: avoid}
figcaption {font-size: 13px; color: #555; max-width: 60ch} tr {break-inside: avoid}
table.sweep td.l {white-space: normal; max-width: 60ch}
@media print {body {max-width: none; margin: 0; font-size: 11px} h2 {break-after: avoid} .wide {overflow: visible}}
</style>"""
_BADLY = ("failed", "interrupted", "diverged", "collapsed")


def write_report(sweep: str, store: str | None, folder: Path, *, scale: str = "") -> Path:
    """Write folder/<sweep>.html; the same store gives the same bytes.

    Args:
        sweep: a sweep of the store, with or without its scale.
        scale: by default the only one in the store.

    Raises:
        NothingToShow: no such store or sweep, or no run in it.
    """
    store = store or store_uri()
    runs = all_runs(tables.experiment_of(sweep, store, scale), store)
    experiment = sweeps_in(store)[runs["sweep"].iloc[0]]
    sections = {
        "Sweep": _about(runs, experiment),
        "Progress": _progress(runs),
        "Table": _table(experiment.name, store),
        "Figures": _figures(runs, store),
        "Importance of the searched settings": _importance(runs),
        "Selection without labels": _label_free(runs),
        "Runs that ended badly": _failures(runs),
    }
    body = "\n".join(f"<h2>{title}</h2>\n{text}" for title, text in sections.items() if text)
    name = html.escape(experiment.name)
    head = f'<head>\n<meta charset="utf-8">\n<title>{name}</title>\n{_STYLE}\n</head>'
    page = f'<!doctype html>\n<html lang="en">\n{head}\n<body>\n<h1>{name}</h1>\n{body}\n</body>\n</html>\n'
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{file_name(experiment.name)}.html"
    file.write_bytes(page.encode("ascii", "xmlcharrefreplace"))
    return file


def _about(runs: pd.DataFrame, experiment: Experiment) -> str:
    """The purpose, which is the experiment's description above the table, and the axes of the sweep."""
    purpose = re.split(r"\n\s*\n(?=\*\*|\||\[Compare)", experiment.tags.get("mlflow.note.content", ""))[0]
    paragraphs = [f"<p>{html.escape(part)}</p>" for part in purpose.split("\n\n") if part.strip()]
    present = current(runs)
    facts = {
        "kind": experiment.tags.get("sweep.kind", ""),
        "scale": experiment.tags.get("sweep.scale", ""),
        **{f"varies {key}": _values(present, key) for key in axes(runs)},
        "seeds": ", ".join(map(str, seeds_of(runs) or sorted(present["seed"].unique()))),
        "data": _values(present, "data.name"),
        "encoder": _values(present, "model.encoder"),
        "epochs": _values(present, "epochs"),
    }
    items = [f"<li>{html.escape(name)}: {html.escape(text)}</li>" for name, text in facts.items() if text]
    return "\n".join([*paragraphs, "<ul>", *items, "</ul>"])


def _values(runs: pd.DataFrame, key: str) -> str:
    """The values of a key in order, of many the first and the last."""
    found = runs[key].dropna().unique() if key in runs else []
    values = sorted(found, key=lambda value: (isinstance(value, str), value))
    texts = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values if value != ""]
    return ", ".join(texts) if len(texts) <= 12 else f"{texts[0]} to {texts[-1]} ({len(texts)} values)"


def _progress(runs: pd.DataFrame) -> str:
    """Progress, first and last time, and device time of the runs that have a duration."""
    ends = runs["end_time"].dropna()
    last = f", last result {ends.max():%Y-%m-%d %H:%M} UTC" if len(ends) else ""
    hours = numbers(runs, "device_seconds") / 3600
    lost = np.nansum(hours[runs["status"].isin(_BADLY)])
    when = f"First run {runs['start_time'].min():%Y-%m-%d %H:%M}{last}."
    resources = [*column(runs, "resources").dropna()]
    unit = unit_of(resources[-1] if resources else "")
    when += f" {device_time(np.nansum(hours), unit)}, {device_time(lost, unit)} of them in runs that ended badly."
    return f"<p>{html.escape(progress_note(runs))}</p>\n<p>{when}</p>"


def _table(sweep: str, store: str) -> str:
    try:
        return f'<div class="wide">{tables.table(sweep, store, "html")}</div>'
    except NothingToShow as nothing:
        return f"<p>{html.escape(str(nothing))}</p>"


def _figures(runs: pd.DataFrame, store: str) -> str:
    parts = []
    for drawing, picture in figures.pictures(runs, store, "svg"):
        image = base64.b64encode(picture).decode()
        text = html.escape(drawing.description)
        parts.append(
            f'<figure><img alt="{text}" src="data:image/svg+xml;base64,{image}">\n'
            f"<figcaption>{text} <code>{drawing.name}</code></figcaption></figure>"
        )
    return "\n".join(parts) or "<p>None yet.</p>"


def _importance(runs: pd.DataFrame) -> str:
    """A search: the share of each axis in the variance of each goal, with a caution where trials are few."""
    if not searched(runs):
        return ""
    if lack := study.lacks(runs):
        return f"<p>{html.escape(lack)}</p>"
    shares = pd.DataFrame(
        {f"{goal.name} ({by})": importance(runs, goal, by) for goal in goals_of(runs) for by in get_args(Evaluator)}
    )
    explained = "share of the goal's variance over the tried values that an axis explains, by itself or with others"
    best = "share of an axis in being among the best tenth, as optuna-dashboard shows it"
    notes = [f"fANOVA: {explained}; {study.caution(runs)}", f"PED-ANOVA: {best}"]
    return render(FinishedTable(frame=shares.rename_axis("axis").round(2), about_numbers=notes), "html")


def _label_free(runs: pd.DataFrame) -> str:
    lacks = figures.find("label_free_alpha").lacks(runs)
    return "" if lacks else label_free.report(label_free.label_free(runs, by=groups_by_views(runs)), "html")


def _failures(runs: pd.DataFrame) -> str:
    bad = runs[runs["status"].isin(_BADLY)].sort_values(["status", "start_time", "run_id"])
    if not len(bad):
        return "<p>None.</p>"
    frame = pd.DataFrame(
        {
            "state": states_of(bad),
            "reason": bad["reason"].fillna("").astype(str).to_numpy(),
            "epoch": [f"{epoch:g}" if epoch == epoch else "-" for epoch in numbers(bad, "epoch")],
            "MLflow run": bad["run_id"].to_numpy(),
        },
        index=pd.Index(bad["run_name"].astype(str), name="cell"),
        dtype=object,
    )
    return render(FinishedTable(frame=frame), "html")
