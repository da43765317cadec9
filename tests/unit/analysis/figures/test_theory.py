"""Expected fraction of non-zeros against scipy's generalized normal distribution, quadrature, and published values.

Run: python -m pytest tests/unit/analysis/figures/test_theory.py
"""

import numpy as np
import pytest
from scipy.stats import gennorm

from analysis.figures.theory import expected_nonzero_fraction


@pytest.mark.parametrize("p", [0.25, 0.5, 1, 1.5, 2])
def test_unit_variance_before_rectification(p: float):
    law = gennorm(p, scale=p ** (1 / p))
    mu = np.array([-3.0, -1.0, 0.0, 0.25, 1.0])
    assert expected_nonzero_fraction(p, mu) == pytest.approx(law.sf(-mu * law.std()))


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("mu", [-3.0, -1.0, 0.0, 1.0])
def test_unit_variance_after_rectification(p: float, mu: float):
    """The sigma of this fraction makes the variance of ReLU(mu + sigma G) one."""
    law = gennorm(p, scale=p ** (1 / p))
    fraction = expected_nonzero_fraction(p, mu, "rgn")[0]
    sigma = -mu / law.isf(fraction) if mu else {1: 1.15470, 2: 1.71286}[p]
    first, second = (law.expect(lambda g, k=k: (mu + sigma * g) ** k, lb=-mu / sigma) for k in (1, 2))
    assert second - first**2 == pytest.approx(1, abs=2e-4)


def test_the_published_corners():
    assert expected_nonzero_fraction(1, [-3, 0.25])[0:2] == pytest.approx([0.0072, 0.6489], abs=5e-5)
    assert expected_nonzero_fraction(1, -3, "rgn")[0] == pytest.approx(0.1202, abs=5e-5)
