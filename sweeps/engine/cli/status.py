"""--status: the state of a sweep, from the store alone."""

import json
import math
from collections.abc import Sequence
from typing import Any

from analysis.device_time import device_time, unit_of
from analysis.select.objectives import Goal
from sweeps.engine.plan.cell_state import Rules, counted, counts_of, is_done
from sweeps.engine.plan.edits import edits_in_store
from sweeps.engine.run.eta import duration
from sweeps.engine.spec.cells import grid_points
from sweeps.engine.spec.search_space import size, space_at
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.lock import holder_of
from sweeps.engine.store.reader import Entry, StoredSweep, read_sweep, shown_uri

Facts = dict[str, Any]  # printed by --json, and the source of the text
_NAMED = 6  # failed cells that a line names


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
        "seconds_left": _time_left(sweep, entries, states, total),
        "overrides": json.loads(stored.tags.get("sweep.overrides", "{}")),
        "edited": edits_in_store(sweep, stored, rules, words),
    }


def status_lines(facts: Facts) -> list[str]:
    """The facts of --status as lines of text."""
    held = f"run by {facts['holder']}" if facts["holder"] else "no launch runs it"
    lines = [f"{facts['sweep']}: {counted(facts['states'])} of {facts['total']} cells; {held}"]
    for state, cell in ((name, cell) for name in ("running", "interrupted") for cell in facts[name]):
        score = "" if cell["value"] is None else f"  {cell['objective']} {cell['value']:.3f}"
        lines.append(f"  {state:<12}{cell['key']}  {cell['label']}  epoch {cell['epoch']} of {cell['epochs']}{score}")
    lines += failure_lines(facts) + outdated_lines(facts) + override_lines(facts)
    spent = device_time(facts["device_hours"], facts["unit"], facts["lost_device_hours"])
    left = facts["seconds_left"]
    lines.append(f"  {spent} used" if left is None else f"  {spent} used, {duration(left)} left")
    return lines + edit_lines(facts)


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


def override_lines(facts: Facts) -> list[str]:
    """The line on the fields of the base that the command line sets; none without one."""
    fields = " ".join(f"{key}={text}" for key, text in facts["overrides"].items())
    return [f"  base with {fields}, by the command line"] if fields else []


def outdated_lines(facts: Facts) -> list[str]:
    """A line on the cells whose code has changed since, if there are any."""
    remedy = "outdated, by other code than the present; --retry outdated runs them again"
    return [f"  {facts['outdated']} {remedy}"] if facts["outdated"] else []


def _begun(entry: Entry, goal: Goal) -> Facts:
    value = goal.score(entry.metrics, entry.params)
    return {
        "key": entry.key,
        "label": entry.label,
        "epoch": entry.epoch,
        "epochs": int(entry.params["epochs"]),
        "objective": goal.name,
        "value": None if math.isnan(value) else value,
    }


def _total(sweep: Sweep, stored: StoredSweep) -> int:
    """The number of all cells: that of the last launch, in a store without it that of the sweep's file."""
    requested = stored.requested
    if requested is not None and "sweep.total" in stored.tags:
        return int(stored.tags["sweep.total"])
    if requested is not None and not sweep.space:
        return len(requested)
    each, points = sweep.seeds_per_trial, grid_points(sweep)
    counts = [len(sweep.seeds)] * len(points)
    if sweep.space:  # a search, and its winner with the other seeds
        sizes = (int(min(sweep.trials, size(space_at(sweep.domains, point)))) for point in points)
        counts = [number * each + len(sweep.seeds) - each for number in sizes]
    return max(len(sweep.references) + sum(counts), len(requested or ()), len(stored.current))


def _time_left(sweep: Sweep, entries: Sequence[Entry], states: Sequence[str], total: int) -> float | None:
    """Seconds by the mean time of a cell so far, running ones counted by their epochs; None if that is unknown."""
    trained = [
        (entry, entry.epoch / max(1, int(entry.params["epochs"])) if state == "running" else 1.0)
        for entry, state in zip(entries, states, strict=True)
        if state not in ("missing", "interrupted", "failed") and entry.params.get("epochs") != "0"
    ]
    lanes, cells = states.count("running"), sum(fraction for _, fraction in trained)
    if not lanes or cells <= 0:
        return None
    devices = sweep.workers * (sweep.gpus_per_worker if sweep.gpus_per_worker > 0 else 1.0)
    each = sum(entry.device_seconds for entry, _ in trained) / devices / cells
    ended = sum(state not in ("missing", "interrupted", "running") for state in states)
    running = sum(fraction for entry, fraction in trained if entry.status == "running")
    return each * (total - ended - running) / lanes
