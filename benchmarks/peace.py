"""How a sweep ends in peace, and what of a disturbed one is not like that."""

import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.arena import TIMED, Arena, Points
from jepa_train.train.loop import train
from sweeps.engine.spec.cells import fixed_cells


@dataclass(frozen=True)
class Calm:
    """How the sweep ends in peace: the points of each cell by its key, and its tables by format."""

    history: dict[str, Points]
    tables: dict[str, bytes]


def undisturbed(folder: Path, *, cells: int, epochs: int) -> Calm:
    """The same sweep in peace, with an sqlite store."""
    arena = Arena(folder / "undisturbed", cells=cells, epochs=epochs, server=False, disk=False)
    arena.launch()
    assert arena.driver is not None
    if arena.driver.wait() != 0:
        raise RuntimeError(f"the undisturbed sweep failed:\n{arena.log.read_text()[-2000:]}")
    calm = Calm(arena.history(), {form: arena.table(form) for form in ("md", "csv")})
    left = arena.close()
    assert not left, f"the undisturbed sweep left {left}"
    return calm


def trained_here(folder: Path, *, cells: int, epochs: int) -> Calm:
    """The same cells by train() alone, in this process: no Ray, no store, and so no tables."""
    arena = Arena(folder / "trained-here", cells=cells, epochs=epochs, server=False, disk=False)
    sweep = runpy.run_path(str(arena.file))["SWEEP"]
    torch.set_num_threads(1)
    history: dict[str, Points] = {}
    for cell in fixed_cells(sweep, sweep.base):
        points = history.setdefault(cell.key, {})

        def report(metrics: Mapping[str, float], points: Points = points) -> bool:
            for name in metrics:
                if "/" in name:
                    points.setdefault(name, []).append((int(metrics["epoch"]), metrics[name]))
            return False

        train(cell.config, report=report)
    return Calm(history, {})


def differences(arena: Arena, calm: Calm) -> list[str]:
    """What is not as in peace; of a cell, one line."""
    try:
        history = arena.history()
    except AssertionError as several:
        return [str(several)]
    found = [f"cell {key} has status {status}" for key, status in arena.statuses().items() if status != "finished"]
    if odd := history.keys() ^ calm.history.keys():
        found.append(f"cells {sorted(odd)} are in one store only")
    for key in calm.history.keys() & history.keys():
        wrong = [text for metric in calm.history[key] if (text := _wrong(metric, calm.history[key], history[key]))]
        wrong += [f"{metric} is there besides" for metric in history[key].keys() - calm.history[key].keys()]
        found += [f"cell {key}: {wrong[0]} ({len(wrong)} metrics)"] if wrong else []
    return found + [f"the table differs as {form}" for form, text in calm.tables.items() if arena.table(form) != text]


def _wrong(metric: str, wanted: Points, got: Points) -> str:
    steps, wanted_steps = ([step for step, _ in points.get(metric, [])] for points in (got, wanted))
    if len(set(steps)) < len(steps):
        return f"{metric} was written more than once for an epoch: {steps}"
    if steps != wanted_steps:
        return f"{metric} has epochs {steps}, not {wanted_steps}"
    if metric not in TIMED and got[metric] != wanted[metric]:
        return f"{metric} ends with {got[metric][-1]}, not {wanted[metric][-1]}"
    return ""
