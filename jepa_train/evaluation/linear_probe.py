"""The full linear probe on frozen embeddings: multinomial logistic regression, its L2 strength chosen on val."""

from collections.abc import Sequence

import torch
from torch import Tensor

from jepa_train.data.device_transfer import to_device
from jepa_train.evaluation.probes import (
    ROWS,
    Frozen,
    Labelled,
    ProbeScore,
    Spectrum,
    heads_top1,
    softmax_minus_target,
)

_ON_HOST = 2**16  # weights, 100 classes of 512 features: an estimate from the time of a launch and of a read-back
L2_GRID = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # from strong to weak: each fit starts at the previous solution


def linear_probe(
    data: Frozen, trainings: Sequence[Labelled], *, l2_grid: Sequence[float] = L2_GRID
) -> list[ProbeScore]:
    """Multinomial logistic regression on each training set, one L2 strength for all, chosen by their mean top-1 on val.

    Ties go to the strongest. The search, from strong to weak, ends after two strengths in a row that are worse than the
    best: weaker ones overfit more and take longest to fit.

    Args:
        data: standardised embeddings; its spectrum changes the time, not the result.
        trainings: training sets among them.

    Returns:
        One score per training set.
    """
    weights = [data.val.x.new_zeros(data.num_classes, data.val.x.shape[1] + 1) for _ in trainings]
    best: list[ProbeScore] = []
    worse = 0
    for l2 in sorted(l2_grid, reverse=True):
        weights = [
            fit_logistic(*training, l2=l2, start=weight, spectrum=data.spectrum)
            for training, weight in zip(trainings, weights, strict=True)
        ]
        tops = [heads_top1(head[None], split) for head in weights for split in (data.val, data.test)]
        scores = [ProbeScore(val, test, l2) for val, test in torch.cat(tops).view(-1, 2).tolist()]
        gain = sum(score.val for score in scores) - sum(score.val for score in best)
        worse = worse + 1 if best and gain < 0 else 0
        if not best or gain > 0:
            best = scores
        if worse == 2:
            break
    return best


@torch.no_grad()
def fit_logistic(
    x: Tensor,
    labels: Tensor,
    *,
    l2: float,
    start: Tensor,
    spectrum: Spectrum,
    max_iter: int = 200,
    tolerance: float = 3e-4,
) -> Tensor:
    """The minimum of mean cross-entropy + l2 / 2 * |W|^2 by full-batch L-BFGS; the bias is not penalised.

    The objective of scikit-learn's LogisticRegression(C=1 / (l2 * N)). The solver works in coordinates in which the
    Hessian at W = 0 is about the identity: half the iterations, and a tolerance independent of the data's scale.

    L-BFGS decides by scalars, and torch's reads some 45 of them in each iteration. So it runs on the host, which then
    waits for the device once per evaluation of the objective, unless the weights are so many that its vectors take
    longer there.

    Args:
        x: (N, E), centered.
        labels: (N,).
        l2: positive.
        start: (C, E + 1), weights and, in the last column, biases; not changed.
        tolerance: stops below this largest absolute gradient, in those coordinates.

    Returns:
        (C, E + 1), like start.
    """
    classes = len(start)
    curvature = max(classes - 1, 1) / classes**2  # of the cross-entropy in a logit when all classes are equally likely
    root = (curvature * spectrum.variances + l2).rsqrt()
    metric = (spectrum.axes * root) @ spectrum.axes.T  # (E, E), symmetric
    moved = torch.zeros_like(start, device="cpu" if start.numel() <= _ON_HOST else None)

    def in_metric(rows: Tensor) -> Tensor:
        return torch.cat([rows[:, :-1] @ metric, rows[:, -1:] * curvature**-0.5], dim=1)

    def weight() -> Tensor:
        return start + in_metric(to_device(moved, start.device))

    def objective() -> Tensor:
        loss, gradient = _cross_entropy(x, labels, weight(), l2)
        moved.grad = in_metric(gradient).to(moved.device)
        return loss.to(moved.device)  # on the host: complete by now

    solver = torch.optim.LBFGS(
        [moved],
        max_iter=max_iter,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    solver.step(objective)
    return weight()


def _cross_entropy(x: Tensor, labels: Tensor, weight: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """The penalised objective, in float64 for the line search, and its gradient (C, E + 1)."""
    loss = 0.5 * l2 * weight[:, :-1].double().square().sum()
    gradient = torch.zeros_like(weight)
    for some, target in zip(x.split(ROWS), labels[:, None].split(ROWS), strict=True):
        logits = torch.addmm(weight[:, -1], some, weight[:, :-1].T)
        loss -= logits.log_softmax(dim=1).gather(1, target).sum(dtype=torch.float64) / len(x)
        error = softmax_minus_target(logits, target)
        gradient[:, :-1].addmm_(error.T, some)
        gradient[:, -1] += error.sum(dim=0)
    gradient /= len(x)
    gradient[:, :-1] += l2 * weight[:, :-1]
    return loss, gradient
