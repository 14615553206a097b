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


def gaussian_integral(grid: Grid, energy: Tensor, sigma: Tensor) -> Tensor:
    """Part of a Gaussian of unit area that falls in each bin, shape (..., n).

    Differences of the complementary error function taken on the side of the bin away from the line, so that the far
    wings keep their relative precision.
    """
    narrow = sigma.detach() <= NARROWEST
    safe = torch.where(narrow, 1.0, sigma)
    place = (grid.edges - energy) / (math.sqrt(2.0) * safe)
    outside = 0.5 * torch.erfc(place.abs())
    above = place.detach() >= 0.0
    near, far = outside[..., :-1], outside[..., 1:]
    part = torch.where(above[..., :-1], near - far, torch.where(above[..., 1:], 1.0 - near - far, far - near))
    if not narrow.any():
        return part
    holds = (grid.low <= energy.detach()) & (energy.detach() < grid.high)
    return torch.where(narrow, holds.to(part.dtype), part)


class Gaussian(Additive):
    """Gaussian emission line.

    ``A(E) = norm / (Sigma sqrt(2 pi)) exp(-(E - LineE)^2 / (2 Sigma^2))``; norm in photon cm^-2 s^-1 in the line. Bin integrals are
    exact (error function). Sigma = 0 puts the whole line in one bin, and its derivatives are zero there.
    """

    name = "gaussian"
    parameters = (
        Parameter("LineE", 6.5, "keV", 0.0, 0.0, 1e6, 1e6),
        Parameter("Sigma", 0.1, "keV", 0.0, 0.0, 10.0, 20.0),
    )
    norm = NORM("photon cm^-2 s^-1")
    source = "XSPEC manual, gaussian"

    def evaluate(self, grid: Grid, *, LineE: Tensor, Sigma: Tensor) -> Tensor:
        return gaussian_integral(grid, LineE, Sigma)

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not wanted:
            return super().derivatives(grid, values, wanted)
        with torch.no_grad():
            energy, sigma = values["LineE"], values["Sigma"]
            flux = gaussian_integral(grid, energy, sigma)
            narrow = sigma <= NARROWEST
            safe = torch.where(narrow, 1.0, sigma)
            place = (grid.edges - energy) / safe
            height = torch.exp(-0.5 * place.square()) * torch.where(narrow, 0.0, 1.0 / (math.sqrt(2 * math.pi) * safe))
            parts = {"LineE": lambda: -torch.diff(height), "Sigma": lambda: -torch.diff(height * place)}
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
