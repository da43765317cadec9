"""Live view of a sweep, its estimate of the time left, and the summary of a launch.

Run: python -m pytest tests/unit/run/test_display.py
"""

import dataclasses
import io
import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from rich.console import Console
from simulated_sweep import entry_of, plan_of

from jepa_train.config.presets import DIGITS
from sweeps.engine.cli.summary import printed_table, summary, summary_lines
from sweeps.engine.cluster.resources import Request
from sweeps.engine.plan.choice import read_choice
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
A, B, C, D = (make_cell(SWEEP, BASE, {"method.lamb": lamb}) for lamb in SWEEP.grids[0]["method.lamb"])
UNTRAINED = make_cell(SWEEP, BASE, {"epochs": 0}, role="reference")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The display's clock."""
    now = [0.0]
    monkeypatch.setattr(display_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def entry(cell: Cell, status: str, *, epoch: int = 10, value: float = math.nan) -> Entry:
    return entry_of(cell, status, metrics={"val/probe_top1": value}, epoch=epoch)


def plan(*entries: Entry, references: Sequence[dict[str, int]] = (), only: Sequence[str] = (), limit: int = 9) -> Plan:
    return plan_of(dataclasses.replace(SWEEP, references=references), entries, choice=read_choice(SWEEP, only, limit))


def display_of(of: Plan, *, terminal: bool = False, height: int = 25, gpus: int = 0, **options) -> Display:
    """A display that writes to a buffer."""
    console = Console(file=io.StringIO(), width=100, height=height, force_terminal=terminal)
    return Display(of, Request(workers=2 if gpus else 1, cpus=1, gpus=gpus, device=""), console=console, **options)


def printed(display: Display) -> list[str]:
    return display.console.file.getvalue().splitlines()


def rendered(display: Display) -> list[str]:
    return display._render().plain.splitlines()


def test_the_best_cell_is_one_that_the_sweep_asks_for():
    stale = make_cell(SWEEP, BASE, {"method.lamb": 0.9})
    display = display_of(plan(entry(stale, "finished", value=0.99), entry(A, "finished", value=0.5)))
    assert display._best == (0.5, A.label)


def test_counts_hours_best_and_time_left(clock):
    display = display_of(plan(entry(D, "failed"), references=[{"epochs": 0}]), gpus=1, budget=8.0)
    display.started(UNTRAINED)
    display.ended(UNTRAINED, "finished", "", {"val/probe_top1": 0.9})  # a reference does not compete
    display.started(A)
    display.started(B)
    clock[0] = 3600.0  # the start of the worker groups says nothing of the pace
    display.progressed(A, 1)
    display.progressed(B, 1)
    assert "time left: measuring" in rendered(display)[0]
    clock[0] = 3690.0
    display.progressed(A, 10)
    display.progressed(B, 5)
    display.ended(A, "finished", "", {"val/probe_top1": 0.75})
    # 1.4 cells in 90 s; 1.5 are left
    assert rendered(display) == [
        "study  2/5 done  1 running  1 failed  4.10 of 8 GPU-hours  2 min left",
        "best val/probe_top1 0.750 (lamb=0.1)",
        "running: lamb=0.2 5/10",
    ]
    display.ended(B, "failed", "ConfigError: no", {})
    assert "2/5 done  0 running  2 failed" in rendered(display)[0]
    display.started(C)
    display.ended(C, "failed", "ConfigError: no", {})
    ends = [line.split("failed: ")[1] for line in printed(display) if "failed: " in line]
    assert ends == ["ConfigError: no  (3690 s)", "as lamb=0.2  (0 s)"]
    assert display.outcome.ends[B.key] == CellEnd(label="lamb=0.2", status="failed", reason="ConfigError: no")


def test_on_a_pipe_cells_that_go_on_cells_that_end_and_long_silences_have_a_line(clock):
    display = display_of(plan(entry(A, "running", epoch=4)))
    with display.live():
        for cell in (A, B, C):
            display.started(cell)
        clock[0] = 3.0
        display.ended(B, "diverged", f"train/loss is nan in {'epoch ' * 20}1", {})
        clock[0] = 4.0
        display.ended(C, "finished", "", {"val/probe_top1": 0.75})
        display.progressed(A, 4)
        clock[0] = 25.0
        display.progressed(A, 5)
    assert printed(display) == [
        "lamb=0.1: begun before, goes on from its last checkpoint (epoch 4 of 10)",
        f"study      1/4  lamb=0.2  diverged: train/loss is nan in {'epoch ' * 20}1  (3 s)",  # not wrapped
        "study      2/4  lamb=0.3  val/probe_top1 0.750  (4 s)",
        # 21 s for a tenth of a cell; 1.5 cells are left
        "study  2/4 done  1 running  0.01 CPU-worker-hours  5 min left  best val/probe_top1 0.750 (lamb=0.3)",
    ]


def test_on_a_terminal_failures_alone_keep_a_line_which_is_cut():
    display = display_of(plan(), terminal=True)
    with display.live():
        for cell in (A, B):
            display.started(cell)
        display.ended(A, "finished", "", {"val/probe_top1": 0.75})
        display.ended(B, "failed", "x" * 300, {})
    (kept,) = [line for line in printed(display) if "lamb=0.1  " in line or "xxx" in line]
    assert "lamb=0.2  failed: xxx" in kept
    assert "…" in kept


@pytest.mark.parametrize(("rows", "height", "visible"), [(3, 25, 3), (40, 25, 19), (40, 5, 0)])
def test_the_table_is_cut_to_the_terminal_and_the_status_stays_in_sight(rows: int, height: int, visible: int):
    begun = plan(entry(A, "running", epoch=4))
    display = display_of(begun, height=height, table=lambda: "\n".join(f"| row {n} |" for n in range(rows)))
    display.started(A)
    lines = rendered(display)
    assert sum(line.startswith("| row") for line in lines) == visible
    assert lines[-2:] == ["study  0/4 done  starting the workers (0 s)", "running: lamb=0.1"]
    assert len(lines) < height
    assert visible == rows or f"... {rows - visible} more lines (python -m analysis study)" in lines


def test_before_the_first_cell_has_ended_there_is_no_table():
    assert rendered(display_of(plan(), table=lambda: "study has no runs yet"))[0].startswith("study  0/4 done")


def test_reports_that_a_resumed_cell_repeats_are_not_its_pace(clock):
    display = display_of(plan(*(entry(cell, "finished") for cell in (B, C, D)), entry(A, "running", epoch=5)))
    display.started(A)
    clock[0] = 100.0
    for epoch in range(1, 6):  # at once, from the checkpoint
        display.progressed(A, epoch)
    assert "time left: measuring" in rendered(display)[0]
    clock[0] = 111.0
    display.progressed(A, 6)
    assert "45 s left" in rendered(display)[0]  # 11 s per epoch; 4 are left


def test_a_launch_is_complete_when_every_cell_has_a_result_and_failures_name_their_remedy():
    before = plan(entry(A, "failed"), entry(B, "diverged"))
    ended = {C.key: CellEnd(label=C.label, status="pruned", reason="")}
    outcome = LaunchOutcome(ends=ended, hours=0.5, lost_hours=0.002, unit="GPU-hours")
    facts = summary(Launched(plan=before, outcome=outcome, table="", spooled=""))
    assert facts["states"] == {"missing": 1, "diverged": 1, "pruned": 1, "failed": 1}
    lines = summary_lines(facts)
    spent = "0.50 GPU-hours (7.2 GPU-seconds of them lost with workers)"
    assert lines[0].endswith(f"of 4 cells; 1 ended in this launch, which took {spent}")
    assert lines[1].startswith(f"  1 failed: lamb=0.1 ({A.key})")
    assert "--retry failed" in lines[2]
    assert not facts["complete"]
    assert printed_table(facts | {"table": "| a |\n\nstudy: 1 missing, 1 diverged, 1 pruned, 1 failed"}) == "| a |"
    assert printed_table(facts | {"table": "| a |\n\nstudy: 4 finished"}) == "| a |\n\nstudy: 4 finished"
    ended |= {cell.key: CellEnd(label="", status="collapsed", reason="std") for cell in (A, D)}
    for spooled in ("", "7 records wait"):
        launched = Launched(plan=before, outcome=LaunchOutcome(ends=ended), table="", spooled=spooled)
        assert summary(launched)["complete"] == (not spooled)


@pytest.mark.parametrize(
    ("only", "limit", "ended", "complete", "remedy"),
    [
        (
            ["lamb=0.2,0.3"],
            9,
            {"finished": [B, C]},
            True,
            "1 cells have no result yet; the same command without --only",
        ),
        (["lamb=0.2,0.3"], 9, {"finished": [B]}, False, "2 cells have no result yet; the same command without --only"),
        (["lamb=0.2"], 9, {"failed": [B]}, False, "2 cells have no result yet; the same command without --only"),
        ([], 2, {"finished": [B, C]}, True, "1 cells have no result yet; the same command runs them"),
        ([], 2, {"finished": [B], "failed": [C]}, False, "1 cells have no result yet; the same command runs them"),
        ([], 3, {"finished": [B, C]}, False, "1 cells have no result yet; the same command runs them"),
    ],
)
def test_a_launch_of_some_cells_is_complete_when_these_have_results(
    only: list[str], limit: int, ended: dict[str, list[Cell]], complete: bool, remedy: str
):
    chosen = plan(entry(A, "finished"), only=only, limit=limit)
    ends = {cell.key: CellEnd(label="", status=status, reason="") for status in ended for cell in ended[status]}
    facts = summary(Launched(plan=chosen, outcome=LaunchOutcome(ends=ends), table="", spooled=""))
    assert facts["complete"] == complete
    assert summary_lines(facts)[-1].startswith(f"  {remedy}")


def test_cells_that_a_search_does_not_need_leave_the_count():
    display = display_of(plan())
    display.started(A)
    display.recount(3)
    display.ended(A, "finished", "", {"val/probe_top1": 0.5})
    assert printed(display)[0].startswith("study      1/3  lamb=0.1")
    assert rendered(display)[0].startswith("study  1/3 done")


def test_cells_that_a_search_does_not_need_are_no_work_done_and_leave_a_limit_as_it_is():
    pace = Pace()
    for now, left in ((0.0, 16.0), (100.0, 15.0)):
        pace.report(now, left)
    pace.change(-2)
    assert pace.seconds_left(100.0) == 13 * 100
    display, changes = display_of(plan(limit=2)), []
    display._pace.change = changes.append
    display.recount(3)
    assert display.todo == 2
    display.recount(1)
    assert display.todo == 1
    assert changes == [0, -1]


def test_cells_that_are_not_chosen_count_as_left():
    display = display_of(plan(entry(A, "finished"), limit=1))
    display.started(B)
    display.ended(B, "finished", "", {"val/probe_top1": 0.5})
    assert printed(display)[0].startswith("study      2/4  lamb=0.2")
