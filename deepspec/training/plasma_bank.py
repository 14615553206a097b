"""Collisional plasma for many sources at once: one matrix of spectra, rows of temperature times chemical elements.

The emission of any distribution of temperatures with any abundances is ``weights @ bank``: the rows of the bank are the
coefficients of the native table (`deepspec.models.plasma_table`), whose dependence on temperature is a cubic B-spline in ln kT.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deepspec.models.base import Grid
from deepspec.models.plasma import table_path
from deepspec.models.plasma_table import read_plasma_table

GROUPS = {
    "base": ("H", "He", "trace"),
    **{element: (element,) for element in ("C", "N", "O", "Ne", "Mg", "Si", "S", "Ar", "Ca", "Fe", "Ni")},
    "other": ("Na", "Al"),
}
"""Part of the bank -> elements of the table in it; "base" is always solar."""
METALS = tuple(GROUPS)[1:]
"""The parts whose abundance is free, in the order of every abundance tensor (..., 12)."""


class PlasmaBank:
    """mekal on bins, as one matrix in float32.

    Parameters
    ----------
    edges : array, shape (n + 1,) [keV]
        Bins in the frame of the plasma.

    Attributes
    ----------
    spectra : Tensor, shape (n_row * 13, n)
        Photons cm^-2 s^-1 per bin at norm 1, relative to `scale`; solar is Anders & Grevesse 1989.
    solar : Tensor, shape (n_row * 2, n)
        The same for "base" and the sum of all metals.
    log_kT : float, float
        ln of the temperature of the first row, and the step between rows.
    """

    scale = 1e-4
    """Unit of the spectra: brings float32 near 1."""

    def __init__(self, edges: np.ndarray, device: str | torch.device = "cpu"):
        table = read_plasma_table(table_path("mekal")).combined([dict.fromkeys(g, 1.0) for g in GROUPS.values()])
        binned = table.on_grid(Grid(torch.as_tensor(np.asarray(edges, float)))) / self.scale
        self.rows = len(table.kT)
        self.spectra = _single_precision(binned.flatten(0, 1), device)
        self.solar = _single_precision(torch.stack((binned[:, 0], binned[:, 1:].sum(1)), 1).flatten(0, 1), device)
        self.first, self.step = float(np.log(table.kT[0])), float(np.log(table.kT[-1] / table.kT[0])) / (self.rows - 1)
        self._row = torch.arange(self.rows, dtype=torch.float32, device=device)

    def single(self, kT: Tensor) -> Tensor:
        """Weights of the rows for one temperature per source, (m,) [keV] -> (m, n_row)."""
        away = (((torch.log(kT) - self.first) / self.step).unsqueeze(-1) - self._row).abs()
        near = 2.0 / 3.0 - away.square() * (1.0 - 0.5 * away)
        far = (2.0 - away).clamp(min=0.0)
        return torch.where(away < 1.0, near, far.square() * far / 6.0)

    def spread(self, kT: Tensor, width: Tensor) -> Tensor:
        """Weights for an emission measure that is a Gaussian in ln kT, sum 1.

        Parameters
        ----------
        kT : Tensor, shape (m,) [keV]
        width : Tensor, shape (m,)
            Standard deviation in ln kT; not below 0.12, one row.

        Returns
        -------
        Tensor, shape (m, n_row)
        """
        place = ((torch.log(kT) - self.first) / self.step).unsqueeze(-1)
        sigma = (width / self.step).clamp(min=1.0).unsqueeze(-1)
        weights = torch.exp(-0.5 * ((self._row - place) / sigma).square().clamp(max=50.0))
        return weights / weights.sum(-1, keepdim=True)

    def falling(self, kT: Tensor, slope: Tensor, lowest: float = 0.08) -> Tensor:
        """Weights for an emission measure proportional to kT^slope per ln kT from `lowest` up to kT, sum 1; (m, n_row)."""
        place = ((torch.log(kT) - self.first) / self.step).unsqueeze(-1)
        shape = torch.exp(slope.unsqueeze(-1) * self.step * (self._row - place))
        inside = (place + 0.5 - self._row).clamp(0.0, 1.0) * (self._row >= (np.log(lowest) - self.first) / self.step)
        weights = shape * inside
        return weights / weights.sum(-1, keepdim=True)

    def __call__(self, temperatures: Tensor, abundances: Tensor, ionisation: Tensor | None = None) -> Tensor:
        """Photons per bin, relative to `scale`.

        Parameters
        ----------
        temperatures : Tensor, shape (m, n_row)
            Emission measure of the rows.
        abundances : Tensor, shape (m, 12)
            Of `METALS`, relative to solar.
        ionisation : Tensor, shape (m, n_row), optional
            Rows of the metals where their ions are not those of the electrons' temperature.

        Returns
        -------
        Tensor, shape (m, n)
        """
        metals = temperatures if ionisation is None else ionisation
        both = torch.cat((temperatures.unsqueeze(-1), metals.unsqueeze(-1) * abundances.unsqueeze(-2)), -1)
        return both.flatten(1) @ self.spectra

    def with_solar_ratios(self, temperatures: Tensor, metals: Tensor) -> Tensor:
        """As `__call__` with one abundance (m,) for all metals, in a sixth of the time."""
        both = torch.stack((temperatures, temperatures * metals.unsqueeze(-1)), -1)
        return both.flatten(1) @ self.solar


def _single_precision(values: Tensor, device: str | torch.device) -> Tensor:
    """As float32 without denormal numbers, which slow a matrix product down many times."""
    return torch.where(values.abs() > 1e-30, values, 0.0).to(device, torch.float32)
