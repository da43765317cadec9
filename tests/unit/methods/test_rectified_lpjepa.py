import numpy as np
import pytest
import ranks
import torch
from torch import nn

from jepa_train.base.seeds import derive_seed, generator
from jepa_train.losses.rgg import RGG
from jepa_train.losses.slices import singular_slices, unit_slices
from jepa_train.methods import RectifiedLpJEPA
from jepa_train.methods.rectified_lpjepa import rdmreg


def by_sorting(z: np.ndarray, target: np.ndarray, slices: np.ndarray) -> float:
    """W2^2 slice by slice, from the sorted samples."""
    distances = [np.mean((np.sort(z @ c) - np.sort(target @ c)) ** 2) for c in slices.T]
    return float(np.mean(distances))


def samples(name: str, *shape: int) -> torch.Tensor:
    return ranks.draw(name, *shape)


def test_rdmreg_is_the_mean_over_views_with_shared_and_with_own_targets():
    z, targets, slices = samples("z", 2, 30, 6), samples("target", 2, 30, 6), unit_slices(6, 50, seed=0)
    directions = slices.double().numpy()
    own = np.mean([by_sorting(v, t, directions) for v, t in zip(z.numpy(), targets.numpy(), strict=True)])
    assert rdmreg(z, targets, slices).item() == pytest.approx(own, rel=1e-12)
    shared = np.mean([by_sorting(view, targets[0].numpy(), directions) for view in z.numpy()])
    assert rdmreg(z, targets[0], slices).item() == pytest.approx(shared, rel=1e-12)


@pytest.mark.parametrize("target", ["rgg", "gg"])
def test_the_loss_is_the_authors_weighted_sum(target):
    method = RectifiedLpJEPA(p=1.5, mu=-0.5, num_slices=20, lamb_inv=3.0, lamb_reg=7.0, target=target)
    z = samples("z", 2, 30, 6).relu()
    loss, terms = method(z, num_global=2, step=5, seed=1)
    goals = RGG(p=1.5, mu=-0.5).gn_sample((2, 30, 6), generator(1, 5, "target")).double().numpy()
    goals = np.maximum(goals, 0) if target == "rgg" else goals
    slices = unit_slices(6, 20, derive_seed(1, 5, "slices")).double().numpy()
    regularizer = np.mean([by_sorting(view, goal, slices) for view, goal in zip(z.numpy(), goals, strict=True)])
    invariance = np.mean((z[0] - z[1]).numpy() ** 2)
    assert terms["invariance"].item() == pytest.approx(invariance, rel=1e-12)
    assert terms["rdmreg"].item() == pytest.approx(regularizer, rel=1e-6)  # the target is drawn in fp32
    assert loss.item() == pytest.approx(3 * invariance + 7 * regularizer, rel=1e-6)


def test_gradients_match_finite_differences():
    z, target, slices = samples("z", 2, 7, 3).requires_grad_(), samples("target", 7, 3), unit_slices(3, 5, seed=0)
    assert torch.autograd.gradcheck(lambda z: rdmreg(z, target, slices), (z,))
    method = RectifiedLpJEPA(num_slices=5)
    assert torch.autograd.gradcheck(lambda z: method(z, num_global=2, step=0, seed=0)[0], (z,))


def test_singular_slices_are_those_of_both_views_together():
    z, method = samples("z", 2, 10, 5), RectifiedLpJEPA(num_slices=8, slice_kind="singular")
    _, terms = method(z, num_global=2, step=5, seed=1)
    slices = singular_slices(z.flatten(0, 1), 8, derive_seed(1, 5, "slices"))
    target = RGG(p=1.0, mu=0.0).sample((2, 10, 5), generator(1, 5, "target"))
    assert terms["rdmreg"].item() == pytest.approx(rdmreg(z, target, slices).item(), rel=1e-10)
    _, others = RectifiedLpJEPA(num_slices=8)(z, num_global=2, step=5, seed=1)
    assert terms["rdmreg"] != others["rdmreg"]


