"""Learning curves of a 48-cell grid on digits: every cell trained once, so that searches over it can be replayed.

Val is 40 % of the training images here, 574: by the preset's 216 the best cell leads by one image, and finding that one
cell is luck.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution

from jepa_train.config import DataConfig, ProbeConfig, TrainConfig
from jepa_train.flat import flatten, unflatten
from jepa_train.presets import DIGITS
from jepa_train.train import train

METRIC = "val/probe_top1"
GRID: dict[str, list[float]] = {
    "method.lamb": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3],
    "optim.lr": [3e-4, 1e-3, 3e-3, 1e-2],
    "optim.weight_decay": [1e-4, 1e-2],
}
SPACE = {key: CategoricalDistribution(values) for key, values in GRID.items()}
BASE = dataclasses.replace(
    DIGITS, data=DataConfig(name="digits", image_size=12, val_frac=0.4), probe=ProbeConfig(lr=3e-2, protocols="knn")
)
Point = tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """METRIC after every epoch, by point of the grid; shorter where a run diverged or collapsed."""

    epochs: int
    curves: dict[Point, list[float]]

    @property
    def best(self) -> float:
        """Of the cells that finished, at their last epoch."""
        return max(curve[-1] for curve in self.curves.values() if len(curve) == self.epochs)

    @property
    def total(self) -> int:
        """Epochs of the whole grid; they have the same number of steps in every cell."""
        return sum(map(len, self.curves.values()))

    def reports(self, config: TrainConfig) -> list[dict[str, float]]:
        """What training the config reports."""
        flat = flatten(config)
        curve = self.curves[tuple(float(flat[key]) for key in GRID)]
        return [{"epoch": float(epoch), METRIC: value} for epoch, value in enumerate(curve, 1)]


def points() -> list[Point]:
    """Of the grid, in order."""
    return list(itertools.product(*GRID.values()))


def record(file: Path, say: Callable[[str], object]) -> Curves:
    """Train every cell of the grid once and write its curve; what the file has is not trained again."""
    curves = read(file).curves if file.exists() else {}
    for number, point in enumerate(points(), 1):
        if point in curves:
            continue
        curve: list[float] = []

        def report(metrics: dict[str, float], curve: list[float] = curve) -> bool:
            if METRIC in metrics:
                curve.append(round(metrics[METRIC], 6))
            return False

        outcome = train(unflatten(dict(zip(GRID, point, strict=True)), base=BASE), report=report)
        curves[point] = curve
        say(f"  {number}/{len(points())}  {point}  {outcome.status}  {curve[-1]:.4f}\n")
        _write(file, Curves(BASE.epochs, curves))
    return Curves(BASE.epochs, curves)


def read(file: Path) -> Curves:
    """The curves of a file."""
    content = json.loads(file.read_text())
    return Curves(content["epochs"], {tuple(cell["point"]): cell["curve"] for cell in content["cells"]})


def synthetic() -> Curves:
    """Curves of one best cell, for a quick look."""
    curves: dict[Point, list[float]] = {}
    for lamb, lr, decay in points():
        final = 0.95 - 0.1 * abs(math.log10(lamb / 0.03)) - 0.1 * abs(math.log10(lr / 3e-3)) - decay
        pace = 8.0 + 100 * lr
        curves[lamb, lr, decay] = [round(final * (1 - math.exp(-epoch / pace)), 6) for epoch in range(1, 51)]
    return Curves(50, curves)


def _write(file: Path, curves: Curves) -> None:
    cells: list[dict[str, Any]] = [{"point": point, "curve": curve} for point, curve in curves.curves.items()]
    lines = ",\n".join(json.dumps(cell) for cell in cells)
    head = json.dumps({"metric": METRIC, "axes": list(GRID), "epochs": curves.epochs})[1:-1]
    file.write_text(f'{{{head}, "cells": [\n{lines}\n]}}\n')
