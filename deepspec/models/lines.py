"""Emission lines of Gaussian shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deepspec.models.base import NORM, Additive, Grid, Parameter
from deepspec.models.redshift import REDSHIFT, RedshiftedAdditive

NARROWEST = 1e-8
"""Sigma [keV] below which a line has no width: all of it is in the bin that holds its energy."""


def line_in_bin(grid: Grid, energy: Tensor) -> Tensor:
    """True in the bin that holds a line of no width, shape (..., n): above the lower edge, up to the upper one.

    A line on the lowest edge of the grid belongs to the first bin, as in XSPEC.
    """
    energy = energy.detach()
    above = grid.low.detach() < energy
    above = torch.cat([above[..., :1] | (grid.low.detach()[..., :1] == energy), above[..., 1:]], dim=-1)
    return above & (energy <= grid.high.detach())


def gaussian_integral(grid: Grid, energy: Tensor, sigma: Tensor) -> Tensor:
    """Part of a Gaussian of unit area that falls in each bin, shape (..., n).

    Differences of the complementary error function taken on the side of the bin away from the line, so that the far
    wings keep their relative precision.
    """
    place = (grid.edges - energy) / (math.sqrt(2.0) * sigma)
    outside = 0.5 * torch.erfc(place.abs())
    above = place.detach() >= 0.0
    near, far = outside[..., :-1], outside[..., 1:]
    return torch.where(above[..., :-1], near - far, torch.where(above[..., 1:], 1.0 - near - far, far - near))


def _positive_part(energy: Tensor, sigma: Tensor) -> Tensor:
    """Part of the Gaussian at positive energies, shape (..., 1)."""
    return 0.5 * torch.erfc(-energy / (math.sqrt(2.0) * sigma))


class Gaussian(Additive):
    """Gaussian emission line.

    ``A(E)`` is proportional to ``exp(-(E - LineE)^2 / (2 Sigma^2))`` at positive energies; norm is all its photons, in
    photon cm^-2 s^-1. Bin integrals are exact (error function); XSPEC adds what lies beyond about 5.6 Sigma (2e-8 of
    the line) to the last bin before. Sigma = 0 puts the whole line in one bin, and its derivatives are zero there.
    """

    name = "gaussian"
    parameters = (
        Parameter("LineE", 6.5, "keV", 0.0, 0.0, 1e6, 1e6),
        Parameter("Sigma", 0.1, "keV", 0.0, 0.0, 10.0, 20.0),
    )
    norm = NORM("photon cm^-2 s^-1")
    source = "XSPEC manual, gaussian"

    def evaluate(self, grid: Grid, *, LineE: Tensor, Sigma: Tensor) -> Tensor:
        narrow = Sigma.detach() <= NARROWEST
        sigma = torch.where(narrow, 1.0, Sigma)
        part = gaussian_integral(grid, LineE, sigma) / _positive_part(LineE, sigma)
        if narrow.any():
            part = torch.where(narrow, line_in_bin(grid, LineE).to(part.dtype), part)
        return part

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not wanted:
            return super().derivatives(grid, values, wanted)
        with torch.no_grad():
            energy, narrow = values["LineE"], values["Sigma"] <= NARROWEST
            flux = self.evaluate(grid, **values)
            sigma = torch.where(narrow, 1.0, values["Sigma"])
            scale = torch.where(narrow, 0.0, 1.0 / (math.sqrt(2 * math.pi) * sigma)) / _positive_part(energy, sigma)
            place = (grid.edges - energy) / sigma
            height = torch.exp(-0.5 * place.square()) * scale
            # the part at positive energies grows by this with LineE, and by -LineE/Sigma times this with Sigma
            growth = torch.exp(-0.5 * (energy / sigma).square()) * scale
            parts = {
                "LineE": lambda: -torch.diff(height) - flux * growth,
                "Sigma": lambda: -torch.diff(height * place) + flux * growth * (energy / sigma),
            }
            return flux, torch.stack([parts[name]() for name in wanted])


class ZGaussian(RedshiftedAdditive):
    """`Gaussian` at redshift z: LineE and Sigma in the frame of the source, ``gaussian(E (1 + z)) / (1 + z)`` per bin.

    norm in photon cm^-2 s^-1 in the frame of the source: norm / (1 + z) photons are observed.
    """

    name = "zgauss"
    parameters = (*Gaussian.parameters, REDSHIFT)
    norm = Gaussian.norm
    source = "XSPEC manual, zgauss"
    rest = Gaussian()
