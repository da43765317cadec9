"""RDMReg, forward + backward from z, against sort(dim=0) under autograd, and against its matrix products alone.

The products (of z, of the target, and of the gradient) are the floor of both: no sort can make the loss cheaper.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.comparison import Comparison
from benchmarks.gradients import check_agreement, forward_backward
from benchmarks.memory import peaks
from benchmarks.timing import Setting, interleaved
from jepa_train.base.seeds import generator
from jepa_train.losses.matmul import products
from jepa_train.losses.rgg import RGG
from jepa_train.losses.sliced_wasserstein import sliced_wasserstein
from jepa_train.losses.slices import unit_slices

# N, D, K
SHAPES = ((256, 512, 8192), (512, 2048, 8192))
QUICK_SHAPES = ((16, 8, 32),)
TARGETS = {"cpu": 5.0, "cuda": 3.0}


def run(setting: Setting) -> Iterator[Comparison]:
    """Two rows per shape: against the reference, and against the floor."""
    for shape in QUICK_SHAPES if setting.quick else SHAPES:
        yield from _compared(shape, setting)


def plain_sliced_wasserstein(z: Tensor, target: Tensor, slices: Tensor) -> Tensor:
    """Sliced W2^2 as the authors of Rectified LpJEPA write it: z and target (N, D), slices (D, K) -> scalar."""
    return ((z @ slices).sort(dim=0).values - (target @ slices).sort(dim=0).values).square().mean()


def three_products(z: Tensor, target: Tensor, slices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three matrix products of forward and backward: 2 N D K operations each, the fastest way known."""
    projected = products(z, slices.mT)  # (N, K)
    return projected, products(target, slices.mT), products(projected, slices)


def _compared(shape: tuple[int, int, int], setting: Setting) -> Iterator[Comparison]:
    num, dim, num_slices = shape
    device = setting.device
    z = torch.randn(num, dim, generator=generator(0, "z", device=device), device=device).relu()
    target = RGG(p=1.0, mu=0.0).sample((num, dim), generator(0, "target", device=device))
    slices = unit_slices(dim, num_slices, 0, device=device)
    plain = partial(plain_sliced_wasserstein, target=target, slices=slices)
    ours = partial(sliced_wasserstein, target=target, slices=slices)
    check_agreement(ours, plain, z)
    calls = setting.form(partial(forward_backward, plain, z)), setting.form(partial(forward_backward, ours, z))
    floor = setting.form(partial(three_products, z, target, slices))
    times = interleaved((*calls, floor), setting.effort, device)
    where = f"N={num} D={dim} K={num_slices}"
    yield Comparison(
        what=f"RDMReg{setting.label}",
        against="sort(dim=0) under autograd",
        shape=where,
        reference=times[0],
        ours=times[1],
        memory=None if setting.graphs else peaks(calls, device),
        target=setting.target(TARGETS),
    )
    yield Comparison(
        what=f"RDMReg{setting.label}",
        against="its three matrix products alone",
        shape=where,
        reference=times[2],
        ours=times[1],
        is_cost=True,
    )
