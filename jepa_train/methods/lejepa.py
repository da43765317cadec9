"""LeJEPA (arXiv 2511.08544): invariance to the center of the global views, and SIGReg towards N(0, I)."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from jepa_train.base.kernel_launch import runs_kernels
from jepa_train.base.validation import at_least, conform, positive, ruled
from jepa_train.distributed.collectives import (
    at_least_fp32,
    mean_over_ranks,
    require_equal_batches,
    sum_over_ranks_,
    world_size,
)
from jepa_train.losses.ecf import Knots, Waves
from jepa_train.losses.matmul import is_half, products, tf32_products
from jepa_train.losses.slices import unit_slices
from jepa_train.methods.base import Activation, Objective, Step

Domain = Literal["symmetric", "half"]


@dataclass(frozen=True, kw_only=True)
class LeJEPA:
    """(1 - lamb) * invariance + lamb * SIGReg (Eq. 7, convex form), for any number of views from two on.

    Invariance is the mean over views, images and dimensions of (z - center)^2, the center being the mean of an
    image's global views. With two global views it is exactly a quarter of Rectified LpJEPA's mse(z1, z2). The text
    of Eq. 7 sums over dimensions; the authors' code, followed here, takes the mean.

    num_knots, t_max and domain are SIGReg's quadrature: see epps_pulley. The defaults are the paper's; the authors'
    minimal example has num_knots=17, t_max=3.0, domain="half".
    """

    lamb: float = ruled(0.05, lambda lamb: 0 <= lamb <= 1, "is a convex weight in [0, 1]", "the paper starts at 0.05")
    num_slices: int = at_least(1, 1024, "the paper uses 1024")
    num_knots: int = at_least(2, 17, "the paper uses 17")
    t_max: float = positive(5.0, "the paper uses 5")
    domain: Domain = "symmetric"

    name: ClassVar[str] = "lejepa"
    only_pairs: ClassVar[str] = ""
    uses_center: ClassVar[bool] = True
    output_activation: ClassVar[Activation] = "none"

    def __post_init__(self) -> None:
        conform(self)

    def expected(self) -> dict[str, float]:
        """Standard deviation and fraction of non-zeros of a standard normal."""
        return {"std": 1.0, "nonzero_fraction": 1.0}

    def __call__(self, z: Tensor, step: Step) -> Objective:
        """The loss and its unweighted terms `invariance` and `sigreg`: see Method. z: (V, N, D).

        With a predictor the invariance compares its output with the center of z, through which gradient flows too;
        SIGReg stays on z.
        """
        require_equal_batches(z.shape[1])
        slices = unit_slices(z.shape[-1], self.num_slices, *step.draws("slices"), device=z.device)
        wide = at_least_fp32(z)
        invariance = invariance_to_center(wide, step)
        regularizer = sigreg(
            wide, slices, num_knots=self.num_knots, t_max=self.t_max, domain=self.domain, tf32=is_half(z)
        )
        loss = (1 - self.lamb) * invariance + self.lamb * regularizer
        return loss, {"invariance": invariance.detach(), "sigreg": regularizer.detach()}


def invariance_to_center(z: Tensor, step: Step) -> Tensor:
    """Mean over views, images and dimensions of (z - center)^2; with a predictor, of (step.predicted - center)^2.

    The center is step.center or else the mean of the image's global views, through which gradient flows too.

    Args:
        z: (V, N, D), of this rank, in fp32 at least.

    Returns:
        Scalar. Equal on all ranks.
    """
    center = z[: step.num_global].mean(0) if step.center is None else at_least_fp32(step.center)
    distance = (z if step.predicted is None else at_least_fp32(step.predicted)) - center
    return mean_over_ranks(distance.square().mean())


def epps_pulley(x: Tensor, *, num_knots: int = 17, t_max: float = 5.0, domain: Domain = "symmetric") -> Tensor:
    """Epps-Pulley distance of each slice's distribution to N(0, 1), by characteristic functions (LeJEPA, Alg. 1).

    N * integral of |ecf(t) - exp(-t^2/2)|^2 exp(-t^2/2) dt over [-t_max, t_max], by the trapezoid rule with equally
    spaced knots, both ends among them. N is the global sample count, so lamb keeps its meaning when the number of ranks
    changes. The knots are

    - domain "symmetric": num_knots on [-t_max, t_max], as in Alg. 1, torch.linspace(-5, 5, 17);
    - domain "half": num_knots on [0, t_max], the integral doubled, as in the authors' minimal example, 17 on [0, 3],
      and their class EppsPulley(t_max, n_points) (lejepa/univariate/epps_pulley.py), whose arguments the launch file of
      Table 1a sets. The integrand is even, so this is "symmetric" with 2 * num_knots - 1 knots.

    The two agree to about 1 % from 17 knots on; 5 knots on [-5, 5] miss most of a shift of the samples, on [0, 5] not.

    Args:
        x: (..., N, K), N samples on this rank along K slices; the same shape on every rank.

    Returns:
        (..., K), non-negative, in fp32 at least. Equal on all ranks.
    """
    x = at_least_fp32(x)
    value, gradient = _epps_pulley(x, _knots(num_knots, t_max, domain), differentiate=_is_differentiated(x))
    return value if gradient is None else _Differentiated.apply(x, value, gradient)


def sigreg(
    z: Tensor,
    slices: Tensor,
    *,
    num_knots: int = 17,
    t_max: float = 5.0,
    domain: Domain = "symmetric",
    tf32: bool = False,
) -> Tensor:
    """SIGReg: the mean of epps_pulley over slices and views, each view on its own (LeJEPA, Alg. 2).

    The gradient is computed along with the value, for a few slices at a time, so that the extra memory is a gradient of
    z and a bounded number of projections for any number of slices and knots.

    Args:
        z: (V, N, D), the N samples of this rank in V views; the same shape on every rank.
        slices: (D, K), unit columns, equal on all ranks; no gradient flows to them.
        tf32: on a GPU multiply in TF32, which moves the value by 1e-5 of itself and the gradient by 1e-3.

    Returns:
        Scalar, in fp32 at least, under autocast too. Equal on all ranks.
    """
    z = at_least_fp32(z)
    knots, differentiate = _knots(num_knots, t_max, domain), _is_differentiated(z)
    compute = _sigreg_by_kernels if runs_kernels(z) and z.dtype == torch.float32 else _sigreg
    with torch.autocast(z.device.type, enabled=False), torch.no_grad(), tf32_products(tf32):
        value, gradient = compute(z, slices.to(z.dtype), knots, differentiate=differentiate)
    return value if gradient is None else _Differentiated.apply(z, value, gradient)


def _sigreg(z: Tensor, slices: Tensor, knots: Knots, *, differentiate: bool) -> tuple[Tensor, Tensor | None]:
    """sigreg and, if differentiate, its derivative by z."""
    rows = z.flatten(0, -2)  # (V * N, D)
    count = z.shape[:-2].numel() * slices.shape[1]  # V * K
    total, gradient = z.new_zeros(()), torch.zeros_like(rows) if differentiate else None
    for some in slices.split(_slices_at_a_time(rows), dim=1):
        x = products(rows, some.mT).unflatten(0, z.shape[:-1])  # (V, N, some of K)
        value, by_x = _epps_pulley(x, knots, differentiate=differentiate)
        total += value.sum()
        if gradient is not None and by_x is not None:
            gradient += products(by_x.flatten(0, -2), some)
    return total / count, None if gradient is None else gradient.view(z.shape).div_(count)


def _sigreg_by_kernels(z: Tensor, slices: Tensor, knots: Knots, *, differentiate: bool) -> tuple[Tensor, Tensor | None]:
    """_sigreg on a GPU in five launches per block of slices and one exchange; the sixth is the backward's."""
    from jepa_train.losses.ecf_triton import derivative, statistics, wave_sums  # start-up time; Triton may be missing

    rows, samples = z.flatten(0, -2), z.shape[-2] * world_size()
    num_views, count = z.shape[:-2].numel(), z.shape[:-2].numel() * slices.shape[1]
    values, total = z.new_empty(count), z.new_empty(())
    gradient = torch.empty_like(rows) if differentiate else None
    done = 0  # values
    for some in slices.split(_slices_at_a_time(rows), dim=1):
        x = (rows @ some).unflatten(0, z.shape[:-1])  # (V, N, some of K)
        sums = wave_sums(x, knots)
        sum_over_ranks_(sums)
        end = done + num_views * some.shape[1]
        coefficients = statistics(sums, values[done:end], knots, samples=samples, scale=1 / count)
        if gradient is not None:
            by_x = derivative(x, coefficients, knots, values=values[:end], total=total)
            gradient.addmm_(by_x.flatten(0, -2), some.mT, beta=float(done > 0))
        done = end
    return (values.sum(), None) if gradient is None else (total, gradient.view(z.shape))


