"""VISReg, Barlow Twins and KerJEPA against their papers' formulas written out, and the values of public code.

Run: python -m pytest tests/parity/test_regularizers.py
"""

import numpy as np
import pytest
import ranks
import scipy.special
import scipy.stats
import torch
from torch.nn import functional
from waves import value_and_slope, wave

from jepa_train.losses.slices import unit_slices
from jepa_train.methods import BarlowTwins, KerJEPA, VISReg, visreg
from jepa_train.methods.base import Step
from jepa_train.methods.kerjepa import sliced_kernel, sliced_mmd
from jepa_train.methods.lejepa import sigreg

VISREG = "HaiyuWu/visreg, visreg/losses/visreg.py:24 at 06f65b1, train.py:229-240 at 074fb51"
BARLOW = "facebookresearch/barlowtwins 8e8d284, main.py:207"
SOLO = "vturrisi/solo-learn 2269ce6, solo/losses/barlow.py:27 times 40"


def slope_of(loss: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, z)[0]


# --- VISReg


def written_out(z: torch.Tensor, slices: torch.Tensor, num_global: int) -> dict[str, torch.Tensor]:
    """VISReg's terms, Eqs. 1, 2, 5, 6 and 8, view by view under autograd."""
    quantiles = torch.tensor([scipy.stats.norm.ppf(i / (z.shape[1] + 1)) for i in range(1, z.shape[1] + 1)])
    terms: dict[str, list[torch.Tensor]] = {"scale": [], "shape": [], "center": []}
    for view in z:
        std = view.std(dim=0, correction=0)
        terms["scale"].append((1 - std).square().mean())
        terms["center"].append(view.mean(dim=0).square().mean())
        normal = (view - view.mean(dim=0)) / std.detach()
        terms["shape"].append(((normal @ slices).sort(dim=0).values - quantiles[:, None]).square().mean())
    means = {name: torch.stack(values).mean() for name, values in terms.items()}
    return means | {"invariance": (z - z[:num_global].mean(dim=0)).square().mean()}


@pytest.mark.parametrize("views", [2, 5])
def test_visreg_is_its_equations_written_out_and_so_is_its_gradient(views: int) -> None:
    z = (0.7 * ranks.draw("z", views, 30, 6) @ ranks.draw("mixing", 6, 6) + 0.2).requires_grad_()
    method = VISReg(lamb=0.3, num_slices=40, lamb_scale=2.0, lamb_shape=5.0, lamb_center=0.5)
    step = Step(2, 3, 11)
    expected = written_out(z, unit_slices(6, 40, *step.draws("slices")).double(), num_global=2)
    loss, terms = method(z, step)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {name: term.item() for name, term in expected.items()}, rel=1e-10
    )
    regularizer = 2 * expected["scale"] + 5 * expected["shape"] + 0.5 * expected["center"]
    whole = 0.7 * expected["invariance"] + 0.3 * regularizer
    assert loss.item() == pytest.approx(whole.item(), rel=1e-10)
    torch.testing.assert_close(slope_of(loss, z), slope_of(whole, z), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("value", "slope"), [pytest.param(0.50005748337, -0.30999857624, id=VISREG)])
def test_visreg_gives_the_values_of_public_code(value, slope, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visreg, "unit_slices", lambda *_, **__: functional.normalize(wave(6, 7), dim=0))
    z = (0.3 + 1.5 * wave(3, 24, 6)).requires_grad_()
    loss, _ = VISReg(lamb=0.6, num_slices=7)(z, Step(2, 0, 0))
    assert value_and_slope(loss, z) == pytest.approx((value, slope), rel=1e-6)


def test_visreg_recovers_a_collapsed_embedding_and_sigreg_and_its_limit_do_not() -> None:
    """VISReg, Fig. 2: with all else equal, the pull on z stays as z shrinks, that of SIGReg falls with z."""
    shape, slices = ranks.draw("z", 1, 64, 16), unit_slices(16, 128, 0).double()

    def pull(loss, scale: float) -> float:
        z = (scale * shape).requires_grad_()
        return slope_of(loss(z), z).norm().item()

    def scale_term(z: torch.Tensor) -> torch.Tensor:
        return VISReg(lamb=1.0, num_slices=1, lamb_shape=0.0, lamb_center=0.0)(z, Step(1, 0, 0))[0]

    assert pull(scale_term, 1e-3) == pytest.approx(pull(scale_term, 1e-2), rel=0.02)
    for loss in (lambda z: sigreg(z, slices), sliced_mmd):
        assert pull(loss, 1e-3) == pytest.approx(0.1 * pull(loss, 1e-2), rel=0.02)


# --- Barlow Twins


def test_barlow_twins_is_numpys_correlation_in_loops() -> None:
    z = ranks.draw("z", 2, 30, 5) @ ranks.draw("mixing", 5, 5) + 3
    loss, terms = BarlowTwins(lamb_off=0.1)(z, Step(2, 0, 0))
    table = np.corrcoef(z[0].numpy(), z[1].numpy(), rowvar=False)[:5, 5:]
    invariance = sum((1 - table[i, i]) ** 2 for i in range(5))
    redundancy = sum(table[i, j] ** 2 for i in range(5) for j in range(5) if i != j)
    assert terms["invariance"].item() == pytest.approx(invariance, rel=1e-4)  # 1e-5 is added to the variances
    assert terms["redundancy"].item() == pytest.approx(redundancy, rel=1e-4)
    assert loss.item() == pytest.approx(invariance + 0.1 * redundancy, rel=1e-4)


