"""SGD heads against autograd, nearest neighbours against scikit-learn.

Run: python -m pytest tests/unit/evaluation/test_probes.py
"""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional

from jepa_train.base.seeds import generator
from jepa_train.evaluation.probes import KNN_KS, Labelled, fit_sgd, heads_top1, knn_top1, standardised


def blobs(count: int, *, seed: int, width: int = 6, classes: int = 4, noise: float = 1.5) -> Labelled:
    """float64, of classes that overlap, around the same centers whatever the seed."""
    centers = torch.randn(classes, width, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    draws = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=draws)
    return Labelled(centers[labels] + noise * torch.randn(count, width, generator=draws, dtype=torch.float64), labels)


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, True), (0.0, False)])
def test_sgd_equals_autograd_with_the_optimiser_and_schedule_of_pytorch(momentum: float, decay: bool) -> None:
    x, labels = blobs(150, seed=0)
    weight = torch.zeros(4, 7, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.SGD([weight], lr=0.3, momentum=momentum)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(solver, T_max=3 * 4)
    for epoch in range(3):
        order = torch.randperm(150, generator=generator("sgd_probe", epoch))
        for rows in order[:128].split(32):
            solver.zero_grad()
            functional.cross_entropy(x[rows] @ weight[:, :-1].T + weight[:, -1], labels[rows]).backward()
            solver.step()
            if decay:
                schedule.step()
    rates = [1e-3, 0.3, 1e6]  # the last diverges and must not touch the others
    options = {"num_classes": 4, "epochs": 3, "batch": 32, "momentum": momentum, "decay": decay}
    found = fit_sgd(x, labels, rates=rates, **options)[1]
    torch.testing.assert_close(found, weight.detach(), atol=1e-12, rtol=1e-9)


def test_standardising_is_by_the_first_ones_statistics_and_silences_dead_dimensions() -> None:
    train, other = blobs(50, seed=0).x, blobs(9, seed=1).x
    train[:, 2] = 0.3 + 1e-9 * torch.randn(50, generator=torch.Generator().manual_seed(0))
    found = standardised(train, other)[1]
    expected = ((other - train.mean(0)) / train.std(0, correction=0)).numpy()
    expected[:, 2] = 0
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_knn_equals_scikit_learn_at_every_k() -> None:
    train, queries = blobs(230, seed=0), blobs(1500, seed=1)  # more queries than a chunk
    found = knn_top1(train, queries, num_classes=4)
    assert tuple(found) == KNN_KS
    for k in KNN_KS:
        reference = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
        )
        reference.fit(train.x.numpy(), train.labels.numpy())
        assert found[k] == pytest.approx(reference.score(queries.x.numpy(), queries.labels.numpy())), k
    assert len(set(found.values())) > 3  # the votes do disagree
    few = knn_top1(blobs(30, seed=0), queries, num_classes=4, ks=(30, 200))
    assert few[30] == few[200]  # all vote


def test_heads_are_scored_one_by_one() -> None:
    """Heads that always say class 0, class 1, and the sign of x."""
    heads = torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [-1.0, 0.0]]])
    x = torch.tensor([[1.0], [2.0], [-1.0]]).repeat(10_000, 1)  # more rows than are scored at a time
    assert heads_top1(heads, Labelled(x, (x[:, 0] < 0).long())).tolist() == pytest.approx([2 / 3, 1 / 3, 1.0])
