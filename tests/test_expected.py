"""Expected C-stat: exact sums, series, Kaastra's published fits, simulations, fitted parameters."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import xlogy
from scipy.stats import chi2, poisson

from deepspec.expected import (
    MEAN_SERIES,
    SERIES_FROM,
    VARIANCE_SERIES,
    ExpectedStatistic,
    expected_cstat,
    expected_total,
)
from deepspec.statistics import CStat


def by_hand(m):
    """Mean and variance summed over every count with a probability above 1e-30, SciPy's Poisson."""
    n = np.arange(poisson.ppf(1e-15, m) * 0.5, poisson.isf(1e-15, m) * 1.5 + 60)
    n = n.astype(int)
    probability = poisson.pmf(n, m)
    cstat = 2 * (m - n + xlogy(n, n) - n * np.log(m))
    mean = np.sum(probability * cstat)
    return mean, np.sum(probability * (cstat - mean) ** 2)


@given(m=st.one_of(st.floats(1e-12, 1e-3), st.floats(1e-3, 60.0), st.floats(40.0, 3000.0)))
def test_sums_over_all_counts(m):
    mean, variance = expected_cstat([m])
    theirs = by_hand(m)
    assert mean[0] == pytest.approx(theirs[0], rel=1e-8, abs=1e-14)
    assert variance[0] == pytest.approx(theirs[1], rel=1e-8, abs=1e-14)


def test_series_and_sums_meet():
    below, above = np.nextafter(SERIES_FROM, 0), SERIES_FROM
    mean, variance = expected_cstat([below, above])
    assert mean[0] == pytest.approx(mean[1], abs=1e-10)
    assert variance[0] == pytest.approx(variance[1], abs=1e-8)


def poisson_moments(highest):
    """Central moments of Poisson(m) as {power of m: coefficient}, by their recurrence."""
    moments = [{0: Fraction(1)}, {}]
    for k in range(1, highest):
        following = {}
        for power, factor in moments[k].items():
            following[power] = following.get(power, 0) + factor * power
        for power, factor in moments[k - 1].items():
            following[power + 1] = following.get(power + 1, 0) + factor * k
        moments.append(following)
    return moments


def test_series_coefficients_in_exact_fractions():
    orders, highest = len(MEAN_SERIES), 2 * len(MEAN_SERIES) + 4
    moments = poisson_moments(highest)
    once = {k: Fraction((-1) ** k * 2, k * (k - 1)) for k in range(2, highest + 1)}
    twice = {}
    for i, left in once.items():
        for j, right in once.items():
            twice[i + j] = twice.get(i + j, 0) + left * right

    def expectation(factors, power):
        found = [Fraction(0)] * orders
        for k, factor in factors.items():
            for exponent, moment in moments[k].items() if k <= highest else ():
                if 0 <= (order := k - power - exponent) < orders:
                    found[order] += factor * moment
        return found

    mean, square = expectation(once, 1), expectation(twice, 2)
    variance = [square[i] - sum(mean[j] * mean[i - j] for j in range(i + 1)) for i in range(orders)]
    assert [float(x) for x in mean] == pytest.approx(list(MEAN_SERIES), rel=1e-15)
    assert [float(x) for x in variance] == pytest.approx(list(VARIANCE_SERIES), rel=1e-15)


@pytest.mark.parametrize(
    ("low", "high", "published"),
    [
        (1e-3, 0.5, lambda m: -0.25 * m**3 + 1.38 * m**2 - 2 * m * np.log(m)),
        (0.5, 2.0, lambda m: -0.00335 * m**5 + 0.04259 * m**4 - 0.27331 * m**3 + 1.381 * m**2 - 2 * m * np.log(m)),
        (2.0, 5.0, lambda m: 1.019275 + 0.1345 * m ** (0.461 - 0.9 * np.log(m))),
        (5.0, 10.0, lambda m: 1.00624 + 0.604 / m**1.68),
        (10.0, 1000.0, lambda m: 1 + 0.1649 / m + 0.226 / m**2),
    ],
)
def test_kaastras_fits_of_the_mean(low, high, published):
    m = np.geomspace(low, high, 200)
    np.testing.assert_allclose(published(m), expected_cstat(m)[0], atol=6e-4)


