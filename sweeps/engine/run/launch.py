"""One launch: runs the cells that the store lacks, sweep by sweep, in one Ray session that starts when it is needed."""

import math
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console

from analysis.runs import load_runs
from analysis.tables import table
from jepa_train.base.checkout import PROJECT
from jepa_train.base.errors import ConfigError
from jepa_train.config.flat import cell_fields, flatten
from jepa_train.storage.storage import StorageError, checkpoints_dir
from sweeps.engine.cluster.backup import keep, watched
from sweeps.engine.plan.plan import Plan
from sweeps.engine.run.display import LaunchOutcome
from sweeps.engine.run.ledger import Ledger
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.reader import store_uri

if TYPE_CHECKING:
    from sweeps.engine.run.session import Session


@dataclass(frozen=True, kw_only=True)
class Launched:
    """Result of a launch.

    Args:
        plan: the one that it began with, with the points that searches have chosen since.
        table: as Markdown.
        spooled: "" or one line about the metrics that have not reached the store.
    """

    plan: Plan
    outcome: LaunchOutcome
    table: str
    spooled: str


@dataclass(eq=False)
class Launch:
    """Runs plans of sweeps that the caller holds. Leaving it ends Ray and its lanes, and copies the store of a cluster.

    Args:
        note: takes a line for the user.
        max_gpu_hours: no cell begins beyond so many hours of a sweep.
        ready: of a ray_session that the caller has begun; otherwise Ray starts with the first cell.
    """

    console: Console
    note: Callable[[str], object]
    max_gpu_hours: float = math.inf
    ready: Callable[[], str] | None = None
    _stack: ExitStack = field(default_factory=ExitStack, init=False)
    _session: "Session | None" = field(default=None, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:  # closed also after another Ctrl-C
            if self._session is not None:
                self.note("stopping the workers")  # for some seconds
        if watched() and (problem := keep()):  # so that a head may go after its launch
            self.note(problem)

    def run(self, plan: Plan) -> Launched:
        """Run the cells that a sweep lacks.

        Raises:
            ConfigError: a trial that can never be placed, or a budget that allows not even one cell.
        """
        failed = f", {plan.failed} failed" if plan.failed else ""
        done, now = plan.total - plan.lacking, f"; {plan.todo} run now" if plan.todo < plan.lacking else ""
        self.note(f"{plan.sweep.name}: {done} of {plan.total} cells done before{failed}{now}")
        session, outcome = None, LaunchOutcome()
        if plan.todo:
            from sweeps.engine.run.session import Session  # Ray, Tune and Optuna

            if self._session is None:
                self._session = self._stack.enter_context(Session(self.console, self.note, self.ready))
            session = self._session
            session.prepare(plan, self.max_gpu_hours)  # workers start while the ledger is opened
        ledger = _open_ledger(plan, self.note)
        try:
            if session is not None:
                plan, outcome = session.run(plan, ledger)
        finally:
            spooled = ledger.close()
            if spooled:
                self.note(spooled)
        return Launched(plan=plan, outcome=outcome, table=ledger.table, spooled=spooled)

    def evaluate(self, plan: Plan) -> tuple[int, int, str]:
        """Evaluate a sweep's finished cells again, in this process, and add the metrics to their runs.

        The protocols and the data are those of the plan's base, not of the checkpoint.

        Returns:
            Number of evaluated cells, number of cells without a readable checkpoint, and Launched.spooled.
        """
        from jepa_train.train.loop import evaluate_checkpoint  # torch and timm

        fields = flatten(plan.base)
        words = [f"{key}={fields[key]}" for key in fields.keys() - cell_fields(plan.base).keys() - set(plan.sweep.axes)]
        entries = [plan.entries[cell.key] for cell in plan.known if cell.key in plan.entries and plan.chooses(cell)]
        finished = [entry for entry in entries if entry.status == "finished"]
        self.note(f"{plan.sweep.name}: {len(finished)} finished cells to evaluate")
        ledger, lost = _open_ledger(plan, self.note), 0
        try:
            for number, entry in enumerate(finished, 1):
                try:
                    metrics = evaluate_checkpoint(checkpoints_dir(plan.sweep.name) / entry.key / "final.pt", words)
                    ledger.amend(entry, metrics)
                    shown = [one for one in metrics if one.startswith(("test/", "transfer/")) and one.endswith("_top1")]
                    result = ", ".join(f"{name} {metrics[name]:.3f}" for name in shown if "projector" not in name)
                except (ConfigError, StorageError) as error:
                    lost, result = lost + 1, str(error)
                self.note(f"  {number}/{len(finished)}  {entry.label}: {result}")
        finally:
            spooled = ledger.close()
        self.note(f"all metrics are in the cells' MLflow runs; browse them with: {browse_command()}")
        return len(finished) - lost, lost, spooled


def browse_command() -> str:
    """Command that opens the MLflow UI: the Makefile's in the checkout, elsewhere one that works in any folder."""
    return "make ui" if Path.cwd() == PROJECT else f"{shlex.quote(sys.executable)} -m analysis.ui"


def _open_ledger(plan: Plan, note: Callable[[str], object]) -> Ledger:
    return Ledger(plan, note=note, publish=partial(_table, plan.sweep), products=partial(_products, plan.sweep))


def _table(sweep: Sweep) -> str:
    """The sweep's table so far, as Markdown."""
    try:
        return table(sweep.name, format="md")
    except LookupError as nothing:  # a table over several sweeps, of which one is not there
        return str(nothing.args[0])


def _products(sweep: Sweep) -> dict[str, str | bytes]:
    """Files of the sweep's own run besides its plan: its table in three formats, and its figures."""
    from analysis.figures import pictures  # matplotlib takes a second to import

    try:
        tables = {f"table.{format}": table(sweep.name, format=format) + "\n" for format in ("md", "html", "csv")}
        runs = load_runs(sweep.name)
        drawn = {f"{drawing.name}.png": png for drawing, png in pictures(runs, store_uri(), "png", own=True)}
    except LookupError:
        return {}
    return tables | drawn
