"""--watch on statuses from a list: one screen on a terminal, the status at each change elsewhere.

Run: python -m pytest tests/unit/cli/test_watch.py
"""

import io
from collections.abc import Iterator, Sequence

import pytest
from rich.console import Console

from jepa_train.config.presets import DIGITS
from sweeps.engine.cli import status as status_module
from sweeps.engine.cli.status import Facts, status_lines, watch_status
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import Entry

SWEEP = Sweep(name="study", purpose="", base=DIGITS)


def facts(**states: int) -> Facts:
    spent = {"device_hours": 1.0, "lost_device_hours": 0.0, "unit": "GPU-hours"}
    cells = {"running": [], "interrupted": [], "failures": [], "overrides": {}, "edited": {"new": 0, "dropped": 0}}
    return {"sweep": "study", "holder": None, "total": 4, "states": states, "outdated": 0, **cells, **spent}


MISSING, HALF, DONE = facts(missing=4), facts(missing=2, finished=2), facts(finished=3, failed=1)
INTERRUPTED, RUNNING = facts(interrupted=1, finished=3), facts(running=1, finished=3)


def watched(monkeypatch: pytest.MonkeyPatch, statuses: Sequence[Facts], *, terminal: bool, height: int = 25) -> str:
    """Output on a terminal of a watch that reads these statuses, then gets Ctrl-C."""
    readings: Iterator[Facts] = iter(statuses)

    def read(sweep: Sweep, words: Sequence[str]) -> Facts:  # noqa: ARG001
        found = next(readings, None)
        if found is None:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(status_module, "status", read)
    console = Console(file=io.StringIO(), width=80, height=height, force_terminal=terminal)
    watch_status([SWEEP], [], console, sleep=lambda _: None)
    assert next(readings, None) is None, "it ended too early"
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("statuses", "lines"),
    [
        ([MISSING] * 50, ["study: 4 missing of 4 cells; no launch runs it", "  1.00 GPU-hours used"]),
        (
            [MISSING, HALF, HALF, DONE],
            [
                "study: 4 missing of 4 cells; no launch runs it",
                "  1.00 GPU-hours used",
                "study: 2 missing, 2 finished of 4 cells; no launch runs it",
                "  1.00 GPU-hours used",
                "study: 3 finished, 1 failed of 4 cells; no launch runs it",
                "  1.00 GPU-hours used",
            ],
        ),
        (
            [INTERRUPTED, RUNNING, DONE],
            [
                "study: 1 interrupted, 3 finished of 4 cells; no launch runs it",
                "  1.00 GPU-hours used",
                "study: 1 running, 3 finished of 4 cells; no launch runs it",
                "  1.00 GPU-hours used",
                "study: 3 finished, 1 failed of 4 cells; no launch runs it",
                "  1.00 GPU-hours used",
            ],
        ),
    ],
    ids=["no change until Ctrl-C", "until every cell has ended", "until the last one has"],
)
def test_a_pipe_gets_the_status_at_each_change(
    statuses: list[Facts], lines: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watched(monkeypatch, statuses, terminal=False) == ""
    assert capsys.readouterr().out.splitlines() == lines


def test_a_terminal_has_one_screen_cut_to_its_height(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = [{"key": str(number), "label": f"p={number}", "reason": f"r{number}"} for number in range(30)]
    shown = watched(monkeypatch, [MISSING, HALF | {"failures": failed}], terminal=True, height=10)
    assert capsys.readouterr().out == ""
    last = shown.rpartition("study: 2 missing")[2]
    assert "... 25 more lines" in last
    assert last.count("\n") < 10


def test_a_run_without_parameters_has_begun() -> None:
    """As for a moment after its start."""
    entry = Entry(run_id="1", key="0123", label="lamb=0.1", params={}, metrics={})
    begun = status_module._begun(entry, SWEEP.goals[0])
    (_, line, *_) = status_lines(facts(running=1) | {"running": [begun]})
    assert line == "  running     0123  lamb=0.1  epoch 0 of ?"
