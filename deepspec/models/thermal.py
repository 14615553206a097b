"""Black bodies and the multi-temperature disc."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from deepspec.models.base import NORM, Additive, Grid, Parameter
from deepspec.models.integrals import Quadrature, RowInterpolation, quadrature
from deepspec.models.redshift import REDSHIFT, RedshiftedAdditive

LARGEST_EXPONENT = 700.0
"""E/kT beyond which a black body is zero in double precision."""


def _trapezoid(grid: Grid, edge_values: Tensor) -> Tensor:
    """Bin integrals from values at the edges, (..., n + 1) -> (..., n): XSPEC's rule for its black bodies."""
    return (edge_values[..., 1:] + edge_values[..., :-1]) * (0.5 * grid.width)


class _Planck(Additive):
    """``constant E^2 kT^-power / (exp(E/kT) - 1)``, integrated by the trapezoid rule on the bin edges."""

    constant: float
    power: int

    def evaluate(self, grid: Grid, *, kT: Tensor) -> Tensor:
        ratio = grid.edges / kT
        photons = grid.edges.square() / torch.expm1(torch.clamp(ratio, max=LARGEST_EXPONENT))
        return _trapezoid(grid, photons) * (self.constant * kT**-self.power)

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not wanted:
            return super().derivatives(grid, values, wanted)
        with torch.no_grad():
            kT = values["kT"]
            ratio = (grid.edges / kT).clamp_(max=LARGEST_EXPONENT)
            growth = torch.expm1(ratio)
            photons = grid.edges.square() / growth
            # d ln[1 / (exp x - 1)] / d ln kT = x (1 + 1 / (exp x - 1))
            slope = growth.reciprocal_().add_(1.0).mul_(ratio).sub_(self.power).mul_(photons)
            scale = self.constant * kT**-self.power
            return _trapezoid(grid, photons).mul_(scale), _trapezoid(grid, slope).mul_(scale / kT)[None]


class BlackBody(_Planck):
    """Black body by luminosity.

    ``A(E) = norm 8.0525 E^2 / (kT^4 (exp(E/kT) - 1))``; norm is L39 / D10^2: luminosity in 1e39 erg/s over
    distance squared in 10 kpc. The bin integral is XSPEC's trapezoid rule; the exact integral differs by 0.7 % on bins
    1.4 % wide and by 1e-4 on 5 eV bins.
    """

    name = "bbody"
    parameters = (Parameter("kT", 3.0, "keV", 1e-4, 0.01, 100.0, 200.0, log=True),)
    norm = NORM("10^39 erg s^-1 / (10 kpc)^2")
    source = "XSPEC manual, bbody; constant measured"
    constant, power = 8.0525, 4


class ZBlackBody(RedshiftedAdditive):
    """`BlackBody` at redshift z: ``bbody(E (1 + z)) / (1 + z)`` per bin.

    norm is L39 / [D10 (1 + z)]^2, as in XSPEC.
    """

    name = "zbbody"
    parameters = (*BlackBody.parameters, REDSHIFT)
    norm = BlackBody.norm
    source = "XSPEC manual, zbbody"
    rest = BlackBody()


class BlackBodyRadius(_Planck):
    """Black body by radius.

    ``A(E) = norm 1.0344e-3 E^2 / (exp(E/kT) - 1)``; norm is (R / D10)^2: radius in km over distance in 10 kpc.
    Trapezoid rule as `BlackBody`.
    """

    name = "bbodyrad"
    parameters = (Parameter("kT", 3.0, "keV", 1e-4, 0.001, 100.0, 200.0, log=True),)
    norm = NORM("(km / 10 kpc)^2")
    source = "XSPEC manual, bbodyrad; constant measured"
    constant, power = 1.0344e-3, 0


