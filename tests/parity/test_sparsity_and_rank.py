"""Sparsity and RankMe against the values of public code; tests/unit/evaluation/test_metrics.py has the formulas.

Run: python -m pytest tests/parity/test_sparsity_and_rank.py
"""

import math

import numpy as np
import pytest
import torch
from waves import wave

from jepa_train.evaluation.metrics import effective_rank, l1_sparsity, nonzero_fraction


def test_sparsity_gives_the_values_of_the_authors_code() -> None:
    """YilunKuang/rectified-lp-jepa 5ae61ab, solo/utils/metrics.py:79 and 90, with a row of zeros."""
    z = (0.3 + 1.5 * wave(24, 6)).relu()
    z[3] = 0
    assert l1_sparsity(z).item() == pytest.approx(0.4485108323, rel=1e-6)
    assert nonzero_fraction(z).item() == pytest.approx(0.5486111045, rel=1e-6)


def test_rankme_is_the_papers_and_public_code_adds_an_epsilon() -> None:
    x = (0.3 + 1.5 * wave(24, 6)) * torch.tensor([1.0, 0.5, 0.2, 0.1, 0.05, 0.01])
    share = np.linalg.svd(x.numpy(), compute_uv=False)
    share /= share.sum()
    assert effective_rank(x).item() == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-6)
    # rbalestr-lab/stable-pretraining 9aa93f8, stable_pretraining/callbacks/rankme.py:107: 1e-5 on every share
    assert effective_rank(x).item() == pytest.approx(3.188351571, rel=2e-4)
    # YilunKuang/rectified-lp-jepa 5ae61ab, solo/methods/ncl.py:289: the entropy, with 1e-6 in the logarithm
    assert effective_rank(x).item() == pytest.approx(math.exp(1.159395218), rel=2e-5)
