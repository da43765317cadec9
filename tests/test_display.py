"""What a tired researcher reads while a sweep runs."""

import dataclasses
import io

import pytest
from rich.console import Console

from jepa_train.config import TrainConfig
from sweeps.engine import display as display_module
from sweeps.engine.cells import Cell
from sweeps.engine.display import Display
from sweeps.engine.objective import Goal


def cell(label: str, *, epochs: int = 10, role: str = "cell") -> Cell:
    """A cell of so many epochs."""
    return Cell(config=dataclasses.replace(TrainConfig(), epochs=epochs), label=label, role=role)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The display's clock, to be set."""
    now = [0.0]
    monkeypatch.setattr(display_module.time, "monotonic", lambda: now[0])
    return now


def shown(total: int = 5, done: int = 1) -> Display:
    """A display that writes to a buffer instead of the terminal."""
    console = Console(file=io.StringIO(), width=200)
    return Display(name="study", goal=Goal(metric="val/probe_top1"), total=total, done=done, console=console)


def test_before_the_first_report_the_worker_groups_are_starting(clock):
    display = shown()
    display.started(cell("a"))
    clock[0] = 12.0
    assert display._render().plain == "study  1/5 done  starting the workers (12 s)"


def test_counts_best_and_time_left(clock):
    display = shown()
    first, second = cell("a"), cell("b")
    for running in (first, second):
        display.started(running)
    clock[0] = 100.0  # the start of the worker groups does not count
    display.progressed(first, 1)
    clock[0] = 110.0
    display.progressed(first, 10)
    display.ended(first, "finished", "", {"val/probe_top1": 0.75}, 10)
    display.progressed(second, 5)
    # 1.5 cells in 10 s; of 4 to run, 2.5 are left
    assert display._render().plain == ("study  2/5 done  1 running  0 failed  17 s left  best val/probe_top1 0.750 (a)")


@pytest.mark.usefixtures("clock")
def test_failures_and_references_are_neither_done_nor_best():
    display = shown(total=3, done=0)
    reference, failing = cell("random", epochs=0, role="reference"), cell("bad")
    display.started(reference)
    display.progressed(reference, 0)
    display.ended(reference, "finished", "", {"val/probe_top1": 0.9}, 1)
    display.started(failing)
    display.ended(failing, "failed", "ConfigError: no", {}, 2)
    text = display._render().plain
    assert text.startswith("study  1/3 done  0 running  1 failed")
    assert "best" not in text


@pytest.mark.usefixtures("clock")
def test_every_ended_cell_leaves_a_line():
    display = shown()
    display.started(cell("a"))
    display.ended(cell("a"), "diverged", "train/loss is nan in epoch 1", {}, 3)
    assert display._console.file.getvalue() == ("study      2/5  a  diverged: train/loss is nan in epoch 1  (3 s)\n")
