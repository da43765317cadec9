"""Parts of on_gpu.py: the checks of gpu_checks.py, and measurements of whole steps and their pieces."""

import contextlib
import dataclasses
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any, ClassVar
from unittest import mock

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import rdmreg, sigreg
from benchmarks.cell import WHOLE, Phase, sample
from benchmarks.comparison import Comparison, in_time
from benchmarks.gpu_checks import (
    STEPS,
    batch_of_views,
    check_batch_norm,
    check_draws,
    check_rdmreg,
    check_replay,
    check_sigreg,
    check_sort,
    check_views,
    trainer_of,
    with_average_and_local_views,
)
from benchmarks.report import Row
from benchmarks.step import CONFIGS, bare_step, fitted, noise
from benchmarks.timing import Call, Setting, interleaved, replayed, synchronize
from jepa_train.config import DataConfig, TrainConfig
from jepa_train.config.presets import DIGITS, PRESETS
from jepa_train.data.augment import occurring, torch_views
from jepa_train.evaluation.evaluate import evaluate, final_evaluation
from jepa_train.losses.rgg import RGG
from jepa_train.losses.slices import unit_slices
from jepa_train.train.loop import train

# launches of a step as tests/integration/train/test_device_step.py counts them, see docs/performance.md
COUNTED = {"LeJEPA": 399, "Rectified LpJEPA": 405}
TARGETS = {"LeJEPA": 1.15, "Rectified LpJEPA": 1.20}  # of the captured bare encoder
LONGEST = 10  # kernels that a profile lists
LAB_EPOCHS = 15


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the run, and the seconds after which it is ended."""

    run: Callable[[Setting], Iterator[Row]]
    seconds: float


# --- rows


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Time of a step or of the bare encoder.

    Args:
        seconds: samples.
        floor: median seconds of the captured bare encoder.
        images: of a batch.
        flops: of the bare encoder's forward and backward.
        peak: FLOP/s of a large matrix product in the same run; 0 where none was measured.
        launches: on the device, as the profiler sees them.
        counted: as the tests count them; 0 where they do not.
    """

    what: str
    seconds: tuple[float, ...]
    floor: float
    images: int
    flops: int
    peak: float
    launches: int
    counted: int = 0
    target: float | None = None

    HEADER: ClassVar[tuple[str, ...]] = (
        "step",
        "time",
        "of the captured bare encoder",
        "at most",
        "images/s",
        "share of peak",
        "launches",
        "counted",
        "n",
    )
    NOTE: ClassVar[str] = (
        "Medians of n interleaved repeats, resnet18, 32 px. Share of peak: the bare encoder's operations in the time, "
        "of the rate of a bf16 product of 8192 x 8192 matrices. Launches: kernels, copies and fills by the profiler; "
        "counted: by the tests, without a GPU."
    )

    def cells(self) -> tuple[str, ...]:
        """One text per column of HEADER."""
        seconds = median(self.seconds)
        return (
            self.what,
            in_time(seconds),
            f"{seconds / self.floor:.2f}",
            "" if self.target is None else f"{self.target:g}",
            f"{self.images / seconds:,.0f}",
            f"{self.flops / seconds / self.peak:.0%}" if self.peak else "",
            str(self.launches),
            str(self.counted or ""),
            str(len(self.seconds)),
        )

    def record(self) -> dict[str, Any]:
        """The fields."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class KernelTime:
    """One of the kernels that take longest in a step."""

    step: str
    name: str
    count: int
    seconds: float
    share: float  # of all kernels' time

    HEADER: ClassVar[tuple[str, ...]] = ("in", "kernel", "launches", "time", "share")
    NOTE: ClassVar[str] = f"The {LONGEST} kernels that take longest in one replayed step, by the profiler."

    def cells(self) -> tuple[str, ...]:
        """One text per column of HEADER."""
        return self.step, self.name[:80], str(self.count), in_time(self.seconds), f"{self.share:.0%}"

    def record(self) -> dict[str, Any]:
        """The fields."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Steps per second of several processes that train at the same time on one device."""

    what: str
    mps: bool
    processes: int
    rates: tuple[float, ...]  # steps per second of each process
    alone: float  # of one process without MPS

    HEADER: ClassVar[tuple[str, ...]] = ("cells at once", "MPS", "processes", "steps/s, all", "of one alone")
    NOTE: ClassVar[str] = "Each process trains a cell of its own, all at the same time on one device."

    def cells(self) -> tuple[str, ...]:
        """One text per column of HEADER."""
        total = sum(self.rates)
        mps = "yes" if self.mps else "no"
        return self.what, mps, str(self.processes), f"{total:.4g}", f"{total / self.alone:.2f}"

    def record(self) -> dict[str, Any]:
        """The fields."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class LabRun:
    """A run on real images."""

    preset: str
    epochs: int
    seconds: float
    metrics: Mapping[str, float]

    HEADER: ClassVar[tuple[str, ...]] = ("preset", "epochs", "seconds", "images/s", "linear top-1", "kNN top-1")
    NOTE: ClassVar[str] = "Whole runs, evaluation included; images/s in the last epoch."

    def cells(self) -> tuple[str, ...]:
        """One text per column of HEADER."""
        names = ("test/linear_top1", "test/knn_top1")
        accuracies = [f"{self.metrics[name]:.4f}" if name in self.metrics else "" for name in names]
        rate = f"{self.metrics.get('train/images_per_s', 0.0):,.0f}"
        return self.preset, str(self.epochs), f"{self.seconds:.0f}", rate, *accuracies

    def record(self) -> dict[str, Any]:
        """The fields."""
        return dataclasses.asdict(self)


# --- whole steps


def time_step(name: str, setting: Setting) -> Iterator[Row]:
    """The bare encoder and the whole step, both eager and replayed; launches and the longest kernels."""
    device, config = setting.device, fitted(CONFIGS[name], setting)
    bare = bare_step(config, noise(config).train, device)
    calls: dict[str, Call] = {
        f"bare encoder of {name}, eager": bare,
        f"bare encoder of {name}, replayed": replayed(bare_step(config, noise(config).train, device), device),
        f"{name}, eager": trainer_of(config, graphs=False).train_step,
        f"{name}, replayed": trainer_of(config, graphs=True).train_step,
    }
    with FlopCounterMode(display=False) as counter:
        bare()
    for _ in range(STEPS):
        calls[f"{name}, replayed"]()
    times = dict(zip(calls, interleaved([*calls.values()], setting.effort, device), strict=True))
    peak = _peak(setting)
    for what, call in calls.items():
        kernels = profiled(call, device)
        is_step = what.startswith(name)
        yield StepTime(
            what=what,
            seconds=times[what],
            floor=median(times[f"bare encoder of {name}, replayed"]),
            images=config.global_batch,
            flops=counter.get_total_flops(),
            peak=peak,
            launches=sum(len(seconds) for seconds in kernels.values()),
            counted=0 if setting.quick or not is_step else COUNTED[name],
            target=TARGETS[name] if what == f"{name}, replayed" and not setting.quick else None,
        )
    whole = sum(map(sum, kernels.values()))
    for kernel, seconds in sorted(kernels.items(), key=lambda item: -sum(item[1]))[:LONGEST]:
        yield KernelTime(step=name, name=kernel, count=len(seconds), seconds=sum(seconds), share=sum(seconds) / whole)


def profiled(call: Call, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each launch of a call by kernel; on a CPU those of torch's operations."""
    on_gpu = device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=activities) as profile:
        call()
        synchronize(device)
    found: dict[str, list[float]] = defaultdict(list)
    for event in profile.events() or ():
        is_annotation = getattr(event, "is_user_annotation", False)
        if event.device_type.name == ("CUDA" if on_gpu else "CPU") and not is_annotation:
            found[event.name].append(event.time_range.elapsed_us() * 1e-6)
    return dict(found)


