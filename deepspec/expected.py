"""Expected C-stat and its variance for a model that is right (Kaastra 2017): goodness of fit without simulation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import gammainc, gammaincc, gammaln, xlogy

#: Predicted counts above which the series in 1/m is used; at 50 it is off by 2e-11 (mean) and 7e-10 (variance).
SERIES_FROM = 50.0

#: Coefficients of 1, 1/m, 1/m² ... of mean and variance: C = 2m Σ_k (-x)^k / (k(k-1)), x = (n-m)/m, with the central
#: moments of the Poisson distribution, collected by powers of m in exact fractions (tests/test_expected.py repeats it).
MEAN_SERIES = (1.0, 1 / 6, 1 / 6, 19 / 60, 9 / 10, 863 / 252, 1375 / 84, 33953 / 360)
VARIANCE_SERIES = (2.0, 2 / 3, 4 / 3, 701 / 180, 449 / 30, 90329 / 1260, 43313 / 105, 209854609 / 75600)

#: Bins that are summed at once, to bound memory.
_CHUNK = 4096


@dataclass(frozen=True)
class ExpectedStatistic:
    """Mean and variance of a summed statistic when the model is right.

    Attributes
    ----------
    mean, variance : float
    """

    mean: float
    variance: float

    @property
    def sigma(self) -> float:
        """Standard deviation."""
        return float(np.sqrt(self.variance))

    def z(self, value: float) -> float:
        """Distance of `value` from the mean in standard deviations; 0 where nothing is expected to vary."""
        return (value - self.mean) / self.sigma if self.variance > 0 else 0.0

    def p_value(self, value: float) -> float:
        """Probability of a statistic at least as large as `value`, for a model that is right.

        The distribution is taken as the gamma distribution of this mean and variance, which is chi-squared
        where every bin has many counts. Measured against simulations in tests/test_expected.py.
        """
        if not (self.variance > 0 and self.mean > 0):
            return 1.0
        scale = self.variance / self.mean
        return float(gammaincc(self.mean / scale, max(value, 0.0) / scale))

    def lower_p_value(self, value: float) -> float:
        """Probability of a statistic at most as large as `value`: a fit can also be too good."""
        if not (self.variance > 0 and self.mean > 0):
            return 1.0
        scale = self.variance / self.mean
        return float(gammainc(self.mean / scale, max(value, 0.0) / scale))


def expected_cstat(m) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of C-stat per bin when counts are drawn from Poisson(m).

    Parameters
    ----------
    m : array or Tensor, any shape [count]
        Predicted counts, background included; values below 0 count as 0.

    Returns
    -------
    mean, variance : ndarray, float64, the shape of `m`

    Notes
    -----
    Summed exactly up to m = `SERIES_FROM`, by series above it; both to better than 1e-8 (tests/test_expected.py).
    Kaastra's published fits to the same sums are good to a few 1e-4 of the mean.

    Source: Kaastra (2017), A&A 605, A51, equations 6-7 (definition); the sums are our own.
    """
    m = np.maximum(np.asarray(m, dtype=np.float64), 0.0)
    flat = m.ravel()
    mean, variance = np.empty_like(flat), np.empty_like(flat)
    small = flat < SERIES_FROM
    for start in range(0, int(small.sum()), _CHUNK):
        which = np.flatnonzero(small)[start : start + _CHUNK]
        mean[which], variance[which] = _sums(flat[which])
    inverse = 1.0 / flat[~small]
    mean[~small] = np.polyval(MEAN_SERIES[::-1], inverse)
    variance[~small] = np.polyval(VARIANCE_SERIES[::-1], inverse)
    return mean.reshape(m.shape), variance.reshape(m.shape)


def _sums(m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance by summing over all counts that have a probability, shape (k,)."""
    highest = m.max()
    # 12 standard deviations and 30 counts more leave out less than 1e-20 of the probability.
    n = np.arange(np.ceil(highest + 12.0 * np.sqrt(highest) + 30.0))
    m = m[:, None]
    probability = np.exp(xlogy(n, m) - m - gammaln(n + 1.0))
    # At m = 0 only n = 0 happens, with C = 0; 1 stands in so that no logarithm of zero is taken.
    safe = np.where(m > 0, m, 1.0)
    cstat = 2.0 * (safe - n + xlogy(n, n / safe))
    mean = np.where(m > 0, probability * cstat, 0.0).sum(1)
    variance = np.where(m > 0, probability * (cstat - mean[:, None]) ** 2, 0.0).sum(1)
    return mean, variance


def expected_total(predicted: Iterable, free: float = 0) -> ExpectedStatistic:
    """Mean and variance of the summed C-stat of one or more data sets.

    Parameters
    ----------
    predicted : sequence of arrays or Tensors [count]
        Predicted counts of each data set.
    free : float
        Number of fitted parameters (those that priors hold count in part); 0 gives Kaastra's figures, which are for fixed parameters. Fitting lowers
        the mean by one per parameter, and the variance by two where bins hold counts but not where most are
        empty: two times the share of bins with m > 1 is taken off (measured in tests/test_expected.py).

    Returns
    -------
    ExpectedStatistic
    """
    parts = [np.asarray(m, dtype=np.float64).ravel() for m in predicted]
    m = np.concatenate(parts) if parts else np.zeros(0)
    if not len(m):
        return ExpectedStatistic(0.0, 0.0)
    mean, variance = expected_cstat(m)
    total, spread = float(mean.sum()), float(variance.sum())
    return ExpectedStatistic(max(total - free, 0.0), max(spread - 2.0 * free * float((m > 1).mean()), 0.0))
