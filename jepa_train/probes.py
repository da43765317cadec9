"""Evaluation of frozen embeddings: a full linear probe and a weighted nearest-neighbour vote.

Deterministic, without random numbers; every rank that calls them with the same embeddings gets the same numbers.
"""

import torch
from torch import Tensor
from torch.nn import functional

L2_GRID = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # from strong to weak: each fit starts at its predecessor's solution
KNN_TEMPERATURE = 0.07  # of the vote, as in the kNN protocol of Wu et al. 2018 that the field uses


def top1(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of correct predictions, a scalar in [0, 1].

    Args:
        logits: (..., N, C); leading dimensions, such as views, are averaged over.
        labels: (N,).
    """
    return (logits.argmax(dim=-1) == labels).float().mean()


def linear_probe(
    train_x: Tensor,
    train_y: Tensor,
    val_x: Tensor,
    val_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    num_classes: int,
    l2_grid: tuple[float, ...] = L2_GRID,
) -> dict[str, float]:
    """Multinomial logistic regression on standardised embeddings, its L2 strength chosen on val.

    Mean and standard deviation are the training split's. Of equal strengths on val the strongest is taken.

    Args:
        train_x, val_x, test_x: (N, E) embeddings.
        train_y, val_y, test_y: (N,) labels in [0, num_classes).

    Returns:
        {"val": top-1, "test": top-1, "l2": the strength}, test of the one chosen on val.
    """
    mean, std = train_x.mean(dim=0), train_x.std(dim=0, correction=0)
    # A constant dimension (a dead ReLU) carries nothing; dividing by its rounding error would make it loud.
    scale = torch.where(std > 1e-6 * mean.abs(), std, torch.inf)
    standard_train, standard_val, standard_test = ((x - mean) / scale for x in (train_x, val_x, test_x))
    best = {"val": -1.0}
    weight = standard_train.new_zeros(num_classes, train_x.shape[1] + 1)
    for l2 in sorted(l2_grid, reverse=True):
        weight = fit_logistic(standard_train, train_y, l2=l2, start=weight)
        val = top1(_logits(standard_val, weight), val_y).item()
        if val > best["val"]:
            best = {"val": val, "test": top1(_logits(standard_test, weight), test_y).item(), "l2": l2}
    return best


def fit_logistic(
    x: Tensor, labels: Tensor, *, l2: float, start: Tensor, max_iter: int = 100, tolerance: float = 1e-5
) -> Tensor:
    """The minimum of mean cross-entropy + l2 / 2 * |W|^2 by full-batch L-BFGS; the bias is not penalised.

    scikit-learn's LogisticRegression(C=1 / (l2 * N)) minimises the same.

    Args:
        x: (N, E).
        labels: (N,).
        start: (C, E + 1), weights and, in the last column, biases; not changed.
        tolerance: stops below this largest absolute gradient, or below 1e-4 of it in the change of the objective.

    Returns:
        (C, E + 1), like start.
    """
    weight = start.clone().requires_grad_()
    labels = labels.clone()  # labels made in inference mode cannot be saved for a backward pass
    solver = torch.optim.LBFGS(
        [weight],
        max_iter=max_iter,
        tolerance_grad=tolerance,
        tolerance_change=1e-4 * tolerance,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        loss = functional.cross_entropy(_logits(x, weight), labels) + l2 / 2 * weight[:, :-1].square().sum()
        loss.backward()
        return loss

    solver.step(objective)
    return weight.detach()


@torch.no_grad()
def knn_top1(
    train_x: Tensor, train_y: Tensor, x: Tensor, y: Tensor, *, k: int, num_classes: int, chunk: int = 1024
) -> float:
    """Top-1 of the vote of the k most cosine-similar training embeddings, each weighing exp(similarity / 0.07).

    Args:
        train_x: (M, E); with fewer than k rows all vote.
        x: (N, E); chunk rows at a time, against memory of (N, M).
    """
    bank = functional.normalize(train_x, dim=1)
    correct = torch.zeros((), dtype=torch.int64, device=x.device)
    for queries, labels in zip(functional.normalize(x, dim=1).split(chunk), y.split(chunk), strict=True):
        similarity, index = (queries @ bank.T).topk(min(k, len(bank)), dim=1)  # (n, k)
        votes = similarity.new_zeros(len(queries), num_classes)
        votes.scatter_add_(1, train_y[index], (similarity / KNN_TEMPERATURE).exp())
        correct += (votes.argmax(dim=1) == labels).sum()
    return correct.item() / len(y)


def _logits(x: Tensor, weight: Tensor) -> Tensor:
    return torch.addmm(weight[:, -1], x, weight[:, :-1].T)
