"""Executing plans: one Ray session, lanes that outlive their sweeps, one Tuner per sweep."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import ray
from ray import tune
from rich.console import Console

from jepa_train.paths import checkpoints_dir, results_dir
from sweeps.engine.cluster import ray_session
from sweeps.engine.display import Display
from sweeps.engine.lanes import LanePool
from sweeps.engine.plan import Plan
from sweeps.engine.recorder import Recorder
from sweeps.engine.search import CellSearcher, completer, optuna_search
from sweeps.engine.spec import Sweep
from sweeps.engine.tasks import MAX_LOSSES
from sweeps.engine.tracking import Ledger
from sweeps.engine.trial import make_trial

_LONG = 1_000_000  # epochs of the longest cell that anybody trains

Shape = tuple[int, int, int, float]  # lanes, workers of each, CPUs and GPUs of each worker


class Session:
    """Ray, started with the first plan that has something to run, and the lanes, kept while their shape serves."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ray = ExitStack()
        self._lanes = ExitStack()
        self._pool: LanePool | None = None
        self._shape: Shape | None = None

    @property
    def _devices(self) -> float:
        """What a trial occupies: workers x GPUs of each (on CPUs, x 1)."""
        assert self._shape is not None
        _, workers, _, gpus = self._shape
        return workers * (gpus or 1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._lanes.close()
        finally:
            self._ray.close()

    def prepare(self, plan: Plan) -> LanePool:
        """Start Ray and the plan's lanes where they are not up; returns at once."""
        if not ray.is_initialized():
            self._ray.enter_context(ray_session())
        return self._lanes_for(plan.sweep, plan.todo)

    def run(self, plan: Plan, ledger: Ledger, publish: Callable[[], object]) -> int:
        """Run what the plan lacks; returns the number of cells that failed.

        Args:
            publish: called after every cell.
        """
        pool = self.prepare(plan)
        display = Display(
            name=plan.sweep.name,
            goal=plan.sweep.goals[0],
            total=plan.total,
            done=plan.total - plan.todo,
            console=self._console,
        )
        for entry in plan.entries.values():
            if entry.role == "cell":
                display.note_best(entry.scores(plan.sweep.goals)[0], entry.label)
        recorder = Recorder(
            ledger=ledger,
            display=display,
            devices=self._devices,
            checkpoints=checkpoints_dir(plan.sweep.name),
            publish=publish,
        )
        try:
            with display.shown():
                self._tune(plan, pool, recorder)
        finally:
            recorder.interrupt()
        return recorder.failed

    def _tune(self, plan: Plan, pool: LanePool, recorder: Recorder) -> None:
        searcher = CellSearcher(
            known=plan.missing,
            proposals=optuna_search(plan.sweep, plan.base, plan.history) if plan.sweep.space else None,
            complete=completer(plan.sweep, plan.base),
            taken={entry.key: entry.scores(plan.sweep.goals)[0] for entry in plan.history},
            announce=recorder.announce,
            objective=plan.sweep.goals[0].metric,
        )
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        tune.Tuner(
            make_trial(
                pool.mailbox,
                checkpoints_dir(plan.sweep.name),
                rungs=plan.sweep.early_stopping.rungs(_LONG) if plan.sweep.early_stopping else (),
            ),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=plan.todo,
                max_concurrent_trials=pool.num_lanes,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=plan.sweep.name,
                storage_path=str(results_dir() / "ray" / "tune"),
                callbacks=[recorder],
                failure_config=tune.FailureConfig(max_failures=MAX_LOSSES),  # of the trial's process
                verbose=0,
            ),
        ).fit()

    def _lanes_for(self, sweep: Sweep, cells: int) -> LanePool:
        """The lanes at hand where they have the sweep's shape, new ones otherwise."""
        shape = _shape(sweep, cells)
        if self._pool is None or self._shape is None or shape[1:] != self._shape[1:] or shape[0] > self._shape[0]:
            self._lanes.close()
            lanes, workers, cpus, gpus = shape
            pool = LanePool(
                num_lanes=lanes,
                workers=workers,
                cpus_per_worker=cpus,
                gpus_per_worker=gpus,
                storage=results_dir() / "ray" / "train",
            )
            self._pool, self._shape = self._lanes.enter_context(pool), shape
        return self._pool


def _shape(sweep: Sweep, cells: int) -> Shape:
    """As many lanes as the cluster has room for, and no more than there are cells.

    Raises:
        ConfigError: not even one trial fits.
    """
    resources = ray.cluster_resources()
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    asked = sweep.gpus_per_worker
    gpus_per_worker = float(gpus >= sweep.workers) if isinstance(asked, str) or asked == -1 else asked
    rooms = [cpus / (sweep.workers * sweep.cpus_per_worker)]
    if gpus_per_worker:
        rooms.append(gpus / (sweep.workers * gpus_per_worker))
    room = int(min(rooms))
    sweep.require_room(room, cpus=cpus, gpus=gpus, gpus_per_worker=gpus_per_worker)
    return min(room, cells), sweep.workers, sweep.cpus_per_worker, gpus_per_worker
