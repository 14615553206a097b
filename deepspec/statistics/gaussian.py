"""The chi2 family: background-subtracted counts, a variance per bin that differs in how it is estimated."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deepspec.binned import BinnedData
from deepspec.errors import UserError
from deepspec.statistics.base import Statistic, poisson, require_poisson, require_ratio

CHURAZOV_COUNTS = 10.0
"""Counts that the window of `Chi2Churazov` must hold."""


class Chi2(Statistic):
    """Chi-squared with XSPEC's standard weighting, which is Sherpa's ``chi2xspecvar``.

    The data are d = n - αb and the variance n + α²b, or from the errors that the files give. A bin with
    counts in neither region has variance min(1, α²), or 1 without a background: XSPEC's minimum variance
    as Sherpa reproduces it for its ``chi2xspecvar``.

    Source: XSPEC manual, ``weight standard``; Sherpa, ``chi2xspecvar``.
    """

    name = "chi2"
    formula = "χ² = Σ (n - αb - m)² / σ²,  σ² = n + α²b, or the file's errors"
    gaussian = True

    def __init__(self, binned: BinnedData):
        super().__init__(binned)
        self._require_variance(self.variance)

    def _require_variance(self, variance: Tensor) -> None:
        wrong = int(torch.sum(~(torch.isfinite(variance) & (variance > 0))))
        if wrong:
            raise UserError(
                f"{self.name} cannot be computed: {wrong} of {variance.numel()} bins have zero variance",
                source="--stat",
                remedy="group the spectrum, for example with --group min:20, or ignore these channels",
            )

    @classmethod
    def check(cls, binned: BinnedData) -> None:
        """Raise `UserError` where the data need an error column and have none."""
        require_ratio(binned)
        if not binned.poisson and binned.error is None:
            raise UserError(
                f"{cls.name} needs the errors of the counts, which are not Poisson counts, and the file gives none",
                source="--stat",
                remedy="add a STAT_ERR column to the spectrum",
            )
        if binned.background is not None and not binned.background_poisson and binned.background_error is None:
            raise UserError(
                f"{cls.name} needs the errors of the background, which is not Poisson counts, and its file gives none",
                source="--stat",
                remedy="add a STAT_ERR column to the background",
            )

    def prepare(self) -> None:
        """Subtract the background and fix the variance."""
        self.data = self.counts
        if self.background_counts is not None:
            self.data = self.counts - self.ratio * self.background_counts
        variance = self.data_variance()
        self.variance = torch.where(variance > 0, variance, self.least_variance().to(torch.float64))

    def estimate(self, counts: Tensor) -> Tensor:
        """Variance of Poisson `counts` as estimated from them, shape (..., n)."""
        return counts

    def data_variance(self) -> Tensor:
        """Variance of the subtracted counts before the minimum is applied, shape (..., n)."""
        source = self.estimate(self.counts) if self.error is None else self.error**2
        if self.background_counts is None:
            return source
        region = self.background_counts
        region = self.estimate(region) if self.background_error is None else self.background_error**2
        return source + self.ratio**2 * region

    def least_variance(self) -> Tensor:
        """Variance of a bin whose estimate is 0, shape broadcasting with (..., n)."""
        if self.error is not None:
            return torch.zeros(())
        if self.ratio is None:
            return torch.ones((), dtype=torch.float64)
        return torch.clamp(self.ratio**2, max=1.0)

    def per_bin(self, m: Tensor) -> Tensor:
        return (self.data - m) ** 2 / self.variance

    def slope(self, m: Tensor) -> Tensor:
        return -2.0 * (self.data - m) / self.variance

    def curvature(self, m: Tensor) -> Tensor:
        return (2.0 / self.variance).expand(np.broadcast_shapes(m.shape, self.variance.shape))

    def weight(self, m: Tensor) -> Tensor:
        """2/σ²: the curvature does not depend on the data beyond the variance."""
        return self.curvature(m)

    def background(self, m: Tensor) -> Tensor:
        """The background that is subtracted, αb, shape (..., n) [count]."""
        if self.background_counts is None:
            return torch.zeros_like(m)
        return (self.ratio * self.background_counts).expand(np.broadcast_shapes(m.shape, self.data.shape))

    def draw(self, m: Tensor, rng: np.random.Generator) -> Chi2:
        """Poisson counts, or Gaussian ones where the file gives the errors; the variance rule is applied anew."""
        shape = np.broadcast_shapes(m.shape, self.data.shape)
        inside = torch.clamp(m.expand(shape), min=0.0)
        back = self.background_counts

        def drawn(mean: Tensor, error: Tensor | None) -> Tensor:
            if error is None:
                return poisson(torch.clamp(mean, min=0.0), rng)
            return mean + error * torch.as_tensor(rng.standard_normal(tuple(shape)))

        counts = drawn(inside + self.background(inside), self.error)
        if back is None:
            return type(self).from_tensors(counts, error=self.error)
        region = drawn(back.expand(shape), self.background_error)
        return type(self).from_tensors(counts, region, self.ratio, self.error, self.background_error)


class Chi2DataVar(Chi2):
    """Chi-squared with the variance n + α²b as it stands; data with an empty bin are refused.

    Source: Sherpa's ``chi2datavar`` (which divides by zero there).
    """

    name = "chi2datavar"
    formula = "χ² = Σ (n - αb - m)² / (n + α²b), or the file's errors"

    def __init__(self, binned: BinnedData):
        super().__init__(binned)
        # Simulated data may have empty bins all the same: they get the variance that `Chi2` gives them.
        self._require_variance(self.data_variance())


class _FromCounts(Chi2):
    """A variance that is estimated from counts, so the data must be Poisson counts."""

    @classmethod
    def check(cls, binned: BinnedData) -> None:
        """Raise `UserError` unless source and background are Poisson counts."""
        require_poisson(binned, cls.name)
        require_ratio(binned)
        if binned.background is not None and not binned.background_poisson:
            raise UserError(
                f"{cls.name} estimates the variance from counts, and the background is not Poisson counts",
                source="--stat",
                remedy="use --stat chi2, which takes the errors in the files, or --stat pgstat",
            )


class Chi2Gehrels(_FromCounts):
    """Chi-squared with Gehrels' upper error for small counts.

    Source: Gehrels (1986), ApJ 303, 336; XSPEC ``weight gehrels``; Sherpa ``chi2gehrels``.
    """

    name = "chi2gehrels"
    formula = "χ² = Σ (n - αb - m)² / (g(n)² + α² g(b)²),  g(n) = 1 + √(n + 0.75)"

    def estimate(self, counts: Tensor) -> Tensor:
        """Square of 1 + √(n + 0.75)."""
        return (1.0 + torch.sqrt(counts + 0.75)) ** 2


class Chi2ConstVar(_FromCounts):
    """Chi-squared with one variance for all bins, the mean of n + α²b.

    Source: Sherpa's ``chi2constvar``.
    """

    name = "chi2constvar"
    formula = "χ² = Σ (n - αb - m)² / (mean(n) + α² mean(b))"

    def estimate(self, counts: Tensor) -> Tensor:
        """Mean over the bins."""
        return counts.mean(-1, keepdim=True).expand_as(counts)


class Chi2Churazov(_FromCounts):
    """Chi-squared with the variance averaged over neighbouring bins.

    The window around a bin grows by one bin on each side until it holds `CHURAZOV_COUNTS` counts (or the
    whole spectrum), and the variance is the mean of n in it. XSPEC's manual names the paper but not the
    rule that grows its window, so the two programs need not agree to all digits.

    Source: Churazov et al. (1996), ApJ 471, 673; XSPEC ``weight churazov``. Not in Sherpa.
    """

    name = "chi2churazov"
    formula = "χ² = Σ (n - αb - m)² / (n̄ + α² b̄),  the bar a mean over the nearest bins with 10 counts in sum"

    def estimate(self, counts: Tensor) -> Tensor:
        """Mean counts of the smallest symmetric window that holds enough."""
        size = counts.shape[-1]
        total = torch.nn.functional.pad(counts.cumsum(-1), (1, 0))
        place = torch.arange(size)
        mean = torch.zeros_like(counts)
        open_ = torch.ones_like(counts, dtype=torch.bool)
        for half in range(size):
            low, high = torch.clamp(place - half, min=0), torch.clamp(place + half + 1, max=size)
            held = total[..., high] - total[..., low]
            # A window that has grown over the whole spectrum is final, whatever it holds.
            final = (held >= CHURAZOV_COUNTS) | (high - low == size)
            mean = torch.where(open_ & final, held / (high - low), mean)
            open_ = open_ & ~final
            if not bool(open_.any()):
                break
        return mean


class Chi2ModVar(_FromCounts):
    """Chi-squared with the variance taken from the model: m, plus αb + α²b of a subtracted background.

    Without a background this is Sherpa's ``chi2modvar``, which has no background term. A variance below
    1 counts as 1, as in Sherpa.

    Source: Pearson's chi-squared; XSPEC ``weight model``; Sherpa ``chi2modvar``.
    """

    name = "chi2modvar"
    formula = "χ² = Σ (n - αb - m)² / max(1, m + αb + α²b)"

    def __init__(self, binned: BinnedData):
        Statistic.__init__(self, binned)

    def prepare(self) -> None:
        """Subtract the background; its share of the variance is fixed."""
        self.data = self.counts
        self._extra = torch.zeros((), dtype=torch.float64)
        if self.background_counts is not None:
            scaled = self.ratio * self.background_counts
            self.data = self.counts - scaled
            self._extra = scaled * (1.0 + self.ratio)

    def _variance_at(self, m: Tensor) -> tuple[Tensor, Tensor]:
        variance = m + self._extra
        fixed = variance < 1.0
        return torch.where(fixed, 1.0, variance), fixed

    def per_bin(self, m: Tensor) -> Tensor:
        return (self.data - m) ** 2 / self._variance_at(m)[0]

    def slope(self, m: Tensor) -> Tensor:
        variance, fixed = self._variance_at(m)
        pull = (self.data - m) / variance
        return -2.0 * pull - torch.where(fixed, 0.0, pull * pull)

    def curvature(self, m: Tensor) -> Tensor:
        variance, fixed = self._variance_at(m)
        pull = (self.data - m) / variance
        return 2.0 / variance * torch.where(fixed, 1.0, (1.0 + pull) ** 2)

    def weight(self, m: Tensor) -> Tensor:
        """2/σ² + 2/σ⁴: the expectation of the curvature when n - αb has mean m and variance σ²."""
        variance, fixed = self._variance_at(m)
        return 2.0 / variance + torch.where(fixed, 0.0, 2.0 / variance**2)
