"""The rectified generalized Gaussian against SciPy, numerical integration and the papers' tables.

Run: python -m pytest tests/parity/test_target_distribution.py
"""

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from jepa_train.base.seeds import generator
from jepa_train.losses.rgg import RGG, mu_of_fraction

# arXiv 2602.01456's formulas on the paper's grid: expected L0 / D with unit variance before rectification ...
MUS_GN = (-3, -2.5, -2, -1.5, -1, -0.5, -0.25, 0, 0.25, 0.5, 1)
NONZERO_GN = {
    0.25: (0.0081, 0.0109, 0.0153, 0.0229, 0.0377, 0.0759, 0.1298, 0.5, 0.8702, 0.9241, 0.9623),
    0.5: (0.0109, 0.0166, 0.0263, 0.0439, 0.0787, 0.1608, 0.2537, 0.5, 0.7463, 0.8392, 0.9213),
    0.75: (0.0094, 0.0165, 0.0295, 0.0543, 0.1042, 0.2127, 0.3164, 0.5, 0.6836, 0.7873, 0.8958),
    1: (0.0072, 0.0146, 0.0296, 0.0599, 0.1216, 0.2465, 0.3511, 0.5, 0.6489, 0.7535, 0.8784),
    1.5: (0.0034, 0.0100, 0.0266, 0.0650, 0.1442, 0.2866, 0.3856, 0.5, 0.6144, 0.7134, 0.8558),
    2: (0.0013, 0.0062, 0.0228, 0.0668, 0.1587, 0.3085, 0.4013, 0.5, 0.5987, 0.6915, 0.8413),
}
SIGMA_GN = {0.25: 0.0992516, 0.5: 0.365148, 0.75: 0.566148, 1: 0.707107, 1.5: 0.888043, 2: 1.0}
# ... and (sigma, expected L0 / D) with unit variance after it, by the authors' own choose_sigma_for_unit_var.
MUS_RGN = (-3, -2, -1, 0, 0.25, 1)
RGN = {
    0.5: (
        (0.89458, 0.0598),
        (0.79789, 0.0878),
        (0.68772, 0.1530),
        (0.56011, 0.5),
        (0.53451, 0.6985),
        (0.47529, 0.8928),
    ),
    1: ((2.10408, 0.1202), (1.81287, 0.1659), (1.49598, 0.2562), (1.15470, 0.5), (1.07444, 0.6038), (0.88118, 0.8393)),
    2: ((3.39988, 0.1888), (2.86412, 0.2425), (2.30032, 0.3319), (1.71286, 0.5), (1.56854, 0.5633), (1.20455, 0.7968)),
}
# (mean, variance) with unit variance before rectification, by the authors' rectified_gengaus_mean_var_unified: p -> mu
# (YilunKuang/rectified-lp-jepa 5ae61ab, solo/losses/rectified_lpjepa.py:76, 87 and 130)
MOMENTS = {
    0.5: {-3: (0.015686508, 0.052277933), -1: (0.079635094, 0.19653114), 1: (1.0796351, 0.63151518)},
    1: {-3: (0.0050804194, 0.0071589874), -1: (0.085954746, 0.11417015), 1: (1.0859547, 0.69914392)},
    2: {-3: (0.00038215432, 0.00020328904), -1: (0.083315471, 0.068398316), 1: (1.0833155, 0.75108781)},
}
CASES = [
    RGG(p=p, mu=mu, sigma_mode=mode)
    for p in (0.25, 0.5, 1, 1.5, 2, 4)
    for mu in (-3, -0.5, 0, 0.25, 1)
    for mode in ("gn", "rgn")
]


def gennorm(rgg: RGG):
    """SciPy's generalized normal, exp(-|x / scale|^p), in place of ours, exp(-|x / sigma|^p / p)."""
    return scipy.stats.gennorm(rgg.p, loc=rgg.mu, scale=rgg.sigma * rgg.p ** (1 / rgg.p))


def moment_above_zero(rgg: RGG, power: int) -> float:
    """The integral of x^power over the distribution's positive part, along SciPy's quantiles."""
    law = gennorm(rgg)
    return scipy.integrate.quad(lambda q: law.isf(q) ** power, 0, law.sf(0), epsabs=0, epsrel=1e-9, limit=400)[0]


