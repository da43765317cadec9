"""Parts of on_gpu.py: checks of the kernels and of the replay, and measurements of whole steps and their pieces."""

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
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import rdmreg, sigreg
from benchmarks.cell import WHOLE, Phase, sample
from benchmarks.comparison import Comparison, in_time
from benchmarks.gradients import errors
from benchmarks.report import Row
from benchmarks.step import CONFIGS, bare_step, fitted, noise
from benchmarks.timing import Call, Setting, interleaved, replayed, synchronize
from jepa_train.base.seeds import generator
from jepa_train.config import DataConfig, TrainConfig
from jepa_train.config.presets import DIGITS, PRESETS
from jepa_train.data.augment import occurring, static_views, view_fields
from jepa_train.data.pictures import Shapes, Source
from jepa_train.evaluation.evaluate import evaluate, final_evaluation
from jepa_train.losses.rgg import RGG
from jepa_train.losses.sliced_wasserstein import sliced_wasserstein
from jepa_train.losses.slices import unit_slices
from jepa_train.methods.lejepa import sigreg as our_sigreg
from jepa_train.model.batch_norm import GlobalBatchNorm
from jepa_train.train.cuda_graph import EAGER_STEPS, CapturableStep, GraphStep, captured
from jepa_train.train.loop import train
from jepa_train.train.trainer import Trainer

# launches of a step as tests/integration/train/test_device_step.py counts them, see docs/performance.md
COUNTED = {"LeJEPA": 399, "Rectified LpJEPA": 405}
TARGETS = {"LeJEPA": 1.15, "Rectified LpJEPA": 1.20}  # of the captured bare encoder
LONGEST = 10  # kernels that a profile lists
STEPS = EAGER_STEPS + 5  # four replays, and the one of the capture
LAB_EPOCHS = 15
# beginning of column 3 of unit_slices(512, .., seed=0, count=7), by Triton's interpreter
KNOWN_SLICES = (-0.04718611, -0.03013994, -0.012415, -0.0336761, -0.01999576, 0.05191741)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the run, and the seconds after which it is ended."""

    run: Callable[[Setting], Iterator[Row]]
    seconds: float


# --- rows


@dataclass(frozen=True, kw_only=True)
class Check:
    """Largest difference between two forms of one computation, and its bound."""

    what: str
    against: str
    shape: str
    error: float
    bound: float

    HEADER: ClassVar[tuple[str, ...]] = ("checked", "against", "shape", "error", "at most", "met")
    NOTE: ClassVar[str] = "Error: the largest difference, of losses as a share of the largest entry. 0: bit for bit."

    @property
    def met(self) -> bool:
        """The error is within its bound; NaN is not."""
        return self.error <= self.bound

    def cells(self) -> tuple[str, ...]:
        """One text per column of HEADER."""
        numbers = f"{self.error:.2g}", f"{self.bound:g}"
        return self.what, self.against, self.shape, *numbers, "yes" if self.met else "no"

    def record(self) -> dict[str, Any]:
        """The fields."""
        return dataclasses.asdict(self) | {"met": self.met}


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


# --- kernels against their torch forms


@contextlib.contextmanager
def by_kernels() -> Iterator[None]:
    """Let the losses and batch norm use their kernels on any device."""
    with contextlib.ExitStack() as stack:
        for module in ("losses.sliced_wasserstein", "methods.lejepa", "model.batch_norm"):
            stack.enter_context(mock.patch(f"jepa_train.{module}.runs_kernels", return_value=True))
        yield


def check_views(setting: Setting) -> Iterator[Check]:
    """The views of a batch in fp32: all pixels but those where rounding decides on the side of solarisation's edge."""
    from jepa_train.data.augment_triton import fused_views

    config, source, fields = _batch_of_views(setting)
    found = torch.empty(config.num_global, len(source.first), 3, *[config.global_size] * 2, device=setting.device)
    wanted = torch.empty_like(found)
    fused_views(source, fields, found)
    static_views(source, fields, occurring(config), wanted)
    difference = (found - wanted).abs()
    shape = f"{len(fields[0])} views of {config.global_size} px"
    close = difference <= 1e-4  # not so NaN
    edge = 1 - float(close.float().mean())
    yield Check(what="views, share of pixels off by 1e-4", against="torch", shape=shape, error=edge, bound=1e-4)
    rest = float(difference[close].max()) if close.any() else float("nan")
    yield Check(what="views, the other pixels", against="torch", shape=shape, error=rest, bound=1e-4)