class DiskTable:
    """The shape of the multi-temperature disc, ``g(x) = x^-2/3 Int_x^inf v^5/3 / (exp v - 1) dv`` with x = E/Tin.

    Kept as cubics in ln x of ``q = ln g + x`` (smooth: it goes from -2/3 ln x to ln x), on equal steps;
    interpolation reproduces g to 1e-8 or better (tests/models/test_thermal.py).
    """

    START, STOP, STEPS = math.log(1e-7), math.log(1e9), 3600
    ASYMPTOTIC = 300.0
    """x above which the integral is taken from its asymptotic series (1e-10 there)."""

    def __init__(self):
        place = np.linspace(self.START, self.STOP, self.STEPS + 1)
        value, slope = self._knots(place)
        self.step = place[1] - place[0]
        rise, left, right = np.diff(value), slope[:-1] * self.step, slope[1:] * self.step
        cubic = np.stack([value[:-1], left, 3 * rise - 2 * left - right, left + right - 2 * rise], axis=-1)
        self.cubic = torch.as_tensor(cubic)

    def _knots(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """q and dq/d(ln x) at given ln x.

        The integral is built up from its asymptotic series by Gauss quadrature between neighbouring knots; every piece
        carries the factor exp(x) of its own knot, so that nothing underflows.
        """
        x = np.exp(place)
        scaled = x ** (5 / 3) * (1 + 5 / (3 * x) + 10 / (9 * x**2) - 10 / (27 * x**3))
        node, weight = np.polynomial.legendre.leggauss(12)
        length = np.diff(place)
        for i in range(np.searchsorted(x, self.ASYMPTOTIC) - 1, -1, -1):
            v = np.exp(place[i] + 0.5 * (node + 1) * length[i])
            piece = 0.5 * length[i] * (weight * v ** (8 / 3) * np.exp(x[i] - v) / -np.expm1(-v)).sum()
            scaled[i] = piece + scaled[i + 1] * np.exp(x[i] - x[i + 1])
        value = np.log(scaled) - 2 / 3 * place
        slope = -2 / 3 + x - x ** (8 / 3) / (-np.expm1(-x)) / scaled
        beyond = x > self.ASYMPTOTIC  # where the difference of two large numbers would lose digits
        slope[beyond] = (1.0 - 5 / (3 * x) + 5 / (9 * x**2))[beyond]
        return value, slope

    def smooth(self, log_x: Tensor) -> tuple[Tensor, Tensor]:
        """q and dq/d(ln x), shape of `log_x`."""
        place = (log_x - self.START) / self.step
        index = place.detach().floor().clamp_(0, self.STEPS - 1)
        part = place - index
        c0, c1, c2, c3 = self.cubic[index.long()].unbind(-1)
        value = c0 + part * (c1 + part * (c2 + part * c3))
        return value, (c1 + part * (2.0 * c2 + part * (3.0 * c3))) / self.step

    def __call__(self, log_x: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """g and d ln g / d ln x, shape of `x`."""
        value, slope = self.smooth(log_x)
        return torch.exp(value - x), slope - x


@cache
def disk_table() -> DiskTable:
    """The `DiskTable`, made at first use (about 20 ms)."""
    return DiskTable()


class DiskBlackBody(Additive):
    """Accretion disc of many black-body temperatures.

    ``A(E) = norm (E^2 / 361) Int_0^1 u^-11/3 / (exp(E / (u Tin)) - 1) du``; norm is (R_in / D10)^2 cos(theta): apparent
    inner radius in km, distance in 10 kpc, inclination. The factor is XSPEC's 1/361 (physical constants give
    1/361.27). Gauss quadrature in every bin, two nodes in narrow bins and XSPEC's five in wide ones. XSPEC's
    own fit to the integral is good to 1e-4.
    """

    name = "diskbb"
    parameters = (Parameter("Tin", 1.0, "keV", 0.0, 0.0, 1000.0, 1000.0, log=True),)
    norm = NORM("(km / 10 kpc)^2 cos(theta)")
    source = "Mitsuda et al. 1984, PASJ 36, 741; Makishima et al. 1986, ApJ 308, 635"
    constant = 1.0 / 361.0
    coldest = 1e-5
    """Temperature that stands for a Tin of zero [keV]: no photons at X-ray energies."""

    def _smooth(self, nodes: Quadrature, Tin: Tensor, with_slope: bool) -> tuple[Tensor, Tensor | None]:
        """`DiskTable.smooth` at the nodes, by row interpolation where the grid allows."""
        rows = RowInterpolation.of(nodes, nodes.log_energy)
        if rows is None:
            return disk_table().smooth(nodes.log_energy - torch.log(Tin))
        value, slope = disk_table().smooth(rows.places - torch.log(Tin))
        return value @ rows.basis, slope @ rows.basis if with_slope else None

    def evaluate(self, grid: Grid, *, Tin: Tensor) -> Tensor:
        nodes, Tin = quadrature(grid, 2, 5), torch.clamp(Tin, min=self.coldest)
        value, _ = self._smooth(nodes, Tin, with_slope=False)
        shape = torch.exp(value - nodes.energy / Tin)
        return nodes.collect(shape * nodes.weight) * (self.constant * Tin.square())

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not wanted:
            return super().derivatives(grid, values, wanted)
        with torch.no_grad():
            nodes, Tin = quadrature(grid, 2, 5), torch.clamp(values["Tin"], min=self.coldest)
            value, slope = self._smooth(nodes, Tin, with_slope=True)
            ratio = nodes.energy / Tin
            shape = value.sub_(ratio).exp_().mul_(nodes.weight)
            flux = nodes.collect(shape) * (self.constant * Tin.square())
            # Tin^2 g(E/Tin): d/dTin = Tin g (2 - d ln g / d ln x)
            steep = slope.sub_(ratio).sub_(2.0).mul_(shape)
            return flux, nodes.collect(steep).mul_(-self.constant * Tin)[None]
