"""LeJEPA: epps_pulley, sigreg and the loss against the papers' formulas and the answers of public code.

Run: python -m pytest tests/parity/test_sigreg.py
"""

import numpy as np
import pytest
import ranks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from waves import value_and_slope, wave

from jepa_train.base.seeds import derive_seed
from jepa_train.losses.slices import unit_slices
from jepa_train.methods import LeJEPA, lejepa
from jepa_train.methods.base import Step
from jepa_train.methods.lejepa import epps_pulley, sigreg

DOMAINS = ["symmetric", "half"]


def integrals(x: torch.Tensor, num_knots: int, t_max: float, domain: str) -> torch.Tensor:
    """(..., N, K) -> (..., K): trapezoids of the paper's Alg. 1, or of the authors' MINIMAL.md on half the domain."""
    t = torch.linspace(-t_max if domain == "symmetric" else 0, t_max, num_knots, dtype=x.dtype)
    gaussian = (-t.square() / 2).exp()
    phases = x.unsqueeze(-1) * t  # (..., N, K, T)
    error = (phases.cos().mean(-3) - gaussian).square() + phases.sin().mean(-3).square()
    integral = torch.trapezoid(error * gaussian, t) * x.shape[-2]
    return integral if domain == "symmetric" else 2 * integral


def sample(*shape: int) -> torch.Tensor:
    return 0.3 + 1.5 * ranks.draw("sample", *shape)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize(("num_knots", "t_max"), [(17, 5.0), (17, 3.0), (41, 5.0), (16, 4.0), (2, 5)])
def test_epps_pulley_matches_the_authors_formula(num_knots, t_max, domain):
    x = sample(2, 40, 7)
    expected = integrals(x, num_knots, t_max, domain)
    for z, tolerance in ((x, 1e-12), (x.float(), 1e-5)):
        found = epps_pulley(z, num_knots=num_knots, t_max=t_max, domain=domain)
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=0)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 60), st.integers(1, 9)),
    num_slices=st.integers(1, 70),
    num_knots=st.integers(2, 41),
    t_max=st.floats(0.5, 6),
    domain=st.sampled_from(DOMAINS),
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
    expected = integrals(z.double() @ slices.double(), num_knots, t_max, domain).mean()
    (expected_gradient,) = torch.autograd.grad(expected, stored)
    # A phase t x is rounded to eps |t x|, and its powers to as many eps as there are knots.
    rounding = torch.finfo(value.dtype).eps * (num_knots + t_max * scale * dim**0.5)
    assert value.item() == pytest.approx(expected.item(), rel=10 * rounding, abs=10 * rounding * n)
    largest = 2 * t_max * t_max / views  # of a gradient: 2 * integral of |error| t exp(-t^2/2) / V
    coarse = 8e-3 if dtype == torch.bfloat16 else 0.0  # the gradient is bf16 too
    torch.testing.assert_close(gradient, expected_gradient, rtol=coarse, atol=10 * rounding * largest + 1e-2 * coarse)


def test_the_loss_is_convex_with_the_centre_of_the_global_views():
    z, method = sample(4, 10, 5), LeJEPA(lamb=0.3, num_slices=8, num_knots=9, t_max=3.0, domain="half")
    loss, terms = method(z, Step(2, 5, 1))
    views = z.numpy()
    invariance = np.mean((views - (views[0] + views[1]) / 2) ** 2)
    slices = unit_slices(5, 8, derive_seed(1, 5, "slices")).double()
    regularizer = integrals(z @ slices, 9, 3.0, "half").mean().item()
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


# --- values and slopes that public code returned for waves (see waves.py)

SIGREG = "rbalestr-lab/lejepa eddffdd, lejepa/univariate/epps_pulley.py"
SPT = "rbalestr-lab/stable-pretraining 9aa93f8, stable_pretraining/methods/lejepa.py"


def of_waves(views: int, *, shift: float) -> torch.Tensor:
    """(views, 24, 6), not centered, of variance about 1."""
    return (0.3 + 1.5 * wave(views, 24, 6, shift=shift)).requires_grad_()


def unit_columns(num: int) -> torch.Tensor:
    """Slices (6, num); their wave stood for torch.randn in the public code."""
    return functional.normalize(wave(6, num, shift=5.0), dim=0)


