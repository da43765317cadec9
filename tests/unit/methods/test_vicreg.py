"""VICReg: the loss against NumPy's covariance, and in fp32.

Run: python -m pytest tests/unit/methods/test_vicreg.py
"""

import numpy as np
import pytest
import ranks

from jepa_train.methods import VICReg
from jepa_train.methods.base import Step
from jepa_train.methods.vicreg import covariance_penalty


def test_the_loss_matches_loops_over_numpys_covariance():
    z = 0.8 * ranks.draw("z", 2, 30, 6) @ ranks.draw("mixing", 6, 6)
    z[..., 2] *= 0.1  # below the hinge
    variance, covariance = 0.0, 0.0
    for view in z.numpy():
        table = np.cov(view, rowvar=False)
        deviations = np.sqrt(np.diag(table) + 1e-4)
        assert deviations.min() < 1 < deviations.max()
        variance += np.mean([max(0.0, 1 - deviation) for deviation in deviations]) / 2
        covariance += sum(table[i, j] ** 2 for i in range(6) for j in range(6) if i != j) / 6
    invariance = np.mean((z[0] - z[1]).numpy() ** 2)
    loss, terms = VICReg(lamb_inv=3.0, lamb_var=5.0, lamb_cov=2.0)(z, Step(2, 0, 0))
    assert terms["invariance"].item() == pytest.approx(invariance, rel=1e-12)
    assert terms["variance"].item() == pytest.approx(variance, rel=1e-12)
    assert terms["covariance"].item() == pytest.approx(covariance, rel=1e-10)
    assert loss.item() == pytest.approx(3 * invariance + 5 * variance + 2 * covariance, rel=1e-10)


def test_covariance_keeps_fp32_when_nearly_white():
    z = ranks.draw("nearly white", 2, 4096, 64)
    exact = covariance_penalty(z)
    assert covariance_penalty(z.float()).tolist() == pytest.approx(exact.tolist(), rel=1e-4)