@pytest.mark.parametrize("slice_kind", ["random", "singular"])
def test_an_embedding_that_is_not_finite_has_such_a_loss(slice_kind):
    z = samples("z", 2, 10, 5).float()
    z[1, 3] = float("nan")
    loss, _ = RectifiedLpJEPA(num_slices=8, slice_kind=slice_kind)(z, num_global=2, step=0, seed=0)
    assert not loss.isfinite()


def test_slices_and_targets_change_with_the_step_and_the_seed():
    z, method = samples("z", 2, 10, 5), RectifiedLpJEPA(num_slices=4)
    at = {(step, seed): method(z, num_global=2, step=step, seed=seed)[0].item() for step in (0, 1) for seed in (0, 1)}
    assert len(set(at.values())) == 4
    assert at[0, 0] == method(z, num_global=2, step=0, seed=0)[0].item()


def test_statistics_stay_in_fp32_under_autocast():
    model, x = nn.Linear(6, 5), samples("x", 40, 6).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = model(x).unflatten(0, (2, 20))
        loss, _ = RectifiedLpJEPA()(z, num_global=2, step=0, seed=0)
    assert z.dtype == torch.bfloat16
    exact, _ = RectifiedLpJEPA()(z.double(), num_global=2, step=0, seed=0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)  # projected in bf16, it is 2e-3 off


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", ["rectified_lpjepa", "one slice", "singular slices"])
def test_several_ranks_take_the_step_of_one_process(name, world):
    alone = ranks.training_step(name)
    for rank in ranks.results(world):
        torch.testing.assert_close(rank["steps"][name], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sigma_mode", ["gn", "rgn"])
@pytest.mark.parametrize("target", ["rgg", "gg"])
def test_expected_is_what_the_target_shows(target, sigma_mode):
    method = RectifiedLpJEPA(p=2.0, mu=-1.0, sigma_mode=sigma_mode, target=target)
    law = RGG(p=2.0, mu=-1.0, sigma_mode=sigma_mode)
    draws = (law.sample if target == "rgg" else law.gn_sample)((400_000,), generator(0))
    assert method.expected()["std"] == pytest.approx(draws.std().item(), rel=0.01)
    assert method.expected()["nonzero_fraction"] == pytest.approx((draws != 0).float().mean().item(), abs=0.003)


def test_the_projector_is_rectified_unless_told_otherwise():
    assert RectifiedLpJEPA().output_activation == "relu"
    assert RectifiedLpJEPA(rectified=False).output_activation == "none"


@pytest.mark.parametrize(
    ("values", "start"),
    [
        ({"p": -1.0}, "p must be positive, got -1.0; "),
        ({"mu": 1e308}, "mu must lie in [-1e+06, 1e+06], got 1e+308; "),
        ({"mu": -2e6}, "mu must lie in [-1e+06, 1e+06], got -2000000.0; "),
        ({"sigma_mode": "ng"}, "sigma_mode must be one of gn, rgn, got 'ng'; "),
        ({"num_slices": 0}, "num_slices must be at least 1, got 0; "),
        ({"lamb_inv": -1.0}, "lamb_inv must not be negative, got -1.0; "),
        ({"lamb_reg": -1.0}, "lamb_reg must not be negative, got -1.0; "),
        ({"slice_kind": "svd"}, "slice_kind must be one of random, singular, got 'svd'; "),
        ({"target": "gauss"}, "target must be one of rgg, gg, got 'gauss'; "),
    ],
)
def test_a_wrong_value_is_named(values, start):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is checked to the letter below)
        RectifiedLpJEPA(**values)
    assert str(caught.value).startswith(start)


def test_other_than_two_global_views_are_refused():
    RectifiedLpJEPA().check_views(2, 0)
    with pytest.raises(ValueError, match=r"^views.num_global must be 2 for rectified_lpjepa, got 4"):
        RectifiedLpJEPA().check_views(4, 0)
    with pytest.raises(ValueError, match=r"^views.num_local must be 0 for rectified_lpjepa, got 6"):
        RectifiedLpJEPA().check_views(2, 6)
