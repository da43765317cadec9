"""LeJEPA (arXiv 2511.08544): invariance to the centre of the global views, and SIGReg towards N(0, I)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from jepa_train.checks import conform
from jepa_train.distributed import at_least_fp32, mean_over_ranks, world_size
from jepa_train.randomness import derive_seed
from jepa_train.slices import unit_slices


@dataclass(frozen=True, kw_only=True)
class LeJEPA:
    """(1 - lamb) * invariance + lamb * SIGReg (Eq. 7, convex form), for any number of views from two on.

    Invariance is the mean over views, images and dimensions of (z - centre)^2, the centre being the mean of an
    image's global views. With two global views it is exactly a quarter of Rectified LpJEPA's mse(z1, z2). The text
    of Eq. 7 sums over dimensions; the authors' code, followed here, takes the mean.
    """

    lamb: float = 0.05
    num_slices: int = 1024
    num_knots: int = 17
    t_max: float = 5.0

    name: ClassVar[str] = "lejepa"
    centred: ClassVar[bool] = True
    rectify: ClassVar[bool] = False

    def __post_init__(self) -> None:
        conform(self)
        if not 0 <= self.lamb <= 1:
            raise ValueError(f"lamb is a convex weight in [0, 1], got {self.lamb}; the paper starts at 0.05")
        if self.num_slices < 1:
            raise ValueError(f"num_slices must be at least 1, got {self.num_slices}; the paper uses 1024")
        if self.num_knots < 2:
            raise ValueError(f"num_knots must be at least 2, got {self.num_knots}; the paper uses 17")
        if not self.t_max > 0:
            raise ValueError(f"t_max must be positive, got {self.t_max}; the paper uses 5")

    def check_views(self, num_global: int, num_local: int) -> None:
        """Raise ValueError for a single view, which leaves nothing to be invariant to."""
        if num_global + num_local < 2:
            raise ValueError(
                f"views.num_global + views.num_local must be at least 2 for lejepa, got {num_global} + {num_local}; "
                "the paper starts at 2 global views"
            )

    def expected(self) -> dict[str, float]:
        """The standard normal's standard deviation and fraction of non-zeros."""
        return {"std": 1.0, "nonzero_fraction": 1.0}

    def __call__(
        self, z: Tensor, *, num_global: int, step: int, seed: int, centre: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its unweighted terms `invariance` and `sigreg`: see Method. z: (V, N, D)."""
        slices = unit_slices(z.shape[-1], self.num_slices, derive_seed(seed, step, "slices"), device=z.device)
        invariance = _invariance(z, num_global, centre)
        regularizer = sigreg(z, slices, num_knots=self.num_knots, t_max=self.t_max)
        loss = (1 - self.lamb) * invariance + self.lamb * regularizer
        return loss, {"invariance": invariance.detach(), "sigreg": regularizer.detach()}


def epps_pulley(x: Tensor, *, num_knots: int = 17, t_max: float = 5.0) -> Tensor:
    """Distance of each slice's law to N(0, 1), by characteristic functions (LeJEPA, Alg. 1).

    N * integral of |ecf(t) - exp(-t^2/2)|^2 exp(-t^2/2) dt over [-t_max, t_max], by the trapezoid rule with num_knots
    knots on [0, t_max], doubled: the integrand is even. (Alg. 1 spreads its knots over [-t_max, t_max]; the authors'
    minimal example doubles the half interval, as here.) N is the global sample count, so lamb keeps its meaning when
    the number of ranks changes.

    Args:
        x: (N, K), N samples on this rank along K slices; leading batch dimensions are allowed.

    Returns:
        (K,), non-negative, in fp32 at least. Equal on all ranks.
    """
    x = at_least_fp32(x)
    spacing = t_max / (num_knots - 1)
    t = spacing * torch.arange(1, num_knots, dtype=x.dtype, device=x.device)  # at t = 0 the error is 0
    ecf: Tensor = mean_over_ranks(_CharacteristicFunction.apply(x, num_knots - 1, spacing))  # (T-1, 2, ..., K)
    gaussian = (-t.square() / 2).exp()
    weights = 2 * spacing * gaussian
    weights[-1] /= 2
    per_knot = [-1, *[1] * (x.ndim - 1)]
    error = (ecf[:, 0] - gaussian.view(per_knot)).square() + ecf[:, 1].square()  # (T-1, ..., K)
    return (error * weights.view(per_knot)).sum(0) * (x.shape[-2] * world_size())


def sigreg(z: Tensor, slices: Tensor, *, num_knots: int = 17, t_max: float = 5.0) -> Tensor:
    """SIGReg: the mean of epps_pulley over slices and views, each view on its own (LeJEPA, Alg. 2).

    Args:
        z: (V, N, D), the N samples of this rank in V views.
        slices: (D, K), unit columns, equal on all ranks.

    Returns:
        Scalar, in fp32 at least, under autocast too. Equal on all ranks.
    """
    with torch.autocast(z.device.type, enabled=False):
        wide = at_least_fp32(z)
        return epps_pulley(wide @ slices.to(wide.dtype), num_knots=num_knots, t_max=t_max).mean()


def _invariance(z: Tensor, num_global: int, centre: Tensor | None) -> Tensor:
    wide = at_least_fp32(z)
    centre = wide[:num_global].mean(0) if centre is None else at_least_fp32(centre)
    return mean_over_ranks((wide - centre).square().mean())


class _CharacteristicFunction(torch.autograd.Function):
    """(..., N, K) -> (T, 2, ..., K): mean over N of cos(k s x) and sin(k s x), k = 1..T, s the spacing.

    The knots are equally spaced, so all are powers of exp(i s x): one sine and cosine per sample, and nothing of
    size N * K * T. Powers rather than Chebyshev's three-term recurrence, whose error grows with k^2 near x = 0.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, num: int, spacing: float) -> Tensor:
        unit = torch.polar(torch.ones_like(x), spacing * x)
        ctx.save_for_backward(unit)
        ctx.spacing = spacing
        power, means = unit.clone(), []
        for k in range(num):
            if k:
                power *= unit
            means.append(torch.view_as_real(power.mean(-2)).movedim(-1, 0))
        return torch.stack(means)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # c cos(ksx) + d sin(ksx) has the derivative -ks Im((c - id) exp(iksx)): a polynomial in exp(isx)
        (unit,) = ctx.saved_tensors
        k = torch.arange(1, len(grad) + 1, device=grad.device).view(-1, *[1] * (grad.ndim - 2))
        coefficients = torch.complex(grad[:, 0], -grad[:, 1]) * k * (ctx.spacing / unit.shape[-2])
        total = torch.zeros_like(unit)
        for coefficient in coefficients.flip(0):  # Horner's scheme
            total.add_(coefficient.unsqueeze(-2)).mul_(unit)
        return -total.imag, None, None
