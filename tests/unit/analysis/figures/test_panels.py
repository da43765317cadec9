"""Figures of unusual sweeps: no panel is empty, and matplotlib has nothing to warn of.

Run: python -m pytest tests/unit/analysis/figures/test_panels.py
"""

import contextlib
import itertools
import json
import logging
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_runs import as_search, made_runs
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import figures
from analysis.figures import study
from analysis.figures.style import styled
from analysis.optuna_study import importance
from analysis.select.objectives import goals_of
from analysis.store.runs import NothingToShow

LAMB, MU = "method.lamb", "method.mu"
SHOTS = ("test/shot1_top1", "test/shot10_top1", "test/finetune1_top1", "test/finetune10_top1")
TOP1 = ("test/probe_top1", "test/projector_top1", "val/probe_top1")
DENSITY = ("test/nonzero_fraction", "target/nonzero_fraction", "test/entropy", "test/hsic")
LOSSES = ("train/loss", "train/sigreg", "train/invariance")
METRICS = (*TOP1, *DENSITY, *LOSSES)
BARS = {"method.target": ["rgg", "gg"], "method.rectified": [True, False]}
LONG = [f"日本{k}_with_a_very_long_name_$x_{k}$_" + "of_many_parts_" * 6 for k in range(7)]


def value(config: dict[str, Any]) -> dict[str, float]:
    """Numbers in (0, 1) that differ from cell to cell."""
    number = sum(map(ord, json.dumps(config, sort_keys=True, default=str)))
    return {metric: 0.1 + 0.8 * (number * (k + 3) % 97) / 97 for k, metric in enumerate(METRICS)}


def with_shots(config: dict[str, Any]) -> dict[str, float]:
    return value(config) | dict(zip(SHOTS, value(config).values(), strict=False))


def with_goals(runs: pd.DataFrame, *metrics: str) -> pd.DataFrame:
    goals = [{"metric": metric, "direction": "min" if "loss" in metric else "max"} for metric in metrics]
    return runs.assign(**{"sweep.goals": json.dumps(goals)})


def lambs(values: list[float], measure: Callable[[dict[str, Any]], dict[str, float]] = value, **more: Any) -> Any:
    return made_runs({LAMB: values}, measure, **more)


SWEEPS: dict[str, Callable[[], pd.DataFrame]] = {
    "one cell": lambda: lambs([0.01], seeds=(0,)),
    "lamb of 0, no labels": lambda: lambs([0.0, 0.02, 0.05]),
    "negative losses": lambda: lambs([0.01, 0.02], lambda config: {m: -v for m, v in value(config).items()}),
    "equal numbers": lambda: made_runs({MU: [0.0, 1.0], LAMB: [0.1]}, lambda _: dict.fromkeys(METRICS, 0.0)),
    "infinite losses": lambda: lambs([0.01, 0.02], lambda config: value(config) | dict.fromkeys(LOSSES, math.inf)),
    "methods without the axis": lambda: made_runs(
        [{"method": ["lejepa"], LAMB: [0.01, 0.1]}, {"method": ["vicreg"]}, {"method": ["_my $x$"]}], value, seeds=(0,)
    ),
    "many long names with glyphs": lambda: made_runs({"model.encoder": LONG, LAMB: [0.1]}, with_shots, seeds=(0,)),
    "data sets": lambda: made_runs({"method": ["lejepa", "vicreg"], "data.name": ["digits", "日本"]}, with_shots),
    "search": lambda: as_search(made_runs({LAMB: [0.01, 0.05], "a.lr": [0.0, 0.1], "b.lr": ["日"]}, value), ["a.lr"]),
    "two goals": lambda: with_goals(lambs([0.01, 0.02, 0.05, 0.1]), "val/probe_top1", "test/nonzero_fraction"),
    "equal goals": lambda: with_goals(
        as_search(lambs([0.01, 0.02, 0.03, 0.04], lambda _: dict.fromkeys(METRICS, 0.5)), [LAMB]), *TOP1[:2]
    ),
}


