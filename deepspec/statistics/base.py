"""What every statistic is: data tensors fixed, predicted source counts in, value and derivatives per bin out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from deepspec.binned import BinnedData
from deepspec.errors import UserError

FLOOR = 1e-25
"""Predicted counts below which a logarithm is continued as a straight line; Sherpa's ``trunc_value``."""


def as_float64(values: Any) -> Tensor | None:
    """`values` as a float64 tensor that shares no memory with frozen data; None stays None."""
    if values is None:
        return None
    if isinstance(values, Tensor):
        return values.detach().to(torch.float64)
    return torch.as_tensor(np.array(values, dtype=np.float64))


def poisson(mean: Tensor, rng: np.random.Generator) -> Tensor:
    """Poisson counts of the given mean, float64, same shape."""
    return torch.as_tensor(rng.poisson(mean.detach().numpy()).astype(np.float64))


class Statistic:
    """A fit statistic of one data set. Subclass it for a new one and add a line to ``STATISTICS``.

    Parameters
    ----------
    binned : BinnedData
        Counts of the fitted bins.

    Class attributes
    ----------------
    name : str
        As the user types it.
    formula : str
        One line, shown to users.
    gaussian : bool
        True where each bin is a squared residual over a variance.

    Attributes
    ----------
    counts : Tensor, shape (..., n)
        Counts in the source region; leading axes are many data sets at once.
    background_counts, ratio, error, background_error : Tensor, shape (..., n), or None
        As the attributes of `BinnedData`.
    uses_background : bool
        True where the background data enter the value.
    notes : tuple of str
        Sentences for the user about what the choice implies.

    Notes
    -----
    Every method takes predicted source counts `m` of shape (..., n), float64, and broadcasts them
    against the data. `per_bin` can be differentiated twice by autograd; `slope` and `curvature` are
    the same derivatives in closed form. Where `m` is below the smallest value that the formula allows,
    the statistic goes on as a straight line that falls towards positive `m`, so a descent never stalls.
    """

    name: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    gaussian: ClassVar[bool] = False

    counts: Tensor
    background_counts: Tensor | None
    ratio: Tensor | None
    error: Tensor | None
    background_error: Tensor | None

    def __init__(self, binned: BinnedData):
        self.notes: tuple[str, ...] = ()
        self.check(binned)
        self._fill(binned.counts, binned.background, binned.ratio, binned.error, binned.background_error)

    @classmethod
    def from_tensors(
        cls,
        counts: Any,
        background: Any = None,
        ratio: Any = None,
        error: Any = None,
        background_error: Any = None,
    ) -> Statistic:
        """A statistic of bare arrays of shape (..., n) that broadcast; nothing about a file is checked."""
        made = cls.__new__(cls)
        made.notes = ()
        made._fill(counts, background, ratio, error, background_error)
        return made

    def _fill(self, counts, background, ratio, error, background_error) -> None:
        self.counts = as_float64(counts)
        self.background_counts = as_float64(background)
        self.ratio = as_float64(ratio)
        self.error = as_float64(error)
        self.background_error = as_float64(background_error)
        self.prepare()

    def map(self, function: Callable[[Tensor], Tensor]) -> Statistic:
        """The statistic with `function` applied to every data tensor, e.g. ``lambda t: t[..., mask]``.

        A tensor may have fewer leading axes than `counts` (only counts differ between simulations).
        """
        fields = (self.counts, self.background_counts, self.ratio, self.error, self.background_error)
        return type(self).from_tensors(*(None if field is None else function(field) for field in fields))

    def __repr__(self) -> str:
        return f"<{self.name}, {self.counts.shape[-1]} bins>"

    @property
    def uses_background(self) -> bool:
        """True where the background data enter the value."""
        return self.background_counts is not None

    @classmethod
    def check(cls, binned: BinnedData) -> None:
        """Raise `UserError` where these data cannot be fitted with this statistic."""

    def prepare(self) -> None:
        """Compute what depends on the data alone."""

    def value(self, m: Tensor) -> Tensor:
        """The statistic summed over bins, shape (...)."""
        return self.per_bin(m).sum(-1)

    def per_bin(self, m: Tensor) -> Tensor:
        """Contribution of each bin, shape (..., n)."""
        raise TypeError(f"{type(self).__name__} does not say how it is computed")

    def slope(self, m: Tensor) -> Tensor:
        """First derivative of `per_bin` by `m`, shape (..., n)."""
        raise TypeError(f"{type(self).__name__} does not give its first derivative")

    def curvature(self, m: Tensor) -> Tensor:
        """Second derivative of `per_bin` by `m`, shape (..., n)."""
        raise TypeError(f"{type(self).__name__} does not give its second derivative")

    def weight(self, m: Tensor) -> Tensor:
        """Expected second derivative, shape (..., n): 2 / variance, positive, for Fisher scoring."""
        raise TypeError(f"{type(self).__name__} does not give its Fisher weight")

    def terms(self, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`per_bin`, `slope` and `weight` at once, each (..., n): what a step of a fit needs, for less."""
        return self.per_bin(m), self.slope(m), self.weight(m)

    def background(self, m: Tensor) -> Tensor:
        """Background expected in the source region at `m`, shape (..., n) [count]; 0 where there is none."""
        return torch.zeros_like(m)

    def draw(self, m: Tensor, rng: np.random.Generator) -> Statistic:
        """Simulated data of the shape of `m` (broadcast with the data), for goodness of fit.

        Parameters
        ----------
        m : Tensor, shape (..., n)
            True source counts; the background is the one that `background` gives.
        rng : numpy.random.Generator
        """
        raise TypeError(f"{type(self).__name__} does not say how its data are drawn")


class PoissonStatistic(Statistic):
    """Poisson counts in the source region, whatever is known of the background beneath.

    The subclass gives `lowest`, shape (..., n), the smallest prediction its formula takes (0, or `FLOOR`
    where the value is infinite at 0), and in `_state` what value and derivatives share. Profiled
    backgrounds are stationary (or held at 0), so the slope is 2 (1 - n/μ) for every subclass, where
    μ is the expected total in the source region.
    """

    lowest: Tensor

    def prepare(self) -> None:
        """Compute what depends on the data alone: no formula then needs a case for empty bins."""
        # Added to a denominator or logarithm that an empty bin multiplies by zero anyway.
        self._empty = (self.counts == 0).to(torch.float64)
        self._safe_counts = self.counts + self._empty
        self._steepness = self._slope(self._state(self.lowest)[0]).abs()

    def _state(self, inside: Tensor) -> tuple[Tensor, ...]:
        """Expected total μ in the source region, then whatever else the formulas share; all (..., n)."""
        raise TypeError(f"{type(self).__name__} does not say what it expects in the source region")

    def _value(self, inside: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        return self._cash(state[0])

    def _cash(self, total: Tensor) -> Tensor:
        """2 (μ - n + n ln(n/μ)) per bin."""
        return 2.0 * (total - self.counts + self.counts * torch.log(self._safe_counts / (total + self._empty)))

    def _slope(self, total: Tensor) -> Tensor:
        return 2.0 - 2.0 * self.counts / (total + self._empty)

    def _curvature(self, state: tuple[Tensor, ...]) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not give its second derivative")

    def _variance(self, state: tuple[Tensor, ...]) -> Tensor:
        """Variance of the net counts, the inverse of half the Fisher weight."""
        return state[0]

    def _open(self, m: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """`m` from `lowest` upwards, what was missing of it, and the shared state."""
        inside = torch.clamp(m, min=self.lowest)
        return inside, torch.relu(self.lowest - m), self._state(inside)

    def terms(self, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inside, missing, state = self._open(m)
        value = self._value(inside, state) + self._steepness * missing
        slope = torch.where(missing > 0, -self._steepness, self._slope(state[0]))
        return value, slope, self._weight(state)

    def _weight(self, state: tuple[Tensor, ...]) -> Tensor:
        return 2.0 / torch.clamp(self._variance(state), min=FLOOR)

    def per_bin(self, m: Tensor) -> Tensor:
        inside, missing, state = self._open(m)
        return self._value(inside, state) + self._steepness * missing

    def slope(self, m: Tensor) -> Tensor:
        _, missing, state = self._open(m)
        return torch.where(missing > 0, -self._steepness, self._slope(state[0]))

    def curvature(self, m: Tensor) -> Tensor:
        _, missing, state = self._open(m)
        return torch.where(missing > 0, 0.0, self._curvature(state))

    def weight(self, m: Tensor) -> Tensor:
        """Expected second derivative, 2 / variance of the net counts, floored at `FLOOR` counts."""
        return self._weight(self._open(m)[2])


def require_poisson(binned: BinnedData, name: str) -> None:
    """The source counts must be Poisson counts."""
    if not binned.poisson:
        raise UserError(
            f"{name} needs Poisson counts, and these are not (rates, negative or fractional values, or errors given)",
            source="--stat",
            remedy="use --stat chi2, or --stat auto to let the data decide",
        )


def require_background(binned: BinnedData, name: str) -> None:
    """There must be a background with a positive, finite ratio."""
    if binned.background is None:
        raise UserError(
            f"{name} needs a background spectrum, and there is none",
            source="--stat",
            remedy="give one with --bkg FILE, or use --stat cstat",
        )
    require_ratio(binned)


def require_ratio(binned: BinnedData) -> None:
    """Exposure, BACKSCAL and AREASCAL must give a positive ratio in every fitted bin."""
    if binned.background is None:
        return
    ratio = np.asarray(binned.ratio, dtype=np.float64)
    wrong = int(np.sum(~(np.isfinite(ratio) & (ratio > 0))))
    if wrong:
        raise UserError(
            f"the ratio of source to background exposure, BACKSCAL and AREASCAL is not positive in {wrong} of "
            f"{len(ratio)} bins",
            source="background",
            remedy="correct these keywords or columns, or ignore the channels",
        )
