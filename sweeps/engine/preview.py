"""The dry run: every cell of a sweep with its state, and its price where that is known."""

from typing import Any

from sweeps.engine.cells import Cell
from sweeps.engine.plan import Plan
from sweeps.engine.spec import BestOf, Sweep
from sweeps.engine.status import Facts, counts_of, state_of
from sweeps.engine.store import Entry


def preview(sweep: Sweep, plan: Plan | None, *, held: bool, price: Any = None) -> Facts:
    """The facts of --dry-run.

    Args:
        plan: None when the sweep's base is the best cell of a sweep that runs before it.
        held: whether a launch that lives holds the sweep.
        price: hours of each cell, and of all.
    """
    if plan is None:
        assert isinstance(sweep.base, BestOf)
        return {"sweep": sweep.name, "waits_for": sweep.base.sweep}
    cells = [_row(plan.entries.get(cell.key), cell, held=held, price=price) for cell in plan.fixed]
    cells += [_row(entry, Cell(config=entry.config(plan.base), label=entry.label), held=held) for entry in plan.points]
    return {
        "sweep": sweep.name,
        "kind": sweep.kind,
        "total": plan.total,
        "to_run": plan.todo,
        "states": counts_of([cell["state"] for cell in cells], plan.total),
        "cells": cells,
        "proposals": plan.proposals,
        "hours": price.total if price else None,
    }


def preview_lines(facts: Facts) -> list[str]:
    """The same, to be read."""
    if "waits_for" in facts:
        return [f"{facts['sweep']}: to be planned when {facts['waits_for']} has a best cell"]
    counts = ", ".join(f"{count} {state}" for state, count in facts["states"].items())
    lines = [f"{facts['sweep']}: {facts['total'] - facts['to_run']} of {facts['total']} cells done ({counts})"]
    for cell in facts["cells"]:
        hours = "" if cell["hours"] is None else f"{cell['hours']:8.2f} h  "
        notes = [cell["note"]] if cell["note"] else []
        notes += ["to compare with"] if cell["role"] == "reference" else []
        told = f"  ({'; '.join(notes)})" if notes else ""
        lines.append(f"  {cell['state']:<12}{hours}{cell['key']}  {cell['label']}{told}")
    if facts["proposals"]:
        lines.append(f"  {'missing':<12}{facts['proposals']} points, to be proposed by Optuna")
    return lines


def _row(entry: Entry | None, cell: Cell, *, held: bool, price: Any = None) -> Facts:
    state, note = state_of(entry, held=held)
    return {
        "key": cell.key,
        "label": cell.label,
        "role": cell.role,
        "state": state,
        "note": note,
        "hours": price.hours(cell) if price and state == "missing" else None,
    }
