"""What a statistic sees of an observation: counts per fitted bin, and the matrix that predicts them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

#: Share of the counts above which the background decides how bins are made and what W-stat warns of.
BACKGROUND_MATTERS = 0.03


@dataclass(frozen=True, eq=False)
class BinnedData:
    """Counts of the fitted (noticed and grouped) bins; every array has shape (n_bin,), float64.

    Attributes
    ----------
    counts : counts in the source region.
    energy_low, energy_high : bin limits [keV].
    channels : number of channels in each bin.
    exposure : float [s]
    background : counts in the background region(s), summed, or None if there is no background.
    ratio : expected source-region background per background-region count:
        exposure x BACKSCAL x AREASCAL, source over background; None without background.
        Several backgrounds are combined as 1 / sum(1/ratio_i), exact for Poisson counts.
    error : 1-sigma error of `counts` when the file gives one (rates, subtracted spectra), else None.
    background_error : 1-sigma error of `background` when the file gives one, else None.
    poisson : False when `counts` cannot be Poisson counts (negative, fractional, error column in force).
    background_poisson : the same for `background`.
    notes : sentences for the user about what was found and decided.
    """

    counts: np.ndarray
    energy_low: np.ndarray
    energy_high: np.ndarray
    channels: np.ndarray
    exposure: float
    background: np.ndarray | None = None
    ratio: np.ndarray | None = None
    error: np.ndarray | None = None
    background_error: np.ndarray | None = None
    poisson: bool = True
    background_poisson: bool = True
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.counts)


@dataclass(frozen=True, eq=False)
class FoldedResponse:
    """Effective area, redistribution, exposure, grouping and noticed bins as one matrix.

    ``predicted_counts = photon_flux_per_energy_bin @ matrix``.

    Attributes
    ----------
    edges : ndarray, shape (n_energy + 1,) [keV]
        Rising, positive, without gaps; only energies that reach a noticed channel.
    matrix : ndarray, shape (n_energy, n_bin) [cm2 s]
    """

    edges: np.ndarray
    matrix: np.ndarray
