"""What a launch leaves behind: every cell's state, and what to do about those without a result."""

from collections.abc import Mapping

from sweeps.engine.display import End
from sweeps.engine.plan import Plan
from sweeps.engine.status import Facts, counts_of, state_of
from sweeps.engine.store import RESULTS


def summary(plan: Plan, ends: Mapping[str, End], *, table: str, spooled: str = "") -> Facts:
    """The facts of the end of a launch, from the plan that it began with and the cells that ended since.

    Args:
        spooled: "" or one line about the metrics that have not reached the store.
    """
    planned = {cell.key: cell.label for cell in plan.fixed} | {entry.key: entry.label for entry in plan.points}
    before = {key: state_of(plan.entries.get(key), held=False) for key in planned}
    cells = {key: End(label=planned[key], status=state, reason=note) for key, (state, note) in before.items()} | {
        **ends
    }
    states = counts_of([cell.status for cell in cells.values()], plan.total)
    return {
        "sweep": plan.sweep.name,
        "total": plan.total,
        "ran": len(ends),
        "states": states,
        "failures": [
            {"key": key, "label": cell.label, "reason": cell.reason}
            for key, cell in cells.items()
            if cell.status == "failed"
        ],
        "complete": not spooled and states.keys() <= {*RESULTS, "pruned"},
        "spooled": spooled,
        "table": table,
    }


def summary_lines(facts: Facts) -> list[str]:
    """The same without the table, to be read."""
    counts = ", ".join(f"{count} {state}" for state, count in facts["states"].items())
    lines = [f"{facts['sweep']}: {counts} of {facts['total']} cells, {facts['ran']} of them ended in this launch"]
    lines += [f"  failed: {cell['label']} ({cell['key']}): {cell['reason']}" for cell in facts["failures"]]
    if facts["failures"]:
        lines.append("  failed cells run again with --retry failed; --explain CELL tells more")
    if "missing" in facts["states"]:
        lines.append(f"  {facts['states']['missing']} cells are still missing; the same command runs them")
    return lines + ([f"  {facts['spooled']}"] if facts["spooled"] else [])
