"""Statistics of Poisson counts: cstat, wstat (Poisson background) and pgstat (Gaussian background)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deepspec.binned import BACKGROUND_MATTERS, BinnedData
from deepspec.errors import UserError
from deepspec.statistics.base import (
    FLOOR,
    PoissonStatistic,
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
        super().prepare()

    def _state(self, inside: Tensor) -> tuple[Tensor, ...]:
        return (inside,)

    def _curvature(self, state: tuple[Tensor, ...]) -> Tensor:
        return 2.0 * self.counts / (state[0] + self._empty) ** 2

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
        n, b, a = self.counts, self.background_counts, self.ratio
        self.lowest = torch.zeros_like(n * b)
        self._region_empty = (b == 0).to(torch.float64)
        self._any_empty = bool(self._region_empty.any())
        self._safe_region = b + self._region_empty
        # Coefficients of the quadratic; 1 stands in for b = 0, where one of two straight lines is the root.
        self._scaled_sum, self._product = a * (n + b), 4.0 * a * (1.0 + a) * self._safe_region
        self._half = 0.5 / (a * (1.0 + a))
        super().prepare()

    def _region(self, m: Tensor) -> Tensor:
        """Profiled expected background-region counts β, shape (..., n)."""
        q = self._scaled_sum - (1.0 + self.ratio) * m
        negative = q < 0
        # 1 under the root keeps its derivative finite in bins that the straight lines replace.
        size = torch.where(negative, -q, q) + torch.sqrt(q * q + self._product * m + self._region_empty)
        # 2bm / size, the form without cancellation, needs size > 0: it is, because m > 0 wherever q < 0.
        region = torch.where(negative, 2.0 * self._safe_region * m / size, self._half * size)
        if not self._any_empty:
            return region
        return torch.where(self._region_empty > 0, torch.where(negative, 0.0, 2.0 * self._half * q), region)

    def _state(self, inside: Tensor) -> tuple[Tensor, ...]:
        region = self._region(inside)
        return inside + self.ratio * region, region

    def _value(self, inside: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        total, region = state
        # μ - n + β - b = m (1 - n/μ) at the profiled β, which saves a difference of large numbers.
        n, b = self.counts, self.background_counts
        source = n * torch.log(self._safe_counts / (total + self._empty))
        beneath = b * torch.log(self._safe_region / (region + self._region_empty))
        return inside * self._slope(total) + 2.0 * (source + beneath)

    def _curvature(self, state: tuple[Tensor, ...]) -> Tensor:
        total, region = state
        p = self.counts / (total + self._empty) ** 2
        # p q / (α² p + q) with q = b/β², written with β²/b so that nothing overflows.
        free = 2.0 * p / (1.0 + self.ratio**2 * p * region**2 / self._safe_region)
        if not self._any_empty:
            return free
        # Without background counts the statistic is straight while β > 0, and Cash's where β is held at 0.
        return torch.where(self._region_empty > 0, torch.where(region > 0, 0.0, 2.0 * p), free)

    def _variance(self, state: tuple[Tensor, ...]) -> Tensor:
        """m + αβ + α²β, with β profiled on the data."""
        return state[0] + self.ratio**2 * state[1]

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
        n = self.counts
        self._expected = self.ratio * self.background_counts
        self._spread = (self.ratio * self.background_error) ** 2
        exact = (self._spread == 0).to(torch.float64)
        self._safe_spread = self._spread + exact
        # Without counts, or with a background known exactly, f does not depend on m.
        self._fixed = (n == 0) | (self._spread == 0)
        self._constant = torch.clamp(self._expected - self._spread, min=0.0)
        self._product = torch.where(self._fixed, 1.0, n * self._spread)
        # Only a bin without any background can have counts where nothing at all is expected.
        bare = (exact > 0) & (self._expected <= 0)
        self.lowest = FLOOR * ((n > 0) & bare).to(torch.float64)
        super().prepare()

    def _background(self, m: Tensor) -> Tensor:
        """Profiled background f >= 0 in the source region, shape (..., n)."""
        # The total μ = m + f is the positive root of μ² + c μ - nσ² = 0.
        c = self._spread - self._expected - m
        positive = c > 0
        size = torch.where(positive, c, -c) + torch.sqrt(c * c + 4.0 * self._product)
        total = torch.where(positive, 2.0 * self._product / size, 0.5 * size)
        free = self._expected + self._spread * (self.counts / total - 1.0)
        return torch.where(self._fixed, self._constant, torch.where(free > 0, free, 0.0))

    def _state(self, inside: Tensor) -> tuple[Tensor, ...]:
        f = self._background(inside)
        return inside + f, f

    def _value(self, inside: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        total, f = state
        return self._cash(total) + (f - self._expected) ** 2 / self._safe_spread

    def _curvature(self, state: tuple[Tensor, ...]) -> Tensor:
        total, f = state
        p = self.counts / (total + self._empty) ** 2
        return 2.0 * torch.where(f > 0, p / (1.0 + p * self._spread), p)

    def _variance(self, state: tuple[Tensor, ...]) -> Tensor:
        """m + f + σ², with f profiled on the data."""
        return state[0] + self._spread

    def background(self, m: Tensor) -> Tensor:
        """Profiled background f in the source region, shape (..., n) [count]."""
        return self._background(torch.clamp(m, min=0.0)).expand(np.broadcast_shapes(m.shape, self.counts.shape))

    def draw(self, m: Tensor, rng: np.random.Generator) -> PGStat:
        """Counts from Poisson(m + f), background from Normal(f, σ), f profiled on the present data."""
        inside = torch.clamp(torch.broadcast_tensors(m, self.counts)[0], min=0.0)
        f = self._background(inside)
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
        Silent where fewer than this share of the bins have no background counts, and where the background is too
        small a part of the counts to bias anything.
    """
    expected = float(np.sum(np.asarray(binned.background) * np.asarray(binned.ratio)))
    if expected <= BACKGROUND_MATTERS * float(np.sum(binned.counts)):
        return ()
    empty = float(np.mean(np.asarray(binned.background) == 0)) if len(binned) else 0.0
    if empty < share:
        return ()
    return (
        f"{empty:.0%} of the bins have no background counts, where wstat is biased; group so that each bin has some, "
        "for example with --group minbkg:5",
    )
