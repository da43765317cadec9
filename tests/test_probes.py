import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from jepa_train.probes import L2_GRID, fit_logistic, knn_top1, linear_probe, top1


@pytest.fixture(scope="module")
def digits() -> dict[str, Tensor]:
    """Raw pixels, some of them constant, of 1,797 digits in three parts."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = {"train": order[:900], "val": order[900:1200], "test": order[1200:]}
    x = {f"{name}_x": torch.tensor(images[rows], dtype=torch.float32) for name, rows in parts.items()}
    return x | {f"{name}_y": torch.tensor(labels[rows]) for name, rows in parts.items()}


def standardised(digits: dict[str, Tensor]) -> dict[str, np.ndarray]:
    train = digits["train_x"].double().numpy()
    mean, std = train.mean(0), train.std(0)
    std[std == 0] = np.inf
    return {name: (digits[f"{name}_x"].double().numpy() - mean) / std for name in ("train", "val", "test")}


def probe(data: dict[str, Tensor], *, l2_grid: tuple[float, ...] = L2_GRID) -> dict[str, float]:
    parts = (data[f"{split}_{kind}"] for split in ("train", "val", "test") for kind in ("x", "y"))
    return linear_probe(*parts, num_classes=10, l2_grid=l2_grid)


@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_logistic_fit_equals_scikit_learn(digits: dict[str, Tensor], l2: float) -> None:
    x, y = standardised(digits)["train"], digits["train_y"]
    reference = LogisticRegression(C=1 / (l2 * len(y)), solver="newton-cholesky", tol=1e-10).fit(x, y.numpy())
    start = torch.zeros(10, x.shape[1] + 1, dtype=torch.float64)
    weight = fit_logistic(torch.tensor(x), y, l2=l2, start=start, max_iter=5000, tolerance=1e-9)
    np.testing.assert_allclose(weight[:, :-1].numpy(), reference.coef_, atol=1e-3)
    bias = weight[:, -1].numpy()  # free up to a constant
    np.testing.assert_allclose(bias - bias.mean(), reference.intercept_ - reference.intercept_.mean(), atol=1e-3)


def test_linear_probe_scores_as_scikit_learn_over_the_same_grid(digits: dict[str, Tensor]) -> None:
    x = standardised(digits)
    scores = []
    grid = (1e-1, 1e-2, 1e-3)
    for l2 in grid:
        fit = LogisticRegression(C=1 / (l2 * 900), tol=1e-6, max_iter=2000).fit(x["train"], digits["train_y"].numpy())
        scores.append([fit.score(x[name], digits[f"{name}_y"].numpy()) for name in ("val", "test")])
    best = int(np.argmax([val for val, _ in scores]))
    found = probe(digits, l2_grid=grid)
    assert found["l2"] == grid[best]
    assert [found["val"], found["test"]] == pytest.approx(scores[best], abs=2 / 300)


def test_linear_probe_chooses_on_val_alone(digits: dict[str, Tensor]) -> None:
    scrambled = digits | {"test_y": (digits["test_y"] + 1) % 10}
    plain, wrong = probe(digits), probe(scrambled)
    assert (wrong["val"], wrong["l2"]) == (plain["val"], plain["l2"])
    assert wrong["test"] < 0.1 < 0.9 < plain["test"]


def test_linear_probe_takes_the_strongest_of_equals() -> None:
    corners, labels = torch.eye(3).repeat(5, 1), torch.arange(3).repeat(5)  # every strength gets them all right
    data = {
        f"{split}_{kind}": part for split in ("train", "val", "test") for kind, part in (("x", corners), ("y", labels))
    }
    assert probe(data) == {"val": 1.0, "test": 1.0, "l2": max(L2_GRID)}


def test_linear_probe_ignores_scale_shift_and_dead_dimensions(digits: dict[str, Tensor]) -> None:
    plain = probe(digits)
    noise = torch.Generator().manual_seed(0)
    moved = dict(digits)
    for name, rounding in (("train_x", 1e-7), ("val_x", 1e-4), ("test_x", 1e-4)):
        x = digits[name] * 1e-3 + 0.5
        dead = 0.3 + rounding * torch.randn(len(x), 7, generator=noise)
        moved[name] = torch.cat([x, dead], dim=1)
    assert probe(moved)["test"] == pytest.approx(plain["test"], abs=0.005)


def test_linear_probe_is_deterministic_and_takes_inference_tensors(digits: dict[str, Tensor]) -> None:
    with torch.inference_mode():
        made_in_inference_mode = {name: tensor.clone() for name, tensor in digits.items()}
    before = torch.get_rng_state()
    assert probe(made_in_inference_mode) == probe(digits)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("k", [1, 5, 2000])
def test_knn_equals_brute_force(digits: dict[str, Tensor], k: int) -> None:
    bank, queries = (digits[f"{name}_x"].double().numpy() for name in ("train", "test"))
    noisy = queries + np.random.default_rng(1).normal(scale=8, size=queries.shape)  # so that votes do disagree
    correct = 0
    for query, label in zip(noisy, digits["test_y"].numpy(), strict=True):
        similarity = bank @ query / (np.linalg.norm(bank, axis=1) * np.linalg.norm(query))
        nearest = np.argsort(-similarity)[:k]
        votes = np.bincount(digits["train_y"].numpy()[nearest], np.exp(similarity[nearest] / 0.07), minlength=10)
        correct += votes.argmax() == label
    expected = correct / len(noisy)
    assert 0.3 < expected < 0.99
    found = knn_top1(
        digits["train_x"].double(),
        digits["train_y"],
        torch.tensor(noisy),
        digits["test_y"],
        k=k,
        num_classes=10,
        chunk=100,
    )
    assert found == pytest.approx(expected)


def test_knn_vote_weighs_by_similarity() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    query = torch.tensor([[1.0, 0.05]])  # one near neighbour of class 0 against two far ones of class 1
    for label, expected in ((0, 1.0), (1, 0.0)):
        args = bank, torch.tensor([0, 1, 1]), query, torch.tensor([label])
        assert knn_top1(*args, k=3, num_classes=2) == expected


def test_top1_averages_over_views() -> None:
    logits = torch.tensor([[[2.0, 1.0], [0.0, 1.0]], [[2.0, 1.0], [1.0, 0.0]]])  # (V, N, C)
    assert top1(logits, torch.tensor([0, 1])).item() == 0.75
    assert top1(logits[0], torch.tensor([1, 1])).item() == 0.5
