"""Integrals over energy bins that components share: exact powers of energy, and Gauss quadrature."""

from __future__ import annotations

import math

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


class _Narrow:
    """What the integral of a power needs of narrow bins: odd powers of their length in ln E, as rows of a matrix.

    ``L sinh(b L / 2) / (b L / 2) = Sum_k b^2k [L^(2k+1) / (4^k (2k+1)!)]`` is one small matrix product for a batch of
    exponents. Wide bins have columns of zero here and are listed in `wide`.
    """

    TERMS = 8
    WIDE = 0.1

    def __init__(self, grid: Grid):
        _, length = log_bins(grid)
        self.wide = torch.nonzero(length > self.WIDE)[:, 0]
        length = torch.where(length > self.WIDE, 0.0, length)
        orders = range(self.TERMS)
        self.rows = torch.stack([length ** (2 * k + 1) / (4**k * math.factorial(2 * k + 1)) for k in orders])
        self.largest = float(length.max()) if length.numel() else 0.0

    def terms(self, b: Tensor) -> int:
        """How many rows are needed for the exponents `b`."""
        return min(self.TERMS, max(2, _terms(0.5 * self.largest * float(b.detach().abs().max()))))


def _bin_lengths(grid: Grid, b: Tensor, with_slope: bool) -> tuple[Tensor, Tensor | None]:
    """``L sinh(b L / 2) / (b L / 2)`` of each bin and its derivative by b, both (..., n)."""
    _, length = log_bins(grid)
    if grid.edges.dim() > 1 or grid.edges.requires_grad:
        value, slope = sinhc(0.5 * b * length)
        return length * value, 0.25 * length**3 * b * slope if with_slope else None
    narrow = grid.memo("narrow", lambda: _Narrow(grid))
    orders = torch.arange(narrow.terms(b), dtype=b.dtype)
    rows, square = narrow.rows[: len(orders)], b * b
    columns = [torch.ones_like(square)]
    for _ in range(len(orders) - 1):  # products: the second derivative of square**0 is not a number at zero
        columns.append(columns[-1] * square)
    powers = torch.cat(columns, dim=-1)
    value = powers @ rows
    slope = (2.0 * b * (orders[1:] * powers[..., :-1])) @ rows[1:] if with_slope else None
    if len(narrow.wide):
        length = length[narrow.wide]
        exact, steep = sinhc(0.5 * b * length)
        value = value.index_copy(-1, narrow.wide, length * exact)
        if with_slope:
            slope = slope.index_copy(-1, narrow.wide, 0.25 * length**3 * b * steep)
    return value, slope


def power_of_bins(grid: Grid, exponent: Tensor) -> Tensor:
    """Integral of E^exponent dE over each bin, shape (..., n); `exponent` has shape (..., 1)."""
    b = exponent + 1.0
    value, _ = _bin_lengths(grid, b, with_slope=False)
    return torch.exp(b * log_bins(grid)[0]) * value


def power_of_bins_with_slope(grid: Grid, exponent: Tensor) -> tuple[Tensor, Tensor]:
    """As `power_of_bins`, and its derivative by the exponent, both shape (..., n); without a graph."""
    b = exponent + 1.0
    middle = log_bins(grid)[0]
    value, slope = _bin_lengths(grid, b, with_slope=True)
    height = (b * middle).exp_()
    slope = slope.addcmul_(value, middle.expand_as(value)).mul_(height)
    return value.mul_(height), slope


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
