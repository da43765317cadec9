"""Launching: the command line of a sweep file, from its plan to the printed table and an honest exit code."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from analysis.tables import table
from jepa_train.checks import ConfigError
from jepa_train.config import TrainConfig, cell_fields, parse, unflatten
from jepa_train.preflight import preflight
from sweeps.engine.cells import Cell, fixed_cells
from sweeps.engine.spec import BestOf, Sweep
from sweeps.engine.store import Entry, best_config, store_uri
from sweeps.engine.tracking import Ledger, read_ledger


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the store lacks of a sweep."""

    sweep: Sweep
    base: TrainConfig
    fixed: list[Cell]  # references and grid cells, done or not
    entries: dict[str, Entry]

    @property
    def missing(self) -> list[Cell]:
        """Fixed cells without a result."""
        return [cell for cell in self.fixed if not self.is_done(cell)]

    @property
    def history(self) -> list[Entry]:
        """The search's points that have a result."""
        return (
            [entry for entry in self.entries.values() if entry.role == "cell" and entry.done] if self.searches else []
        )

    @property
    def proposals(self) -> int:
        """Points that the search has still to propose."""
        return max(0, self.sweep.trials - len(self.history))

    @property
    def searches(self) -> bool:
        """Whether the cells come from Optuna."""
        return bool(self.sweep.space)

    @property
    def total(self) -> int:
        """All cells of the sweep."""
        return len(self.fixed) + max(self.sweep.trials, len(self.history))

    @property
    def todo(self) -> int:
        """Cells that this launch has to run."""
        return len(self.missing) + self.proposals

    def is_done(self, cell: Cell) -> bool:
        """Whether the ledger holds a result of the cell."""
        return cell.key in self.entries and self.entries[cell.key].done


def main(sweep: Sweep, file: str, words: Sequence[str] | None = None) -> int:
    """Run one sweep file: `sys.exit(main(SWEEP, __file__))`. See launch."""
    return launch([(sweep, Path(file).resolve())], sys.argv[1:] if words is None else words)


def launch(sweeps: Sequence[tuple[Sweep, Path]], words: Sequence[str]) -> int:
    """Run sweeps one after another in one Ray session, from the command line's words.

    Returns:
        0 when every cell has a result (divergence and collapse are results), 1 when some cell failed, 2 for bad input,
        130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(description="\n\n".join(sweep.purpose.strip() for sweep, _ in sweeps))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--dry-run", action="store_true", help="print the cells and what is already done; run nothing")
    parser.add_argument("places", nargs="*", metavar="data.path=DIR", help="where the data lies on this machine")
    options = parser.parse_args(list(words))
    console = Console()
    try:
        _check_names(sweeps)
        sweeps = [(_placed(sweep, options.places), file) for sweep, file in sweeps]
        if options.dry_run:
            for sweep, file in sweeps:
                show_plan(make_plan(sweep, file), console)
            return 0
        return _run(sweeps, console)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on where this one stopped\n")
        return 130


def make_plan(sweep: Sweep, file: Path) -> Plan:
    """Resolve the base, lay out the cells and read the ledger.

    Raises:
        ConfigError: anything that could not run.
    """
    base = best_config(sweep.base.sweep) if isinstance(sweep.base, BestOf) else sweep.base
    sweep.check(base)
    base = preflight(base)
    fixed = fixed_cells(sweep, base)
    return Plan(sweep=sweep, base=base, fixed=fixed, entries=read_ledger(sweep, base, file))


def show_plan(plan: Plan, console: Console) -> None:
    """The dry run: every cell with its state, and what a launch would run."""
    console.print(f"[bold]{plan.sweep.name}[/bold]: {plan.total - plan.todo} of {plan.total} cells done")
    for cell in plan.fixed:
        entry = plan.entries.get(cell.key)
        _plan_line(console, entry.status if entry else "missing", cell.key, cell.label, cell.role)
    for entry in plan.history:
        label = " ".join(f"{key.rpartition('.')[2]}={entry.params[key]}" for key in plan.sweep.space)
        _plan_line(console, entry.status, entry.key, label, "cell")
    if plan.proposals:
        console.print(f"  {'missing':<12}{plan.proposals} points, to be proposed by Optuna", highlight=False)


def _plan_line(console: Console, status: str, key: str, label: str, role: str) -> None:
    note = "  (to compare with)" if role == "reference" else ""
    console.print(f"  {status:<12}{key}  {label}{note}", highlight=False, soft_wrap=True)


def _check_names(sweeps: Sequence[tuple[Sweep, Path]]) -> None:
    for sweep, file in sweeps:
        if sweep.name != file.stem:
            raise ConfigError(
                f"name must be the stem of the sweep's file, got {sweep.name!r} in {file.name}; "
                f"write name={file.stem!r}, or rename the file"
            )
    names = [sweep.name for sweep, _ in sweeps]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"sweep {twice} is given twice; name it once")


def _placed(sweep: Sweep, words: Sequence[str]) -> Sweep:
    """The sweep with its data elsewhere. What decides results is written in the file, never on the command line."""
    if not words or isinstance(sweep.base, BestOf):
        return sweep
    changes = parse(words, base=sweep.base)
    for key in changes:
        if key in cell_fields(sweep.base):
            raise ConfigError(f"{key} is part of the cell, got {key}={changes[key]}; change it in the sweep's file")
    return dataclasses.replace(sweep, base=unflatten(changes, base=sweep.base))


def _run(sweeps: Sequence[tuple[Sweep, Path]], console: Console) -> int:
    """Plan, run and show each sweep; Ray starts only when a cell is missing."""
    from sweeps.engine.execute import Session  # Ray, Tune and Optuna are imported when there is something to run

    failed = 0
    with Session(console) as session:
        for sweep, file in sweeps:
            plan = make_plan(sweep, file)
            console.print(f"[bold]{sweep.name}[/bold]: {plan.total - plan.todo} of {plan.total} cells done before")
            if plan.todo:
                session.prepare(plan)  # first, because the lanes need half a minute to start
            ledger = Ledger(sweep, plan.base, file)
            publish = partial(_publish, sweep, ledger)
            if plan.todo:
                failed += session.run(plan, ledger, publish)
            console.print(f"\n{publish()}\n", highlight=False, soft_wrap=True, markup=False)
    _say_where(console)
    return 1 if failed else 0


def _publish(sweep: Sweep, ledger: Ledger) -> str:
    """The sweep's table so far, which goes with its purpose into the experiment's description."""
    try:
        markdown = table(sweep.name, format="md")
    except LookupError as nothing:  # a table over several sweeps, of which one is not there
        markdown = str(nothing.args[0])
    ledger.describe(f"{sweep.purpose.strip()}\n\n{markdown}")
    return markdown


def _say_where(console: Console) -> None:
    console.print(f"MLflow store: {store_uri()}", highlight=False, soft_wrap=True)
    console.print("browse it with: make ui")
