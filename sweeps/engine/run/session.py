"""Executing plans: one Ray session, lanes that outlive their sweeps, one Tuner per sweep."""

import dataclasses
import logging
import math
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from ray import tune
from rich.console import Console

from jepa_train.storage.paths import has_url_scheme, results_dir
from jepa_train.storage.storage import checkpoints_dir
from sweeps.engine.cluster.node_check import Expected
from sweeps.engine.cluster.nodes import check_nodes, expected_of_nodes, nodes_to_use, unfit_nodes_error
from sweeps.engine.cluster.ray_private import keep_aws_keys_from_trials
from sweeps.engine.cluster.resources import Request, room
from sweeps.engine.cluster.session import ray_session
from sweeps.engine.lanes.pool import LanePool
from sweeps.engine.lanes.tasks import MAX_LOSSES
from sweeps.engine.lanes.trial import make_trial
from sweeps.engine.plan.plan import Plan
from sweeps.engine.plan.searches import Search
from sweeps.engine.run.budget import Budget
from sweeps.engine.run.callbacks import TrialEvents
from sweeps.engine.run.display import Display, LaunchOutcome
from sweeps.engine.run.estimate import Price, finished_estimates
from sweeps.engine.search.asha import AshaScheduler, Judge
from sweeps.engine.search.searcher import CellSearcher
from sweeps.engine.store.ledger import Ledger

_LONG = 1_000_000  # epochs of the longest cell that anybody trains


class Session:
    """Ray, started with the first plan that has something to run, and the lanes, kept while their shape serves.

    Args:
        ready: of a ray_session that the caller has begun.
    """

    def __init__(self, console: Console, note: Callable[[str], object], ready: Callable[[], str] | None = None) -> None:
        self._console = console
        self._note = note
        self._ready = ready
        self._address: str | None = None  # None before Ray is up
        self._ray = ExitStack()
        self._lanes = ExitStack()
        self._pool: LanePool | None = None
        self._request: Request | None = None  # what each of the lanes occupies
        self._expected: Expected | None = None  # on a cluster: of every node
        self._looked_for: set[str] = set()  # there: data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._lanes.close()
        finally:
            self._ray.close()

    def prepare(self, plan: Plan) -> None:
        """Start Ray and the plan's lanes where they are not up; returns at once.

        Lanes at hand stay where they serve the plan; new ones are as many as fit, at most one per cell.

        Raises:
            ConfigError: a trial that can never be placed; on a cluster, nodes that are not fit.
        """
        self._start_ray()
        data = plan.base.data
        self._check_nodes("" if data.download or has_url_scheme(data.path) else data.path)
        nodes = nodes_to_use(self._note)
        sweep = plan.sweep
        request = Request.of(nodes, workers=sweep.workers, cpus=sweep.cpus_per_worker, gpus=sweep.gpus_per_worker)
        lanes = min(room(nodes, request), plan.todo)
        if self._pool is None or request != self._request or lanes > self._pool.num_lanes:
            self._close_lanes()
            pool = LanePool(
                num_lanes=lanes,
                workers=request.workers,
                cpus_per_worker=request.cpus,
                gpus_per_worker=request.gpus,
                storage=results_dir() / "ray" / "train",
                expected=self._expected,
            )
            self._pool, self._request = self._lanes.enter_context(pool), request

    def budget(self, plan: Plan, max_gpu_hours: float) -> Budget | None:
        """Admission of the cells of a prepared plan; None without a limit.

        Raises:
            ConfigError: the limit allows not even one cell.
        """
        assert self._request is not None
        if max_gpu_hours == math.inf:
            return None
        return Budget(
            max_gpu_hours, Price(plan, self._request, finished_estimates(plan.entries.values(), self._request))
        )

    def run(self, plan: Plan, ledger: Ledger, budget: Budget | None = None) -> tuple[Plan, LaunchOutcome]:
        """Run what the plan lacks, on the lanes that were prepared for it; the plan returns with what searches chose.

        Args:
            budget: says which cells may begin; all may without one.

        Raises:
            ConfigError: a node that came meanwhile has other code, or no storage.
        """
        pool = self._pool
        assert pool is not None
        assert self._request is not None
        display = Display(
            plan,
            console=self._console,
            devices=self._request.devices,
            unit=self._request.unit,
            budget=budget.left if budget else math.inf,
            table=lambda: ledger.table,
        )
        judge = Judge(plan)
        events = TrialEvents(
            ledger=ledger,
            display=display,
            judge=judge,
            request=self._request,
            checkpoints=checkpoints_dir(plan.sweep.name),
            budget=budget,
            machines=pool.ready if self._expected else None,
        )
        try:
            with display.shown():
                searches = self._tune(plan, pool, events, ledger, judge, budget)
        finally:
            events.interrupt()
        refusal = pool.refusal()
        if refusal:
            raise unfit_nodes_error([refusal])
        return plan.after(searches), display.outcome

    def _tune(
        self, plan: Plan, pool: LanePool, events: TrialEvents, ledger: Ledger, judge: Judge, budget: Budget | None
    ) -> list[Search]:
        searcher = CellSearcher(
            plan,
            parallel=pool.num_lanes > 1,
            announce=events.announce,
            record=ledger.record_cells,
            admit=lambda cell: not pool.refusal() and (budget is None or budget.admits(cell)),
            waits=lambda: budget is not None and budget.awaits_price,
            rungs=judge.seen,
            note=self._note,
        )
        keep_aws_keys_from_trials()
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        tune.Tuner(
            make_trial(
                pool.mailbox,
                str(checkpoints_dir(plan.sweep.name)),
                rungs=plan.sweep.early_stopping.rungs(_LONG) if plan.sweep.early_stopping else (),
            ),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=AshaScheduler(judge),
                num_samples=-1,  # the searcher says when nothing is left
                max_concurrent_trials=pool.num_lanes,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=plan.sweep.name,
                storage_path=str(results_dir() / "ray" / "tune"),
                callbacks=[events],
                failure_config=tune.FailureConfig(max_failures=MAX_LOSSES),  # of the trial's process
                verbose=0,
            ),
        ).fit()
        return searcher.searches

    def _start_ray(self) -> None:
        if self._address is not None:
            return
        ready = self._ready or self._ray.enter_context(ray_session())
        self._address = ready()
        if self._address:
            self._note(f"joined the Ray cluster at {self._address}")
            self._expected = self._ray.enter_context(expected_of_nodes())

    def _check_nodes(self, data: str) -> None:
        """Look at the nodes of a cluster before they get the first cell of a sweep on this data."""
        if self._expected is not None and data not in self._looked_for:
            self._looked_for.add(data)
            check_nodes(dataclasses.replace(self._expected, data=data))

    def _close_lanes(self) -> None:
        self._lanes.close()
        self._pool = self._request = None
