"""LeJEPA: epps_pulley and sigreg against quadrature, closed forms and the authors' formulas; the loss.

Run: python -m pytest tests/unit/methods/test_lejepa.py
"""

import numpy as np
import pytest
import ranks
import scipy.integrate
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_train.base.seeds import derive_seed
from jepa_train.losses.slices import unit_slices
from jepa_train.methods import LeJEPA, RectifiedLpJEPA
from jepa_train.methods.base import Step
from jepa_train.methods.lejepa import epps_pulley, sigreg


def alg_1(x: np.ndarray, num_knots: int, t_max: float) -> np.ndarray:
    """(..., N, K) -> (..., K): the paper's Alg. 1."""
    t = np.linspace(-t_max, t_max, num_knots)
    gaussian = np.exp(-0.5 * t**2)
    ecf = np.exp(1j * x[..., None] * t).mean(-3)
    return np.trapezoid(np.abs(ecf - gaussian) ** 2 * gaussian, t, axis=-1) * x.shape[-2]


def minimal_example(x: np.ndarray, num_knots: int, t_max: float) -> np.ndarray:
    """(..., N, K) -> (..., K): the authors' MINIMAL.md."""
    t = np.linspace(0, t_max, num_knots)
    weights = np.full(num_knots, 2 * t_max / (num_knots - 1))
    weights[[0, -1]] /= 2
    gaussian = np.exp(-(t**2) / 2)
    phases = x[..., None] * t
    error = (np.cos(phases).mean(-3) - gaussian) ** 2 + np.sin(phases).mean(-3) ** 2
    return error @ (weights * gaussian) * x.shape[-2]


FORMULAS = {"symmetric": alg_1, "half": minimal_example}


def plain_sigreg(z: torch.Tensor, slices: torch.Tensor, num_knots: int, t_max: float, domain: str) -> torch.Tensor:
    """SIGReg by autograd through cosines and sines of every projection at every knot, as the authors write it."""
    t = torch.linspace(-t_max if domain == "symmetric" else 0, t_max, num_knots, dtype=z.dtype)
    gaussian = (-t.square() / 2).exp()
    phases = (z @ slices).unsqueeze(-1) * t  # (V, N, K, T)
    error = (phases.cos().mean(-3) - gaussian).square() + phases.sin().mean(-3).square()
    integral = torch.trapezoid(error * gaussian, t).mean() * z.shape[-2]
    return integral if domain == "symmetric" else 2 * integral


def sample(*shape: int) -> torch.Tensor:
    return 0.3 + 1.5 * ranks.draw("sample", *shape)


@pytest.mark.parametrize("t_max", [3.0, 5.0])
def test_epps_pulley_matches_adaptive_quadrature(t_max):
    x = sample(40, 3)

    def squared_cf_error(t: float, column: np.ndarray) -> float:
        return abs(np.exp(1j * t * column).mean() - np.exp(-t * t / 2)) ** 2 * np.exp(-t * t / 2)

    expected = [40 * scipy.integrate.quad(squared_cf_error, -t_max, t_max, args=(c,))[0] for c in x.T.numpy()]
    assert epps_pulley(x, num_knots=513, t_max=t_max).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("domain", FORMULAS)
