"""Thermal bremsstrahlung with the Gaunt factor that XSPEC uses.

The Gaunt factor is the Born approximation times the polynomial fits of Kellogg, Baldwin & Koch (1975, ApJ 199, 299;
with the corrections of L. Molnar and J. Hughes) to Karzas & Latter (1961, ApJS 6, 167); for ions with Z^2 x 13.58 eV
above a tenth of kT, bilinear interpolation in the table of R. Kurucz (private communication to L. Molnar). The numbers
below are those tables as XSPEC uses them. The fits are pieces in E/kT and kT that do not meet exactly, so the flux has
small steps there, as XSPEC's has; the derivative is that of the piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from deepspec.models.base import NORM, Additive, Grid, Parameter, row_derivatives
from deepspec.models.integrals import RowInterpolation
from deepspec.models.redshift import REDSHIFT, RedshiftedAdditive

RYDBERG = 0.01358
"""Ionisation energy of hydrogen as the fits take it [keV]."""
HELIUM = 0.085
"""Helium to hydrogen by number."""
IONS = ((1.0, 1.0), (4.0 * HELIUM, 4.0))
"""Weight Z^2 n(Z)/n(H) and Z^2 of hydrogen and helium."""
COOL_CHARGE = 0.1
"""Z^2 Ry / kT above which the table for cool plasma is used."""
LARGEST_RATIO = 50.0
"""E/kT above which there is no flux."""

# Born corrections: a value per interval of E/kT (columns), at seven values of 1000 Z^2 Ry / kT (rows).
RATIO_LIMITS = (0.03, 0.3, 1.0, 5.0, 15.0)
SMALLEST_RATIO = 0.003
CHARGE_KNOTS = (1.0, 1.7783, 3.0, 5.6234, 10.0, 30.0, 100.0)
CONSTANT = (
    (1.001, 1.004, 1.017, 1.036, 1.056, 1.121),
    (1.001, 1.005, 1.017, 1.046, 1.073, 1.115),
    (0.9991, 1.005, 1.03, 1.055, 1.102, 1.176),
    (0.997, 1.005, 1.035, 1.069, 1.134, 1.186),
    (0.9962, 1.004, 1.042, 1.1, 1.193, 1.306),
    (0.9874, 0.9962, 1.047, 1.156, 1.327, 1.485),
    (0.9681, 0.9755, 1.02, 1.208, 1.525, 1.965),
)
LINEAR = (
    (0.3029, 0.1616, 0.04757, 0.013, 0.0049, -0.0032),
    (0.4905, 0.2155, 0.08357, 0.02041, 0.00739, 0.00029),
    (0.654, 0.2833, 0.08057, 0.03257, 0.00759, -0.00151),
    (1.029, 0.391, 0.1266, 0.05149, 0.01274, 0.00324),
    (0.9569, 0.4891, 0.1764, 0.05914, 0.01407, -0.00024),
    (1.236, 0.7579, 0.326, 0.1077, 0.028, 0.00548),
    (1.327, 1.017, 0.6017, 0.205, 0.0605, 0.00187),
)
SQUARE = (
    (-1.323, -0.254, -0.01571, -0.001, -0.000184, 0.00008),
    (-4.762, -0.3386, -0.03571, -0.001786, -0.0003, 0.00001),
    (-6.349, -0.4206, -0.02571, -0.003429, -0.000234, 0.00005),
    (-13.231, -0.59, -0.04571, -0.005714, -0.000445, -0.00004),
    (-7.672, -0.6852, -0.0643, -0.005857, -0.00042, 0.00004),
    (-7.143, -0.9947, -0.12, -0.01007, -0.000851, -0.00004),
    (-3.175, -1.116, -0.227, -0.01821, -0.001729, 0.00023),
)
# Gaunt factor for cool plasma: rows log10(E/kT) = -4 ... 1.5, columns log10(Z^2 Ry / kT) = -1 ... 2, both by 0.5.
COOL = (
    (5.40, 5.25, 5.00, 4.69, 4.48, 4.16, 3.85),
    (4.77, 4.63, 4.40, 4.13, 3.87, 3.52, 3.27),
    (4.15, 4.02, 3.80, 3.57, 3.27, 2.98, 2.70),
    (3.54, 3.41, 3.22, 2.97, 2.70, 2.45, 2.20),
    (2.94, 2.81, 2.65, 2.44, 2.21, 2.01, 1.81),
    (2.41, 2.32, 2.19, 2.02, 1.84, 1.67, 1.50),
    (1.95, 1.90, 1.80, 1.68, 1.52, 1.41, 1.30),
    (1.55, 1.56, 1.51, 1.42, 1.33, 1.25, 1.17),
    (1.17, 1.30, 1.32, 1.30, 1.20, 1.15, 1.11),
    (0.86, 1.00, 1.15, 1.18, 1.15, 1.11, 1.08),
    (0.59, 0.76, 0.97, 1.09, 1.13, 1.10, 1.08),
    (0.38, 0.53, 0.76, 0.96, 1.08, 1.09, 1.09),
)
# Abramowitz & Stegun 9.8.1, 9.8.5 and 9.8.6, which XSPEC uses too (relative 1e-7)
I0_SMALL = (1.0, 3.5156229, 3.0899424, 1.2067492, 0.2659732, 0.0360768, 0.0045813)
K0_SMALL = (-0.57721566, 0.42278420, 0.23069756, 0.03488590, 0.00262698, 0.00010750, 0.00000740)
K0_LARGE = (1.25331414, -0.07832358, 0.02189568, -0.01062446, 0.00587872, -0.00251540, 0.00053208)


def _polynomial(coefficients, x: Tensor) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def born(ratio: Tensor) -> Tensor:
    """Gaunt factor of the Born approximation, ``sqrt(3)/pi exp(u/2) K0(u/2)`` with u = E/kT."""
    x = 0.5 * ratio
    is_small = x.detach() <= 2.0
    small, large = torch.where(is_small, x, 1.0), torch.where(is_small, 4.0, x)
    bessel = _polynomial(K0_SMALL, small.square() / 4) - torch.log(small / 2) * _polynomial(
        I0_SMALL, (small / 3.75) ** 2
    )
    scaled = _polynomial(K0_LARGE, 2.0 / large) / torch.sqrt(large)
    return 0.5513 * torch.where(is_small, torch.exp(small) * bessel, scaled)


@cache
def _tables() -> tuple[Tensor, Tensor]:
    """Coefficients of 1, u, u^2 (3, 7 charges, 7 intervals of u) and the table for cool plasma (12 ratios, 7 charges).

    Below `SMALLEST_RATIO` the corrections keep their value there: one more interval, with constants only.
    """
    fits = torch.stack([torch.tensor(t, dtype=torch.float64) for t in (CONSTANT, LINEAR, SQUARE)])
    first = fits[0, :, 0] + SMALLEST_RATIO * (fits[1, :, 0] + SMALLEST_RATIO * fits[2, :, 0])
    lowest = torch.stack([first, torch.zeros_like(first), torch.zeros_like(first)])[..., None]
    return torch.cat([lowest, fits], dim=-1), torch.tensor(COOL, dtype=torch.float64)


def _coefficients(charge: Tensor) -> Tensor:
    """Coefficients of the correction to the Born approximation, (3, ..., 7); `charge` is Z^2 Ry / kT, shape (..., 1).

    Zero where the plasma is too cool for the fits, and a factor of one where it is hot enough for no correction.
    """
    fits, _ = _tables()
    scaled = 1000.0 * charge
    knots = scaled.new_tensor(CHARGE_KNOTS)
    row = (torch.searchsorted(knots, scaled.detach().contiguous()) - 1).clamp(0, len(CHARGE_KNOTS) - 2)
    part = (scaled - knots[row]) / (knots[row + 1] - knots[row])
    row = row[..., 0]
    found = (1.0 - part) * fits[:, row] + part * fits[:, row + 1]
    none = torch.zeros_like(found)
    none[0] = 1.0
    found = torch.where(scaled.detach() < CHARGE_KNOTS[0], none, found)
    return torch.where(charge.detach() > COOL_CHARGE, 0.0, found)


def _ions(kT: Tensor) -> Tensor:
    """`_coefficients` of hydrogen and helium together."""
    return sum(weight * _coefficients(square * RYDBERG / kT) for weight, square in IONS)


def _correction(ratio: Tensor, coefficients: Tensor) -> Tensor:
    """The polynomial of the interval that u = E/kT is in, shape of `ratio` (..., n)."""
    interval = torch.bucketize(ratio.detach().contiguous(), ratio.new_tensor((SMALLEST_RATIO, *RATIO_LIMITS)))
    shape = np.broadcast_shapes(interval.shape[:-1], coefficients.shape[1:-1])
    interval = interval.expand(*shape, -1)
    c0, c1, c2 = (torch.gather(c.expand(*shape, -1), -1, interval) for c in coefficients)
    return c0 + ratio * (c1 + ratio * c2)


def _cool(ratio: Tensor, charge: Tensor) -> Tensor:
    """Gaunt factor for Z^2 Ry > kT / 10, bilinear in logarithms; constant beyond the coldest column."""
    _, table = _tables()
    across = (2.0 * torch.log10(charge) + 2.0).clamp(0.0, 6.0)
    down = 2.0 * torch.log10(ratio) + 8.0
    j = across.detach().floor().long().clamp(0, 5)
    k = down.detach().floor().long().clamp(0, 10)
    t, u = across - j, down - k
    left = (1.0 - u) * table[k, j] + u * table[k + 1, j]
    right = (1.0 - u) * table[k, j + 1] + u * table[k + 1, j + 1]
    return (1.0 - t) * left + t * right


def gaunt(ratio: Tensor, kT: Tensor, from_born: Tensor | None = None) -> Tensor:
    """Free-free Gaunt factors of hydrogen and helium, ``g(1) + 4 x 0.085 g(2)``.

    Parameters
    ----------
    ratio : Tensor, shape (..., n)
        E/kT, positive.
    kT : Tensor, shape (..., 1) [keV]
    from_born : Tensor, shape (..., n), optional
        ``born(ratio)`` if it is known.
    """
    total = (born(ratio) if from_born is None else from_born) * _correction(ratio, _ions(kT))
    for weight, square in IONS:
        charge = square * RYDBERG / kT
        is_cool = charge.detach() > COOL_CHARGE
        if is_cool.any():
            cool = _cool(ratio, torch.where(is_cool, charge, 1.0))
            total = total + torch.where(is_cool, weight * cool, 0.0)
    return total


def _log_born(rows: RowInterpolation, kT: Tensor) -> Tensor:
    return torch.log(born(torch.exp(rows.places) / kT))


class Bremsstrahlung(Additive):
    """Thermal bremsstrahlung of hydrogen and helium.

    ``A(E) = norm [g(E, kT, 1) + 4 x 0.085 g(E, kT, 2)] exp(-E/kT) / (E sqrt(kT))`` with the Gaunt factors g of this
    module; norm is 3.02e-15 / (4 pi D^2) Int n_e n_I dV: D in cm, densities in cm^-3. The bin integral is XSPEC's
    trapezoid rule.
    """

    name = "bremss"
    parameters = (Parameter("kT", 7.0, "keV", 1e-4, 1e-4, 100.0, 200.0, log=True),)
    norm = NORM("3.02e-15 / (4 pi D^2) Int n_e n_I dV")
    source = "Kellogg, Baldwin & Koch 1975, ApJ 199, 299; Karzas & Latter 1961, ApJS 6, 167"

    @staticmethod
    def _born(grid: Grid, kT: Tensor) -> Tensor | None:
        """`born` at the edges of a batch, interpolated along each row where the grid allows (to 1e-9)."""
        rows = RowInterpolation.of(grid, grid.log_edges)
        return None if rows is None else torch.exp(_log_born(rows, kT) @ rows.basis)

    def evaluate(self, grid: Grid, *, kT: Tensor) -> Tensor:
        ratio = grid.edges / kT
        inside = ratio.detach() <= LARGEST_RATIO
        both = gaunt(ratio, kT, self._born(grid, kT))
        photons = torch.where(inside, both * torch.exp(-ratio), 0.0) / (grid.edges * torch.sqrt(kT))
        return (photons[..., 1:] + photons[..., :-1]) * (0.5 * grid.width)

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        kT = values["kT"]
        rows = RowInterpolation.of(grid, grid.log_edges)
        if not wanted or rows is None or bool((4.0 * RYDBERG / kT > COOL_CHARGE).any()):
            return super().derivatives(grid, values, wanted)
        # what has one row per temperature is differentiated by torch, what has a column per energy by hand
        both = row_derivatives(lambda kT: torch.cat([_log_born(rows, kT), *_ions(kT)], dim=-1), {"kT": kT}, ["kT"])
        (log_born, *c), (born_slope, *c_slope) = (
            part.split([rows.count, 7, 7, 7], -1) for part in (both[0], both[1][0])
        )
        with torch.no_grad():
            c, c_slope = torch.stack(c), torch.stack(c_slope)
            ratio = (grid.edges / kT).clamp_(max=LARGEST_RATIO)
            order = torch.arange(3, dtype=kT.dtype).reshape(3, *[1] * kT.dim())
            correction = _correction(ratio, c)
            change = _correction(ratio, c_slope - order * c / kT)
            height = torch.exp(log_born @ rows.basis - ratio).div_(grid.edges * torch.sqrt(kT))
            height = torch.where(grid.edges / kT <= LARGEST_RATIO, height, 0.0)
            growth = (born_slope @ rows.basis).add_((ratio - 0.5) / kT).mul_(correction).add_(change).mul_(height)
            half = 0.5 * grid.width
            photons = correction.mul_(height)
            flux = (photons[..., 1:] + photons[..., :-1]).mul_(half)
            return flux, (growth[..., 1:] + growth[..., :-1]).mul_(half)[None]


class ZBremsstrahlung(RedshiftedAdditive):
    """`Bremsstrahlung` at redshift z: ``bremss(E (1 + z)) / (1 + z)`` per bin."""

    name = "zbremss"
    parameters = (*Bremsstrahlung.parameters, REDSHIFT)
    norm = Bremsstrahlung.norm
    source = Bremsstrahlung.source
    rest = Bremsstrahlung()