def _slices_at_a_time(rows: Tensor) -> int:
    # CPU: a few MB of temporaries, which stay in cache; GPU: few kernel launches and a few hundred MB.
    projections = 2**17 if rows.device.type == "cpu" else 2**24
    return max(projections // len(rows), 64)


def _knots(num_knots: int, t_max: float, domain: Domain) -> Knots:
    """The positive knots: negative ones contribute the same, and at t = 0 both characteristic functions are 1."""
    if domain == "half":
        num_knots = 2 * num_knots - 1
    spacing = 2 * t_max / (num_knots - 1)
    odd = num_knots % 2  # then t = 0 is a knot; otherwise the first positive knot is half a spacing from it
    return Knots(first=spacing if odd else spacing / 2, stride=1 if odd else 2, num=num_knots // 2)


def _epps_pulley(x: Tensor, knots: Knots, *, differentiate: bool) -> tuple[Tensor, Tensor | None]:
    """epps_pulley of x: (..., N, K) and, if differentiate, its derivative by x, of the same shape."""
    with torch.no_grad():
        t = knots.on(x).view(-1, *[1] * (x.ndim - 1))  # (T, ..., 1)
        gaussian = (-t.square() / 2).exp()
        weights = 2 * knots.first * knots.stride * gaussian  # twice the spacing: for t and -t
        weights[-1] /= 2
        form = Waves(x, knots)
        ecf = torch.view_as_complex(mean_over_ranks(torch.view_as_real(form.means())))  # (T, ..., K)
        error = ecf - gaussian
        value = (torch.view_as_real(error).square().sum(-1) * weights).sum(0) * (x.shape[-2] * world_size())
        # d|error|^2 = 2 Re(conj(error) i t exp(itx)) / N dx, and N is the factor of the statistic
        return value, form.series(-2 * weights * t * error.conj()) if differentiate else None


def _is_differentiated(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad


class _Differentiated(torch.autograd.Function):
    """(x, value, gradient) -> value, equal on all ranks, with the given derivative by this rank's x.

    The value is a scalar, or it is (..., K) of x: (..., N, K), each derived by its own column. gradient: as x.
    """

    @staticmethod
    def forward(ctx: Any, _x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        # the sum over the ranks' losses: see collectives.py
        summed = grad if world_size() == 1 else world_size() * mean_over_ranks(grad)
        return torch.atleast_1d(summed).unsqueeze(-2) * gradient, None, None
