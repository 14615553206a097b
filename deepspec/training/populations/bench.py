"""The parts that spectra are made of, for many sources at once: laws, black bodies, discs, lines, plasma, absorbers.

Everything is photons per unit ln E in the frame of the source, float32, shape (m, n): m sources on n bins that are uniform in ln E
and start with `EDGES`. Bins reach far enough above 14 keV that a redshift up to `HIGHEST_REDSHIFT` is a shift to the left.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from deepspec.learned.grids import COUNT, RANGE, STEP
from deepspec.models.absorption import cross_section
from deepspec.models.thermal import disk_table
from deepspec.training.plasma_bank import METALS, PlasmaBank
from deepspec.training.populations import atomic

HIGHEST_REDSHIFT = 4.0
EXTENDED = COUNT + math.ceil(math.log1p(HIGHEST_REDSHIFT) / STEP) + 1
"""Bins of the grid in the frame of a distant source; `COUNT` of them for a source at rest."""
COLDEST, HOTTEST, DISK_ROWS = 0.02, 4.0, 96
"""Temperatures of the disc's table [keV]."""


class Bench:
    """The building blocks on one device and one grid.

    Parameters
    ----------
    count : int
        Number of bins: `COUNT` for sources at rest, `EXTENDED` where a redshift follows.
    device : str or torch.device
    """

    def __init__(self, count: int, device: str | torch.device = "cpu"):
        self.count, self.device = count, device
        log_edges = math.log(RANGE[0]) + STEP * np.arange(count + 1)
        edges = np.exp(log_edges)
        self.edges_numpy = edges
        centres = 0.5 * (log_edges[1:] + log_edges[:-1])
        sigma = _mean_cross_section(log_edges)
        self.log_energy, self.energy = self._tensor(centres), self._tensor(np.exp(centres))
        self.edges = self._tensor(edges)
        self.exponents = torch.stack((self.log_energy, self.energy, self._tensor(sigma)))
        self.plasma_bank = PlasmaBank(edges, device)
        self.photoionised_rows = self._tensor(atomic.photoionised(edges) / STEP)
        self.fluorescent_rows = self._tensor(atomic.fluorescent(edges) / STEP)
        self.warm_rows = self._tensor(atomic.warm_opacity(edges))
        self.albedo_rows = self._tensor(atomic.albedo(sigma, np.exp(centres), STEP))
        places = torch.linspace(math.log(COLDEST), math.log(HOTTEST), DISK_ROWS, dtype=torch.float64)
        smooth, _ = disk_table().smooth(torch.as_tensor(centres) - places[:, None])
        self.disk_rows = self._tensor(smooth)
        self._weights: dict[tuple[float, float], Tensor] = {}

    def _tensor(self, values) -> Tensor:
        return torch.as_tensor(values).to(self.device, torch.float32)

    # fluxes

    def flux(self, spectrum: Tensor, low: float = 0.3, high: float = 10.0) -> Tensor:
        """Energy flux between two energies of this grid, (m, n) -> (m, 1), in keV."""
        if (low, high) not in self._weights:
            cut = np.clip(self.edges_numpy, low, high)
            self._weights[low, high] = self._tensor(np.diff(cut))
        return (spectrum @ self._weights[low, high]).unsqueeze(-1).clamp(min=1e-30)

    def unit(self, spectrum: Tensor, low: float = 0.3, high: float = 10.0) -> Tensor:
        """The spectrum with unit energy flux in a band; changes it in place."""
        return spectrum.div_(self.flux(spectrum, low, high))

    # continua

    def law(self, index: Tensor, cut: Tensor | None = None, column: Tensor | None = None) -> Tensor:
        """``E^-index exp(-E / cut - column sigma)``, 1 photon / keV at 1 keV without the rest; parameters (m,)."""
        rows = [1.0 - index]
        rows.append(torch.zeros_like(index) if cut is None else -1.0 / cut)
        rows.append(torch.zeros_like(index) if column is None else -column)
        return (torch.stack(rows, -1) @ self.exponents).exp_()

    def body(self, kT: Tensor) -> Tensor:
        """Black body; kT (m,) [keV], arbitrary scale."""
        ratio = (self.energy / kT.unsqueeze(-1)).clamp_(max=80.0)
        return (ratio.square().mul_(ratio)).div_(ratio.expm1_())

    def disk(self, Tin: Tensor) -> Tensor:
        """Multi-temperature disc; Tin (m,) [keV], arbitrary scale."""
        place = (torch.log(Tin) - math.log(COLDEST)) / math.log(HOTTEST / COLDEST) * (DISK_ROWS - 1)
        smooth = hats(place, DISK_ROWS) @ self.disk_rows
        return (smooth - self.energy / Tin.unsqueeze(-1)).exp_().mul_(self.energy)

    def plasma(self, temperatures: Tensor, abundances: Tensor, ionisation: Tensor | None = None) -> Tensor:
        """As `PlasmaBank.__call__`, per unit ln E at norm 1e4 (so that float32 stays near 1)."""
        return self.plasma_bank(temperatures, abundances, ionisation).div_(STEP)

    def solar_plasma(self, temperatures: Tensor, metals: Tensor) -> Tensor:
        """As `plasma` with one abundance (m,) for all metals."""
        return self.plasma_bank.with_solar_ratios(temperatures, metals).div_(STEP)

    # lines and tables of features

    def add_line(self, spectrum: Tensor, photons: Tensor, energy: Tensor | float, sigma: Tensor) -> Tensor:
        """Add Gaussian lines in place, integrated over bins; photons (m,), energy and sigma (m,) [keV].

        Only bins within six of the widest sigma are touched.
        """
        energy = torch.as_tensor(energy, dtype=torch.float32, device=spectrum.device).expand_as(photons)
        reach = 6.0 * float(sigma.max())
        low = max(float(energy.min()) - reach, RANGE[0])
        high = float(energy.max()) + reach
        first = max(int((math.log(low / RANGE[0])) / STEP), 0)
        last = min(int(math.log(high / RANGE[0]) / STEP) + 2, self.count)
        if last <= first:
            return spectrum
        scaled = (self.edges[first : last + 1] - energy.unsqueeze(-1)) / (math.sqrt(2.0) * sigma.unsqueeze(-1))
        lines = torch.diff(torch.erf(scaled)).clamp_(min=0.0)
        spectrum[:, first:last] += (photons * (0.5 / STEP)).unsqueeze(-1) * lines
        return spectrum

    def at(self, spectrum: Tensor, energy: float) -> Tensor:
        """Photons per keV at an energy, (m, n) -> (m,)."""
        place = min(int(math.log(energy / RANGE[0]) / STEP), self.count - 1)
        return spectrum[:, place] / self.energy[place]

    def photoionised(self, log_xi: Tensor) -> Tensor:
        """Emission lines of photo-ionised gas, all tied to the ionisation parameter (m,)."""
        return hats(log_xi / atomic.LOG_XI[-1] * 16.0, 17) @ self.photoionised_rows

    def fluorescent(self, light: Tensor) -> Tensor:
        """Cold fluorescent lines, 1 photon in Fe K alpha; `light` (m,) scales the elements below iron."""
        return torch.stack((torch.ones_like(light), light), -1) @ self.fluorescent_rows

    # what is between a source and us

    def transmission(self, column: Tensor) -> Tensor:
        """``exp(-column sigma)``, column (m,) [1e22 cm^-2]."""
        return (-column.unsqueeze(-1) * self.exponents[2]).exp_()

    def covered(self, column: Tensor, fraction: Tensor) -> Tensor:
        """Transmission of an absorber that covers a fraction (m,) of the source."""
        part = fraction.unsqueeze(-1)
        return self.transmission(column).mul_(part).add_(1.0 - part)

    def warm(self, column: Tensor, log_xi: Tensor) -> Tensor:
        """Transmission of warm gas: column (m,) [1e22 cm^-2], ionisation parameter (m,)."""
        weights = hats(log_xi / atomic.LOG_XI[-1] * 16.0, 17) * -column.unsqueeze(-1)
        return (weights @ self.warm_rows).exp_()

    def reflected(self, metals: Tensor, blur: Tensor) -> Tensor:
        """Albedo of a thick reflector; metals (m,) relative opacity, blur (m,) between 0 and 2, an index of `atomic.BLURS`."""
        low, high = atomic.METALS_OF_REFLECTOR[[0, -1]]
        place = torch.log(metals / low) / math.log(high / low) * 15.0
        both = hats(blur, 3).unsqueeze(-1) * hats(place, 16).unsqueeze(-2)
        return both.flatten(1) @ self.albedo_rows

    def redshifted(self, spectrum: Tensor, redshift: Tensor) -> Tensor:
        """The spectrum as we see it, (m, `EXTENDED`) -> (m, `COUNT`): a shift to the left by ln(1 + z).

        Between whole bins it is a mean of the two neighbours, which keeps photons and widens a line by less than a bin (0.7 %).
        """
        shift = torch.log1p(redshift) / STEP
        whole = shift.floor()
        part = (shift - whole).unsqueeze(-1)
        source = torch.arange(len(redshift), device=spectrum.device)
        seen = spectrum.unfold(1, COUNT + 1, 1)[source, whole.long().clamp(0, EXTENDED - COUNT - 1)]
        return torch.lerp(seen[:, :-1], seen[:, 1:], part)


