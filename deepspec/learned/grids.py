"""The two energy grids of the learned component, and what its norm means. Numpy alone.

Spectra are step functions in ln E on `EDGES`; the encoder sees counts on `DETECTOR_EDGES`.
"""

from __future__ import annotations

import numpy as np

RANGE = (0.2, 14.0)
"""Energies on which the spectrum is defined [keV]; it reaches beyond `BAND` because redistribution moves photons into it."""
BAND = (0.3, 10.0)
"""Band of the norm, and of the data that the default is trained for [keV]."""
COUNT = 600
EDGES = np.geomspace(*RANGE, COUNT + 1)
"""Edges of the bins, uniform in ln E, shape (601,) [keV]."""
STEP = float(np.log(RANGE[1] / RANGE[0]) / COUNT)
"""Width of a bin in ln E: 0.7 %, finer than any CCD."""
CENTRES = np.exp(0.5 * (np.log(EDGES[1:]) + np.log(EDGES[:-1])))
"""Geometric middles, shape (600,) [keV]."""

DETECTOR_COUNT = 238
DETECTOR_EDGES = np.linspace(np.sqrt(BAND[0]), np.sqrt(BAND[1]), DETECTOR_COUNT + 1) ** 2
"""Bins of counts, uniform in sqrt(E) as the resolution of a CCD is: 12 eV wide at 0.3 keV, 70 eV at 10 keV; shape (239,) [keV]."""

ERG_PER_KEV = 1.602176634e-9
"""CODATA 2018, exact."""
FLUX_UNIT = 1e-12
"""The norm is the energy flux in `BAND` in this unit [erg cm^-2 s^-1]."""


def energy_weights(band: tuple[float, float] = BAND) -> np.ndarray:
    """Energy flux in `band` of one photon cm^-2 s^-1 in each bin of `EDGES`, shape (600,) [1e-12 erg cm^-2 s^-1].

    Exact for a spectrum that is constant in ln E within a bin: the energy in it between E1 and E2 is
    photons (E2 - E1) / step.
    """
    low, high = np.clip(EDGES[:-1], *band), np.clip(EDGES[1:], *band)
    return (high - low) / STEP * ERG_PER_KEV / FLUX_UNIT


ENERGY_WEIGHTS = energy_weights()
