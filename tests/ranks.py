"""What two and three gloo ranks compute, started once for all tests: starting them is the expensive part."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from jepa_train.base.seeds import derive_seed, generator
from jepa_train.config import OptimConfig
from jepa_train.config.presets import DIGITS
from jepa_train.data import Splits
from jepa_train.data.splits import load_splits
from jepa_train.distributed import collectives
from jepa_train.distributed.batch_norm import convert_batch_norm
from jepa_train.evaluation import finetune
from jepa_train.evaluation.protocols import shots_of
from jepa_train.losses.slices import singular_slices, unit_slices
from jepa_train.methods import METHODS, NCL, LeJEPA, Method, RectifiedLpJEPA, SimCLR, VICReg
from jepa_train.model.network import build_network
from jepa_train.train.loop import train

BATCH = 12
STEPS: dict[str, Method] = {name: method() for name, method in METHODS.items()} | {
    "lejepa": LeJEPA(lamb=0.3, num_slices=16),
    "rectified_lpjepa": RectifiedLpJEPA(p=0.5, mu=-0.5, num_slices=17),  # shared unequally by 2 and by 3 ranks
    "one slice": RectifiedLpJEPA(num_slices=1),  # none for some ranks
    "singular slices": RectifiedLpJEPA(num_slices=7, slice_kind="singular"),
    "vicreg": VICReg(lamb_inv=3.0, lamb_var=5.0, lamb_cov=2.0),
    "simclr": SimCLR(temperature=0.3),
    "ncl": NCL(temperature=0.3),
}
SMALL = {
    name: dataclasses.replace(DIGITS, method=method, epochs=1, global_batch=256, optim=OptimConfig(lr=1e-3))
    for name, method in (("lejepa", LeJEPA(num_slices=64)), ("rectified_lpjepa", RectifiedLpJEPA(num_slices=64)))
}


FINETUNED = dataclasses.replace(DIGITS, epochs=0, global_batch=32)


def results(world: int) -> list[dict]:
    """What _of_any_number, and for two ranks _of_two, computed on rank 0, rank 1, ..."""
    return _results()[world]


@functools.cache
def _results() -> dict[int, list[dict]]:
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_work, args=(Path(folder),), nprocs=3)
        return {
            world: [torch.load(Path(folder) / f"{world}.{rank}.pt", weights_only=True) for rank in range(world)]
            for world in (2, 3)
        }


def training_step(name: str) -> dict:
    """Loss, terms and parameter gradients of the global batch, by one process or by this rank of several."""
    views = 3 if STEPS[name].uses_center else 2  # of which two are global
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5)).double()
    fill(model, seed=7)
    images = draw("images", views, BATCH, 6)[:, collectives.rank_slice(BATCH)]
    if collectives.world_size() > 1:
        model = convert_batch_norm(model)
    parallel = collectives.data_parallel(model)  # named: DDP averages only as long as it lives
    z = parallel(images.flatten(0, 1)).unflatten(0, (views, -1))
    loss, terms = STEPS[name](z, num_global=2, step=3, seed=11)
    loss.backward()
    return {
        "loss": loss.detach(),
        "terms": terms,
        "gradients": {key: value.grad for key, value in model.named_parameters()},
        "buffers": dict(model.named_buffers()),
    }


def few_digits() -> Splits:
    """6 digits of each class to train on, as many for val and for test."""
    splits = load_splits(FINETUNED.data)
    train, val, test = (part.take(shots_of(part.labels, 6, draw=0)) for part in (splits.train, splits.val, splits.test))
    return dataclasses.replace(splits, train=train, val=val, test=test)


def finetuned() -> dict[str, float]:
    """A random encoder fine-tuned on few digits, by one process or by this rank of several."""
    network = build_network(FINETUNED, num_classes=10)
    if collectives.world_size() > 1:
        convert_batch_norm(network)
    steps, finetune.STEPS = finetune.STEPS, (3, 3)
    try:
        return finetune.finetune(network, few_digits(), FINETUNED)
    finally:
        finetune.STEPS = steps


def batch_norm_steps(
    norm: nn.Module,
    *,
    dtype: torch.dtype = torch.float64,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> dict:
    """Two training steps of a batch norm on (BATCH, 4, 3, 3), then evaluation; inputs far from zero mean.

    The gradient that reaches the batch norm is NCHW in both memory formats.
    """
    outputs, gradients = [], []
    share = collectives.rank_slice(BATCH)
    for step in range(2):
        x = (5 + 2 * draw(f"x{step}", BATCH, 4, 3, 3))[share].to(dtype, memory_format=memory_format).requires_grad_()
        x.register_hook(gradients.append)  # not x.grad, which takes on the memory format of x
        out = norm(x)
        collectives.mean_over_ranks((out * draw(f"w{step}", BATCH, 4, 3, 3)[share]).sum()).backward()
        outputs.append(out.detach())
    parameters = {key: value.grad for key, value in norm.named_parameters()}
    norm.eval()
    return {
        "outputs": outputs,
        "gradients": gradients,
        "parameters": parameters,
        "state": norm.state_dict(),
        "eval": norm(x).detach(),
    }


def batch_norms() -> dict[str, nn.Module]:
    """Every kind of batch norm that convert_batch_norm must take over, with parameters away from 1 and 0."""
    norms = {
        "plain": nn.BatchNorm2d(4),
        "cumulative": nn.BatchNorm2d(4, momentum=None),
        "stateless": nn.BatchNorm2d(4, affine=False, track_running_stats=False),
        "timm_act": BatchNormAct2d(4, act_layer=nn.PReLU, inplace=False),
    }
    for norm in norms.values():
        fill(norm.double(), seed=3)
    return norms


def fill(module: nn.Module, *, seed: int) -> None:
    """Parameters from the seed alone, without touching the global generator."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(torch.randn(value.shape, generator=generator(seed, name), dtype=value.dtype))


