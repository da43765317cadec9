"""Protocol "collapse": the gradient by which a method's regularizer pulls at z, as z shrinks to a point."""

import torch
from torch import Tensor

from jepa_train.config import TrainConfig
from jepa_train.distributed.collectives import rank_slice, sum_over_ranks_, world_size
from jepa_train.evaluation.glossary import FACTORS
from jepa_train.methods.base import Step


def collapse_gradients(z: Tensor, config: TrainConfig) -> dict[str, float]:
    """Norm of the gradient of the loss at z, .1 z, .01 z and .001 z: {"gradient_at_0.1": ..} (VISReg, Fig. 2).

    The loss is of a batch as in training, the first config.global_batch rows, fewer if there are fewer. They stand for
    both views of their images, so that the invariance pulls at nothing: the gradient is the regularizer's, with its
    weight in the loss. A method that recovers a collapsed z has a gradient that does not fall with the factor.

    Args:
        z: (N, D), finite, equal on all ranks.

    Returns:
        The norm over all entries of both views. Equal on all ranks.
    """
    count = min(config.global_batch, len(z)) // world_size() * world_size()
    pair = z[:count][rank_slice(count)].repeat(2, 1, 1)  # (2, N of this rank, D)
    found = {}
    for factor in FACTORS:
        shrunk = (factor * pair).requires_grad_()
        loss, _ = config.method(shrunk, Step(num_global=2, number=0, seed=config.seed))
        (gradient,) = torch.autograd.grad(loss, shrunk)
        squares = (gradient / world_size()).square().sum()  # the share of one process: see collectives.py
        sum_over_ranks_(squares)
        found[f"gradient_at_{factor:g}"] = squares.sqrt().item()
    return found
