"""SIGReg, forward + backward from z, projections included, against the form of LeJEPA's Alg. 1 under autograd.

At T = 65 expect nearly four times the reference's memory at T = 17, and hardly more of ours. The largest shape is
left out there: its reference would take 9 GB.
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
from jepa_train.losses.slices import unit_slices
from jepa_train.methods.lejepa import sigreg

T_MAX = 5.0
# V, N, D, K, T
SHAPES = (
    (2, 256, 128, 1024, 17),
    (8, 128, 512, 1024, 17),
    (8, 256, 512, 4096, 17),
    (2, 256, 128, 1024, 65),
    (8, 128, 512, 1024, 65),
)
QUICK_SHAPES = ((2, 16, 8, 32, 17), (2, 16, 8, 32, 65))
TARGETS = {"cpu": 10.0, "cuda": 5.0}
TARGET_KNOTS = 17  # to which the targets apply


def run(setting: Setting) -> Iterator[Comparison]:
    """One row per shape."""
    for shape in QUICK_SHAPES if setting.quick else SHAPES:
        yield _compared(shape, setting)


def plain_sigreg(z: Tensor, slices: Tensor, *, num_knots: int = 17, t_max: float = T_MAX) -> Tensor:
    """SIGReg in the form of LeJEPA's Alg. 1: z (V, N, D), slices (D, K) -> scalar, the mean over slices and views.

    View by view, which is twice as fast on a CPU as all views at once; with a cosine and a sine instead of a complex
    exponential, as in the authors' minimal example.
    """
    t, weights = _quadrature(num_knots, t_max, z)
    gaussian = (-t.square() / 2).exp()
    statistics = []
    for view in z:
        angles = (view @ slices).unsqueeze(-1) * t  # (N, K, T)
        error = (angles.cos().mean(0) - gaussian).square() + angles.sin().mean(0).square()  # (K, T)
        statistics.append((error * gaussian) @ weights * len(view))  # (K,)
    return torch.stack(statistics).mean()


def _quadrature(num_knots: int, t_max: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Knots and weights (T,) of the trapezoid rule on [-t_max, t_max]."""
    t = torch.linspace(-t_max, t_max, num_knots, dtype=like.dtype, device=like.device)
    weights = torch.full_like(t, 2 * t_max / (num_knots - 1))
    weights[0] /= 2
    weights[-1] /= 2  # a list as index would be copied to the device, which a CUDA graph cannot hold
    return t, weights


def _compared(shape: tuple[int, int, int, int, int], setting: Setting) -> Comparison:
    num_views, num, dim, num_slices, num_knots = shape
    device = setting.device
    z = torch.randn(num_views, num, dim, generator=generator(0, "z", device=device), device=device)
    slices = unit_slices(dim, num_slices, 0, device=device)
    plain = partial(plain_sigreg, slices=slices, num_knots=num_knots, t_max=T_MAX)
    ours = partial(sigreg, slices=slices, num_knots=num_knots, t_max=T_MAX)
    check_agreement(ours, plain, z)
    calls = setting.form(partial(forward_backward, plain, z)), setting.form(partial(forward_backward, ours, z))
    times = interleaved(calls, setting.effort, device)
    return Comparison(
        what=f"SIGReg{setting.label}",
        against="(N, K, T) cosines and sines under autograd",
        shape=f"V={num_views} N={num} D={dim} K={num_slices} T={num_knots}",
        reference=times[0],
        ours=times[1],
        memory=None if setting.graphs else peaks(calls, device),
        target=setting.target(TARGETS) if num_knots == TARGET_KNOTS else None,
    )
