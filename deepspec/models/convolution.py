"""Operations on a whole spectrum: redshift, and a flux in a band as parameter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.models.base import Convolution, Grid, Parameter
from deepspec.models.redshift import REDSHIFT, rest_frame

Inner = Callable[[Grid], Tensor]

ERG_PER_KEV = 1.602192e-9
"""What XSPEC's cflux takes, measured; CODATA 2018 has 1.602177e-9, a part in 1e5 less."""
STEP = 0.01
"""Width in ln E of the bins that are added where a band reaches beyond the grid."""


class RedshiftAdditive(Convolution):
    """An additive spectrum seen at redshift z: ``f(E (1 + z)) / (1 + z)`` per bin.

    The argument is evaluated on the shifted bins themselves, so nothing is interpolated and the top bins are not empty
    (XSPEC redistributes the bins it has).
    """

    name = "zashift"
    parameters = (REDSHIFT,)
    linear = True  # the redshifted sum is the sum of the redshifted terms
    source = "XSPEC manual, zashift"

    def apply(self, grid: Grid, inner: Inner, *, Redshift: Tensor) -> Tensor:
        return inner(rest_frame(grid, Redshift)) / (1.0 + Redshift)


def _steps(reach: Tensor) -> int:
    """Number of bins of about `STEP` that cover the largest of the distances in ln E; 0 if none is positive."""
    return max(0, math.ceil(float(reach.detach().max()) / STEP - 1e-9))


def covering(grid: Grid, low: Tensor, high: Tensor) -> tuple[Grid, slice]:
    """The grid, lengthened by narrow bins until it covers the bands low to high, and where the old bins are in it.

    Parameters
    ----------
    grid : Grid with n bins
    low, high : Tensor, shape (..., 1) [keV]
    """
    first, last = grid.edges[..., :1], grid.edges[..., -1:]
    below, above = _steps(torch.log(first / low)), _steps(torch.log(high / last))
    if not below and not above:
        return grid, slice(0, len(grid))

    def make():
        steps = torch.arange(1, max(below, above) + 1, dtype=first.dtype)
        added_below = first * torch.exp(-STEP * steps[:below].flip(0))
        added_above = last * torch.exp(STEP * steps[:above])
        return Grid(torch.cat([added_below, grid.edges, added_above], dim=-1))

    return grid.memo(("covering", below, above), make), slice(below, below + len(grid))


class _FluxOfBand(Convolution):
    """The argument rescaled so that its flux between Emin and Emax is a parameter; see `EnergyFlux`."""

    energy_weighted: ClassVar[bool]

    def _scaled(self, grid: Grid, inner: Inner, low: Tensor, high: Tensor, target: Tensor) -> Tensor:
        if bool((low.detach() >= high.detach()).any()) or bool((low.detach() <= 0.0).any()):
            raise UserError(
                "Emin must be positive and below Emax", source=self.name, remedy="set both, e.g. 0.5 and 10"
            )
        wide, own = covering(grid, low, high)
        flux = inner(wide)
        start, stop = torch.maximum(wide.low, low), torch.minimum(wide.high, high)
        weight = (stop - start).clamp(min=0.0) / wide.width
        if self.energy_weighted:
            weight = weight * (0.5 * ERG_PER_KEV) * (start + stop)
        total = (flux * weight).sum(-1, keepdim=True)
        if bool((total.detach() <= 0.0).any()):
            raise UserError(
                "the model has no flux in the band", source=self.name, remedy="widen Emin to Emax or change the model"
            )
        return flux[..., own] * (target / total)


BAND = (
    Parameter("Emin", 0.5, "keV", 0.0, 0.0, 1e6, 1e6, frozen=True),
    Parameter("Emax", 10.0, "keV", 0.0, 0.0, 1e6, 1e6, frozen=True),
)


class EnergyFlux(_FluxOfBand):
    """Energy flux of a band as parameter.

    ``f(E) 10^lg10Flux / F``, F the flux of the argument between Emin and Emax [erg cm^-2 s^-1]: photons times the
    middle of each bin, of a bin partly in the band its part and the middle of that part, as XSPEC. Where the band
    reaches beyond the grid the argument is evaluated on further bins, so the flux is that of the whole band (XSPEC sees
    only the part on the grid). Freeze the norm of one additive component of the argument.

    Raises
    ------
    UserError
        Emin not positive or not below Emax; or no flux in the band.
    """

    name = "cflux"
    parameters = (*BAND, Parameter("lg10Flux", -12.0, "cgs", -100.0, -100.0, 100.0, 100.0))
    source = "XSPEC manual, cflux"
    energy_weighted = True

    def apply(self, grid: Grid, inner: Inner, *, Emin: Tensor, Emax: Tensor, lg10Flux: Tensor) -> Tensor:
        return self._scaled(grid, inner, Emin, Emax, torch.exp(math.log(10.0) * lg10Flux))


class PhotonFlux(_FluxOfBand):
    """Photon flux of a band as parameter [photon cm^-2 s^-1]; else as `EnergyFlux`."""

    name = "cpflux"
    parameters = (*BAND, Parameter("Flux", 1.0, "", 0.0, 0.0, 1e10, 1e10, log=True))
    source = "XSPEC manual, cpflux"
    energy_weighted = False

    def apply(self, grid: Grid, inner: Inner, *, Emin: Tensor, Emax: Tensor, Flux: Tensor) -> Tensor:
        return self._scaled(grid, inner, Emin, Emax, Flux)