def test_no_counts_expected_no_statistic_expected():
    mean, variance = expected_cstat([0.0, -1.0])
    assert mean.tolist() == [0.0, 0.0]
    assert variance.tolist() == [0.0, 0.0]


def test_any_shape_and_tensors():
    m = torch.linspace(0.0, 80.0, 6000, dtype=torch.float64).reshape(2, 3000)
    mean, variance = expected_cstat(m)
    assert mean.shape == variance.shape == (2, 3000)
    alone = expected_cstat(m[1, 17])
    assert float(alone[0]) == pytest.approx(mean[1, 17], rel=1e-12)
    assert float(alone[1]) == pytest.approx(variance[1, 17], rel=1e-12)


@pytest.mark.parametrize("level", [0.03, 0.1, 0.3, 1.0, 3.0, 30.0])
def test_simulated_statistics(level):
    rng = np.random.default_rng(1)
    m = torch.tensor(level * rng.uniform(0.3, 2.0, 100))
    values = CStat.from_tensors(np.zeros(100)).draw(m.expand(10000, -1), rng).value(m).numpy()
    expected = expected_total([m])
    assert values.mean() == pytest.approx(expected.mean, abs=4 * expected.sigma / 100)
    assert values.var() == pytest.approx(expected.variance, rel=0.08)
    p = np.array([expected.p_value(value) for value in values])
    for level_of_p in (0.5, 0.1, 0.05):
        assert np.mean(p < level_of_p) == pytest.approx(level_of_p, abs=0.05 if level_of_p == 0.5 else 0.02)


@pytest.mark.parametrize(
    ("level", "mean_off", "variance_off"), [(0.1, 0.5, 0.08), (3.0, 0.25, 0.05), (30.0, 0.25, 0.05)]
)
def test_fitted_parameters_lower_the_mean(level, mean_off, variance_off):
    """Two norms fitted to the halves of a spectrum in closed form."""
    rng = np.random.default_rng(2)
    shape = level * rng.uniform(0.3, 2.0, (2, 50))
    counts = rng.poisson(shape, (40000, 2, 50)).astype(float)
    norm = counts.sum(-1, keepdims=True) / shape.sum(-1, keepdims=True)
    best = torch.tensor((norm * shape).reshape(-1, 100))
    values = CStat.from_tensors(counts.reshape(-1, 100)).value(best).numpy()
    expected = expected_total([shape], free=2)
    assert values.mean() == pytest.approx(expected.mean, abs=mean_off)
    assert values.var() == pytest.approx(expected.variance, rel=variance_off)
    assert expected.mean == pytest.approx(expected_total([shape]).mean - 2)


def test_many_counts_are_chi_squared():
    expected = expected_total([np.full(50, 1e7)], free=4)
    for value in (30.0, 46.0, 70.0):
        assert expected.p_value(value) == pytest.approx(chi2.sf(value, 46), rel=1e-5)
        assert expected.lower_p_value(value) == pytest.approx(chi2.cdf(value, 46), rel=1e-5)
    assert expected.z(expected.mean + 2 * expected.sigma) == pytest.approx(2.0)


def test_data_sets_add_up():
    first, second = np.array([0.2, 3.0]), np.array([100.0])
    both = expected_total([first, second])
    parts = [expected_total([first]), expected_total([second])]
    assert both.mean == pytest.approx(sum(part.mean for part in parts))
    assert both.variance == pytest.approx(sum(part.variance for part in parts))


def test_nothing_expected():
    nothing = expected_total([np.zeros(4)])
    assert nothing == ExpectedStatistic(0.0, 0.0)
    assert nothing.z(0.0) == 0.0
    assert nothing.p_value(0.0) == 1.0
    assert expected_total([]) == ExpectedStatistic(0.0, 0.0)
