"""Computations that several gloo ranks and one process must agree on: CASES. results() starts the ranks once."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from jepa_train.base.seeds import generator
from jepa_train.config import DataConfig, OptimConfig
from jepa_train.config.augmentation_presets import LEJEPA_SMALL_VIEWS
from jepa_train.config.presets import DIGITS
from jepa_train.data import Images, Splits
from jepa_train.data.augment import make_views, to_input
from jepa_train.data.pictures import LineRanges
from jepa_train.data.splits import load_splits, normalization
from jepa_train.distributed import collectives
from jepa_train.evaluation import finetune
from jepa_train.evaluation.collapse import collapse_gradients
from jepa_train.evaluation.evaluate import evaluate, final_evaluation
from jepa_train.evaluation.protocols import shots_of
from jepa_train.losses.slices import singular_slices
from jepa_train.methods import METHODS, LeJEPA, Method, RectifiedLpJEPA
from jepa_train.methods.base import Step
from jepa_train.model.batch_norm import convert_batch_norm, set_num_views
from jepa_train.model.network import Network, build_network
from jepa_train.model.optim import Optimizer, adamw, lars, lr_at
from jepa_train.model.precision import GradientScaler
from jepa_train.train.loop import train
from jepa_train.train.trainer import Trainer

BATCH = 12
PER_VIEW = "batch norm per view"
TIMMS = functools.partial(BatchNormAct2d, 4, act_layer=nn.PReLU, inplace=False)
SMALL = dataclasses.replace(
    DIGITS, method=LeJEPA(num_slices=64), epochs=1, global_batch=256, optim=OptimConfig(lr=1e-3)
)
AVERAGED = dataclasses.replace(
    SMALL,
    data=dataclasses.replace(DIGITS.data, train_images=200),
    model=dataclasses.replace(DIGITS.model, swa_start=1),
    probe=dataclasses.replace(DIGITS.probe, protocols=""),
    epochs=2,
    global_batch=42,
    precision="fp16",
)
UNLABELLED = dataclasses.replace(
    SMALL,
    data=DataConfig(name="unlabelled_folder", image_size=16, channels=2, bits=16),
    probe=dataclasses.replace(DIGITS.probe, protocols=""),
    global_batch=4,
)
FINETUNED = dataclasses.replace(DIGITS, epochs=0, global_batch=32)
VARIANTS: dict[str, Method] = {name: method() for name, method in METHODS.items()} | {
    "17 slices": RectifiedLpJEPA(num_slices=17),  # shared unequally
    "one slice": RectifiedLpJEPA(num_slices=1),  # none on one rank
    "singular slices": RectifiedLpJEPA(num_slices=7, slice_kind="svd"),
    "singular slices, bottom half": RectifiedLpJEPA(num_slices=7, slice_kind="svd_bottom_half"),
}


def draw(name: str, *shape: int) -> Tensor:
    """Float64 normal draws, a function of name and shape."""
    return torch.randn(shape, generator=generator(name), dtype=torch.float64)


def fill(module: nn.Module, *, seed: int) -> None:
    """Draw the parameters from the seed, without the global generator."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(torch.randn(value.shape, generator=generator(seed, name), dtype=value.dtype))


def few_digits() -> Splits:
    """6 digits of each class to train on, as many for val and for test."""
    splits = load_splits(FINETUNED.data)
    train, val, test = (part.take(shots_of(part.labels, 6, draw=0)) for part in (splits.train, splits.val, splits.test))
    return dataclasses.replace(splits, train=train, val=val, test=test)


def finetuned_network() -> Network:
    """Randomly initialised network to fine-tune."""
    return convert_batch_norm(build_network(FINETUNED, num_classes=10))


