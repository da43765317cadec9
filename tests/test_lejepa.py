import numpy as np
import pytest
import ranks
import scipy.integrate
import torch
from torch import nn

from jepa_train.methods import LeJEPA, RectifiedLpJEPA
from jepa_train.methods.lejepa import epps_pulley, sigreg
from jepa_train.randomness import derive_seed
from jepa_train.slices import unit_slices


def trapezoid_by_hand(x: np.ndarray, num_knots: int, t_max: float) -> np.ndarray:
    """(N, K) -> (K,): cosines and sines of every sample at every knot, as in Alg. 1."""
    t = np.linspace(0, t_max, num_knots)
    phases = x[:, :, None] * t
    gaussian = np.exp(-(t**2) / 2)
    error = (np.cos(phases).mean(0) - gaussian) ** 2 + np.sin(phases).mean(0) ** 2
    return 2 * len(x) * np.trapezoid(error * gaussian, t, axis=1)


def sample(*shape: int) -> torch.Tensor:
    return 0.3 + 1.5 * ranks.draw("sample", *shape)


@pytest.mark.parametrize("t_max", [3.0, 5.0])
def test_epps_pulley_matches_adaptive_quadrature(t_max):
    x = sample(40, 3)

    def squared_cf_error(t: float, column: np.ndarray) -> float:
        return abs(np.exp(1j * t * column).mean() - np.exp(-t * t / 2)) ** 2 * np.exp(-t * t / 2)

    expected = [40 * scipy.integrate.quad(squared_cf_error, -t_max, t_max, args=(c,))[0] for c in x.T.numpy()]
    assert epps_pulley(x, num_knots=513, t_max=t_max).tolist() == pytest.approx(expected, rel=1e-5)


def test_epps_pulley_with_the_papers_knots_matches_the_closed_form():
    x = sample(40, 1)
    difference = (x - x.T).square()
    # The integral over the whole line, term by term: Gaussian integrals of cosines.
    terms = [(-difference / 2).exp().sum() / 40, -(2**0.5) * (-x.square() / 4).exp().sum(), 40 / 3**0.5]
    expected = (2 * np.pi) ** 0.5 * float(sum(terms))
    assert epps_pulley(x).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("num_knots", "t_max"), [(17, 5.0), (17, 3.0), (5, 1.0), (2, 5.0)])
def test_epps_pulley_matches_the_trapezoid_by_hand(num_knots, t_max):
    x = sample(40, 7)
    expected = trapezoid_by_hand(x.numpy(), num_knots, t_max)
    np.testing.assert_allclose(epps_pulley(x, num_knots=num_knots, t_max=t_max), expected, rtol=1e-12)
    np.testing.assert_allclose(epps_pulley(x.float(), num_knots=num_knots, t_max=t_max), expected, rtol=1e-5)


def test_epps_pulley_survives_extreme_embeddings():
    collapsed, exploded = torch.zeros(8, 1), torch.linspace(-1e6, 1e6, 8)[:, None]
    for x in (collapsed, exploded):
        np.testing.assert_allclose(epps_pulley(x), trapezoid_by_hand(x.double().numpy(), 17, 5.0), rtol=0.05)


def test_sigreg_is_the_mean_over_views_and_slices():
    z, slices = sample(3, 20, 4), unit_slices(4, 6, seed=0)
    expected = np.mean([trapezoid_by_hand(view, 17, 5.0) for view in (z @ slices.double()).numpy()])
    assert sigreg(z, slices).item() == pytest.approx(expected, rel=1e-10)


def test_gradients_match_finite_differences():
    x = sample(6, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: epps_pulley(x, num_knots=9), (x,))
    z = sample(2, 6, 3).requires_grad_()
    method = LeJEPA(lamb=0.3, num_slices=5)
    assert torch.autograd.gradcheck(lambda z: method(z, num_global=2, step=0, seed=0)[0], (z,))


def test_the_loss_is_convex_with_the_centre_of_the_global_views():
    z, method = sample(4, 10, 5), LeJEPA(lamb=0.3, num_slices=8, num_knots=9, t_max=3.0)
    loss, terms = method(z, num_global=2, step=5, seed=1)
    views = z.numpy()
    invariance = np.mean((views - (views[0] + views[1]) / 2) ** 2)
    slices = unit_slices(5, 8, derive_seed(1, 5, "slices")).double().numpy()
    regularizer = np.mean([trapezoid_by_hand(view @ slices, 9, 3.0) for view in views])
    assert terms["invariance"].item() == pytest.approx(invariance, rel=1e-10)
    assert terms["sigreg"].item() == pytest.approx(regularizer, rel=1e-10)
    assert loss.item() == pytest.approx(0.7 * invariance + 0.3 * regularizer, rel=1e-10)


def test_two_view_invariance_is_a_quarter_of_rectified_lpjepas():
    z = sample(2, 10, 5)
    ours, theirs = (m(z, num_global=2, step=0, seed=0)[1]["invariance"] for m in (LeJEPA(), RectifiedLpJEPA()))
    assert 4 * ours.item() == pytest.approx(theirs.item(), rel=1e-12)


def test_slices_change_with_the_step_and_the_seed():
    z, method = sample(2, 10, 5), LeJEPA(num_slices=4)
    at = {(step, seed): method(z, num_global=2, step=step, seed=seed)[0].item() for step in (0, 1) for seed in (0, 1)}
    assert len(set(at.values())) == 4
    assert at[0, 0] == method(z, num_global=2, step=0, seed=0)[0].item()


def test_statistics_stay_in_fp32_under_autocast():
    model, x = nn.Linear(6, 5), ranks.draw("x", 40, 6).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = model(x).unflatten(0, (2, 20))
        loss, _ = LeJEPA()(z, num_global=2, step=0, seed=0)
    assert z.dtype == torch.bfloat16
    exact, _ = LeJEPA()(z.double(), num_global=2, step=0, seed=0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)  # projected in bf16, it is 3e-5 off


@pytest.mark.parametrize("world", [2, 3])
def test_several_ranks_take_the_step_of_one_process(world):
    alone = ranks.training_step("lejepa")
    for rank in ranks.results(world):
        torch.testing.assert_close(rank["steps"]["lejepa"], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("values", "start"),
    [
        ({"lamb": 1.5}, "lamb is a convex weight in [0, 1], got 1.5; "),
        ({"lamb": float("nan")}, "lamb must be a finite number, got nan"),
        ({"num_slices": 0}, "num_slices must be at least 1, got 0; "),
        ({"num_knots": 1}, "num_knots must be at least 2, got 1; "),
        ({"t_max": 0.0}, "t_max must be positive, got 0.0; "),
    ],
)
def test_a_wrong_value_is_named(values, start):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is checked to the letter below)
        LeJEPA(**values)
    assert str(caught.value).startswith(start)


def test_a_single_view_is_refused():
    LeJEPA().check_views(1, 1)
    with pytest.raises(ValueError, match=r"^views.num_global \+ views.num_local must be at least 2"):
        LeJEPA().check_views(1, 0)