def _peak(setting: Setting) -> float:
    """FLOP/s of a product of large bf16 matrices; 0 on a CPU."""
    if setting.device.type != "cuda":
        return 0.0
    side = 1024 if setting.quick else 8192
    a = torch.randn(side, side, device=setting.device, dtype=torch.bfloat16)
    (seconds,) = interleaved([lambda: a @ a], setting.effort, setting.device)
    return 2 * side**3 / median(seconds)


# --- pieces


def time_losses(module: Any, setting: Setting) -> Iterator[Row]:
    """A loss against its plain form: eager, then as graphs."""
    yield from module.run(setting)
    yield from module.run(replace(setting, graphs=True))


def time_inputs(setting: Setting) -> Iterator[Row]:
    """Views, slices and targets by kernels against torch's operations, eager and replayed."""
    from jepa_train.data.augment_triton import fused_views

    device = setting.device
    config, source, fields = batch_of_views(setting)
    out = torch.empty(config.num_global, len(source.first), 3, *[config.global_size] * 2, device=device)
    num, dim = (4, 16) if setting.quick else (8192, 512)
    count, target = torch.tensor(7, device=device), RGG(p=1.0, mu=0.0)
    batch = (2, 4, 16) if setting.quick else (2, 256, 512)
    pairs: dict[str, tuple[str, Call, Call]] = {
        "views": (
            f"{fields.shape[1]} of {config.global_size} px",
            partial(torch_views, source, fields, occurring(config), out),
            partial(fused_views, source, fields, out),
        ),
        "slices": (
            f"{num} x {dim}",
            lambda: unit_slices(dim, num, 0, device=device),
            lambda: unit_slices(dim, num, 0, count),
        ),
        "target": (
            str(batch),
            lambda: target.target(batch, 0, device=device),
            lambda: target.target(batch, 0, count, device=device),
        ),
    }
    for name, (shape, plain, ours) in pairs.items():
        times = interleaved((plain, ours, replayed(ours, device)), setting.effort, device)
        for label, samples in (("", times[1]), (", replayed", times[2])):
            row = Comparison(what=name + label, against="torch, eager", shape=shape, reference=times[0], ours=samples)
            yield row if setting.device.type == "cuda" or not label else replace(row, what=f"{name}, the same again")


