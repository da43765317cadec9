"""What a cell will take: from cells that finished, from results/calibration.json, or from a few steps run now."""

import dataclasses
import functools
import hashlib
import json
import logging
import math
import os
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten
from jepa_train.storage.paths import results_dir
from sweeps.engine.cluster.resources import Node, Request, alive, room, workers_on
from sweeps.engine.cluster.session import cluster_address
from sweeps.engine.run.calibrate import LEAST_STEPS, Bench, Speed
from sweeps.engine.store.reader import Entry

LIMIT_S = 120.0  # for one measurement, from when its process answers; and for that, where no machine has to start
START_S = 1800.0  # for its process to answer on a cluster: a machine may have to be found, started and set up first
NOT_UP = "no machine that could run it is up"
_FLOAT = re.compile(r"-?\d+(\.\d+|(\.\d+)?e[+-]?\d+)")  # as str() writes one: an int has neither point nor exponent
_FREE = {"seed", "epochs", "data.path", "data.download", "data.on_corrupt"}  # what changes no step's time

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What cells of one kind take on one kind of device.

    Args:
        source: where it is from, in words.
        problem: why it is not known, in one line; the speed is then an upper bound.
    """

    images_per_s: float
    epoch_s: float
    once_s: float
    source: str
    problem: str = ""
    peak_gb: float = math.nan
    device_gb: float = math.nan

    @property
    def known(self) -> bool:
        """Whether it says anything of the time: measured, or a bound."""
        return not self.problem or self.epoch_s > 0

    def seconds(self, epochs: int) -> float:
        """How long a trial of so many epochs takes."""
        return self.once_s + epochs * self.epoch_s


@dataclass
class _Measurement:
    """One that waits for its process, or runs."""

    name: str
    actor: Any
    answer: ray.ObjectRef  # its process is there
    loaded: ray.ObjectRef  # its number of images
    deadline: float
    begun: bool = False


def kind_of(params: Mapping[str, Any]) -> dict[str, str]:
    """The part of a flat config, or of what the store keeps of it, that decides how fast it trains.

    Numbers such as lr, lamb or mu do not (outside images, views and model), and a method's counts, as of slices, are
    taken to the next power of 2: a search shall not need a measurement per point.
    """
    kind: dict[str, str] = {}
    for key in sorted(params.keys() - _FREE):
        text = str(params[key])
        if key.startswith("method.") and text.isdecimal():
            text = str(1 << (int(text) - 1).bit_length()) if int(text) else text
        elif _FLOAT.fullmatch(text) and not key.startswith(("data.", "views.", "model.")):
            continue
        kind[key] = text
    return kind


@functools.lru_cache(maxsize=50_000)
def name_of(config: TrainConfig, request: Request) -> str:
    """The name of what a config's cells take when they ask for this."""
    return _name(flatten(config), str(request))


def ran(entries: Iterable[Entry], request: Request) -> dict[str, Estimate]:
    """What cells that asked for this took, by name: the truth, start and final evaluation spread over the epochs."""
    alike: dict[str, list[Entry]] = {}
    for entry in entries:
        measured = entry.resources == str(request) and entry.device_seconds > 0
        if measured and entry.status == "finished" and entry.params.get("epochs", "0") != "0":
            alike.setdefault(_name(entry.params, entry.resources), []).append(entry)
    return {
        name: Estimate(
            images_per_s=statistics.median(entry.metrics.get("train/images_per_s", math.nan) for entry in cells),
            epoch_s=statistics.median(
                entry.device_seconds / request.devices / int(entry.params["epochs"]) for entry in cells
            ),
            once_s=0.0,
            source=f"as in {len(cells)} finished cells",
        )
        for name, cells in alike.items()
    }


def calibrated(
    configs: Iterable[TrainConfig],
    request: Request,
    nodes: Sequence[Node],
    *,
    note: Callable[[str], object],
    start: bool = True,
) -> dict[str, Estimate]:
    """What each of the configs takes, by name: measured before, or now by tasks that ask for what trials do.

    Ray must be up where something is to be measured: see unmeasured. A trial that shares a GPU is measured alone on it;
    otherwise as many are measured side by side as trials will run, for they slow each other down.

    Args:
        note: told what happens.
        start: whether machines may be started for it; else only those that are up measure.
    """
    alone = _alone(request)
    kinds = {name_of(config, alone): config for config in configs}
    known = _read_cache()
    todo = {name: config for name, config in kinds.items() if name not in known}
    at_once = room(nodes, alone) if todo else 0
    if todo and not start:
        at_once = min(at_once, math.ceil(workers_on(alive(ray.nodes()), alone) / alone.workers))
    if not at_once:
        known, todo = known | dict.fromkeys(todo, _unknown(NOT_UP)), {}
    limit_s = START_S if start and cluster_address() else LIMIT_S
    for number, (name, estimate) in enumerate(_measured(todo, alone, at_once, limit_s), 1):
        note(f"measured {number} of {len(todo)}: {estimate.problem or f'{estimate.images_per_s:,.0f} images/s'}")
        known[name] = estimate
        _write_cache(known)
    return {name_of(config, request): known[name] for name, config in kinds.items()}