@pytest.mark.parametrize(
    ("num_knots", "t_max", "domain", "factor", "value", "slope"),
    [
        pytest.param(17, 3.0, "half", 1, 3.70713852, -4.19566453, id=f"{SIGREG}:16 EppsPulley(3, 17)"),
        pytest.param(17, 5.0, "half", 1, 3.72616359, -4.16962058, id=f"{SIGREG}:16 EppsPulley(5, 17)"),
        pytest.param(5, 1.0, "half", 1, 1.0441419, -1.04444411, id=f"{SIGREG}:16 EppsPulley(1, 5)"),
        pytest.param(41, 3.0, "half", 1, 3.7082597, -4.19512256, id=f"{SIGREG}:16 EppsPulley(3, 41)"),
        pytest.param(41, 5.0, "half", 1, 3.72616449, -4.1696195, id=f"{SIGREG}:16 EppsPulley(5, 41)"),
        # the earlier class has no factor N, here 24
        pytest.param(10, 3.0, "symmetric", 24, 0.153869163, -0.175203941, id=f"{SIGREG}:102 DeprecatedEppsPulley(10)"),
        pytest.param(17, 3.0, "symmetric", 24, 0.154301187, -0.174906039, id=f"{SIGREG}:102 DeprecatedEppsPulley(17)"),
        pytest.param(17, 5.0, "symmetric", 24, 0.155256806, -0.173734311, id=f"{SIGREG}:102 DeprecatedEppsPulley(+-5)"),
    ],
)
def test_epps_pulley_gives_the_values_of_public_code(num_knots, t_max, domain, factor, value, slope):
    x = of_waves(1, shift=0.0)
    found = value_and_slope(epps_pulley(x, num_knots=num_knots, t_max=t_max, domain=domain).mean(), x)
    assert found == pytest.approx((factor * value, factor * slope), rel=1e-6)


@pytest.mark.parametrize(
    ("num_slices", "t_max", "domain", "num_global", "value", "slope"),
    [
        pytest.param(
            *(20, 3.0, "half", 2, 0.976081204, 0.654249794),
            id="lightly-ai/lightly e8d317f, lightly/loss/lejepa_loss.py:238 LeJEPALoss",
        ),
        pytest.param(
            *(256, 3.0, "half", 3, 0.803088906, 0.510942169), id="rbalestr-lab/lejepa eddffdd, MINIMAL.md, main()"
        ),
        pytest.param(
            *(256, 5.0, "symmetric", 2, 0.9865299, 0.63528128), id="arXiv 2511.08544, Alg. 1 and 2, run as printed"
        ),
    ],
)
def test_the_loss_gives_the_values_of_public_code(monkeypatch, num_slices, t_max, domain, num_global, value, slope):
    monkeypatch.setattr(lejepa, "unit_slices", lambda _dim, num, *_, **__: unit_columns(num))
    z = of_waves(3, shift=1.0)
    loss, _ = LeJEPA(num_slices=num_slices, t_max=t_max, domain=domain)(z, Step(num_global, 0, 0))  # lamb .05
    assert value_and_slope(loss, z) == pytest.approx((value, slope), rel=1e-6)


@pytest.mark.parametrize(
    ("views", "value", "slope"),
    [
        pytest.param(3, 1.34664299, 0.906379874, id="rbalestr-lab/lejepa eddffdd, lejepa/multivariate/slicing.py:15"),
        pytest.param(1, 1.63284793, -1.79772661, id=f"{SPT}:89 SlicedEppsPulley"),
    ],
)
def test_sigreg_gives_the_values_of_public_code(views, value, slope):
    z = of_waves(views, shift=1.0 if views == 3 else 0.0)
    found = value_and_slope(sigreg(z, unit_columns(20), t_max=3.0, domain="half"), z)
    assert found == pytest.approx((value, slope), rel=1e-6)


def test_stable_pretrainings_loss_is_not_convex_and_joins_the_views():
    """SPT:254: invariance + lamb * SIGReg, of all views as one sample of V * N."""
    z = of_waves(3, shift=1.0)
    joint = sigreg(z.flatten(0, 1)[None], unit_columns(20), t_max=3.0, domain="half")
    loss = (z - z[:2].mean(0)).square().mean() + 0.05 * joint
    assert value_and_slope(loss, z) == pytest.approx((1.05749609, 0.701167566), rel=1e-6)
