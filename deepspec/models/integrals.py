"""Integrals over energy bins that components share: exact powers of energy, and Gauss quadrature."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from deepspec.models.base import Grid

SERIES_LIMIT = 0.5
"""Half-exponent across a bin up to which sinh(x)/x is taken from its series."""


def _terms(largest: float) -> int:
    """How many terms of sinh(x)/x leave a relative error below 1e-17 for |x| <= largest."""
    count = 1
    while largest ** (2 * count) / math.factorial(2 * count + 1) > 1e-17:
        count += 1
    return count


def _series(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """sinh(x)/x and its derivative divided by x, both even, from `count` terms."""
    square = x * x
    value = torch.full_like(square, 1.0 / math.factorial(2 * count - 1))
    slope = torch.full_like(square, (2 * count - 2) / math.factorial(2 * count - 1))
    for k in range(count - 2, -1, -1):
        value = value * square + 1.0 / math.factorial(2 * k + 1)
        if k:
            slope = slope * square + 2 * k / math.factorial(2 * k + 1)
    return value, slope


def sinhc(x: Tensor) -> tuple[Tensor, Tensor]:
    """sinh(x)/x and (d/dx sinh(x)/x)/x, smooth through x = 0; both shape of `x`."""
    largest = float(x.detach().abs().max()) if x.numel() else 0.0
    if largest <= SERIES_LIMIT:
        return _series(x, max(_terms(largest), 3))
    small = x.detach().abs() <= SERIES_LIMIT
    value, slope = _series(torch.where(small, x, 0.0), _terms(SERIES_LIMIT))
    large = torch.where(small, 1.0, x)
    sinh = torch.sinh(large) / large
    steep = (torch.cosh(large) - sinh) / (large * large)
    return torch.where(small, value, sinh), torch.where(small, slope, steep)


def power(log_low: Tensor, log_high: Tensor, exponent: Tensor) -> Tensor:
    """Integral of E^exponent dE between two energies given by their logarithms.

    Exact and smooth through exponent = -1, because it is written around the middle m of the interval
    of length L in ln E: ``exp(b m) L sinh(b L / 2) / (b L / 2)`` with b = exponent + 1.
    """
    b = exponent + 1.0
    length = log_high - log_low
    value, _ = sinhc(0.5 * b * length)
    return torch.exp(0.5 * b * (log_high + log_low)) * length * value


def _log_sinhc_series(count: int) -> tuple[float, ...]:
    """Coefficients of x^2, x^4, ... in ln(sinh(x)/x): 2^2k B_2k / (2k (2k)!), with the Bernoulli numbers B."""
    bernoulli = [Fraction(1)]
    for n in range(1, 2 * count + 1):
        bernoulli.append(-sum(math.comb(n + 1, k) * b for k, b in enumerate(bernoulli)) / (n + 1))
    return tuple(float(4**k * bernoulli[2 * k] / (2 * k * math.factorial(2 * k))) for k in range(1, count + 1))


LOG_SINHC = _log_sinhc_series(14)
"""ln(sinh(x)/x) as a series in x^2, for |x| < pi."""


def _log_terms(largest: float) -> int | None:
    """How many terms of `LOG_SINHC` leave less than 1e-16 for |x| <= largest; None if they are too few."""
    for count in range(1, len(LOG_SINHC)):
        if abs(LOG_SINHC[count]) * largest ** (2 * count + 2) < 1e-16:
            return count
    return None


def log_power_of_bins(grid: Grid, exponent: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """The logarithm of `power_of_bins` as a matrix product: ``ln L + b m + ln(sinh(b L/2)/(b L/2))``, b = exponent + 1.

    Parameters
    ----------
    exponent : Tensor, shape (..., 1)

    Returns
    -------
    coefficients : Tensor, shape (..., K)
    slopes : Tensor, shape (..., K)
        Derivatives of the coefficients by the exponent.
    rows : Tensor, shape (K, n)
        Or None in place of all where the bins have batch axes, or are too wide for the series.
    """
    if grid.edges.dim() > 1 or grid.edges.requires_grad:
        return None
    middle, length = log_bins(grid)
    b = exponent + 1.0
    widest = grid.memo("widest", lambda: float(length.max()))
    count = _log_terms(0.5 * widest * float(b.detach().abs().max()))
    if count is None:
        return None

    def make() -> Tensor:
        square = 0.25 * length * length
        powers = [weight * square ** (k + 1) for k, weight in enumerate(LOG_SINHC)]
        return torch.stack([torch.log(length), middle, *powers])

    rows = grid.memo("log_power", make)[: 2 + count]
    coefficients, slopes = [torch.ones_like(b), b], [torch.zeros_like(b), torch.ones_like(b)]
    power = b
    for k in range(count):  # products: the second derivative of b**0 is not a number at zero
        slopes.append((2 * k + 2) * power)
        power = power * b
        coefficients.append(power)
        power = power * b
    return torch.cat(coefficients, dim=-1), torch.cat(slopes, dim=-1), rows


def power_of_bins(grid: Grid, exponent: Tensor) -> Tensor:
    """Integral of E^exponent dE over each bin, shape (..., n); `exponent` has shape (..., 1)."""
    found = log_power_of_bins(grid, exponent)
    if found is None:
        return power(grid.log_edges[..., :-1], grid.log_edges[..., 1:], exponent)
    coefficients, _, rows = found
    return torch.exp(coefficients @ rows)


def power_of_bins_with_slope(grid: Grid, exponent: Tensor) -> tuple[Tensor, Tensor]:
    """As `power_of_bins`, and its derivative by the exponent, both shape (..., n); without a graph."""
    found = log_power_of_bins(grid, exponent)
    if found is not None:
        coefficients, slopes, rows = found
        value = (coefficients @ rows).exp_()
        return value, (slopes @ rows).mul_(value)
    b = exponent + 1.0
    middle, length = log_bins(grid)
    bend, steep = sinhc(0.5 * b * length)
    height = (b * middle).exp_()
    return height * length * bend, height * (0.25 * length**3 * b * steep + middle * length * bend)


def log_bins(grid: Grid) -> tuple[Tensor, Tensor]:
    """Middle and length of each bin in ln E, both shape (..., n); kept with the grid."""

    def make():
        low, high = grid.log_edges[..., :-1], grid.log_edges[..., 1:]
        return 0.5 * (low + high), torch.log1p(grid.width / grid.low)

    return grid.memo("log_bins", make)


class Quadrature:
    """Gauss-Legendre nodes in every bin: few in narrow bins, more in the wide ones.

    Parameters
    ----------
    grid : Grid with n bins
    few, many : int
        Nodes in bins narrower and wider than `wide`.
    wide : float
        Length in ln E above which a bin is wide.
    logarithmic : bool
        Nodes equally ruled in ln E instead of E.

    Attributes
    ----------
    energy, weight : Tensor, shape (..., n_node) [keV]
        ``sum(f(energy) * weight)`` over the nodes of a bin is its integral; `collect` does the sum.
    """

    def __init__(self, grid: Grid, few: int, many: int, wide: float = 0.1, logarithmic: bool = False):
        _, length = log_bins(grid)
        is_wide = (length.detach() > wide).reshape(-1, len(grid)).any(0)
        self.narrow, self.wide = torch.nonzero(~is_wide)[:, 0], torch.nonzero(is_wide)[:, 0]
        self.orders = (few, many)
        self.order = torch.argsort(torch.cat([self.narrow, self.wide]))
        parts = [
            self._nodes(grid, index, count, logarithmic)
            for index, count in ((self.narrow, few), (self.wide, many))
            if len(index)
        ]
        self.energy = torch.cat([energy for energy, _ in parts], dim=-1)
        self.weight = torch.cat([weight for _, weight in parts], dim=-1)
        self.log_energy = torch.log(self.energy)
        self._memo: dict[str, object] = {}

    def memo(self, key, make):
        """As `Grid.memo`, for what depends on the nodes alone."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    @staticmethod
    def _nodes(grid: Grid, index: Tensor, count: int, logarithmic: bool) -> tuple[Tensor, Tensor]:
        node, weight = (torch.as_tensor(a) for a in np.polynomial.legendre.leggauss(count))
        node = 0.5 * (node + 1.0)
        if logarithmic:
            start, length = grid.log_edges[..., :-1][..., index], log_bins(grid)[1][..., index]
        else:
            start, length = grid.low[..., index], grid.width[..., index]
        # all first nodes, then all second ones: sums over the nodes of a bin are then sums of long slices
        place = start[..., None, :] + node[:, None] * length[..., None, :]
        weight = 0.5 * weight[:, None] * length[..., None, :]
        energy = torch.exp(place) if logarithmic else place
        if logarithmic:
            weight = weight * energy
        return energy.flatten(-2), weight.flatten(-2)

    def collect(self, terms: Tensor) -> Tensor:
        """Sum over the nodes of each bin: (..., n_node) -> (..., n)."""
        split = len(self.narrow) * self.orders[0]
        if len(self.wide) == 0:
            return self._sum(terms, self.orders[0])
        few, many = terms[..., :split], terms[..., split:]
        parts = [self._sum(few, self.orders[0])] if len(self.narrow) else []
        return torch.cat([*parts, self._sum(many, self.orders[1])], dim=-1)[..., self.order]

    @staticmethod
    def _sum(terms: Tensor, count: int) -> Tensor:
        first, second, *others = terms.chunk(count, dim=-1)
        total = first + second
        for other in others:
            total = total + other
        return total