def time_evaluation(setting: Setting) -> Iterator[Row]:
    """Phases of a cell of digits; evaluation of a network with CIFAR-10's shapes, on random images."""
    if not setting.quick:
        seconds = sample(())["seconds"]
        for name, value in sorted(seconds.items(), key=lambda item: -item[1]):
            yield Phase(f"digits, mini: {name}", (value,), (), value / seconds[WHOLE])
    config = fitted(CONFIGS["LeJEPA"], setting)
    trainer = trainer_of(config, graphs=True)
    splits = noise(config)
    sizes = (32, 16, 16) if setting.quick else (45_000, 5_000, 10_000)
    train_split, val, test = (splits.train.take(torch.arange(size) % len(splits.train)) for size in sizes)
    splits = replace(splits, train=train_split, val=val, test=test)
    for _ in range(STEPS):
        trainer.train_step()

    def epoch() -> None:
        for _ in range(max(sizes[0] // config.global_batch, 1)):
            trainer.train_step()

    calls: dict[str, Call] = {
        "an epoch of steps": epoch,
        "evaluation of val": lambda: evaluate(trainer.evaluated, splits.val, config, prefix="val"),
        "final evaluation": lambda: final_evaluation(trainer.evaluated, splits, config),
    }
    found = {}
    for name, call in calls.items():
        synchronize(setting.device)
        started = time.perf_counter()
        call()
        synchronize(setting.device)
        found[name] = time.perf_counter() - started
    run = config.epochs * (found["an epoch of steps"] + found["evaluation of val"]) + found["final evaluation"]
    for name, value in found.items():
        times = 1 if name == "final evaluation" else config.epochs
        yield Phase(f"CIFAR-10's shapes: {name}, of {config.epochs} epochs", (value,), (), times * value / run)


# --- several cells on one GPU


def pack(setting: Setting) -> Iterator[Row]:
    """Digits and ResNet-18 in 1, 2 and 4 processes, without and with MPS where it is installed."""
    configs = {"digits": DIGITS} if setting.quick else {"digits": DIGITS, "resnet18": CONFIGS["LeJEPA"]}
    alone: dict[str, float] = {}
    for mps in (False, True):
        with _mps_server() if mps else contextlib.nullcontext(True) as is_there:
            if not is_there:
                return
            for name, config in configs.items():
                for processes in (1, 2) if setting.quick else (1, 2, 4):
                    rates = _rates(config, setting, processes)
                    alone.setdefault(name, rates[0])
                    yield Packing(what=name, mps=mps, processes=processes, rates=rates, alone=alone[name])


def _rates(config: TrainConfig, setting: Setting, processes: int) -> tuple[float, ...]:
    """Steps per second of each process."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(processes)
    ends = [context.Pipe(duplex=False) for _ in range(processes)]
    started = [context.Process(target=_count, args=(config, setting, barrier, sender)) for _, sender in ends]
    for process, (_, sender) in zip(started, ends, strict=True):
        process.start()
        sender.close()
    rates = tuple(float(receiver.recv()) for receiver, _ in ends)
    for process in started:
        process.join()
    return rates


def _count(config: TrainConfig, setting: Setting, barrier: Barrier, sender: Connection) -> None:
    """Train, and send the steps per second of a few seconds in which all processes train."""
    config = replace(config, precision="fp32") if setting.device.type == "cpu" else config
    trainer = trainer_of(replace(config, global_batch=8) if setting.quick else config, graphs=True)
    for _ in range(2 if setting.quick else STEPS):
        trainer.train_step()
    synchronize(setting.device)
    barrier.wait(60)
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < (0 if setting.quick else setting.seconds) or not steps:
        for _ in range(1 if setting.quick else 20):
            trainer.train_step()
            steps += 1
        synchronize(setting.device)
    sender.send(steps / (time.perf_counter() - started))


@contextlib.contextmanager
def _mps_server() -> Iterator[bool]:
    """NVIDIA's multi-process service for the processes started inside, ended at the end; False if there is none."""
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None:
        yield False
        return
    with tempfile.TemporaryDirectory() as folder:
        places = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        with mock.patch.dict(os.environ, places):
            subprocess.run([control, "-d"], check=True, timeout=20)
            try:
                yield True
            finally:
                subprocess.run([control], input="quit\n", text=True, check=False, timeout=60)


# --- real images


def lab(images: Path) -> Part:
    """LeJEPA and the minimal example of Rectified LpJEPA on an image folder, at equal epochs."""

    def run(setting: Setting) -> Iterator[Row]:
        for preset in ("cifar10", "rectified_lpjepa_guide"):
            data = DataConfig(name="image_folder", path=str(images), image_size=32)
            epochs = 1 if setting.quick else LAB_EPOCHS
            config = fitted(replace(PRESETS[preset], data=data, epochs=epochs), setting)
            config = replace(config, optim=replace(config.optim, warmup_epochs=min(1, config.optim.warmup_epochs)))
            started = time.perf_counter()
            outcome = train(config)
            yield LabRun(
                preset=preset, epochs=epochs, seconds=time.perf_counter() - started, metrics=dict(outcome.metrics)
            )

    return Part(run=run, seconds=300)


# the most important parts first; a single one may take all the time that is left
PARTS: Mapping[str, Part] = {
    "kernels of views": Part(run=check_views, seconds=60),
    "kernels of draws": Part(run=check_draws, seconds=60),
    "kernels of SIGReg": Part(run=check_sigreg, seconds=60),
    "kernels of RDMReg": Part(run=check_rdmreg, seconds=90),
    "kernels of batch norm": Part(run=check_batch_norm, seconds=60),
    **{
        f"replay of {name}": Part(run=partial(check_replay, config, name), seconds=90)
        for name, config in (*CONFIGS.items(), ("EMA and local views", with_average_and_local_views()))
    },
    **{f"step of {name}": Part(run=partial(time_step, name), seconds=90) for name in CONFIGS},
    "SIGReg": Part(run=partial(time_losses, sigreg), seconds=80),
    "RDMReg": Part(run=partial(time_losses, rdmreg), seconds=60),
    "inputs": Part(run=time_inputs, seconds=45),
    "evaluation": Part(run=time_evaluation, seconds=90),
    "packing": Part(run=pack, seconds=180),
    "kernels of the sort": Part(run=check_sort, seconds=150),
}
