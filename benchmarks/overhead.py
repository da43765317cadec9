"""Overhead of a trial: one TorchTrainer.fit() per trial against a lane, both under Ray Tune.

    python -m benchmarks.overhead [--quick]

Start: from Tune's start of the trial to the worker's first training step. Gap: from the end of training in the worker
to Tune's start of the next trial.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any, ClassVar
from unittest import mock

import ray
import ray.cloudpickle
import ray.train
from ray import tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from benchmarks import machine
from benchmarks.image_folder import cache_in, write_folder
from benchmarks.report import as_markdown
from jepa_train.base.preemption import Host, NoPreemption
from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten, unflatten
from jepa_train.config.presets import DIGITS, PRESETS
from jepa_train.train.preflight import preflight
from sweeps.engine import Sweep
from sweeps.engine import main as launch
from sweeps.engine.cluster.session import ray_session
from sweeps.engine.lanes.pool import LanePool
from sweeps.engine.lanes.trial import make_trial
from sweeps.engine.lanes.worker import Report, train_cell
from sweeps.engine.run import session

RESULTS = Path(__file__).parent / "results"
STEP_S, GAP_S, SWEEP_S = 0.3, 0.3, 30.0  # the targets
SHORT = {"epochs": 1, "probe.protocols": "knn"}

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # spares workers the driver's imports


@dataclass(frozen=True)
class Timing:
    """Samples of one kind of trial, in seconds.

    Args:
        target: upper bound of the median; None if there is none.
    """

    what: str
    way: str
    trials: str
    samples: tuple[float, ...]
    target: float | None = None

    HEADER: ClassVar[tuple[str, ...]] = ("what", "way", "trials", "median, s", "quartiles, s", "n", "target, s", "met")
    NOTE: ClassVar[str] = (
        "Start: Tune starts the trial -> the worker's first training step. Gap: training ends in the worker -> Tune "
        "starts the next trial. First: the trial that starts the worker group; later: those after it."
    )

    def cells(self) -> tuple[str, ...]:
        """One text per column of HEADER."""
        middle = median(self.samples)
        low, _, high = quantiles(self.samples, n=4, method="inclusive") if len(self.samples) > 1 else (middle,) * 3
        target = ("", "") if self.target is None else (f"{self.target:g}", "yes" if middle <= self.target else "no")
        spread = f"{low:.2f} to {high:.2f}"
        return (self.what, self.way, self.trials, f"{middle:.2f}", spread, str(len(self.samples)), *target)

    def record(self) -> dict[str, Any]:
        """The fields."""
        return vars(self)


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print; record under benchmarks/results unless quick."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="one worker, digits, few trials; never recorded")
    options = parser.parse_args(words)
    rows = []
    with tempfile.TemporaryDirectory() as place, cache_in(Path(place)):
        for row in _rows(Path(place), quick=options.quick):
            sys.stderr.write(f"  {'  '.join(row.cells())}\n")
            rows.append(row)
    device = machine.chosen_device()
    text = as_markdown(rows, machine.described(device))
    sys.stdout.write(text)
    if not options.quick:
        file = RESULTS / f"overhead-{machine.slug(device)}.md"
        file.write_text(text)
        sys.stderr.write(f"recorded in {file}\n")
    return 0


def _rows(place: Path, *, quick: bool) -> Iterator[Timing]:
    bases = {"digits": preflight(unflatten(SHORT, base=DIGITS))}
    if not quick:
        folder = place / "images"
        write_folder(folder, num=4000, side=32)
        sizes = {"data.image_size": 32, "views.global_size": 32, "model.encoder": "test_resnet"}
        data = {"data.path": str(folder), "model.small_stem": False}
        bases["image folder"] = preflight(unflatten(SHORT | sizes | data, base=PRESETS["image_folder"]))
    for number in range(1 if quick else 3):
        yield _whole_sweep(place / f"sweep{number}")
    with ray_session():
        for what, base in bases.items():
            for workers in (1,) if quick else (1, 2):
                named = f"{what}, {workers} worker{'s' * (workers > 1)}"
                for way, measure, trials in (
                    ("TorchTrainer.fit()", _fits, 2 if quick else 5),
                    ("lane", _lane, 6 if quick else 21),
                ):
                    yield from _timings(named, way, *measure(base, workers, trials, place))


def timed(cell: Mapping[str, Any], report: Report, checkpoints: str, host: Host) -> Any:
    """Run a cell as real sweeps do, and log the times of its first step and its end."""
    from jepa_train.distributed import collectives
    from jepa_train.train.trainer import Trainer

    def note(event: str) -> None:
        if collectives.is_main():
            with (Path(checkpoints) / "events.jsonl").open("a") as file:
                file.write(json.dumps({"trial": cell["seed"], "event": event, "at": time.time()}) + "\n")

    whole = Trainer.train_step

    def noting(trainer: Trainer) -> None:
        if trainer.step == 0:
            note("step")
        whole(trainer)

    with mock.patch.object(Trainer, "train_step", noting):
        outcome = train_cell({**cell, "cell_key": f"seed{cell['seed']}"}, report, checkpoints, host)
    note("end")
    return outcome


class _Starts(tune.Callback):
    """Times at which Tune started each trial."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}

    def on_trial_start(self, *_: object, trial: Any, **__: object) -> None:
        self.at[trial.config["seed"]] = time.time()


