"""Checks of on_gpu.py: every kernel against its torch form, and a replayed step against an eager one."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks import rdmreg, sigreg
from benchmarks.gradients import errors
from benchmarks.step import CONFIGS, fitted, noise
from benchmarks.timing import Setting, synchronize
from jepa_train.base.seeds import generator
from jepa_train.config import TrainConfig
from jepa_train.data.augment import occurring, torch_views, view_fields
from jepa_train.data.pictures import Source
from jepa_train.losses.rgg import RGG
from jepa_train.losses.sliced_wasserstein import sliced_wasserstein
from jepa_train.losses.slices import unit_slices
from jepa_train.methods.lejepa import sigreg as our_sigreg
from jepa_train.model.batch_norm import GlobalBatchNorm
from jepa_train.train.cuda_graph import EAGER_STEPS, CapturableStep, GraphStep, captured
from jepa_train.train.trainer import Trainer

STEPS = EAGER_STEPS + 5  # four replays, and the one of the capture
# beginning of column 3 of unit_slices(512, .., seed=0, count=7), by Triton's interpreter
KNOWN_SLICES = (-0.04718611, -0.03013994, -0.012415, -0.0336761, -0.01999576, 0.05191741)


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

    config, source, fields = batch_of_views(setting)
    found = torch.empty(config.num_global, len(source.first), 3, *[config.global_size] * 2, device=setting.device)
    wanted = torch.empty_like(found)
    fused_views(source, fields, found)
    torch_views(source, fields, occurring(config), wanted)
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


def batch_of_views(setting: Setting) -> tuple[Any, Source, Tensor]:
    """Config of the views, images on the device, and the fields of a step's views."""
    config = fitted(CONFIGS["LeJEPA"], setting)
    batch, size = (2 if setting.quick else config.global_batch), config.views.global_size
    source, _ = noise(config).train.on(setting.device).batch(torch.arange(batch))
    views = replace(config.views, global_size=size)
    (fields,) = view_fields([source.shapes] * 2, views, seed=0, step=0, batch=slice(0, batch), global_batch=batch)
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


def with_average_and_local_views() -> TrainConfig:
    base = CONFIGS["LeJEPA"]
    views = replace(base.views, num_local=2, local_size=16)
    return replace(base, views=views, model=replace(base.model, swa_decay=0.99))
