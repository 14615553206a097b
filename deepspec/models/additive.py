"""Power laws, cut off, broken, pegged and redshifted; integrals over bins are exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.models import integrals
from deepspec.models.base import NORM, Additive, Exponent, Grid, Parameter
from deepspec.models.redshift import REDSHIFT, RedshiftedAdditive


def _index(name: str = "PhoIndex", default: float = 1.0) -> Parameter:
    return Parameter(name, default, "", -3.0, -2.0, 9.0, 10.0)


AT_1_KEV = NORM("photon keV^-1 cm^-2 s^-1 at 1 keV")


class PowerLaw(Additive):
    """Photon power law.

    ``A(E) = norm E^-PhoIndex``, E in keV; norm in photon keV^-1 cm^-2 s^-1 at 1 keV. The integral over a bin is
    exact and smooth through PhoIndex = 1.
    """

    name = "powerlaw"
    parameters = (_index(),)
    norm = AT_1_KEV
    source = "XSPEC manual, powerlaw"

    def evaluate(self, grid: Grid, *, PhoIndex: Tensor) -> Tensor:
        return integrals.power_of_bins(grid, -PhoIndex)

    def exponent(self, grid: Grid, values: Mapping[str, Tensor]) -> Exponent | None:
        found = integrals.log_power_of_bins(grid, -values["PhoIndex"])
        if found is None:
            return None
        coefficients, slopes, rows = found
        return Exponent(coefficients, rows, {"PhoIndex": -slopes})

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not wanted:
            return super().derivatives(grid, values, wanted)
        with torch.no_grad():
            flux, slope = integrals.power_of_bins_with_slope(grid, -values["PhoIndex"])
            return flux, slope.neg_()[None]


class ZPowerLaw(RedshiftedAdditive):
    """Power law at redshift z: ``A(E) = norm [E (1 + z)]^-PhoIndex``.

    norm in photon keV^-1 cm^-2 s^-1 at 1 keV in the frame of the source.
    """

    name = "zpowerlw"
    parameters = (_index(), REDSHIFT)
    norm = AT_1_KEV
    source = "XSPEC manual, zpowerlw"
    rest = PowerLaw()

    def evaluate(self, grid: Grid, *, PhoIndex: Tensor, Redshift: Tensor) -> Tensor:
        # The factor is taken out, so that the grid (and what is kept with it) never changes.
        return self.rest.evaluate(grid, PhoIndex=PhoIndex) * torch.exp(-PhoIndex * torch.log1p(Redshift))

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not wanted:
            return super().derivatives(grid, values, wanted)
        with torch.no_grad():
            index, redshift = values["PhoIndex"], values["Redshift"]
            flux, slope = integrals.power_of_bins_with_slope(grid, -index)
            stretch = torch.log1p(redshift)
            factor = torch.exp(-index * stretch)
            flux = flux * factor
            parts = {
                "PhoIndex": lambda: -slope * factor - stretch * flux,
                "Redshift": lambda: -index / (1 + redshift) * flux,
            }
            return flux, torch.stack([parts[name]() for name in wanted])


class PeggedPowerLaw(Additive):
    """Power law whose norm is a flux.

    ``A(E)`` is proportional to ``E^-PhoIndex``; norm is the energy flux between eMin and eMax in 1e-12 erg cm^-2 s^-1,
    or, where eMin equals eMax, the flux density there in micro-Jansky. Constants are XSPEC's: 1.602e-9 erg per keV,
    and 1 micro-Jansky = 1.509e-3 keV cm^-2 s^-1 keV^-1.

    Raises
    ------
    UserError
        eMin above eMax, or not positive.
    """

    name = "pegpwrlw"
    parameters = (
        _index(),
        Parameter("eMin", 2.0, "keV", -100.0, -100.0, 1e10, 1e10, frozen=True),
        Parameter("eMax", 10.0, "keV", -100.0, -100.0, 1e10, 1e10, frozen=True),
    )
    norm = NORM("10^-12 erg cm^-2 s^-1")
    source = "XSPEC manual, pegpwrlw; constants measured"

    def evaluate(self, grid: Grid, *, PhoIndex: Tensor, eMin: Tensor, eMax: Tensor) -> Tensor:
        if bool((eMin.detach() > eMax.detach()).any()) or bool((eMin.detach() <= 0.0).any()):
            raise UserError(
                "eMin must be positive and not above eMax", source=self.name, remedy="set both, e.g. 2 and 10"
            )
        point = eMin.detach() == eMax.detach()
        top = torch.where(point, 2.0 * eMin, eMax)
        energy = integrals.power(torch.log(eMin), torch.log(top), 1.0 - PhoIndex)
        density = 1.509e-3 * torch.exp((PhoIndex - 1.0) * torch.log(eMin))
        return integrals.power_of_bins(grid, -PhoIndex) * torch.where(point, density, 1e-12 / 1.602e-9 / energy)


class CutoffPowerLaw(Additive):
    """Power law with an exponential cut-off.

    ``A(E) = norm E^-PhoIndex exp(-E/HighECut)``; norm in photon keV^-1 cm^-2 s^-1 at 1 keV (of the power law without
    cut-off). Bins are integrated by Gauss quadrature in ln E, within 1e-11 of XSPEC's incomplete gamma functions.
    """

    name = "cutoffpl"
    parameters = (_index(), Parameter("HighECut", 15.0, "keV", 0.01, 1.0, 500.0, 500.0, log=True))
    norm = AT_1_KEV
    source = "XSPEC manual, cutoffpl"

    def evaluate(self, grid: Grid, *, PhoIndex: Tensor, HighECut: Tensor) -> Tensor:
        nodes = integrals.quadrature(grid, 4, 24, logarithmic=True)
        return nodes.collect(torch.exp(-PhoIndex * nodes.log_energy - nodes.energy / HighECut) * nodes.weight)

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not wanted:
            return super().derivatives(grid, values, wanted)
        with torch.no_grad():
            index, cut = values["PhoIndex"], values["HighECut"]
            nodes = integrals.quadrature(grid, 4, 24, logarithmic=True)
            photons = torch.exp(-index * nodes.log_energy - nodes.energy / cut).mul_(nodes.weight)
            parts = {
                "PhoIndex": lambda: -nodes.collect(photons * nodes.log_energy),
                "HighECut": lambda: nodes.collect(photons * nodes.energy) / cut.square(),
            }
            return nodes.collect(photons), torch.stack([parts[name]() for name in wanted])


class ZCutoffPowerLaw(RedshiftedAdditive):
    """`CutoffPowerLaw` at redshift z: ``A(E) = norm [E (1 + z)]^-PhoIndex exp(-E (1 + z) / HighECut)``."""

    name = "zcutoffpl"
    parameters = (*CutoffPowerLaw.parameters, REDSHIFT)
    norm = AT_1_KEV
    source = "XSPEC manual, zcutoffpl"
    rest = CutoffPowerLaw()


LOWEST_BREAK = 1e-20
"""Stands for a break at zero energy [keV]: everything is above it."""


def _log_scales(indices: Sequence[Tensor], log_breaks: Sequence[Tensor]) -> list[Tensor]:
    """ln of the factor of each power law that makes them meet at the breaks; the first has none."""
    scales = [torch.zeros_like(log_breaks[0])]
    for before, after, log_break in zip(indices[:-1], indices[1:], log_breaks, strict=True):
        scales.append(scales[-1] + (after - before) * log_break)
    return scales


def _pieces(low: Tensor, high: Tensor, indices: Sequence[Tensor], log_breaks: Sequence[Tensor]) -> Tensor:
    """Integral between energies given by their logarithms, each piece clipped to its side of the breaks."""
    total = torch.zeros_like(low)
    for i, (index, scale) in enumerate(zip(indices, _log_scales(indices, log_breaks), strict=True)):
        start, stop = low, high
        if i > 0:
            start, stop = torch.maximum(start, log_breaks[i - 1]), torch.maximum(stop, log_breaks[i - 1])
        if i < len(log_breaks):
            start, stop = torch.minimum(start, log_breaks[i]), torch.minimum(stop, log_breaks[i])
        total = total + integrals.power(start, stop, -index) * torch.exp(scale)
    return total


def _broken(grid: Grid, indices: Sequence[Tensor], breaks: Sequence[Tensor]) -> Tensor:
    """Continuous power laws between breaks, norm 1 at 1 keV in the first; exact bin integrals, shape (..., n)."""
    log_breaks = [torch.log(energy.clamp(min=LOWEST_BREAK)) for energy in breaks]
    for i in range(1, len(log_breaks)):
        # a later break below the one before it would count energies twice
        log_breaks[i] = torch.maximum(log_breaks[i], log_breaks[i - 1])
    low, high = grid.log_edges[..., :-1], grid.log_edges[..., 1:]
    if grid.edges.dim() > 1:
        return _pieces(low, high, indices, log_breaks)
    scales = _log_scales(indices, log_breaks)
    laws = [integrals.power_of_bins(grid, -i) * torch.exp(s) for i, s in zip(indices, scales, strict=True)]
    flux = laws[-1]
    for law, log_break in zip(laws[-2::-1], log_breaks[::-1], strict=True):
        flux = torch.where(low < log_break.detach(), law, flux)
    # the bins that hold a break, one per row
    for log_break in log_breaks:
        place = torch.searchsorted(grid.log_edges.detach(), log_break.detach().contiguous()) - 1
        place = place.clamp(0, len(grid) - 1)
        exact = _pieces(low[place], high[place], indices, log_breaks)
        flux = flux.scatter(-1, place.expand(*flux.shape[:-1], 1), exact.expand(*flux.shape[:-1], 1))
    return flux


class BrokenPowerLaw(Additive):
    """Two power laws that meet at BreakE.

    ``A(E) = norm E^-PhoIndx1`` up to BreakE and ``norm BreakE^(PhoIndx2 - PhoIndx1) E^-PhoIndx2`` above; norm in photon
    keV^-1 cm^-2 s^-1 at 1 keV (of the first). Bin integrals are exact, also in the bin with the break.
    """

    name = "bknpower"
    parameters = (
        _index("PhoIndx1"),
        Parameter("BreakE", 5.0, "keV", 0.0, 0.01, 1e6, 1e6, log=True),
        _index("PhoIndx2", 2.0),
    )
    norm = AT_1_KEV
    source = "XSPEC manual, bknpower"

    def evaluate(self, grid: Grid, *, PhoIndx1: Tensor, BreakE: Tensor, PhoIndx2: Tensor) -> Tensor:
        return _broken(grid, (PhoIndx1, PhoIndx2), (BreakE,))


class TwiceBrokenPowerLaw(Additive):
    """Three power laws that meet at BreakE1 and BreakE2; as `BrokenPowerLaw`."""

    name = "bkn2pow"
    parameters = (
        _index("PhoIndx1"),
        Parameter("BreakE1", 5.0, "keV", 0.0, 0.01, 1e6, 1e6, log=True),
        _index("PhoIndx2", 2.0),
        Parameter("BreakE2", 10.0, "keV", 0.0, 0.01, 1e6, 1e6, log=True),
        _index("PhoIndx3", 3.0),
    )
    norm = AT_1_KEV
    source = "XSPEC manual, bkn2pow"

    def evaluate(self, grid: Grid, *, PhoIndx1, BreakE1, PhoIndx2, BreakE2, PhoIndx3) -> Tensor:
        return _broken(grid, (PhoIndx1, PhoIndx2, PhoIndx3), (BreakE1, BreakE2))