def quadrature(grid: Grid, few: int, many: int, wide: float = 0.1, logarithmic: bool = False) -> Quadrature:
    """The `Quadrature` of a grid, kept with it."""
    key = ("quadrature", few, many, wide, logarithmic)
    return grid.memo(key, lambda: Quadrature(grid, few, many, wide, logarithmic))


class RowInterpolation:
    """A smooth function of ln(E) - ln(scale) for a batch of scales, as one matrix product.

    Each row of the batch is interpolated from Chebyshev points across the energies: exact functions are evaluated at the
    `places` only, and ``function(places - ln(scale)) @ basis`` gives the values at all energies.

    Parameters
    ----------
    log_energy : Tensor, shape (n,)

    Attributes
    ----------
    places : Tensor, shape (count,)
        ln(E) of the Chebyshev points.
    basis : Tensor, shape (count, n)
    """

    NEAREST = math.pi / 2
    """Distance of the nearest singularity from the real axis in ln(E): Planck's function at E/kT = 2 pi i."""
    PRECISION = 1e-9
    MOST = 64
    """Points beyond which a direct evaluation is as cheap."""

    def __init__(self, log_energy: Tensor):
        start, stop = float(log_energy.min()), float(log_energy.max())
        half = max(0.5 * (stop - start), 1e-3)
        ratio = self.NEAREST / half
        self.count = 4 + math.ceil(-math.log(self.PRECISION) / math.log(ratio + math.hypot(1.0, ratio)))
        if self.count > self.MOST:
            return
        angle = math.pi * (np.arange(self.count) + 0.5) / self.count
        orders = np.arange(self.count)
        self.places = torch.as_tensor(0.5 * (start + stop) + half * np.cos(angle))
        weights = np.cos(np.outer(angle, orders)) * np.where(orders == 0, 1.0, 2.0) / self.count
        within = np.clip((log_energy.numpy() - 0.5 * (start + stop)) / half, -1.0, 1.0)
        self.basis = torch.as_tensor(weights @ np.cos(np.outer(orders, np.arccos(within))))

    @classmethod
    def of(cls, keeper: Grid | Quadrature, log_energy: Tensor) -> RowInterpolation | None:
        """The interpolation kept with a grid or quadrature; None for batches of grids and for very wide ones."""
        if log_energy.dim() > 1 or log_energy.requires_grad:
            return None
        made = keeper.memo("row_interpolation", lambda: cls(log_energy.detach()))
        return made if made.count <= cls.MOST else None
