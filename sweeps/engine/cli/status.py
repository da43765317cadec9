"""--status: the state of a sweep, from the store alone; and --watch, which reads it again and again."""

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from analysis.device_time import device_time, unit_of
from analysis.select.objectives import Goal
from sweeps.engine.plan.cell_state import Rules, counted, counts_of, is_done
from sweeps.engine.plan.edits import edits_in_store
from sweeps.engine.run.display import cut
from sweeps.engine.spec.cells import grid_points
from sweeps.engine.spec.search_space import size, space_at
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.lock import holder_of
from sweeps.engine.store.reader import Entry, StoredSweep, read_sweep, shown_uri

Facts = dict[str, Any]  # printed by --json, and the source of the text
_NAMED = 6  # failed cells that a line names
_REFRESH_S = 5.0  # between two readings
_SHARE = 10  # of the time, as 1 / _SHARE, goes into reading at most: a big store takes seconds
_OPEN = ("missing", "interrupted", "running")


def status(sweep: Sweep, words: Sequence[str] = ()) -> Facts:
    """The facts of --status. words: assignments of the command line, which count as edits of the sweep."""
    stored, holder = read_sweep(sweep.name), holder_of(sweep.name)
    entries, spent = stored.current, stored.runs
    rules = Rules(held=holder is not None, stopping=sweep.early_stopping is not None)
    states = [rules.state(entry) for entry in entries]
    total = _total(sweep, stored)
    return {
        "sweep": sweep.name,
        "store": shown_uri(),
        "holder": holder.description if holder else None,
        "total": total,
        "states": counts_of(states, total),
        "outdated": sum(entry.outdated and is_done(state) for entry, state in zip(entries, states, strict=True)),
        **{
            name: [_begun(entry, sweep.goals[0]) for entry, each in zip(entries, states, strict=True) if each == name]
            for name in ("running", "interrupted")
        },
        "failures": [
            {"key": entry.key, "label": entry.label, "reason": entry.reason}
            for entry in entries
            if entry.status == "failed"
        ],
        "device_hours": sum(entry.device_seconds for entry in spent) / 3600,
        "lost_device_hours": sum(entry.lost_device_seconds for entry in spent) / 3600,
        "unit": unit_of(next((entry.resources for entry in reversed(spent) if entry.resources), "")),
        "overrides": json.loads(stored.tags.get("sweep.overrides", "{}")),
        "edited": edits_in_store(sweep, stored, rules, words),
    }


def status_lines(facts: Facts) -> list[str]:
    """The facts of --status as lines of text."""
    held = f"run by {facts['holder']}" if facts["holder"] else "no launch runs it"
    lines = [f"{facts['sweep']}: {counted(facts['states'])} of {facts['total']} cells; {held}"]
    for state, cell in ((name, cell) for name in ("running", "interrupted") for cell in facts[name]):
        score = "" if cell["value"] is None else f"  {cell['objective']} {cell['value']:.3f}"
        epochs = "?" if cell["epochs"] is None else cell["epochs"]
        lines.append(f"  {state:<12}{cell['key']}  {cell['label']}  epoch {cell['epoch']} of {epochs}{score}")
    lines += failure_lines(facts) + remark_lines(facts)
    spent = device_time(facts["device_hours"], facts["unit"], facts["lost_device_hours"])
    return [*lines, f"  {spent} used", *edit_lines(facts)]


def watch_status(
    sweeps: Sequence[Sweep], words: Sequence[str], console: Console, *, sleep: Callable[[float], object] = time.sleep
) -> None:
    """Show the status until every cell has ended, or until Ctrl-C.

    A terminal has one screen, which stays at the end. Elsewhere the status is printed again where its counts change.

    Args:
        words: assignments of the command line.
    """
    live = Live(console=console, auto_refresh=False, vertical_overflow="crop") if console.is_terminal else None
    seen: list[dict[str, int]] = []
    with suppress(KeyboardInterrupt), live or nullcontext():
        while True:
            began = time.monotonic()
            facts = [status(sweep, words) for sweep in sweeps]
            lines, states = [line for each in facts for line in status_lines(each)], [each["states"] for each in facts]
            if live is not None:
                shown = "\n".join(cut(lines, max(1, console.height - 2)))
                live.update(Text(shown, no_wrap=True, overflow="ellipsis"), refresh=True)
            elif states != seen:
                sys.stdout.write("\n".join(lines) + "\n")
                sys.stdout.flush()
            seen = states
            if not any(state in _OPEN for counts in states for state in counts):
                return
            sleep(max(_REFRESH_S, _SHARE * (time.monotonic() - began)))


def failure_lines(facts: Facts) -> list[str]:
    """The failed cells, those with equal reasons in one line."""
    cells: dict[str, list[str]] = {}
    for cell in facts["failures"]:
        cells.setdefault(cell["reason"], []).append(f"{cell['label']} ({cell['key']})")
    return [
        f"  {len(named)} failed: {', '.join(named[:_NAMED])}"
        f"{f' and {len(named) - _NAMED} more' if len(named) > _NAMED else ''}{f': {reason}' if reason else ''}"
        for reason, named in cells.items()
    ]


def edit_lines(facts: Facts) -> list[str]:
    """The line on the edits of a sweep's file or of its command line; none without one."""
    new, dropped = facts["edited"]["new"], facts["edited"]["dropped"]
    return [f"  file or command line changed since: {new} new, {dropped} dropped"] if new or dropped else []


def remark_lines(facts: Facts) -> list[str]:
    """Lines on cells whose code has changed since, and on the fields of the base that the command line sets."""
    fields = " ".join(f"{key}={text}" for key, text in facts["overrides"].items())
    remedy = "outdated, by other code than the present; --retry outdated runs them again"
    lines = [f"  {facts['outdated']} {remedy}"] if facts["outdated"] else []
    return lines + ([f"  base with {fields}, by the command line"] if fields else [])


def _begun(entry: Entry, goal: Goal) -> Facts:
    value = goal.score(entry.metrics, entry.params)
    return {
        "key": entry.key,
        "label": entry.label,
        "epoch": entry.epoch,
        "epochs": int(entry.params["epochs"]) if entry.params else None,  # a new run has none for a moment
        "objective": goal.name,
        "value": None if math.isnan(value) else value,
    }


def _total(sweep: Sweep, stored: StoredSweep) -> int:
    """The number of all cells: that of the last launch, in a store without it that of the sweep's file."""
    if stored.requested is not None and "sweep.total" in stored.tags:
        return int(stored.tags["sweep.total"])
    total = len(sweep.references)
    for point in grid_points(sweep):
        points = int(min(sweep.trials, size(space_at(sweep.domains, point))))  # 0 without a search
        total += len(sweep.seeds) + sweep.seeds_per_trial * max(0, points - 1)
    return max(total, len(stored.requested or ()), len(stored.current))
