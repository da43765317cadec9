"""States of cells for display, and the rule by which a launch runs a cell."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from sweeps.engine.plan.choice import CellChoice
from sweeps.engine.store.reader import Entry

State = Literal["missing", "interrupted", "running", "finished", "diverged", "collapsed", "pruned", "failed"]
_ENDED: dict[str, State] = {state: state for state in get_args(State)[3:]}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Reading of the ledger by a launch.

    Args:
        retry: states of ended cells that run again, "failed"; and "outdated": cells of other code run from the start.
        held: a living launch holds the sweep, so that cells with status running do run.
        stopping: the sweep stops early; without that, cells that were stopped early run on.
        choice: which of the cells without a result this launch runs.
    """

    retry: frozenset[str] = frozenset()
    held: bool = False
    stopping: bool = False
    choice: CellChoice = field(default_factory=CellChoice)

    def state(self, entry: Entry | None) -> State:
        """The state of a cell with this entry; one that runs again from the start is missing."""
        if entry is None or entry.restart:
            return "missing"
        if entry.status == "running" and self.held:
            return "running"
        return _ENDED.get(entry.status, "interrupted")

    def due(self, entry: Entry | None) -> bool:
        """True for a cell that lacks a result; of these a launch runs those that it chooses."""
        state = self.state(entry)
        return state in ("missing", "interrupted") or state in self.retry or (state == "pruned" and not self.stopping)

    def read(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        """The entries as a launch takes them: without results of other code, if it is to compute these again."""
        if "outdated" not in self.retry:
            return dict(entries)
        stay = {"running", "failed"} - self.retry  # cells of another launch, and failures that are not to run again
        again = {
            key: entry.outdated and self.state(entry) not in stay and self.choice.takes(entry.params, entry.role)
            for key, entry in entries.items()
        }
        return {key: entry.restarted() if again[key] else entry for key, entry in entries.items()}

    def note(self, entry: Entry | None, epochs: int) -> str:
        """Short detail of the state for display, e.g. "epoch 3 of 20" or the reason of its end; "" if none."""
        if entry is None:
            return ""
        state = self.state(entry)
        if entry.restart:
            return "outdated, runs again from the start"
        if state in ("interrupted", "running"):
            return f"epoch {entry.epoch} of {epochs}"
        again = f"{'; ' if entry.reason else ''}runs {'on' if state == 'pruned' else 'again'}"
        return entry.reason + (again if self.due(entry) else "")


def counts_of(states: Sequence[str], total: int) -> dict[str, int]:
    """Number of cells in each state, in the order of State; unknown cells are missing."""
    found = Counter(states)
    found["missing"] += max(0, total - len(states))
    return {state: found[state] for state in get_args(State) if found[state]}


def is_done(state: str) -> bool:
    """True where a cell in this state has a result."""
    return state in ("finished", "diverged", "collapsed", "pruned")


def counted(states: Mapping[str, int]) -> str:
    """States for display: "3 finished, 1 failed"."""
    return ", ".join(f"{count} {state}" for state, count in states.items())
