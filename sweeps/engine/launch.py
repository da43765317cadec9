"""Launching: the command line of a sweep file, from its plan to the printed table and an honest exit code."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mlflow.exceptions import MlflowException
from rich.console import Console

from analysis.tables import table
from jepa_train.checks import ConfigError
from jepa_train.paths import results_dir
from sweeps.engine.plan import Plan, make_plan
from sweeps.engine.reevaluate import reevaluate
from sweeps.engine.rules import check_machine, check_results
from sweeps.engine.spec import BestOf, Sweep
from sweeps.engine.store import store_uri
from sweeps.engine.tracking import Ledger


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
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="evaluate the finished cells once more (probe.protocols=...); train nothing",
    )
    parser.add_argument("places", nargs="*", metavar="data.path=DIR", help="where the data lies on this machine")
    options = parser.parse_args(list(words))
    console = Console()
    try:
        plans = _planned(sweeps, options.places)
        if options.dry_run:
            for (sweep, _), plan in zip(sweeps, plans, strict=True):
                show_plan(sweep, plan, console)
            return 0
        if options.evaluate:
            return _evaluate(sweeps, options.places, console)
        for plan in plans:
            if plan is not None and plan.todo:
                check_machine(plan.sweep)
        check_results(results_dir())
        return _run(sweeps, options.places, console)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except MlflowException as error:
        sys.stderr.write(f"error: the store {store_uri()} cannot be used: {str(error).partition(chr(10))[0]}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on where this one stopped\n")
        return 130


def show_plan(sweep: Sweep, plan: Plan | None, console: Console) -> None:
    """The dry run: every cell with its state, and what a launch would run."""
    if plan is None:
        assert isinstance(sweep.base, BestOf)
        console.print(f"[bold]{sweep.name}[/bold]: to be planned when {sweep.base.sweep} has a best cell")
        return
    console.print(f"[bold]{sweep.name}[/bold]: {plan.total - plan.todo} of {plan.total} cells done")
    for cell in plan.fixed:
        entry = plan.entries.get(cell.key)
        _plan_line(console, entry.status if entry else "missing", cell.key, cell.label, cell.role)
    for entry in plan.points:
        _plan_line(console, entry.status, entry.key, entry.label, "cell")
    if plan.proposals:
        console.print(f"  {'missing':<12}{plan.proposals} points, to be proposed by Optuna", highlight=False)


def _plan_line(console: Console, status: str, key: str, label: str, role: str) -> None:
    note = "  (to compare with)" if role == "reference" else ""
    console.print(f"  {status:<12}{key}  {label}{note}", highlight=False, soft_wrap=True)


def _planned(sweeps: Sequence[tuple[Sweep, Path]], places: Sequence[str]) -> list[Plan | None]:
    """Every plan that can be made now: all mistakes are answered before the first sweep starts.

    The base of a sweep may be the best cell of one before it on the same command line: None until that has run.
    """
    names = [sweep.name for sweep, _ in sweeps]
    plans: list[Plan | None] = []
    for number, (sweep, file) in enumerate(sweeps):
        if sweep.name != file.stem:
            raise ConfigError(
                f"name must be the stem of the sweep's file, got {sweep.name!r} in {file.name}; "
                f"write name={file.stem!r}, or rename the file"
            )
        if sweep.name in names[:number]:
            raise ConfigError(f"sweep {sweep.name} is given twice; name it once")
        waits = isinstance(sweep.base, BestOf) and sweep.base.sweep in names[:number]
        plans.append(None if waits else make_plan(sweep, file, places))
    return plans


def _run(sweeps: Sequence[tuple[Sweep, Path]], places: Sequence[str], console: Console) -> int:
    """Plan, run and show each sweep; Ray starts only when a cell is missing."""
    from sweeps.engine.execute import Session  # Ray, Tune and Optuna are imported when there is something to run

    failed = 0
    with Session(console) as session:
        for sweep, file in sweeps:
            plan = make_plan(sweep, file, places)
            console.print(f"[bold]{sweep.name}[/bold]: {plan.total - plan.todo} of {plan.total} cells done before")
            if plan.todo:
                session.prepare(plan)  # first, because the lanes need half a minute to start
            ledger = Ledger(plan, file)
            publish = partial(_publish, sweep, ledger)
            if plan.todo:
                failed += session.run(plan, ledger, publish)
            console.print(f"\n{publish()}\n", highlight=False, soft_wrap=True, markup=False)
    console.print(f"MLflow store: {store_uri()}", highlight=False, soft_wrap=True)
    console.print("browse it with: make ui")
    return 1 if failed else 0


def _evaluate(sweeps: Sequence[tuple[Sweep, Path]], words: Sequence[str], console: Console) -> int:
    """Finished cells through other protocols; the metrics join their runs."""
    lost = 0
    for sweep, file in sweeps:
        plan = make_plan(sweep, file, words)
        finished = sum(entry.status == "finished" for entry in plan.entries.values())
        console.print(f"[bold]{sweep.name}[/bold]: {finished} finished cells to evaluate")
        lost += reevaluate(plan, Ledger(plan, file), console) if finished else 0
    return 1 if lost else 0


def _publish(sweep: Sweep, ledger: Ledger) -> str:
    """The sweep's table so far, which goes with its purpose into the experiment's description."""
    try:
        markdown = table(sweep.name, format="md")
    except LookupError as nothing:  # a table over several sweeps, of which one is not there
        markdown = str(nothing.args[0])
    ledger.describe(f"{sweep.purpose.strip()}\n\n{markdown}")
    return markdown