@pytest.mark.parametrize(
    ("lamb_off", "value", "slope"),
    [
        pytest.param(0.0051, 6.617467845139221, 1.2427674649172495, id=BARLOW),
        pytest.param(0.005, 6.617373917753897, 1.2427531953804536, id=SOLO),
    ],
)
def test_barlow_twins_gives_the_values_of_public_code(lamb_off: float, value: float, slope: float) -> None:
    z = (0.3 + 1.5 * wave(2, 24, 6)).requires_grad_()
    loss, _ = BarlowTwins(lamb_off=lamb_off)(z, Step(2, 0, 0))
    assert value_and_slope(loss, z) == pytest.approx((value, slope), rel=1e-9)


# --- KerJEPA


@pytest.mark.parametrize("dim", [1, 2, 3, 16, 512, 8192])
def test_the_kernel_is_scipys_hypergeometric_function_and_so_is_its_slope(dim: int) -> None:
    x = dim * torch.cat([torch.zeros(1), torch.logspace(-6, 4, 60)]).double().requires_grad_()
    kernel = sliced_kernel(x, dim)
    expected = scipy.special.hyp1f1(0.5, dim / 2, -x.detach().numpy())
    np.testing.assert_allclose(kernel.detach(), expected, rtol=1e-5, atol=2e-8)
    slope = -scipy.special.hyp1f1(1.5, dim / 2 + 1, -x.detach().numpy()) / dim
    np.testing.assert_allclose(slope_of(kernel.sum(), x), slope, rtol=1e-4, atol=1e-8 / dim)


def test_the_discrepancy_is_thm_7_in_loops() -> None:
    z, gamma = ranks.draw("z", 1, 9, 4) * 1.3 + 0.4, 0.8

    def kummer(squared: float) -> float:
        return scipy.special.hyp1f1(0.5, 2.0, -squared)

    rows = z[0].numpy()
    pairs = np.mean([kummer(gamma * np.sum((a - b) ** 2)) for a in rows for b in rows])
    crossed = np.mean([kummer(gamma * np.sum(a**2) / (1 + 2 * gamma)) for a in rows]) / np.sqrt(1 + 2 * gamma)
    expected = 9 * np.sqrt(4 * np.pi * gamma) * (pairs - 2 * crossed + 1 / np.sqrt(1 + 4 * gamma))
    assert sliced_mmd(z, gamma=gamma).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("scale", "shift"), [(0.8, 0.3), (2.0, 0.0), (0.01, 0.0)])
def test_sigreg_approaches_the_closed_form_as_slices_are_added(scale: float, shift: float) -> None:
    """The error falls with the root of their number: from 1000 to 30,000 slices, to a fifth."""
    z = (scale * ranks.draw("z", 1, 20, 6) + shift).requires_grad_()
    closed = sliced_mmd(z)
    exact, errors = slope_of(closed, z), []
    for num_slices in (1_000, 30_000):
        sliced = sigreg(z, unit_slices(6, num_slices, 0), num_knots=49, t_max=8.0)
        errors.append(((slope_of(sliced, z) - exact).norm() / exact.norm()).item())
    assert closed.item() == pytest.approx(sliced.item(), rel=1e-2)
    assert errors[1] < min(0.3 * errors[0], 0.03)


@pytest.mark.parametrize("gamma", [0.2, 0.5, 2.0])
def test_gamma_is_the_window_of_the_characteristic_functions(gamma: float) -> None:
    """By the integral over t on equally spaced slices of the plane, in NumPy."""
    z, angles, t = ranks.draw("z", 1, 12, 2), np.linspace(0, np.pi, 64, endpoint=False), np.linspace(-12, 12, 401)
    x = z[0].numpy() @ np.stack([np.cos(angles), np.sin(angles)])
    ecf = np.exp(1j * t[:, None, None] * x).mean(axis=1)  # (T, K)
    error = np.abs(ecf - np.exp(-(t**2) / 2)[:, None]) ** 2 * np.exp(-(t**2) / (4 * gamma))[:, None]
    assert sliced_mmd(z, gamma=gamma).item() == pytest.approx(12 * np.trapezoid(error, t, axis=0).mean(), rel=1e-5)


def test_kerjepa_has_lejepas_weights() -> None:
    z = ranks.draw("z", 4, 10, 3)
    loss, terms = KerJEPA(lamb=0.2)(z, Step(2, 0, 0))
    assert terms["invariance"].item() == pytest.approx((z - z[:2].mean(dim=0)).square().mean().item(), rel=1e-12)
    assert loss.item() == pytest.approx(0.8 * terms["invariance"].item() + 0.2 * sliced_mmd(z).item(), rel=1e-12)
