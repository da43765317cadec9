"""--status: the state of a sweep, from the store alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.select.objectives import Goal
from analysis.store.cell_list import recorded_cells
from sweeps.engine.plan.cell_state import Rules, counted, counts_of
from sweeps.engine.plan.edits import Edits, edits_in_store
from sweeps.engine.run.eta import duration
from sweeps.engine.spec.cells import grid_points
from sweeps.engine.spec.search_space import size
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.lock import holder_of
from sweeps.engine.store.reader import Entry, find_experiment, read_runs, requested_entries, shown_uri

Facts = dict[str, Any]  # printed by --json, and the source of the text


def status(sweep: Sweep) -> Facts:
    """The facts of --status."""
    experiment = find_experiment(sweep.name)
    tags, runs = experiment.tags if experiment is not None else {}, read_runs(experiment)
    entries = requested_entries(runs[0], recorded_cells(tags))
    holder = holder_of(sweep.name) if experiment is not None else None
    rules = Rules(held=holder is not None)
    states = [rules.state(entry) for entry in entries]
    total = _total(sweep, tags, len(entries))
    running = [entry for entry, state in zip(entries, states, strict=True) if state == "running"]
    return {
        "sweep": sweep.name,
        "store": shown_uri(),
        "holder": holder.description if holder else None,
        "total": total,
        "states": counts_of(states, total),
        "running": [_running(entry, sweep.goals[0]) for entry in running],
        "failures": [
            {"key": entry.key, "label": entry.label, "reason": entry.reason}
            for entry in entries
            if entry.status == "failed"
        ],
        "device_hours": sum(entry.device_seconds for entry in entries) / 3600,
        "lost_device_hours": sum(entry.lost_device_seconds for entry in entries) / 3600,
        "seconds_left": _time_left(sweep, entries, states, total),
        **edit_facts(edits_in_store(sweep, experiment, runs, rules)),
    }


def status_lines(facts: Facts) -> list[str]:
    """The facts of --status as lines of text."""
    held = f"run by {facts['holder']}" if facts["holder"] else "no launch runs it"
    lines = [f"{facts['sweep']}: {counted(facts['states'])} of {facts['total']} cells; {held}"]
    for cell in facts["running"]:
        score = "" if cell["value"] is None else f"  {cell['objective']} {cell['value']:.3f}"
        lines.append(f"  running     {cell['key']}  {cell['label']}  epoch {cell['epoch']} of {cell['epochs']}{score}")
    lines += [f"  failed      {cell['key']}  {cell['label']}: {cell['reason']}" for cell in facts["failures"]]
    lost = f" ({facts['lost_device_hours']:.2g} of them lost with workers)" if facts["lost_device_hours"] else ""
    spent = f"  {facts['device_hours']:.2f} device-hours used{lost}"
    left = facts["seconds_left"]
    lines.append(spent if left is None else f"{spent}, {duration(left)} left")
    return lines + edit_lines(facts)


def edit_facts(edits: Edits) -> Facts:
    """The edits of a sweep's file since its last launch."""
    return {"edited": {"new": edits.new, "dropped": edits.dropped}}


def edit_lines(facts: Facts) -> list[str]:
    """The line on the edits of a sweep's file; none without one."""
    line = Edits(**facts["edited"]).line
    return [f"  {line}"] if line else []


def _running(entry: Entry, goal: Goal) -> Facts:
    value = goal.score(entry.metrics, entry.params)
    return {
        "key": entry.key,
        "label": entry.label,
        "epoch": entry.epoch,
        "epochs": int(entry.params["epochs"]),
        "objective": goal.name,
        "value": None if math.isnan(value) else value,
    }


def _total(sweep: Sweep, tags: Mapping[str, str], begun: int) -> int:
    """The number of all cells: that of the last launch, in a store without it that of the sweep's file.

    Args:
        tags: of the experiment.
        begun: number of the cells that have a run.
    """
    requested = recorded_cells(tags)
    if requested is not None and "sweep.total" in tags:
        return max(int(tags["sweep.total"]), len(requested))
    if requested is not None and not sweep.space:
        return len(requested)
    each = len(sweep.seeds)
    if sweep.space:  # a search, and its winner with the other seeds
        each = int(min(sweep.trials, size(sweep.space))) + len(sweep.seeds) - 1
    return max(len(sweep.references) + len(grid_points(sweep)) * each, len(requested or ()), begun)


def _time_left(sweep: Sweep, entries: Sequence[Entry], states: Sequence[str], total: int) -> float | None:
    """Seconds by the mean time of a cell so far, running ones counted by their epochs; None if that is unknown."""
    trained = [
        (entry, entry.epoch / max(1, int(entry.params["epochs"])) if state == "running" else 1.0)
        for entry, state in zip(entries, states, strict=True)
        if state not in ("missing", "failed") and entry.params.get("epochs") != "0"
    ]
    lanes, cells = states.count("running"), sum(fraction for _, fraction in trained)
    if not lanes or cells <= 0:
        return None
    devices = sweep.workers * (sweep.gpus_per_worker if sweep.gpus_per_worker > 0 else 1.0)
    each = sum(entry.device_seconds for entry, _ in trained) / devices / cells
    ended = sum(state not in ("missing", "running") for state in states)
    running = sum(fraction for entry, fraction in trained if entry.status == "running")
    return each * (total - ended - running) / lanes