def check_draws(setting: Setting) -> Iterator[Check]:
    """Slices as the interpreter draws them; means of the targets, within six standard errors."""
    num, dim = (4, 512) if setting.quick else (8192, 512)
    count = torch.tensor(7, device=setting.device)
    rows = unit_slices(dim, num, 0, count).mT
    known = torch.tensor(KNOWN_SLICES)
    error = float((rows[3, : len(known)].cpu() - known).abs().max())
    yield Check(what="slices", against="Triton's interpreter", shape=f"{num} x {dim}", error=error, bound=1e-6)
    for p in (0.5, 1.0, 2.0):
        target = RGG(p=p, mu=0.0)
        shape = (2, 512) if setting.quick else (2, 256, 512)
        found = target.target(shape, 0, count, rectified=False, device=setting.device)
        bound = 6 * (target.gn_variance / found.numel()) ** 0.5
        mean = float(found.mean().abs())
        yield Check(what=f"target, p={p:g}", against="mean 0", shape=str(shape), error=mean, bound=bound)


def check_sigreg(setting: Setting) -> Iterator[Check]:
    """Value and gradient."""
    for num_views, num, dim, num_slices, num_knots in _shapes(sigreg.QUICK_SHAPES[:1], sigreg.SHAPES, setting):
        z = torch.randn(num_views, num, dim, generator=generator(0, "z")).to(setting.device)
        slices = unit_slices(dim, num_slices, 0).to(setting.device)
        plain = partial(sigreg.plain_sigreg, slices=slices, num_knots=num_knots)
        ours = partial(our_sigreg, slices=slices, num_knots=num_knots)
        shape = f"V={num_views} N={num} D={dim} K={num_slices} T={num_knots}"
        with by_kernels():
            yield from _loss_checks("SIGReg", shape, errors(ours, plain, z))


def check_rdmreg(setting: Setting) -> Iterator[Check]:
    """Value and gradient, both in fp32."""
    for num, dim, num_slices in _shapes(((16, 8, 8),), rdmreg.SHAPES, setting):
        z = torch.randn(num, dim, generator=generator(0, "z")).relu().to(setting.device)
        target = RGG(p=1.0, mu=0.0).sample((num, dim), generator(0, "target")).to(setting.device)
        slices = unit_slices(dim, num_slices, 0).to(setting.device)
        plain = partial(rdmreg.plain_sliced_wasserstein, target=target, slices=slices)
        with by_kernels():
            found = errors(partial(sliced_wasserstein, target=target, slices=slices), plain, z)
        yield from _loss_checks("RDMReg", f"N={num} D={dim} K={num_slices}", found)


