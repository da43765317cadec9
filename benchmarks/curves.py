"""Learning curves of a 48-cell grid on digits: every cell trained once, so that searches over it can be replayed.

Twice: with the preset's val of 216 images, where one cell leads by one image, and with 575, where three share the lead.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from optuna.distributions import CategoricalDistribution

from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten, unflatten
from jepa_train.config.presets import DIGITS
from jepa_train.train.loop import train

METRIC = "val/probe_top1"
GRID: dict[str, list[float]] = {
    "method.lamb": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3],
    "optim.lr": [3e-4, 1e-3, 3e-3, 1e-2],
    "optim.weight_decay": [1e-4, 1e-2],
}
SPACE = {key: CategoricalDistribution(values) for key, values in GRID.items()}
VAL_FRACTIONS = {216: 0.15, 575: 0.4}  # images of val -> as a fraction of the training split
Point = tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """METRIC after every epoch, by point of the grid; shorter where a run diverged or collapsed."""

    val_images: int
    curves: dict[Point, list[float]]

    @property
    def base(self) -> TrainConfig:
        """What the cells share."""
        data = dataclasses.replace(DIGITS.data, val_frac=VAL_FRACTIONS[self.val_images])
        return dataclasses.replace(DIGITS, data=data, probe=dataclasses.replace(DIGITS.probe, protocols="knn"))

    @property
    def best(self) -> float:
        """Of the cells that finished, at their last epoch."""
        return max(curve[-1] for curve in self.curves.values() if len(curve) == self.base.epochs)

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


def file_of(val_images: int, folder: Path) -> Path:
    """Where curves are recorded."""
    return folder / f"economy-curves-{val_images}.json"


def record(val_images: int, folder: Path, say: Callable[[str], object]) -> Curves:
    """Train every cell of the grid once and write its curve; what the file has is not trained again."""
    file = file_of(val_images, folder)
    made = read(val_images, folder) if file.exists() else Curves(val_images, {})
    for number, point in enumerate(points(), 1):
        if point in made.curves:
            continue
        curve: list[float] = []

        def report(metrics: dict[str, float], curve: list[float] = curve) -> bool:
            if METRIC in metrics:
                curve.append(round(metrics[METRIC], 6))
            return False

        outcome = train(unflatten(dict(zip(GRID, point, strict=True)), base=made.base), report=report)
        made.curves[point] = curve
        say(f"  {number}/{len(points())}  {point}  {outcome.status}  {curve[-1]:.4f}\n")
        cells = ",\n".join(json.dumps({"point": place, "curve": made.curves[place]}) for place in made.curves)
        head = json.dumps({"metric": METRIC, "axes": list(GRID), "val_images": val_images})[1:-1]
        file.write_text(f'{{{head}, "cells": [\n{cells}\n]}}\n')
    return made


def read(val_images: int, folder: Path) -> Curves:
    """Recorded curves."""
    content = json.loads(file_of(val_images, folder).read_text())
    return Curves(content["val_images"], {tuple(cell["point"]): cell["curve"] for cell in content["cells"]})


def synthetic() -> Curves:
    """Curves of one best cell, for a quick look."""
    curves: dict[Point, list[float]] = {}
    for lamb, lr, decay in points():
        final = 0.95 - 0.1 * abs(math.log10(lamb / 0.03)) - 0.1 * abs(math.log10(lr / 3e-3)) - decay
        pace = 8.0 + 100 * lr
        curves[lamb, lr, decay] = [round(final * (1 - math.exp(-epoch / pace)), 6) for epoch in range(1, 51)]
    return Curves(216, curves)