def drawn(name: str, runs: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> Figure | None:
    """The figure, or None where it has a reason to draw nothing."""
    monkeypatch.setattr("analysis.figures.histories_of", lambda _, metrics, __: history(runs, metrics))
    with contextlib.suppress(NothingToShow):
        return figures.find(name).draw(runs, "")
    return None


def history(runs: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    rows = [
        (run["run_id"], metric, epoch, run[metric] * epoch)
        for run in runs.to_dict("records")
        for metric, epoch in itertools.product(metrics, (1, 2, 3))
        if metric in run
    ]
    return pd.DataFrame(rows, columns=["run_id", "metric", "epoch", "value"])


def has_numbers(axes: Axes) -> bool:
    """True if anything with a finite place is drawn, apart from lines across the whole panel and texts."""
    lines = [np.column_stack(line.get_data()) for line in axes.lines if line.get_transform() == axes.transData]
    points = [np.asarray(collection.get_offsets()) for collection in axes.collections if len(collection.get_offsets())]
    bars = [np.array([[bar.get_width(), bar.get_height()]]) for bar in axes.patches]
    images = bool(axes.images) or any(collection.get_array() is not None for collection in axes.collections)
    return images or any(np.isfinite(np.asarray(xy, dtype=float)).all(axis=1).any() for xy in (*lines, *points, *bars))


@pytest.mark.parametrize("sweep", SWEEPS)
def test_nothing_warns(sweep: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = SWEEPS[sweep]()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        found = {name: figure for name in figures.names() if (figure := drawn(name, runs, monkeypatch))}
        for figure in found.values():
            with styled():
                figure.draw_without_rendering()
            assert not [text for text in figure.findobj(Text) if "mathdefault" in text.get_text()]
    assert caplog.messages == []
    assert found
    for name, figure in found.items():
        assert all(has_numbers(axes) for axes in figure.axes if axes.get_visible()), name


@pytest.mark.parametrize(
    ("name", "sweep", "missing", "panels"),
    [
        ("samples", "data sets", (), 2),
        ("samples", "data sets", SHOTS[2:], 1),
        ("samples", "data sets", SHOTS[:1], 2),
        ("samples", "data sets", SHOTS, 0),
        ("features", "bars", (), 3),
        ("features", "bars", TOP1[:1], 2),
        ("features", "bars", (*TOP1, *DENSITY), 0),
        ("dependence", "data sets", (), 3),
        ("dependence", "data sets", ("test/entropy",), 2),
        ("dependence", "data sets", ("test/nonzero_fraction",), 1),
        ("dependence", "data sets", DENSITY, 0),
        ("curves", "data sets", (), 4),
        ("curves", "data sets", LOSSES, 1),
        ("curves", "data sets", TOP1, 3),
        ("curves", "data sets", METRICS, 0),
        ("pareto", "two goals", (), 2),
        ("pareto", "two goals", DENSITY, 0),
        ("loss_plane", "search", ("train/sigreg",), 0),
    ],
)
def test_a_panel_whose_metric_is_missing_is_left_out(
    name: str, sweep: str, missing: tuple[str, ...], panels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = made_runs(BARS, value) if sweep == "bars" else SWEEPS[sweep]()
    for lost in (runs.drop(columns=[*missing]), runs.assign(**dict.fromkeys(missing, math.nan))):
        figure = drawn(name, lost, monkeypatch)
        assert len(figure.axes if figure else []) == panels
        assert all(map(has_numbers, figure.axes if figure else []))


def test_the_pareto_figure_has_the_front_the_knee_and_the_hypervolume(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {0.1: (0.9, 2.0), 0.2: (0.8, 1.0), 0.3: (0.2, 0.5), 0.4: (0.5, 4.0)}  # accuracy up, loss down

    def measure(config: dict[str, Any]) -> dict[str, float]:
        return dict(zip(("val/probe_top1", "train/loss"), points[config[LAMB]], strict=True))

    runs = with_goals(lambs([*points], measure, seeds=(0,)), "val/probe_top1", "train/loss")
    figure = drawn("pareto", runs, monkeypatch)
    assert figure
    plane, growth = figure.axes
    dominated, boundary, front, knee = (np.column_stack(line.get_data()).tolist() for line in plane.lines)
    assert (dominated, knee) == ([[4.0, 0.5]], [[1.0, 0.8]])
    assert boundary == sorted(front) == [[0.5, 0.2], [1.0, 0.8], [2.0, 0.9]]
    # from accuracy 0.2 and loss 4
    assert growth.lines[0].get_ydata() == pytest.approx([0.7 * 2, 0.7 * 2 + 0.6, 2.0, 2.0])
    three = with_goals(lambs([0.1, 0.2]), "val/probe_top1", "train/loss", "test/hsic")
    figure = drawn("pareto", three, monkeypatch)
    assert figure
    assert [axes.get_xlabel() for axes in figure.axes] == ["train/loss (min)", "test/hsic (max)", "finished trials"]


def test_importance_has_a_caution_for_few_trials() -> None:
    few = as_search(lambs([0.1, 0.2, 0.3, 0.4], seeds=(0,)), [LAMB])
    assert study.caution(few) == "4 finished trials, few for 1 axes: the importance is only a hint"
    many = as_search(lambs([k / 100 for k in range(1, 11)], seeds=(0,)), [LAMB])
    assert study.caution(many) == "10 finished trials"
    equal = as_search(lambs([0.1, 0.2, 0.3, 0.4], lambda _: dict.fromkeys(METRICS, 0.5), seeds=(0,)), [LAMB])
    assert importance(equal, goals_of(equal)[0]) == {LAMB: 0.0}
    assert study.lacks(equal) == "all finished trials have the same score"