def unmeasured(configs: Iterable[TrainConfig], request: Request) -> bool:
    """Whether something of this is to be measured."""
    known = _read_cache()
    return any(name_of(config, _alone(request)) not in known for config in configs)


def _measured(
    todo: Mapping[str, TrainConfig], request: Request, at_once: int, start_s: float
) -> Iterator[tuple[str, Estimate]]:
    """Each in a fresh process, which is ended when it has not answered after start_s, or then takes too long."""
    not_begun = _unknown(f"not begun after {start_s:.0f} s: no machine came up for it, or the cluster is busy")
    # As one worker of each trial: what workers tell each other is not measured.
    bench = ray.remote(num_cpus=request.cpus, num_gpus=request.gpus)(Bench)
    waiting = list(todo.items())
    running: dict[ray.ObjectRef, _Measurement] = {}  # by its speed
    while waiting or running:
        while waiting and len(running) < at_once:
            name, config = waiting.pop(0)
            actor = bench.remote(config)
            answer, loaded = actor.__ray_ready__.remote(), actor.images.remote()
            speed = actor.measure.remote(workers=request.workers, threads=request.cpus)
            running[speed] = _Measurement(name, actor, answer, loaded, time.monotonic() + start_s)
        soonest = min(one.deadline for one in running.values())
        events = [*running, *(one.answer for one in running.values() if not one.begun)]
        ready, _ = ray.wait(events, timeout=max(0.0, soonest - time.monotonic()))
        for speed, one in list(running.items()):
            if not one.begun and one.answer in ready:
                one.begun, one.deadline = True, time.monotonic() + LIMIT_S
            if speed in ready or time.monotonic() >= one.deadline:
                del running[speed]
                late = _too_slow(one.loaded, todo[one.name]) if one.begun else not_begun
                yield one.name, _estimate(speed) if speed in ready else late
                ray.kill(one.actor)


def _estimate(measured: ray.ObjectRef) -> Estimate:
    try:
        return Estimate(source="measured", **dataclasses.asdict(ray.get(measured)))
    except RayTaskError as error:
        return _unknown(f"{type(error.cause).__name__}: {error.cause}")
    except RayError as error:  # its process died: out of memory, for one
        return _unknown(str(error))


def _too_slow(loaded: ray.ObjectRef, config: TrainConfig) -> Estimate:
    """A bound, from the steps that a measurement takes at least, where the images were ready in time."""
    if not ray.wait([loaded], timeout=0)[0]:
        return _unknown(f"no step after {LIMIT_S:.0f} s: its images are still being prepared")
    speed = LEAST_STEPS * config.global_batch / LIMIT_S
    problem = f"slower than {speed:.3g} images/s: not {LEAST_STEPS} steps in {LIMIT_S:.0f} s"
    return _unknown(problem, images_per_s=speed, epoch_s=ray.get(loaded) / speed)


def _unknown(problem: str, *, images_per_s: float = math.nan, epoch_s: float = 0.0) -> Estimate:
    line = problem.strip().splitlines()[0]
    return Estimate(images_per_s=images_per_s, epoch_s=epoch_s, once_s=0.0, source="not measured", problem=line)


def _alone(request: Request) -> Request:
    """A trial on whole GPUs."""
    return dataclasses.replace(request, gpus=float(math.ceil(request.gpus)))


def _name(params: Mapping[str, Any], resources: str) -> str:
    text = json.dumps([kind_of(params), resources], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _cache_file() -> Path:
    return results_dir() / "calibration.json"


def _read_cache() -> dict[str, Estimate]:
    """What was measured here; a file that is damaged, or of another version, is measured anew."""
    try:
        rows = json.loads(_cache_file().read_text())
        return {name: Estimate(source="measured before", **row) for name, row in rows.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning("%s is not used: %s", _cache_file(), error)
        return {}


def _write_cache(known: Mapping[str, Estimate]) -> None:
    """By another name and renamed: who reads it finds it whole."""
    fields = [field.name for field in dataclasses.fields(Speed)]
    rows = {
        name: {field: getattr(estimate, field) for field in fields}
        for name, estimate in known.items()
        if not estimate.problem
    }
    file = _cache_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    partial.write_text(json.dumps(rows, indent=1))
    partial.replace(file)
