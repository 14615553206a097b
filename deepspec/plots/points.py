"""Fitted bins joined for the eye: what the figures draw in place of the bins of the fit."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.special import gammaincinv
from torch import Tensor

from deepspec.problem import Dataset

#: Bins are not joined beyond this width in ln(energy).
WIDEST = 0.25


@dataclass(frozen=True, eq=False)
class Points:
    """Fitted bins of one observation, joined; arrays of shape (n_point,).

    Attributes
    ----------
    low, high : energies [keV]
    counts : in the source region.
    down, up : 1-sigma errors of the counts.
    model : predicted source counts.
    background : background in the source region as it enters the total; 0 where the statistic ignores it.
    measured : background measured in its own region, scaled; 0 where the statistic ignores it.
    variance : of counts - measured - model, from the statistic.
    first : index of the first bin of each point.
    """

    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    down: np.ndarray
    up: np.ndarray
    model: np.ndarray
    background: np.ndarray
    measured: np.ndarray
    variance: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.low)

    def __getitem__(self, chosen: np.ndarray) -> Points:
        return Points(*(getattr(self, f.name)[chosen] for f in fields(self)))

    @property
    def middle(self) -> np.ndarray:
        """Geometric middles [keV]."""
        return np.sqrt(self.low * self.high)

    @property
    def residual(self) -> np.ndarray:
        """(data - model) / sigma; the model includes the measured background where the statistic uses one."""
        return (self.counts - self.measured - self.model) / np.sqrt(self.variance)

    def span(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances from the middle to both ends, for horizontal bars."""
        return self.middle - self.low, self.high - self.middle

    def add(self, values: np.ndarray) -> np.ndarray:
        """Sum over the bins of each point of something per fitted bin, shape (n_bin,)."""
        return np.add.reduceat(np.asarray(values, dtype=float), self.first)


def joined(low: np.ndarray, high: np.ndarray, counts: np.ndarray, variance: np.ndarray, min_sigma: float) -> np.ndarray:
    """First bin of every point: bins are joined until counts/error reaches `min_sigma`, never across a gap.

    Parameters
    ----------
    low, high, counts, variance : shape (n_bin,)

    Returns
    -------
    ndarray of int, shape (n_point,)
    """
    starts, total, spread, begin = [0], 0.0, 0.0, low[0]
    for i in range(len(low)):
        gap = i > 0 and abs(low[i] - high[i - 1]) > 1e-3 * (high[i] - low[i])
        enough = total > 0 and total >= min_sigma * np.sqrt(spread)
        if i > 0 and (gap or enough or np.log(high[i] / begin) > WIDEST):
            starts.append(i)
            total, spread, begin = 0.0, 0.0, low[i]
        total, spread = total + counts[i], spread + variance[i]
    if len(starts) > 1 and not (total > 0 and total >= min_sigma * np.sqrt(spread)):
        # what is left over at the end belongs to the point before, if nothing lies between
        before, last = starts[-2], starts[-1]
        touching = abs(low[last] - high[last - 1]) <= 1e-3 * (high[last] - low[last])
        if min_sigma > 0 and touching and np.log(high[-1] / low[before]) <= WIDEST:
            starts.pop()
    return np.array(starts)


def make_points(dataset: Dataset, model: Tensor, min_sigma: float) -> Points:
    """The bins of one observation joined, with the predicted source counts `model`, shape (n_bin,)."""
    binned, statistic = dataset.binned, dataset.statistic
    # A logarithmic axis has no zero, and some detectors have a channel that starts there.
    low, high = np.maximum(binned.energy_low, 0.1 * binned.energy_high), binned.energy_high
    variance = binned.error**2 if binned.error is not None else np.maximum(binned.counts, 0.0)
    first = joined(low, high, binned.counts, variance, min_sigma)

    def add(values):
        return np.add.reduceat(np.asarray(values, dtype=float), first)

    counts = add(binned.counts)
    poisson = binned.error is None and binned.poisson
    down, up = poisson_errors(counts) if poisson else (np.sqrt(add(variance)),) * 2
    measured = binned.background * binned.ratio if statistic.uses_background else np.zeros(len(binned))
    return Points(
        low=low[first],
        high=high[np.append(first[1:], len(low)) - 1],
        counts=counts,
        down=down,
        up=up,
        model=add(model),
        background=add(statistic.background(model)),
        measured=add(measured),
        variance=add(2.0 / statistic.weight(model)),
        first=first,
    )


def poisson_errors(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the exact central 68.3 % limits of Poisson counts (Gehrels 1986, equations 1 and 2)."""
    tail = 0.158655
    lower = np.where(counts > 0, gammaincinv(np.maximum(counts, 1e-9), tail), 0.0)
    return counts - lower, gammaincinv(counts + 1.0, 1.0 - tail) - counts