def finetuned(network: Network | None = None) -> dict[str, float]:
    """Metrics of a random encoder fine-tuned for three steps on one digit per class and on all of a few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "STEPS", (3, 3))
        patch.setattr(finetune, "SHOTS", (1,))
        patch.setattr(finetune, "RATES", (1e-3, 3e-3))
        return finetune.finetune(network or finetuned_network(), few_digits(), FINETUNED)


def _evaluated() -> dict[str, float]:
    """Metrics of a random encoder: each rank embeds a part of each split, and probes the features or z."""
    return final_evaluation(build_network(FINETUNED, num_classes=10), few_digits(), FINETUNED)


def _training_step(method: Method, *, per_view: bool = False) -> Any:
    """Loss, terms, parameter gradients and buffers of the global batch."""
    views = 3 if method.uses_center else 2  # of which two are global
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5)).double()
    fill(model, seed=7)
    images = draw("images", views, BATCH, 6)[:, collectives.rank_slice(BATCH)]
    set_num_views(convert_batch_norm(model, per_view=per_view), views)
    z = model(images.flatten(0, 1)).unflatten(0, (views, -1))
    loss, terms = method(z, Step(2, 3, 11))
    loss.backward()
    collectives.average_gradients(model.parameters())
    gradients = {key: value.grad for key, value in model.named_parameters()}
    return {"loss": loss.detach(), "terms": terms, "gradients": gradients, "buffers": dict(model.named_buffers())}


def _batch_norm(make: Callable[[], nn.Module], dtype: torch.dtype, layout: torch.memory_format) -> Any:
    """Two training steps on inputs far from zero mean, then evaluation; rows of all ranks, gradients of one process."""
    norm = make()
    fill(norm.to(torch.promote_types(dtype, torch.float32)), seed=3)
    norm = convert_batch_norm(norm)
    share, found = collectives.rank_slice(BATCH), []
    for step in range(2):
        x = (5 + 2 * draw(f"x{step}", BATCH, 4, 3, 3))[share].to(dtype, memory_format=layout).requires_grad_()
        out = norm(x)
        total = collectives.mean_over_ranks((out * draw(f"w{step}", BATCH, 4, 3, 3)[share]).sum())
        (total * collectives.world_size()).backward()
        assert out.is_contiguous(memory_format=layout)
        assert x.grad is not None
        found += [collectives.gather_rows(part) for part in (out.detach(), x.grad / collectives.world_size())]
    collectives.average_gradients(norm.parameters())  # the sums over both steps
    parameters = {key: value.grad for key, value in norm.named_parameters()}
    evaluated = collectives.gather_rows(norm.eval()(x).detach())
    return {"steps": found, "parameters": parameters, "state": norm.state_dict(), "evaluated": evaluated}


def _reductions() -> Any:
    """Differentiable reductions of a global (4, 3) and their gradients with respect to it."""
    found = []
    for reduce in (lambda x: collectives.mean_over_ranks(x.mean(0)), collectives.gather_over_ranks):
        x = draw("rows", 4, 3)[collectives.rank_slice(4)].requires_grad_()
        reduced = reduce(x)
        (reduced * draw("weight", *reduced.shape)).sum().backward()
        assert x.grad is not None
        found += [reduced.detach(), collectives.gather_rows(x.grad / collectives.world_size())]
    total = draw("summed", 4, 3)[collectives.rank_slice(4)].sum(0)
    collectives.sum_over_ranks_(total)
    return [*found, total]


def _exchanges() -> Any:
    """Rows shared unequally, and what rank 0 sends."""
    rank, x = collectives.rank(), draw("x", 5, 2)
    start = nn.BatchNorm1d(3).double()
    fill(start, seed=rank)
    start.get_buffer("running_mean").fill_(rank)
    collectives.same_start(start)
    return {
        "start": {name: value.clone() for name, value in start.state_dict().items()},
        "rows": [collectives.gather_rows(x[:n][collectives.fair_slice(n)]) for n in (0, 1, 5)],
        "shares": [collectives.gather_shares(x[:n][collectives.fair_slice(n)], n) for n in (0, 1, 5)],
        "tensor": collectives.broadcast(x.mT * (1 + rank)),
        "numbers": [collectives.broadcast_int(10**9 + rank), collectives.broadcast_flag(rank == 0)],
        "any": [collectives.any_rank(collectives.is_main()), collectives.any_rank(False)],
        "text": [*collectives.broadcast_text(f"rank {rank} \N{SNOWMAN}").encode()],
        "no text": [*collectives.broadcast_text("").encode()],
        "slices": singular_slices(draw("singular", 2, 6, 4), 5, 0),
    }


def _whole_pictures() -> Any:
    """Views and evaluation images of pictures of several sizes, by position."""
    sides = torch.tensor([-19, 12, 12, -30, 14, -12])
    ranges, share = LineRanges(sides), collectives.rank_slice(len(sides))
    lines = (255 * torch.rand(int(sides.abs().sum()), 3, 12, generator=generator("lines"))).byte()
    images = Images(pixels=lines, rows=torch.arange(len(sides)), labels=torch.arange(len(sides)), ranges=ranges)
    mine, _ = images.batch(torch.arange(len(sides))[share])
    views = dataclasses.replace(LEJEPA_SMALL_VIEWS, global_size=16, local_size=8)
    made = make_views(mine, views, seed=0, step=1, batch=share, global_batch=len(sides))
    return [collectives.gather_rows(part) for part in (*(x.transpose(0, 1) for x in made), to_input(mine, 8, fov=0.7))]


def _unlabelled() -> Any:
    """Terms of two steps on images of 2 channels and 16 bits, without labels, and the metrics that there are."""
    pixels = torch.randint(0, 2**12, (8, 2, 16, 16), generator=generator("deep")).to(torch.uint16)
    images = Images(pixels=pixels, rows=torch.arange(8), labels=torch.zeros(8, dtype=torch.int64))
    images = images.with_norm(normalization(images))
    trainer = Trainer(UNLABELLED, Splits(train=images, val=images, test=images, classes=(), skipped=0))
    for _ in range(2):
        trainer.train_step()
    means = trainer.means()
    terms = {name: means[f"train/{name}"] for name in ("loss", "invariance", "sigreg", "embedding_std")}
    return terms | dict.fromkeys(evaluate(trainer.network, images, UNLABELLED, prefix="val"), 0.0)


def _scaled_steps(make: Callable[..., torch.optim.Optimizer]) -> Any:
    """Weights and scale after six steps of fp16's scaler; the last image overflows in the first and in the fourth."""
    model = nn.Linear(6, 3)
    fill(model, seed=5)
    groups = [{"params": [p], "lr": 0.1, "weight_decay": 0.01} for p in (model.weight, model.bias)]
    schedules = [functools.partial(lr_at, total_steps=6, warmup_steps=0, final_lr_frac=0.1)]
    scaler = GradientScaler("fp16", torch.device("cpu"), ranks=collectives.world_size())
    optimizer = Optimizer([make(groups)], schedules=schedules, scaler=scaler)
    images, share = draw("scaled", BATCH, 6).float(), collectives.rank_slice(BATCH)
    for step in range(6):
        weight = torch.ones(BATCH, 1)
        weight[-1] = 1e37 if step in (0, 3) else 1.0
        optimizer.begin_step()
        optimizer.step((model(images[share]).square() * weight[share]).mean())
    assert optimizer.scaler.skipped == 2
    return {"weights": dict(model.state_dict()), "scaler": optimizer.scaler.state_dict()["scaler"]}


