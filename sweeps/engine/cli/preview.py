"""--dry-run: every cell of a sweep with its state, and its price if that is known."""

from sweeps.engine.cli.status import Facts, edit_lines, remark_lines
from sweeps.engine.plan.cell_state import counted, counts_of, is_done
from sweeps.engine.plan.edits import edits_of
from sweeps.engine.plan.plan import Plan
from sweeps.engine.run.estimate import Price
from sweeps.engine.spec.sweep import BestOf, Sweep


def preview(sweep: Sweep, plan: Plan | None, price: Price | None) -> Facts:
    """The facts of --dry-run.

    Args:
        plan: None if the sweep's base is the best cell of a sweep that runs before it.
        price: of the plan; None with it.
    """
    if plan is None:
        assert isinstance(sweep.base, BestOf)
        return {"sweep": sweep.name, "waits_for": sweep.base.sweep}
    rows = plan.rows()
    return {
        "sweep": sweep.name,
        "kind": sweep.kind,
        "total": plan.total,
        "done": sum(is_done(row.state) and not row.due for row in rows),
        "to_run": plan.todo,
        "states": counts_of([row.state for row in rows], plan.total),
        "outdated": plan.outdated,
        "cells": [
            {**row.facts, "due": row.due, "hours": price.hours(row.cell) if price and row.due else None} for row in rows
        ],
        "to_be_proposed": plan.total - len(rows),
        "hours": price.total if price else None,
        "unit": price.request.unit if price else None,
        "dollars": price.dollars if price else None,
        "price": price.lines() if price else [],
        "overrides": dict(plan.overrides),
        "edited": edits_of(plan),
    }


def preview_lines(facts: Facts) -> list[str]:
    """The facts of --dry-run as lines of text."""
    if "waits_for" in facts:
        return [f"{facts['sweep']}: to be planned when {facts['waits_for']} has a best cell"]
    lines = [f"{facts['sweep']}: {facts['done']} of {facts['total']} cells done ({counted(facts['states'])})"]
    for cell in facts["cells"]:
        hours = "" if not facts["hours"] else f"{cell['hours']:>8.2g} h  " if cell["hours"] else " " * 12
        notes = [cell["note"]] if cell["note"] else []
        notes += ["to compare with"] if cell["role"] == "reference" else []
        detail = f"  ({'; '.join(notes)})" if notes else ""
        lines.append(f"  {cell['state']:<12}{hours}{cell['key']}  {cell['label']}{detail}")
    if facts["to_be_proposed"]:
        lines.append(f"  {'missing':<12}{facts['to_be_proposed']} cells that the search chooses as it goes")
    return lines + remark_lines(facts) + facts["price"] + edit_lines(facts)
