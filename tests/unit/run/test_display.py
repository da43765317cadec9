"""What a tired researcher reads while a sweep runs."""

import dataclasses
import io
import math
import re
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from jepa_train.config.presets import DIGITS
from sweeps.engine.cli.summary import summary, summary_lines
from sweeps.engine.plan.plan import Plan
from sweeps.engine.run import display as display_module
from sweeps.engine.run.display import CellEnd, Display, LaunchOutcome
from sweeps.engine.run.eta import Pace
from sweeps.engine.run.launch import Launched
from sweeps.engine.spec.cells import Cell, make_cell
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import Entry

BASE = dataclasses.replace(DIGITS, epochs=10)
SWEEP = Sweep(name="study", purpose="", base=BASE, grid={"method.lamb": [0.1, 0.2, 0.3, 0.4]})
TWO = dataclasses.replace(SWEEP, objective={"val/probe_top1": "max", "val/nonzero_fraction": "min"})
A, B, C, D = (make_cell(SWEEP, BASE, {"method.lamb": lamb}) for lamb in SWEEP.grids[0]["method.lamb"])
UNTRAINED = make_cell(SWEEP, BASE, {"epochs": 0}, role="reference")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The display's clock, to be set."""
    now = [0.0]
    monkeypatch.setattr(display_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def entry(cell: Cell, status: str, *, epoch: int = 10, value: float = math.nan) -> Entry:
    """What the store has of a cell."""
    return Entry(
        run_id="", key=cell.key, status=status, role=cell.role, label=cell.label, params={"epochs": "10"},
        metrics={"val/probe_top1": value}, epoch=epoch,
    )  # fmt: skip


def plan(*entries: Entry, sweep: Sweep = SWEEP, cells: tuple[Cell, ...] = (A, B, C, D)) -> Plan:
    """A plan over these cells, of which the store has some."""
    return Plan(sweep, BASE, cells, {each.key: each for each in entries})


def shown(of: Plan, *, terminal: bool = False, height: int = 25, **options) -> Display:
    """A display that writes to a buffer instead of the screen."""
    console = Console(file=io.StringIO(), width=100, height=height, force_terminal=terminal)
    return Display(of, console=console, **options)


def printed(display: Display) -> str:
    """What it has written so far."""
    return display._console.file.getvalue()


def test_before_the_first_report_the_worker_groups_are_starting(clock):
    display = shown(plan(entry(A, "finished", value=0.5)))
    display.started(B)
    clock[0] = 12.0
    assert display._render().plain.splitlines() == [
        "study  1/4 done  starting the workers (12 s)",
        "best val/probe_top1 0.500 (lamb=0.1)",
        "running: lamb=0.2",
    ]


def test_machines_that_do_not_come_are_told_once(clock):
    display = shown(plan())
    machines = [0]
    display.started(A)
    for clock[0] in (0.0, 599.0, 600.0, 900.0):
        display.waits(lambda: machines[0])
    assert " ".join(printed(display).split()) == (
        "no machine in 10 minutes; waiting on; `ray status` on the head says why (ray exec CLUSTER.yaml 'ray status')"
    )
    other = shown(plan())
    machines[0] = 1
    clock[0] += 601.0
    other.waits(lambda: machines[0])
    machines[0] = 0  # asked once
    other.waits(lambda: machines[0])
    assert printed(other) == ""


def test_counts_hours_best_and_time_left(clock):
    display = shown(plan(), devices=2.0, unit="GPU-hours", budget=8.0)
    display.started(A)
    display.started(B)
    clock[0] = 3600.0  # the start of the worker groups says nothing of the pace
    display.progressed(A, 1)
    display.progressed(B, 1)
    assert "time left: measuring" in display._render().plain
    clock[0] = 3690.0
    display.progressed(A, 10)
    display.progressed(B, 4)
    display.ended(A, "finished", "", {"val/probe_top1": 0.75}, 3690.0)
    # 0.9 and 0.3 of a cell in 90 s each: 150 s per cell; 2.6 are left, two at once
    assert display._render().plain.splitlines() == [
        "study  1/4 done  1 running  4.10 of 8 GPU-hours  3 min left",
        "best val/probe_top1 0.750 (lamb=0.1)",
        "running: lamb=0.2 4/10",
    ]
    clock[0] = 3690.0 + 150.0
    assert "45 s left" in display._render().plain  # 195 s, counted down


def test_failures_of_this_launch_and_of_others_are_no_results():
    display = shown(plan(entry(A, "finished", value=0.5), cells=(UNTRAINED, A, B, C)))
    display.started(UNTRAINED)
    display.progressed(UNTRAINED, 0)
    display.ended(UNTRAINED, "finished", "", {"val/probe_top1": 0.9}, 1)
    display.started(B)
    display.ended(B, "failed", "ConfigError: no", {}, 2)
    text = display._render().plain
    assert text.startswith("study  2/4 done  0 running  1 failed  0.00 CPU-hours  time left: measuring\n")
    assert "best val/probe_top1 0.500 (lamb=0.1)" in text  # a reference does not compete
    assert display.outcome.ends[B.key] == CellEnd(label="lamb=0.2", status="failed", reason="ConfigError: no")


def test_on_a_pipe_every_cell_that_ends_has_a_line():
    display = shown(plan(entry(A, "finished")))
    with display.shown():
        for cell in (B, C):
            display.started(cell)
        display.ended(B, "diverged", "train/loss is nan in epoch 1", {}, 3)
        display.ended(C, "finished", "", {"val/probe_top1": 0.75}, 4)
    assert printed(display).splitlines() == [
        "study      2/4  lamb=0.2  diverged: train/loss is nan in epoch 1  (3 s)",
        "study      3/4  lamb=0.3  val/probe_top1 0.750  (4 s)",
    ]


def test_on_a_pipe_a_long_silence_is_broken(clock):
    display = shown(plan())
    display.started(A)
    display.progressed(A, 1)
    clock[0] = 21.0
    display.progressed(A, 2)
    # 21 s for a tenth of a cell; 3.8 cells are left
    assert printed(display).splitlines() == ["study  0/4 done  1 running  0.01 CPU-hours  13 min left"]


def test_on_a_terminal_only_what_went_wrong_keeps_a_line_of_one_line():
    display = shown(plan(), terminal=True)
    with display.shown():
        for cell in (A, B):
            display.started(cell)
        display.ended(A, "finished", "", {"val/probe_top1": 0.75}, 3)
        display.ended(B, "failed", "x" * 300, {}, 3)
    kept = [line for line in printed(display).split("\n") if "(3 s)" in line or "xxx" in line]
    assert len(kept) == 1
    assert "lamb=0.2  failed: xxx" in kept[0]
    assert "…" in kept[0]


@pytest.mark.parametrize(("rows", "height", "shown_rows"), [(3, 25, 3), (40, 25, 19), (40, 5, 0)])
def test_the_table_is_cut_to_the_terminal_and_the_status_stays_in_sight(rows: int, height: int, shown_rows: int):
    display = shown(plan(), height=height, table=lambda: "\n".join(f"| row {n} |" for n in range(rows)))
    display.started(A)
    lines = display._render().plain.splitlines()
    assert sum(line.startswith("| row") for line in lines) == shown_rows
    assert lines[-2:] == ["study  0/4 done  starting the workers (0 s)", "running: lamb=0.1"]
    assert len(lines) < height
    if shown_rows < rows:
        assert f"... {rows - shown_rows} more lines (python -m analysis study)" in lines


def test_a_cell_that_was_begun_says_from_where_it_goes_on():
    display = shown(plan(entry(A, "running", epoch=4), entry(B, "finished")))
    display.started(A)
    display.started(C)
    assert printed(display) == "lamb=0.1: begun before, goes on from its last checkpoint (epoch 4 of 10)\n"


def test_several_goals_show_the_size_of_the_pareto_set():
    display = shown(plan(sweep=TWO))
    for cell, accuracy, nonzero in ((A, 0.9, 0.5), (B, 0.8, 0.2), (C, 0.7, 0.3)):
        display.started(cell)
        display.ended(cell, "finished", "", {"val/probe_top1": accuracy, "val/nonzero_fraction": nonzero}, 1)
    assert "Pareto set of 2; best val/probe_top1 0.900 (lamb=0.1)" in display._render().plain


def test_the_pareto_set_grows_and_shrinks():
    display = shown(plan(sweep=TWO))
    sizes = []
    for accuracy, nonzero in ((1.0, 1.0), (2.0, 2.0), (1.0, 1.0), (0.5, 3.0), (math.nan, 0.0), (3.0, 0.5)):
        display.started(A)
        display.ended(A, "finished", "", {"val/probe_top1": accuracy, "val/nonzero_fraction": nonzero}, 1)
        sizes.append(re.findall(r"Pareto set of (\d+)", display._render().plain))
    assert sizes == [["1"], ["2"], ["3"], ["3"], ["3"], ["1"]]


def test_what_a_resumed_cell_repeats_is_not_its_pace():
    pace = Pace(0.0)
    pace.started("a", 0.0, 0.5)
    for epoch in range(1, 6):  # at once, from the checkpoint
        pace.progressed("a", 100.0, epoch / 10)
    assert pace.seconds_left(100.0, 1) is None
    pace.progressed("a", 110.0, 0.6)
    assert pace.seconds_left(110.0, 1) == pytest.approx(40.0)  # 10 s per epoch; 4 are left


def test_cells_of_one_epoch_are_timed_from_start_to_end():
    pace = Pace(0.0)
    for key, start in (("a", 0.0), ("b", 30.0)):  # the first waits for its worker group
        pace.started(key, start, 0.0)
        pace.progressed(key, start + 9.0 + 20.0 * (key == "a"), 1.0)
        pace.ended(key, start + 10.0 + 20.0 * (key == "a"), counts=True)
    assert pace.seconds_left(40.0, 3) == pytest.approx(3 * (10.0 + 1.0))


def facts_of(before: Plan, outcome: LaunchOutcome, *, spooled: str = "") -> dict[str, Any]:
    return summary(Launched(plan=before, outcome=outcome, table="", spooled=spooled))


def test_a_launch_is_complete_when_every_cell_has_a_result():
    before = plan(entry(A, "finished"), entry(B, "diverged"))
    ended = {C.key: CellEnd(label=C.label, status="pruned", reason="")}
    facts = facts_of(before, LaunchOutcome(ends=ended, hours=0.5))
    assert facts["states"] == {"missing": 1, "finished": 1, "diverged": 1, "pruned": 1}
    assert not facts["complete"]
    assert summary_lines(facts)[0].endswith("of 4 cells; 1 ended in this launch, which took 0.50 CPU-hours")
    ended[D.key] = CellEnd(label=D.label, status="collapsed", reason="std")
    assert facts_of(before, LaunchOutcome(ends=ended))["complete"]
    assert not facts_of(before, LaunchOutcome(ends=ended), spooled="7 records wait")["complete"]


def test_failures_of_earlier_launches_count_and_their_remedy_is_named():
    facts = facts_of(plan(entry(A, "failed"), cells=(A,)), LaunchOutcome())
    assert not facts["complete"]
    lines = summary_lines(facts)
    assert lines[1].startswith(f"  failed: lamb=0.1 ({A.key})")
    assert "--retry failed" in lines[2]