def _started() -> Any:
    """An encoder that starts from a file, as ranks have it before the first step."""
    with tempfile.TemporaryDirectory() as folder:
        encoder = build_network(dataclasses.replace(SMALL, seed=3), 10).encoder
        torch.save({"model": encoder.state_dict()}, f"{folder}/weights.pt")
        model = dataclasses.replace(SMALL.model, weights=f"{folder}/weights.pt")
        started = build_network(dataclasses.replace(SMALL, model=model), 10)
    collectives.same_start(started)
    return dict(started.state_dict())


SCALED = {"adamw": adamw, "lars": functools.partial(lars, config=OptimConfig(name="lars"))}

# name -> (computation, tolerance); fp64 unless the tolerance says otherwise
CASES: dict[str, tuple[Callable[[], Any], float]] = {
    "reductions": (_reductions, 1e-12),
    "exchanges": (_exchanges, 0.0),
    "whole pictures": (_whole_pictures, 0.0),
    "fine-tuning": (finetuned, 0.0),
    "evaluation": (_evaluated, 1e-6),
    "initial weights": (_started, 0.0),
    "unlabelled": (_unlabelled, 1e-3),
    "collapse": (lambda: collapse_gradients(draw("collapse", 41, 5), FINETUNED), 1e-10),
    PER_VIEW: (functools.partial(_training_step, LeJEPA(), per_view=True), 1e-10),
    **{name: (functools.partial(_training_step, method), 1e-10) for name, method in VARIANTS.items()},
    **{f"scaled steps, {name}": (functools.partial(_scaled_steps, make), 1e-5) for name, make in SCALED.items()},
    **{
        f"batch norm, {name}": (functools.partial(_batch_norm, make, dtype, layout), tolerance)
        for name, make, dtype, layout, tolerance in (
            ("2d", lambda: nn.BatchNorm2d(4), torch.float64, torch.contiguous_format, 1e-9),
            ("channels last", lambda: nn.BatchNorm2d(4), torch.float64, torch.channels_last, 1e-9),
            ("timm's", TIMMS, torch.float64, torch.contiguous_format, 1e-9),
            ("bf16", lambda: nn.BatchNorm2d(4), torch.bfloat16, torch.contiguous_format, 2**-6),
        )
    },
}


@functools.cache
def results() -> list[dict[str, Any]]:
    """The results of CASES on ranks 0 and 1, and three more entries: "run", "averaged run" and "refusals"."""
    return _on_ranks(2, _all)


def results_of_three() -> list[dict[str, Any]]:
    """The results of PER_VIEW on ranks 0 to 2."""
    return _on_ranks(3, _per_view)


def _on_ranks(count: int, compute: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of CASES on ranks 0 and 1, and three more entries: "run", "averaged run" and "refusals"."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_work, args=(count, compute, Path(folder)), nprocs=count)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(count)]


def _work(rank: int, count: int, compute: Callable[[], dict[str, Any]], folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/store", count), rank=rank, world_size=count)
    torch.save(compute(), folder / f"{rank}.pt")
    dist.destroy_process_group()


def _all() -> dict[str, Any]:
    found = {name: compute() for name, (compute, _) in CASES.items()}
    found["run"] = train(SMALL).metrics
    uneven = draw("uneven", 2, 4 + collectives.rank(), 5)
    found["averaged run"] = train(AVERAGED).metrics
    calls = [functools.partial(method, uneven, Step(2, 0, 0)) for method in VARIANTS.values()]
    found["refusals"] = [_refusal(call) for call in (*calls, functools.partial(collectives.rank_slice, 7))]
    return found


def _per_view() -> dict[str, Any]:
    return {PER_VIEW: CASES[PER_VIEW][0]()}


def _refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""
