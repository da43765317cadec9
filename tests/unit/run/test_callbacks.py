"""What a launch says of its hours: ledger, display and budget count the same, and what is relayed twice counts once."""

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
from sweeps.engine.plan.describe import open_ledger
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.run import display as display_module
from sweeps.engine.run.budget import Budget
from sweeps.engine.run.callbacks import TrialEvents
from sweeps.engine.run.display import Display
from sweeps.engine.run.estimate import Estimate, Price, kind_of_config
from sweeps.engine.search.asha import Judge
from sweeps.engine.spec.sweep import Sweep

STUDY = Sweep(name="study", purpose="", base=dataclasses.replace(DIGITS, epochs=2))
FILE = Path("study.py")
REQUEST = Request(workers=2, cpus=1, gpus=0, device="X")
WAITED = {"note": "", "lost_s": 0.0, "idle_s": 3600.0, "at": 0}
LOST = {"note": "worker lost (gone)", "lost_s": 36.0, "idle_s": 1800.0, "at": 2}


@pytest.mark.usefixtures("results")
def test_time_without_a_device_is_taken_off_everywhere_and_once(tmp_path: Path) -> None:
    plan = make_plan(STUDY, FILE)
    (cell,) = plan.fixed
    budget = Budget(100.0, Price(plan, REQUEST, {kind_of_config(cell.config, REQUEST): Estimate(60.0, "")}))
    screen = io.StringIO()
    display = Display(plan, console=Console(file=screen, width=200), devices=REQUEST.devices)
    ledger = open_ledger(plan, note=lambda _: None, publish=str)
    events = TrialEvents(
        ledger=ledger,
        display=display,
        judge=Judge(plan),
        request=REQUEST,
        checkpoints=storage_path(tmp_path / "checkpoints"),
        budget=budget,
    )
    events.on_step_end(0, [])
    events.announce(cell)
    trial: Any = SimpleNamespace(trial_id="t", config=cell.trial_config)
    reports = [WAITED, {"epoch": 1, "train/loss": 2.0}, {"epoch": 1, "train/loss": 2.0} | LOST]
    for _ in range(2):  # the trial's process dies, and another relays all reports again
        events.on_trial_start(0, [], trial)
        for report in reports:
            events.on_trial_result(0, [], trial, report)
    # 1.5 hours of two devices, taken off the moment that the test takes
    assert display.outcome.hours == pytest.approx(-3.0, abs=0.05)
    assert budget.left == pytest.approx(103.0, abs=0.05)
    end = {"status": "finished", "reason": "", "traceback": ""}
    events.on_trial_result(0, [], trial, {"epoch": 1, "train/loss": 2.0} | end)
    assert ledger.close() == ""
    after = make_plan(STUDY, FILE)
    for hours in (display.outcome.hours, 100 - budget.left, after.entries[cell.key].device_seconds / 3600):
        assert hours == pytest.approx(-3.0, abs=0.05)
    assert after.entries[cell.key].lost_device_seconds == 72.0
    assert display.outcome.lost_hours == pytest.approx(72 / 3600)
    assert screen.getvalue().count("worker lost") == 1
    assert len(screen.getvalue().splitlines()) == 2, "the loss and the end: a wait is not worth a line"


@pytest.mark.usefixtures("results")
def test_a_cluster_without_machines_is_told_by_tunes_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display_module, "_NO_MACHINE_S", 0.0)
    plan = make_plan(STUDY, FILE)
    screen = io.StringIO()
    ledger = open_ledger(plan, note=lambda _: None, publish=str)
    events = TrialEvents(
        ledger=ledger,
        display=Display(plan, console=Console(file=screen, width=200)),
        judge=Judge(plan),
        request=REQUEST,
        checkpoints=storage_path(tmp_path / "checkpoints"),
        machines=lambda: 0,
    )
    for _ in range(2):
        events.on_step_end(0, [])
    assert screen.getvalue().startswith("no machine in 0 minutes; ")
    assert len(screen.getvalue().splitlines()) == 1
    ledger.close()