@pytest.mark.parametrize(("num_knots", "t_max"), [(17, 5.0), (17, 3.0), (41, 5.0), (16, 4.0), (2, 5)])
def test_epps_pulley_matches_the_authors_formula(num_knots, t_max, domain):
    x = sample(2, 40, 7)
    expected = FORMULAS[domain](x.numpy(), num_knots, t_max)
    rule = {"num_knots": num_knots, "t_max": t_max, "domain": domain}
    np.testing.assert_allclose(epps_pulley(x, **rule), expected, rtol=1e-12)
    np.testing.assert_allclose(epps_pulley(x.float(), **rule), expected, rtol=1e-5)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 60), st.integers(1, 9)),
    num_slices=st.integers(1, 70),
    num_knots=st.integers(2, 41),
    t_max=st.floats(0.5, 6),
    domain=st.sampled_from(sorted(FORMULAS)),
    kind=st.sampled_from([(torch.float64, s) for s in (0.0, 1.0, 1e6)] + [(torch.float32, s) for s in (0.0, 1.0, 30.0)])
    | st.just((torch.bfloat16, 1.0)),
    layout=st.sampled_from(["contiguous", "samples first", "every other"]),
    seed=st.integers(0, 9),
)
def test_sigreg_and_its_gradient_match_the_plain_form(shape, num_slices, num_knots, t_max, domain, kind, layout, seed):
    (views, n, dim), (dtype, scale) = shape, kind
    stored = ranks.draw(f"z{seed}", n, views, 2 * dim).mul(scale).to(dtype).requires_grad_()
    z = stored.transpose(0, 1)
    z = {"contiguous": z[..., :dim].contiguous(), "samples first": z[..., dim:], "every other": z[..., ::2]}[layout]
    slices = unit_slices(dim, num_slices, seed=seed)
    value = sigreg(z, slices, num_knots=num_knots, t_max=t_max, domain=domain)
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    (gradient,) = torch.autograd.grad(value, stored)
    expected = plain_sigreg(z.double(), slices.double(), num_knots, t_max, domain)
    (expected_gradient,) = torch.autograd.grad(expected, stored)
    # A phase t x is rounded to eps |t x|, and its powers to as many eps as there are knots.
    rounding = torch.finfo(value.dtype).eps * (num_knots + t_max * scale * dim**0.5)
    assert value.item() == pytest.approx(expected.item(), rel=10 * rounding, abs=10 * rounding * n)
    largest = 2 * t_max * t_max / views  # of a gradient: 2 * integral of |error| t exp(-t^2/2) / V
    coarse = 8e-3 if dtype == torch.bfloat16 else 0.0  # the gradient is bf16 too
    torch.testing.assert_close(gradient, expected_gradient, rtol=coarse, atol=10 * rounding * largest + 1e-2 * coarse)


def test_gradients_match_finite_differences():
    x = sample(6, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: epps_pulley(x, num_knots=8, domain="half"), (x.unsqueeze(0),))
    assert torch.autograd.gradcheck(lambda x: epps_pulley(x, num_knots=8), (x,))


def test_the_loss_is_convex_with_the_centre_of_the_global_views():
    z, method = sample(4, 10, 5), LeJEPA(lamb=0.3, num_slices=8, num_knots=9, t_max=3.0, domain="half")
    loss, terms = method(z, Step(2, 5, 1))
    views = z.numpy()
    invariance = np.mean((views - (views[0] + views[1]) / 2) ** 2)
    slices = unit_slices(5, 8, derive_seed(1, 5, "slices")).double().numpy()
    regularizer = np.mean([minimal_example(view @ slices, 9, 3.0) for view in views])
    assert terms["invariance"].item() == pytest.approx(invariance, rel=1e-10)
    assert terms["sigreg"].item() == pytest.approx(regularizer, rel=1e-10)
    assert loss.item() == pytest.approx(0.7 * invariance + 0.3 * regularizer, rel=1e-10)


def test_a_predictor_is_compared_with_the_centre_of_z_and_sigreg_sees_z():
    torch.manual_seed(0)
    z, predicted = (torch.randn(3, 16, 4, requires_grad=True) for _ in range(2))
    alone = LeJEPA()(z, Step(2, 0, 0))[1]
    loss, terms = LeJEPA()(z, Step(2, 0, 0, predicted=predicted))
    center = (z[0] + z[1]) / 2
    assert terms["invariance"].item() == pytest.approx((predicted - center).square().mean().item(), rel=1e-6)
    assert terms["sigreg"].item() == alone["sigreg"].item()
    from_predicted, from_z = torch.autograd.grad(loss, [predicted, z])
    torch.testing.assert_close(from_predicted, 0.95 * 2 * (predicted - center) / predicted.numel())
    assert from_z[0].abs().sum() > from_z[2].abs().sum() > 0  # through the center too, of which view 2 is no part


def test_two_view_invariance_is_a_quarter_of_rectified_lpjepas():
    z = sample(2, 10, 5)
    ours, theirs = (m(z, Step(2, 0, 0))[1]["invariance"] for m in (LeJEPA(), RectifiedLpJEPA()))
    assert 4 * ours.item() == pytest.approx(theirs.item(), rel=1e-12)
