"""Summary of a launch: the number of cells in each state, and the remedy for those without a result."""

from collections.abc import Mapping

from analysis.device_time import device_time
from sweeps.engine.cli.status import Facts, failure_lines
from sweeps.engine.plan.cell_state import counted, counts_of, is_done
from sweeps.engine.plan.plan import Plan
from sweeps.engine.run.display import CellEnd
from sweeps.engine.run.launch import Launched


def summary(launched: Launched) -> Facts:
    """The facts at the end of a launch."""
    plan, outcome = launched.plan, launched.outcome
    rows = plan.rows()
    cells = {
        row.cell.key: CellEnd(label=row.cell.label, status=row.state, reason=row.note) for row in rows
    } | outcome.ends
    states = counts_of([cell.status for cell in cells.values()], plan.total)
    return {
        "sweep": plan.sweep.name,
        "total": plan.total,
        "ran": len(outcome.ends),
        "hours": outcome.hours,
        "lost_hours": outcome.lost_hours,
        "unit": outcome.unit,
        "states": states,
        "failures": [
            {"key": key, "label": cell.label, "reason": cell.reason}
            for key, cell in cells.items()
            if cell.status == "failed"
        ],
        "complete": not launched.spooled and _ran_all(plan, cells, len(outcome.ends.keys() | outcome.waiting)),
        "chosen": bool(plan.rules.choice.values),
        "spooled": launched.spooled,
        "table": launched.table,
    }


def _ran_all(plan: Plan, cells: Mapping[str, CellEnd], ran: int) -> bool:
    """True if every cell that the launch was to run has a result."""
    states = [cells[cell.key].status for cell in plan.known if plan.chooses(cell)]
    states += ["missing"] * sum(search.num_unknown for search in plan.searches if plan.runs(search))
    left = ("missing", "interrupted") if ran == plan.rules.choice.limit else ()
    return all(is_done(state) or state in left for state in states)


def printed_table(facts: Facts) -> str:
    """The table, without a note of the same counts as in the summary below it."""
    counts = f"{facts['sweep']}: {counted(facts['states'])}"
    return facts["table"].removesuffix(f"\n\n{counts}")


def summary_lines(facts: Facts) -> list[str]:
    """The facts as lines of text, without the table and without the reasons of failures that its note has."""
    spent = f", which took {device_time(facts['hours'], facts['unit'], facts['lost_hours'])}" if facts["ran"] else ""
    ran = f"{facts['ran']} ended in this launch{spent}"
    lines = [f"{facts['sweep']}: {counted(facts['states'])} of {facts['total']} cells; {ran}"]
    known = [cell | {"reason": ""} if cell["reason"] in facts["table"] else cell for cell in facts["failures"]]
    lines += failure_lines({"failures": known})
    if facts["failures"]:
        lines.append("  failed cells run again with --retry failed; --explain CELL tells more")
    if left := sum(facts["states"].get(state, 0) for state in ("missing", "interrupted")):
        without = " without --only" * facts["chosen"]
        lines.append(f"  {left} cells have no result yet; the same command{without} runs them")
    return lines + ([f"  {facts['spooled']}"] if facts["spooled"] else [])