Events = tuple[dict[int, float], list[dict[str, Any]]]  # start of each trial, and the events that timed() logged


def _tuned(trainable: Callable[[dict[str, Any]], Any], base: TrainConfig, trials: int, folder: Path) -> Events:
    starts = _Starts()
    tune.Tuner(
        trainable,
        param_space=flatten(base) | {"seed": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), callbacks=[starts], verbose=0),
    ).fit()
    return starts.at, [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def _lane(base: TrainConfig, workers: int, trials: int, place: Path) -> Events:
    folder = Path(tempfile.mkdtemp(dir=place))
    with LanePool(
        num_lanes=1,
        workers=workers,
        cpus_per_worker=1 if ray.cluster_resources()["CPU"] >= workers else 0.5,
        gpus_per_worker=_gpus(workers),
        storage=folder / "train",
        runner=timed,
    ) as pool:
        return _tuned(make_trial(pool.mailbox, str(folder)), base, trials, folder)


def _fits(base: TrainConfig, workers: int, trials: int, place: Path) -> Events:
    folder, gpus = Path(tempfile.mkdtemp(dir=place)), _gpus(workers)

    def work(cell: dict[str, Any]) -> None:
        outcome: Any = timed(cell, lambda _: False, str(folder), NoPreemption())
        ray.train.report(outcome.metrics)

    def trial(cell: dict[str, Any]) -> None:
        TorchTrainer(
            work,
            train_loop_config=cell,
            scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=gpus > 0),
            run_config=ray.train.RunConfig(
                name=uuid.uuid4().hex, storage_path=str(folder / "train"), callbacks=[TuneReportCallback()]
            ),
        ).fit()

    return _tuned(tune.with_resources(trial, {"node:__internal_head__": 0.001}), base, trials, folder)


def _timings(what: str, way: str, starts: Mapping[int, float], events: Sequence[Mapping[str, Any]]) -> Iterator[Timing]:
    when = {(event["trial"], event["event"]): event["at"] for event in events}
    trials = sorted(starts)
    to_step = [when[trial, "step"] - starts[trial] for trial in trials]
    gaps = [starts[after] - when[before, "end"] for before, after in itertools.pairwise(trials)]
    ours = way == "lane"
    yield Timing(f"start, {what}", way, "first", (to_step[0],))
    yield Timing(f"start, {what}", way, "later", tuple(to_step[1:]), STEP_S if ours else None)
    yield Timing(f"gap, {what}", way, "all", tuple(gaps), GAP_S if ours else None)


def _whole_sweep(results: Path) -> Timing:
    """Time from the command to the first step of its first cell, in a new process."""
    results.mkdir()
    events = results / "checkpoints" / "overhead" / "events.jsonl"
    started = time.time()
    subprocess.run(
        [sys.executable, "-c", "from benchmarks.overhead import sweep; sweep()"],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"JEPA_RESULTS": str(results)},
    )
    first = json.loads(events.read_text().splitlines()[0])
    return Timing("command to first step, digits, 1 worker", "lane", "first", (first["at"] - started,), SWEEP_S)


def sweep() -> None:
    """Run a sweep of one cell, as its file would."""
    study = Sweep(name="overhead", purpose=str(__doc__), base=unflatten(SHORT, base=DIGITS))
    with mock.patch.object(session, "LanePool", partial(LanePool, runner=timed)):
        sys.exit(launch(study, __file__, []))


def _gpus(workers: int) -> float:
    return float(ray.cluster_resources().get("GPU", 0) >= workers)


if __name__ == "__main__":
    sys.exit(main())
