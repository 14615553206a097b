"""Power laws, cut off, broken, pegged and redshifted; integrals over bins are exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deepspec.models import integrals
from deepspec.models.base import NORM, Additive, Grid, Parameter
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
