"""Device time in ledger, display and budget: equal, without time that had no device, and counted once.

Run: python -m pytest tests/unit/run/test_callbacks.py
"""

import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from jepa_train.config.presets import DIGITS
from jepa_train.storage.storage import storage_path
from sweeps.engine.cluster.resources import Request
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.run.budget import Budget
from sweeps.engine.run.callbacks import TrialEvents
from sweeps.engine.run.display import Display
from sweeps.engine.run.estimate import Estimate, Price, kind_of_config
from sweeps.engine.run.ledger import Ledger
from sweeps.engine.search.asha import Judge
from sweeps.engine.spec.sweep import Sweep

STUDY = Sweep(name="study", purpose="", base=dataclasses.replace(DIGITS, epochs=2))
FILE = Path("study.py")
REQUEST = Request(workers=2, cpus=1, gpus=0, device="X")
WAITED = {"note": "", "lost_s": 0.0, "idle_s": 3600.0, "at": 0}
LOST = {"note": "worker lost (gone)", "lost_s": 36.0, "idle_s": 1800.0, "at": 2}
REPORT = {"epoch": 1, "train/loss": 2.0}


@pytest.mark.usefixtures("results")
def test_time_without_a_device_is_taken_off_everywhere_and_once(tmp_path: Path) -> None:
    plan = make_plan(STUDY, FILE)
    (cell,) = plan.fixed
    budget = Budget(100.0, Price(plan, REQUEST, {kind_of_config(cell.config): Estimate(60.0, "")}))
    screen = io.StringIO()
    display = Display(plan, REQUEST, console=Console(file=screen, width=200))
    ledger = Ledger(plan, note=lambda _: None, publish=str)
    abandoned: list[str] = []
    parts: Any = {"ledger": ledger, "display": display, "judge": Judge(plan), "request": REQUEST, "budget": budget}
    checkpoints = storage_path(tmp_path / "checkpoints")
    events = TrialEvents(**parts, checkpoints=checkpoints, abandon=abandoned.append)
    events.announce(cell)
    trial: Any = SimpleNamespace(trial_id="t", config=cell.trial_config, get_error=lambda: None)
    for _ in range(2):  # the trial's process dies, and another relays all reports again
        events.on_trial_start(iteration=0, trials=[], trial=trial)
        for report in (WAITED, REPORT, REPORT | LOST):
            events.on_trial_result(iteration=0, trials=[], trial=trial, result=report)
    # 1.5 hours of two devices, taken off the moment that the test takes
    assert budget.left == pytest.approx(103.0, abs=0.05)
    end = REPORT | {"status": "finished", "reason": "", "traceback": ""}
    events.on_trial_result(iteration=0, trials=[], trial=trial, result=end)
    assert abandoned == []
    events.on_trial_error(iteration=0, trials=[], trial=trial)
    assert abandoned == ["t"], "its lane waits no longer for the trial"
    assert ledger.close() == ""
    entry = make_plan(STUDY, FILE).entries[cell.key]
    for hours in (display.outcome.hours, 100 - budget.left, entry.device_seconds / 3600):
        assert hours == pytest.approx(-3.0, abs=0.05)
    assert (entry.lost_device_seconds, display.outcome.lost_hours) == (72.0, pytest.approx(72 / 3600))
    assert screen.getvalue().count("worker lost") == 1
    assert len(screen.getvalue().splitlines()) == 2, "the loss and the end; a wait has no line"