def hats(place: Tensor, count: int) -> Tensor:
    """Weights of linear interpolation on `count` rows, (m,) -> (m, count); places beyond the ends take the end."""
    row = torch.arange(count, dtype=place.dtype, device=place.device)
    return (1.0 - (place.clamp(0.0, count - 1.0).unsqueeze(-1) - row).abs()).clamp_(min=0.0)


def abundance(metals: Tensor, **relative: Tensor) -> Tensor:
    """Abundances (m, 12) in the order of `METALS`: `metals` (m,) for all, times factors (m,) of named elements."""
    ones = torch.ones_like(metals)
    return metals.unsqueeze(-1) * torch.stack([relative.get(name, ones) for name in METALS], -1)


def _mean_cross_section(log_edges: np.ndarray, pieces: int = 10) -> np.ndarray:
    """ztbabs cross-section averaged over bins, (n + 1,) -> (n,) [1e-22 cm2 per H]."""
    part = (np.arange(pieces) + 0.5) / pieces
    fine = log_edges[:-1, None] + STEP * part
    return cross_section("ztbabs", "wilm")(torch.as_tensor(fine)).numpy().mean(-1)


@cache
def bench(count: int, device: str = "cpu") -> Bench:
    """The `Bench` of a grid and device, made once per process."""
    return Bench(count, device)