@pytest.mark.parametrize("rgg", CASES, ids=str)
def test_closed_forms_match_numerical_integration(rgg):
    first, second = (moment_above_zero(rgg, power) for power in (1, 2))
    assert rgg.nonzero_fraction == pytest.approx(gennorm(rgg).sf(0), rel=1e-6)
    assert rgg.mean == pytest.approx(first, rel=1e-6)
    assert rgg.variance == pytest.approx(second - first**2, rel=1e-6)


@pytest.mark.parametrize("p", NONZERO_GN)
def test_unit_variance_before_rectification_matches_the_papers_grid(p):
    assert RGG(p=p, mu=0.0).sigma == pytest.approx(SIGMA_GN[p], rel=1e-5)
    fractions = [RGG(p=p, mu=mu).nonzero_fraction for mu in MUS_GN]
    assert fractions == pytest.approx(NONZERO_GN[p], abs=5.1e-5)


@pytest.mark.parametrize("p", RGN)
def test_unit_variance_after_rectification_matches_the_authors_numbers(p):
    rggs = [RGG(p=p, mu=mu, sigma_mode="rgn") for mu in MUS_RGN]
    assert [rgg.sigma for rgg in rggs] == pytest.approx([sigma for sigma, _ in RGN[p]], abs=5.1e-6)
    assert [rgg.nonzero_fraction for rgg in rggs] == pytest.approx([l0 for _, l0 in RGN[p]], abs=5.1e-5)


@pytest.mark.parametrize("p", [0.25, 0.5, 1, 1.5, 2, 4])
@pytest.mark.parametrize("mode", ["gn", "rgn"])
def test_mu_of_a_fraction_gives_the_target_this_share_of_nonzeros(p, mode):
    fractions = (1e-6, 0.01, 0.1, 0.5, 0.7, 0.999)
    rggs = [RGG(p=p, mu=mu_of_fraction(fraction, p=p, sigma_mode=mode), sigma_mode=mode) for fraction in fractions]
    assert [gennorm(rgg).sf(0) for rgg in rggs] == pytest.approx(fractions, rel=1e-5)


@pytest.mark.parametrize("p", MOMENTS)
def test_moments_match_the_authors_numbers(p):
    for mu, moments in MOMENTS[p].items():
        assert (RGG(p=p, mu=mu).mean, RGG(p=p, mu=mu).variance) == pytest.approx(moments, rel=1e-7)


@pytest.mark.parametrize("mu", [-200.0, -10.0, 0.0, 10.0, 1e6])
@pytest.mark.parametrize("p", [0.05, 0.5, 2, 50])
def test_unit_variance_holds_far_out(p, mu):
    assert RGG(p=p, mu=mu, sigma_mode="rgn").variance == pytest.approx(1, rel=1e-6)
    assert 0 <= RGG(p=p, mu=mu).variance <= 1 + 1e-9
    assert RGG(p=p, mu=mu).gn_variance == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("p", [0.25, 1 / 3, 0.5, 0.75, 1, 1.5, 2, 8])
@pytest.mark.parametrize("mode", ["gn", "rgn"])
def test_samples_have_the_quantiles_of_the_distribution_in_the_tails(p, mode):
    rgg = RGG(p=p, mu=0.25, sigma_mode=mode)
    draws = rgg.gn_sample((500_000,), generator(2, str(p))).double().sort().values
    levels = np.array([2e-5, 1e-3, 0.05, 0.25, 0.5, 0.75, 0.95, 1 - 1e-3, 1 - 2e-5])
    below = np.searchsorted(draws.numpy(), gennorm(rgg).ppf(levels)) / 500_000
    errors = (below - levels) / np.sqrt(levels * (1 - levels) / 500_000)
    assert np.abs(errors).max() < 4


@pytest.mark.parametrize("mu", [-1.0, 0.0, 0.5])
@pytest.mark.parametrize("p", [0.3, 1, 1.5, 2, 3])
def test_samples_follow_the_rectified_distribution(p, mu):
    """Kolmogorov and Smirnov's test of the entries above 0, and the number of zeros among all."""
    rgg = RGG(p=p, mu=mu)
    draws = rgg.sample((50_000,), generator(3, str(p), str(mu))).double().numpy()
    above, law = draws[draws > 0], gennorm(rgg)
    assert scipy.stats.kstest(above, lambda x: (law.cdf(x) - law.cdf(0)) / law.sf(0)).pvalue > 1e-3
    spread = np.sqrt(50_000 * law.sf(0) * law.cdf(0))
    assert abs(len(above) - 50_000 * law.sf(0)) < 4 * spread
    assert draws.min() == 0