def draw(name: str, *shape: int) -> Tensor:
    """Float64 normal draws, the same wherever they are asked for."""
    return torch.randn(shape, generator=generator(name), dtype=torch.float64)


def _work(rank: int, folder: Path) -> None:
    """A group of all three processes, and after it one of the first two."""
    torch.set_num_threads(1)
    for world in (3, 2):
        if rank < world:
            store = dist.FileStore(f"{folder}/store{world}", world)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
            computed = _of_any_number(rank) | (_of_two(rank) if world == 2 else {})
            torch.save(computed, folder / f"{world}.{rank}.pt")
            dist.destroy_process_group()


def _of_any_number(rank: int) -> dict:
    uneven = draw("uneven", 2, 4 + rank, 5)
    return {
        "steps": {name: training_step(name) for name in STEPS},
        "slices": [unit_slices(5, 4, derive_seed(11, step, "slices")) for step in range(2)],
        "singular": singular_slices(draw("singular", 6, 4), 5, 0),
        "fair": {n: list(range(n))[collectives.fair_slice(n)] for n in (0, 1, 7)},
        "uneven": {
            **{name: _refusal(lambda m=m: m(uneven, num_global=2, step=0, seed=0)) for name, m in STEPS.items()},
            "gather": _refusal(lambda: collectives.gather_over_ranks(uneven[0])),
            "check": _refusal(lambda: collectives.require_equal_batches(4 + rank)),
        },
        "even": _refusal(lambda: collectives.require_equal_batches(4)),
    }


def _of_two(rank: int) -> dict:
    norms = {key: convert_batch_norm(norm) for key, norm in batch_norms().items()}
    strided = convert_batch_norm(batch_norms()["plain"])
    coarse = convert_batch_norm(nn.BatchNorm2d(4))
    return {
        "identity": [collectives.rank(), collectives.world_size(), collectives.is_main()],
        "collectives": _collectives(rank),
        "runs": {name: train(config).metrics for name, config in SMALL.items()},
        "finetuned": finetuned(),
        "norms": {key: batch_norm_steps(norm) for key, norm in norms.items()},
        "channels_last_norm": batch_norm_steps(strided, memory_format=torch.channels_last),
        "bf16_norm": batch_norm_steps(coarse, dtype=torch.bfloat16),
    }


def _collectives(rank: int) -> dict:
    x = draw("mean", 2, 3)[rank].requires_grad_()
    mean = collectives.mean_over_ranks(x)
    (mean * draw("mean weight", 2, 3)[rank]).sum().backward()
    rows = draw("gather", 2, 2, 3)[rank].requires_grad_()
    gathered = collectives.gather_over_ranks(rows)
    (gathered * draw("gather weight", 2, 4, 3)[rank]).sum().backward()
    return {
        "mean": mean.detach(),
        "mean_gradient": x.grad,
        "gather": gathered.detach(),
        "gather_gradient": rows.grad,
        "rows": collectives.gather_rows(torch.arange(3 * rank + 1) + 10 * rank),  # 1 and 4 rows
        "some_empty": collectives.gather_rows(torch.ones(2 * rank, 3, dtype=torch.bool)),
        "all_empty": collectives.gather_rows(torch.ones(0, 3)),
        "broadcast": [collectives.broadcast_flag(rank == 0), collectives.broadcast_flag(rank == 1)],
        "broadcast_int": collectives.broadcast_int(10**9 + rank),
        "broadcast_tensor": collectives.broadcast(torch.arange(6.0).view(2, 3).mT * (1 + rank)),
        "broadcast_text": collectives.broadcast_text(f"checkpoint of rank {rank} \N{SNOWMAN}"),
        "share": list(range(10))[collectives.rank_slice(10)],
        "refusal": _refusal(lambda: collectives.rank_slice(7)),
    }


def _refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""
