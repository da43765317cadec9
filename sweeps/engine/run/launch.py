"""One launch: what the ledger lacks is run, sweep by sweep, in one Ray session that starts when it is needed."""

import math
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console

from analysis.store.runs import load_runs
from analysis.tables import table
from sweeps.engine.cli.args import Options
from sweeps.engine.cli.status import Facts
from sweeps.engine.cli.summary import summary
from sweeps.engine.cluster.backup import keep, watched
from sweeps.engine.plan.describe import open_ledger
from sweeps.engine.plan.plan import Plan, make_plan
from sweeps.engine.run.display import Outcome
from sweeps.engine.run.evaluate import reevaluate
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.ledger import Ledger, replay_offline_queue
from sweeps.engine.store.reader import store_uri

if TYPE_CHECKING:
    from sweeps.engine.run.session import Session


class Run:
    """Runs sweeps that the caller holds. Leaving it ends Ray and its lanes, and copies the store of a cluster."""

    def __init__(self, options: Options, console: Console) -> None:
        self._options = options
        self._console = console
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
                self._say(problem)

    def one(self, sweep: Sweep, file: Path) -> Facts:
        """Run what a sweep lacks; the facts of its summary.

        Raises:
            ConfigError: a trial that can never be placed, or a budget that allows not even one cell.
        """
        plan = self._plan(sweep, file)
        self._say(f"{sweep.name}: {plan.total - plan.todo} of {plan.total} cells done before")
        session = self._prepared(plan) if plan.todo else None
        budget = None
        if session is not None and self._options.max_gpu_hours < math.inf:
            from sweeps.engine.run.budget import Budget, hours_used

            budget = Budget(self._options.max_gpu_hours, session.price(plan), hours_used(plan))
        ledger = self._ledger(plan, file)
        outcome, spooled = Outcome(), ""
        try:
            if session is not None:
                outcome = session.run(plan, ledger, budget)
        finally:
            spooled = ledger.close()
            if spooled:
                self._say(spooled)
        if plan.awaited and not spooled:  # who has won is known by now, and whether his other seeds had run before
            plan = make_plan(sweep, file, self._options.places, retry=self._options.retry)
        return summary(plan, outcome, table=ledger.table, spooled=spooled)

    def evaluate(self, sweep: Sweep, file: Path) -> Facts:
        """Evaluate a sweep's finished cells once more; how many, and how many had no checkpoint."""
        plan = self._plan(sweep, file)
        finished = sum(entry.status == "finished" for entry in plan.entries.values())
        self._say(f"{sweep.name}: {finished} finished cells to evaluate")
        ledger = self._ledger(plan, file)
        try:
            without = reevaluate(plan, ledger, self._console)
        finally:
            spooled = ledger.close()
        return {
            "sweep": sweep.name,
            "evaluated": finished - without,
            "without_checkpoint": without,
            "spooled": spooled,
        }

    def _plan(self, sweep: Sweep, file: Path) -> Plan:
        """The plan, after what earlier launches could not write is in the store."""
        replayed = replay_offline_queue(sweep.name)
        if replayed:
            self._say(f"{sweep.name}: {replayed} records of an earlier launch that waited are in the store now")
        return make_plan(sweep, file, self._options.places, retry=self._options.retry)

    def _prepared(self, plan: Plan) -> "Session":
        """Ray and its lanes, which need half a minute to start: they do so while the ledger is opened."""
        from sweeps.engine.run.session import Session  # Ray, Tune and Optuna

        if self._session is None:
            self._session = self._stack.enter_context(Session(self._console))
        if self._options.max_gpu_hours == math.inf:  # else a measurement may need the room that lanes take
            self._session.prepare(plan)
        return self._session

    def _ledger(self, plan: Plan, file: Path) -> Ledger:
        sweep = plan.sweep
        publish, products = partial(_table, sweep), partial(_products, sweep)
        return open_ledger(plan, file, note=self._say, publish=publish, products=products)

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)


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
