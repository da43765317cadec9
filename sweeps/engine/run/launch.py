"""One launch: runs what the store lacks, sweep by sweep, in one Ray session that starts when it is needed."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console

from analysis.store.runs import load_runs
from analysis.tables import table
from sweeps.engine.cluster.backup import keep, watched
from sweeps.engine.plan.describe import open_ledger
from sweeps.engine.plan.plan import Plan
from sweeps.engine.run.display import LaunchOutcome
from sweeps.engine.run.evaluate import reevaluate
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.ledger import Ledger
from sweeps.engine.store.reader import store_uri

if TYPE_CHECKING:
    from sweeps.engine.run.session import Session


@dataclass(frozen=True, kw_only=True)
class Launched:
    """Result of a launch.

    Args:
        plan: the one that it began with, with what searches have chosen since.
        table: as Markdown.
        spooled: "" or one line about the metrics that have not reached the store.
    """

    plan: Plan
    outcome: LaunchOutcome
    table: str
    spooled: str


class Launch:
    """Runs plans of sweeps that the caller holds. Leaving it ends Ray and its lanes, and copies the store of a cluster.

    Args:
        note: takes a line for the user.
        max_gpu_hours: no cell begins beyond so many hours of a sweep.
        ready: of a ray_session that the caller has begun; otherwise Ray starts with the first cell.
    """

    def __init__(
        self,
        console: Console,
        note: Callable[[str], object],
        *,
        max_gpu_hours: float = math.inf,
        ready: Callable[[], str] | None = None,
    ) -> None:
        self._console = console
        self._note = note
        self._ready = ready
        self._max_gpu_hours = max_gpu_hours
        self._stack = ExitStack()
        self._session: Session | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if watched():  # so that a head may go after its launch
            problem = keep()
            if problem:
                self._note(problem)

    def run(self, plan: Plan) -> Launched:
        """Run what a sweep lacks.

        Raises:
            ConfigError: a trial that can never be placed, or a budget that allows not even one cell.
        """
        self._note(f"{plan.sweep.name}: {plan.total - plan.todo} of {plan.total} cells done before")
        session = self._opened() if plan.todo else None
        budget = None
        if session is not None:
            session.prepare(plan)  # workers need half a minute to start: they do so while the ledger is opened
            budget = session.budget(plan, self._max_gpu_hours)
        ledger = self._ledger(plan)
        outcome, spooled = LaunchOutcome(), ""
        try:
            if session is not None:
                plan, outcome = session.run(plan, ledger, budget)
        finally:
            spooled = ledger.close()
            if spooled:
                self._note(spooled)
        return Launched(plan=plan, outcome=outcome, table=ledger.table, spooled=spooled)

    def evaluate(self, plan: Plan) -> tuple[int, int, str]:
        """Evaluate a sweep's finished cells once more.

        Returns:
            How many were evaluated, how many had no checkpoint, and Launched.spooled.
        """
        finished = sum(entry.status == "finished" for entry in plan.entries.values())
        self._note(f"{plan.sweep.name}: {finished} finished cells to evaluate")
        ledger = self._ledger(plan)
        try:
            without = reevaluate(plan, ledger, self._console)
        finally:
            spooled = ledger.close()
        return finished - without, without, spooled

    def _opened(self) -> "Session":
        from sweeps.engine.run.session import Session  # Ray, Tune and Optuna

        if self._session is None:
            self._session = self._stack.enter_context(Session(self._console, self._note, self._ready))
        return self._session

    def _ledger(self, plan: Plan) -> Ledger:
        sweep = plan.sweep
        publish, products = partial(_table, sweep), partial(_products, sweep)
        return open_ledger(plan, note=self._note, publish=publish, products=products)


def _table(sweep: Sweep) -> str:
    """The sweep's table so far, as Markdown."""
    try:
        return table(sweep.name, format="md")
    except LookupError as nothing:  # a table over several sweeps, of which one is not there
        return str(nothing.args[0])


def _products(sweep: Sweep) -> dict[str, str | bytes]:
    """What the sweep's own run keeps besides its plan: the table, to be looked at and to be computed with; figures."""
    from analysis.figures import pictures  # matplotlib takes a second to import

    try:
        tables = {f"table.{format}": table(sweep.name, format=format) + "\n" for format in ("md", "html", "csv")}
        runs = load_runs(sweep.name)
        drawn = {f"{drawing.name}.png": png for drawing, png in pictures(runs, store_uri(), "png", own=True)}
    except LookupError:
        return {}
    return tables | drawn
