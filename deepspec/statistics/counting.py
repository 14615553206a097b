"""Statistics of Poisson counts: cstat, wstat (Poisson background) and pgstat (Gaussian background)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deepspec.binned import BinnedData
from deepspec.errors import UserError
from deepspec.statistics.base import (
    FLOOR,
    PoissonStatistic,
    cash,
    over_expected,
    poisson,
    require_background,
    require_poisson,
)


class CStat(PoissonStatistic):
    """Cash's statistic with the saturated term: Poisson counts, no background data.

    Source: Cash (1979); XSPEC manual, appendix B; Sherpa's ``cstat``. Where the model predicts nothing
    and counts were seen, the value is infinite: below `FLOOR` = 1e-25 counts it is continued as a
    straight line, which at m = 0 adds 2n to Sherpa's truncated value.
    """

    name = "cstat"
    formula = "C = 2 Σ [ m - n + n ln(n/m) ]"

    def __init__(self, binned: BinnedData):
        super().__init__(binned)
        if binned.background is not None:
            self.notes = (
                "cstat leaves the background in the source counts and ignores the background spectrum; "
                "what XSPEC calls cstat with a background is wstat here",
            )

    @property
    def uses_background(self) -> bool:
        """False: a background spectrum is ignored."""
        return False

    @classmethod
    def check(cls, binned: BinnedData) -> None:
        """Raise `UserError` unless the counts are Poisson counts."""
        require_poisson(binned, cls.name)

    def prepare(self) -> None:
        """Find where a logarithm is taken."""
        self.lowest = FLOOR * (self.counts > 0).to(torch.float64)
        self._close()

    def _value(self, m: Tensor) -> Tensor:
        return cash(self.counts, m)

    def _slope(self, m: Tensor) -> Tensor:
        return 2.0 - 2.0 * over_expected(self.counts, m)

    def _curvature(self, m: Tensor) -> Tensor:
        some = self.counts > 0
        return torch.where(some, 2.0 * self.counts / torch.where(some, m, 1.0) ** 2, 0.0)

    def weight(self, m: Tensor) -> Tensor:
        """2/m, the exact expectation of the curvature; `m` is floored at `FLOOR`."""
        return 2.0 / torch.clamp(m, min=FLOOR)

    def draw(self, m: Tensor, rng: np.random.Generator) -> CStat:
        """Counts drawn from Poisson(m)."""
        mean = torch.clamp(torch.broadcast_tensors(m, self.counts)[0], min=0.0)
        return type(self).from_tensors(poisson(mean, rng))


class WStat(PoissonStatistic):
    """Poisson counts in source and background region, the background of each bin profiled out.

    With α = `ratio`, n and b counts, β the expected background-region counts and μ = m + αβ, β is the
    positive root of α(1+α)β² + [(1+α)m - α(n+b)]β - bm = 0 (taken in the form without cancellation).

    Source: XSPEC manual, appendix B ("cstat" with a background); Sherpa's ``wstat``.
    """

    name = "wstat"
    formula = "W = 2 Σ [ m + αβ - n + n ln(n/(m+αβ)) + β - b + b ln(b/β) ], β profiled in each bin"

    def __init__(self, binned: BinnedData):
        super().__init__(binned)
        self.notes = background_notes(binned)

    @classmethod
    def check(cls, binned: BinnedData) -> None:
        """Raise `UserError` unless source and background are Poisson counts with a positive ratio."""
        require_poisson(binned, cls.name)
        require_background(binned, cls.name)
        if not binned.background_poisson:
            raise UserError(
                "wstat needs Poisson counts in the background, and these are not (rates, negative or fractional "
                "values, or an error column)",
                source="--stat",
                remedy="use --stat pgstat, which takes a background with Gaussian errors",
            )

    def prepare(self) -> None:
        """Every prediction from 0 upwards is allowed: some counts always make the profiled total positive."""
        self.lowest = torch.zeros_like(self.counts * self.background_counts)
        self._close()

    def _region(self, m: Tensor) -> Tensor:
        """Profiled expected background-region counts β, shape (..., n)."""
        n, b, a = self.counts, self.background_counts, self.ratio
        q = a * (n + b) - (1.0 + a) * m
        # Without background counts the root is one of two straight lines; 1 stands in so that no gradient is NaN.
        some = b > 0
        bm = torch.where(some, b, 1.0) * m
        root = torch.sqrt(torch.where(some, q * q + 4.0 * a * (1.0 + a) * bm, 1.0))
        size = torch.where(q < 0, -q, q) + root
        positive = torch.where(q < 0, 2.0 * bm / size, size / (2.0 * a * (1.0 + a)))
        line = torch.where(q > 0, q / (a * (1.0 + a)), torch.zeros_like(q))
        return torch.where(some, positive, line)

    def _value(self, m: Tensor) -> Tensor:
        region = self._region(m)
        return cash(self.counts, m + self.ratio * region) + cash(self.background_counts, region)

    def _slope(self, m: Tensor) -> Tensor:
        # The profiled background is stationary (or held at 0), so only the explicit m counts.
        return 2.0 - 2.0 * over_expected(self.counts, m + self.ratio * self._region(m))

    def _curvature(self, m: Tensor) -> Tensor:
        n, b, a = self.counts, self.background_counts, self.ratio
        region = self._region(m)
        p = over_expected(n, m + a * region) ** 2 / torch.where(n > 0, n, 1.0)
        # p q / (α² p + q) with q = b/β², written with β²/b so that nothing overflows; at β = 0 the bound holds β.
        some = b > 0
        width = torch.where(some, region**2 / torch.where(some, b, 1.0), 0.0)
        free = some | (region > 0)
        inner = torch.where(some, p / (1.0 + a * a * p * width), 0.0)
        return 2.0 * torch.where(free, inner, p)

    def weight(self, m: Tensor) -> Tensor:
        """2 / (m + αβ + α²β): the variance of n - αb, with β profiled on the data."""
        inside = torch.clamp(m, min=0.0)
        region = self._region(inside)
        return 2.0 / torch.clamp(inside + self.ratio * (1.0 + self.ratio) * region, min=FLOOR)

    def background(self, m: Tensor) -> Tensor:
        """Profiled background in the source region αβ, shape (..., n) [count]."""
        return self.ratio * self._region(torch.clamp(m, min=0.0))

    def draw(self, m: Tensor, rng: np.random.Generator) -> WStat:
        """Counts from Poisson(m + αβ), background counts from Poisson(β), β profiled on the present data."""
        inside = torch.clamp(torch.broadcast_tensors(m, self.counts)[0], min=0.0)
        region = self._region(inside)
        return type(self).from_tensors(
            poisson(inside + self.ratio * region, rng), poisson(region, rng), ratio=self.ratio
        )


class PGStat(PoissonStatistic):
    """Poisson counts in the source region, a background known with a Gaussian error, profiled out.

    With B = αb and σ = α `background_error`, f is the expected background in the source region. XSPEC's
    manual lets f be negative; here f >= 0, so that n = 0 never makes the statistic negative. Both are
    equal wherever XSPEC's f is positive. σ = 0 means a background known exactly.

    Source: XSPEC manual, appendix B, ``pgstat``.
    """

    name = "pgstat"
    formula = "PG = 2 Σ [ m + f - n + n ln(n/(m+f)) + (f - B)²/(2σ²) ], f >= 0 profiled in each bin"

    @classmethod
    def check(cls, binned: BinnedData) -> None:
        """Raise `UserError` unless counts are Poisson and the background has usable errors."""
        require_poisson(binned, cls.name)
        require_background(binned, cls.name)
        if binned.background_error is None:
            raise UserError(
                "pgstat needs the errors of the background, and its file gives none",
                source="--stat",
                remedy="use --stat wstat if the background is Poisson counts, or add a STAT_ERR column",
            )
        error, background = np.asarray(binned.background_error), np.asarray(binned.background)
        wrong = int(np.sum(~np.isfinite(error) | (error < 0) | ((error == 0) & (background < 0))))
        if wrong:
            raise UserError(
                f"pgstat cannot use the background errors of {wrong} of {len(error)} bins (negative, not a number, "
                "or zero with a negative background)",
                source="--stat",
                remedy="correct the STAT_ERR column of the background, or ignore these channels",
            )

    def prepare(self) -> None:
        """Scale the background to the source region."""
        self._expected = self.ratio * self.background_counts
        self._variance = (self.ratio * self.background_error) ** 2
        # Only a bin without any background can have counts where nothing at all is expected.
        bare = (self._variance == 0) & (self._expected <= 0)
        self.lowest = FLOOR * ((self.counts > 0) & bare).to(torch.float64)
        self._close()

    def _profiled(self, m: Tensor) -> tuple[Tensor, Tensor]:
        """Background f >= 0 in the source region and the pull (f - B)/σ, shape (..., n)."""
        n, variance, expected = self.counts, self._variance, self._expected
        # The total μ = m + f is the positive root of μ² + c μ - nσ² = 0.
        regular = (n > 0) & (variance > 0)
        c = variance - m - expected
        product = torch.where(regular, n * variance, 1.0)
        size = torch.where(c > 0, c, -c) + torch.sqrt(c * c + 4.0 * product)
        total = torch.where(c > 0, 2.0 * product / size, 0.5 * size)
        free = torch.where(regular, expected + variance * (n / total - 1.0), expected - variance)
        held = free <= 0
        f = torch.where(held, torch.zeros_like(free), free)
        sigma = torch.sqrt(torch.where(variance > 0, variance, 1.0))
        pull = torch.where(variance > 0, (f - expected) / sigma, torch.zeros_like(f))
        return f, pull

    def _value(self, m: Tensor) -> Tensor:
        f, pull = self._profiled(m)
        return cash(self.counts, m + f) + pull * pull

    def _slope(self, m: Tensor) -> Tensor:
        f, _ = self._profiled(m)
        return 2.0 - 2.0 * over_expected(self.counts, m + f)

    def _curvature(self, m: Tensor) -> Tensor:
        f, _ = self._profiled(m)
        n = self.counts
        p = over_expected(n, m + f) ** 2 / torch.where(n > 0, n, 1.0)
        return 2.0 * torch.where(f > 0, p / (1.0 + p * self._variance), p)

    def weight(self, m: Tensor) -> Tensor:
        """2 / (m + f + σ²): the variance of n - B, with f profiled on the data."""
        inside = torch.clamp(m, min=0.0)
        f, _ = self._profiled(inside)
        return 2.0 / torch.clamp(inside + f + self._variance, min=FLOOR)

    def background(self, m: Tensor) -> Tensor:
        """Profiled background f in the source region, shape (..., n) [count]."""
        return self._profiled(torch.clamp(m, min=0.0))[0]

    def draw(self, m: Tensor, rng: np.random.Generator) -> PGStat:
        """Counts from Poisson(m + f), background from Normal(f, σ), f profiled on the present data."""
        inside = torch.clamp(torch.broadcast_tensors(m, self.counts)[0], min=0.0)
        f, _ = self._profiled(inside)
        noise = torch.as_tensor(rng.standard_normal(tuple(f.shape)))
        return type(self).from_tensors(
            poisson(inside + f, rng),
            f / self.ratio + noise * self.background_error,
            ratio=self.ratio,
            background_error=self.background_error,
        )


def background_notes(binned: BinnedData, share: float = 0.1) -> tuple[str, ...]:
    """What wstat's user must know of empty background bins.

    Parameters
    ----------
    binned : BinnedData
    share : float
        Silent where fewer than this share of the bins have no background counts.
    """
    empty = float(np.mean(np.asarray(binned.background) == 0)) if len(binned) else 0.0
    if empty < share:
        return ()
    return (
        f"{empty:.0%} of the bins have no background counts, where wstat is biased; group so that each bin has some, "
        "for example with --group minbkg:5",
    )