def check_sort(setting: Setting) -> Iterator[Check]:
    """Differences by rank, ties included: bit for bit. The widest kernel comes last, as it takes long to compile."""
    from jepa_train.losses.rank_matching_triton import subtract_by_rank

    for num in (16,) if setting.quick else (256, 500, 512, 1024, 2048):
        rows = 2 if setting.quick else 1024
        draws = generator(0, "sort", num)
        x, y = (torch.randn(rows, 2, num, generator=draws).to(setting.device) for _ in range(2))
        x[..., : num // 3] = x[..., : num // 3].round()  # ties
        ordered, places = x.sort(dim=-1, stable=True)
        wanted = torch.empty_like(x).scatter_(-1, places, ordered - y.sort(dim=-1).values)
        subtract_by_rank(x, y, torch.empty(rows, 2, device=setting.device), scale=1.0)
        error = float((x - wanted).abs().max())
        yield Check(what="sort", against="torch.sort", shape=f"{2 * rows} x {num}", error=error, bound=0.0)


def check_batch_norm(setting: Setting) -> Iterator[Check]:
    """Batch norm and ReLU of two views, in fp32: outputs, gradients and running statistics."""
    shape = (4, 16, 4, 4) if setting.quick else (512, 64, 32, 32)
    draws = generator(0, "batch norm")
    x = (3 + torch.randn(*shape, generator=draws)).to(setting.device).to(memory_format=torch.channels_last)
    grad = torch.randn(*shape, generator=draws).to(setting.device).to(memory_format=torch.channels_last)
    plain = nn.BatchNorm2d(shape[1]).to(setting.device)
    ours = GlobalBatchNorm(nn.BatchNorm2d(shape[1]).to(setting.device), per_view=True)
    ours.num_views, ours.act = 2, nn.ReLU()
    with by_kernels():
        found = _forward_backward(ours, ours, x, grad)
    wanted = _forward_backward(plain, lambda x: torch.cat([plain(view).relu() for view in x.chunk(2)]), x, grad)
    for name, value in found.items():
        error = float((value - wanted[name]).abs().max() / wanted[name].abs().max())
        yield Check(what=f"batch norm, {name}", against="torch", shape=str(shape), error=error, bound=1e-4)


def _forward_backward(
    layer: nn.BatchNorm2d | GlobalBatchNorm, call: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor
) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    out = call(x)
    by_x, by_weight, by_bias = torch.autograd.grad(out, (x, layer.weight, layer.bias), grad)
    buffers = {"running mean": layer.running_mean, "running variance": layer.running_var}
    results = {"output": out.detach(), "gradient": by_x, "of weight": by_weight, "of bias": by_bias}
    return results | {name: value for name, value in buffers.items() if value is not None}


def _loss_checks(what: str, shape: str, found: Mapping[str, tuple[float, float]]) -> Iterator[Check]:
    for name, (error, bound) in found.items():
        yield Check(what=f"{what}, {name}", against="plain form", shape=shape, error=error, bound=bound)


def _shapes(quick: Any, full: Any, setting: Setting) -> Any:
    return quick if setting.quick else full


def _batch_of_views(setting: Setting) -> tuple[Any, Source, Tensor]:
    """Config of the views, images on the device, and the fields of a step's views."""
    config = fitted(CONFIGS["LeJEPA"], setting)
    batch, size = (2 if setting.quick else config.global_batch), config.views.global_size
    pixels = noise(config).train.pixels.to(setting.device)
    source = Source(pixels=pixels, first=torch.arange(batch, device=setting.device))
    shapes = [Shapes.of_squares(batch, pixels.shape[-1])] * 2
    views = replace(config.views, global_size=size)
    (fields,) = view_fields(shapes, views, seed=0, step=0, batch=slice(0, batch), global_batch=batch)
    return views, source, fields.to(setting.device)


# --- replay against eager


def check_replay(config: TrainConfig, name: str, setting: Setting) -> Iterator[Check]:
    """State after STEPS steps: eager twice, which shows if the libraries repeat themselves, and replayed."""
    torch.backends.cudnn.deterministic = True
    config = fitted(config, setting)
    trainers = [trainer_of(config, graphs=graphs) for graphs in (False, False, True)]
    for trainer in trainers:
        for _ in range(STEPS):
            trainer.train_step()
        synchronize(setting.device)
    first, *others = ([*_tensors(trainer.state_dict())] for trainer in trainers)
    for what, other in zip(("eager again", "replayed"), others, strict=True):
        error = max(float((a.double() - b.double()).abs().max()) for a, b in zip(first, other, strict=True) if len(a))
        yield Check(what=f"{name}, {what}", against="eager", shape=f"{STEPS} steps", error=error, bound=0.0)


def trainer_of(config: TrainConfig, *, graphs: bool) -> Trainer:
    """A trainer on random images. With graphs its steps are replayed from the fifth on; else they stay eager.

    Raises:
        RuntimeError: in one of the first five steps, on a GPU, if the step cannot be captured, and why.
    """
    with mock.patch("jepa_train.train.trainer.captured", _strictly_captured if graphs else lambda step, _device: step):
        return Trainer(config, noise(config))


def _strictly_captured(step: CapturableStep, device: torch.device) -> Callable[[], None]:
    run = captured(step, device)

    def checked() -> None:
        run()
        if isinstance(run, GraphStep) and run.reason:
            raise RuntimeError(f"not captured: {run.reason}")

    return checked


def _tensors(state: Any) -> Iterator[Tensor]:
    """Tensors with at least one dimension in nested dictionaries and lists, in order."""
    if isinstance(state, Tensor):
        yield state.flatten()
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _tensors(value)


def _with_average_and_local_views() -> TrainConfig:
    base = CONFIGS["LeJEPA"]
    views = replace(base.views, num_local=2, local_size=16)
    return replace(base, views=views, model=replace(base.model, swa_decay=0.99))


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
    config, source, fields = _batch_of_views(setting)
    out = torch.empty(config.num_global, len(source.first), 3, *[config.global_size] * 2, device=device)
    num, dim = (4, 16) if setting.quick else (8192, 512)
    count, target = torch.tensor(7, device=device), RGG(p=1.0, mu=0.0)
    batch = (2, 4, 16) if setting.quick else (2, 256, 512)
    pairs: dict[str, tuple[str, Call, Call]] = {
        "views": (
            f"{fields.shape[1]} of {config.global_size} px",
            partial(static_views, source, fields, occurring(config), out),
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
        for name, config in (*CONFIGS.items(), ("EMA and local views", _with_average_and_local_views()))
    },
    **{f"step of {name}": Part(run=partial(time_step, name), seconds=90) for name in CONFIGS},
    "SIGReg": Part(run=partial(time_losses, sigreg), seconds=80),
    "RDMReg": Part(run=partial(time_losses, rdmreg), seconds=60),
    "inputs": Part(run=time_inputs, seconds=45),
    "evaluation": Part(run=time_evaluation, seconds=90),
    "packing": Part(run=pack, seconds=180),
    "kernels of the sort": Part(run=check_sort, seconds=150),
}
