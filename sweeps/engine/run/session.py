"""Execution of plans: one Ray session, lanes that outlive their sweeps, one Tuner per sweep."""

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from ray import tune
from rich.console import Console

from jepa_train.base.errors import ConfigError
from jepa_train.config import TrainConfig
from jepa_train.config.flat import unflatten
from jepa_train.config.names import is_pretrained_tag, transfer_sets
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
from sweeps.engine.run.budget import Budget
from sweeps.engine.run.callbacks import TrialEvents
from sweeps.engine.run.display import Display, LaunchOutcome
from sweeps.engine.run.estimate import Price, finished_estimates
from sweeps.engine.run.ledger import Ledger
from sweeps.engine.search.asha import AshaScheduler, Judge
from sweeps.engine.search.searcher import CellSearcher

_LONG = 1_000_000  # epochs, more than any cell's


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
        self._request: Request | None = None  # of each lane
        self._budget: Budget | None = None  # of the plan that was prepared last
        self._expected: Expected | None = None  # on a cluster: of every node
        self._checked_data: set[str] = set()  # paths that the nodes have been checked for

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._ray:
            self._lanes.close()

    def prepare(self, plan: Plan, max_gpu_hours: float = math.inf) -> None:
        """Start Ray and the plan's lanes where they are not up; returns at once.

        Lanes at hand stay where they serve the plan; new ones are as many as fit, at most one per cell.

        Raises:
            ConfigError: a trial that can never be placed; a budget that allows not even one cell; on a cluster, nodes
                that are not fit, or a relative data.path.
        """
        sweep, data = plan.sweep, plan.base.data
        if self._address is None:
            ready = self._ready or self._ray.enter_context(ray_session())
            self._address = ready()
            if self._address:
                self._note(f"joined the Ray cluster at {self._address}")
                self._expected = self._ray.enter_context(expected_of_nodes())
        if self._address:
            _check_absolute(unflatten(point, base=plan.base) for point in sweep.corners())
        images = "" if data.download or has_url_scheme(data.path) else data.path
        if self._expected is not None and images not in self._checked_data:
            self._checked_data.add(images)
            check_nodes(dataclasses.replace(self._expected, data=images))
        nodes = nodes_to_use(self._note)
        request = Request.of(nodes, workers=sweep.workers, cpus=sweep.cpus_per_worker, gpus=sweep.gpus_per_worker)
        lanes = min(room(nodes, request), plan.todo)
        if self._pool is None or request != self._request or lanes > self._pool.num_lanes:
            self._lanes.close()
            pool = LanePool(
                num_lanes=lanes,
                workers=request.workers,
                cpus_per_worker=request.cpus,
                gpus_per_worker=request.gpus,
                storage=results_dir() / "ray" / "train",
                expected=self._expected,
            )
            self._pool, self._request = self._lanes.enter_context(pool), request
        estimates = finished_estimates(plan.entries.values(), request) if max_gpu_hours < math.inf else {}
        self._budget = Budget(max_gpu_hours, Price(plan, request, estimates))

    def run(self, plan: Plan, ledger: Ledger) -> tuple[Plan, LaunchOutcome]:
        """Run the cells that the plan lacks, on its prepared lanes. The plan returns with the searches' choices.

        Raises:
            ConfigError: a node that came meanwhile is not fit.
        """
        pool, request, budget = self._pool, self._request, self._budget
        assert pool is not None
        assert request is not None
        assert budget is not None
        display = Display(plan, request, console=self._console, budget=budget.left, table=lambda: ledger.table)
        judge = Judge(plan)
        events = TrialEvents(
            ledger=ledger,
            display=display,
            judge=judge,
            request=request,
            checkpoints=checkpoints_dir(plan.sweep.name),
            budget=budget,
            abandon=pool.mailbox.abandon_trial.remote,
        )

        def record(keys: Sequence[str], total: int) -> None:
            ledger.record_cells(keys, total)
            display.recount(total)

        searcher = CellSearcher(
            plan,
            parallel=pool.num_lanes > 1,
            announce=events.announce,
            record=record,
            admit=lambda cell: not pool.refusal() and budget.admits(cell),
            waits=lambda: budget.awaits_price,
            judge=judge,
            note=self._note,
        )
        try:
            with display.live():
                _tune(plan, pool, searcher, AshaScheduler(judge), events)
        finally:
            events.interrupt()
        refusal = pool.refusal()
        if refusal:
            raise unfit_nodes_error([refusal])
        return dataclasses.replace(plan, searches=tuple(searcher.searches)), display.outcome


def _check_absolute(configs: Iterable[TrainConfig]) -> None:
    """Refuse relative paths of images and weights: a cluster's workers run in another folder."""
    for config in configs:
        folders = transfer_sets(config.probe.transfer).items()
        paths = [("data.path", config.data.path), *((f"probe.transfer={name}", folder) for name, folder in folders)]
        if not is_pretrained_tag(config.model.weights):
            paths.append(("model.weights", config.model.weights))
        for key, text in paths:
            path = Path(text).expanduser()
            if text and not has_url_scheme(text) and not path.is_absolute():
                raise ConfigError(
                    f"{key} must be absolute on a cluster, whose workers run in another folder, got {text!r}; "
                    f"write {key}={path.absolute()}, where every machine has it, or a URL"
                )


def _tune(plan: Plan, pool: LanePool, searcher: CellSearcher, scheduler: AshaScheduler, events: TrialEvents) -> None:
    """Run Tune until the searcher has no cell left."""
    keep_aws_keys_from_trials()
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    name, stopping = plan.sweep.name, plan.sweep.early_stopping
    rungs = stopping.rungs(_LONG) if stopping else ()
    tune.Tuner(
        make_trial(pool.mailbox, str(checkpoints_dir(name)), rungs=rungs),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,  # until the searcher has no cell left
            max_concurrent_trials=pool.num_lanes,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(results_dir() / "ray" / "tune"),
            callbacks=[events],
            failure_config=tune.FailureConfig(max_failures=MAX_LOSSES),  # of the trial's process
            verbose=0,
        ),
    ).fit()
