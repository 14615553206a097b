"""Lines, edges and opacities that tie many features to one physical parameter; made once in numpy.

Photon strengths are those of the brightest Seyfert 2 galaxies to a factor of two (Circinus, NGC 1068); they are shapes to learn
from, not a plasma code. Energies [keV] are laboratory ones.
"""

from __future__ import annotations

import numpy as np
from scipy.special import erf

LOG_XI = np.linspace(0.0, 4.0, 17)
"""log10 of the ionisation parameter [erg cm s^-1] at the rows of the tables."""

PHOTOIONISED = (
    # energy, photons, log xi of the peak
    (0.308, 2.0, 0.4), (0.367, 6.0, 1.0), (0.426, 3.0, 0.6), (0.500, 5.0, 1.3), (0.561, 12.0, 1.0), (0.574, 4.0, 1.0),
    (0.654, 9.0, 1.7), (0.665, 1.5, 1.1), (0.739, 3.0, 1.1), (0.775, 2.0, 1.8), (0.826, 2.0, 1.6), (0.871, 2.5, 1.8),
    (0.905, 4.0, 1.6), (0.922, 2.0, 1.6), (1.022, 3.0, 2.1), (1.075, 1.0, 1.7), (1.196, 1.0, 1.8), (1.236, 1.0, 2.3),
    (1.331, 1.6, 1.9), (1.352, 1.0, 1.9), (1.472, 1.3, 2.4), (1.745, 0.5, 2.5), (1.839, 1.3, 2.2), (1.865, 1.0, 2.2),
    (2.006, 1.0, 2.7), (2.430, 0.8, 2.5), (2.461, 0.6, 2.5), (2.622, 0.6, 3.0), (3.104, 0.2, 2.8), (3.140, 0.2, 2.8),
    (3.323, 0.2, 3.2), (3.861, 0.15, 2.9), (3.902, 0.15, 2.9), (4.106, 0.12, 3.3), (6.637, 0.5, 3.2), (6.700, 0.6, 3.3),
    (6.966, 0.8, 3.8),
)  # fmt: skip
FLUORESCENT = (
    # energy, photons relative to Fe K alpha before absorption; iron and nickel, then lighter elements
    ((6.404, 1.0), (7.058, 0.14), (7.472, 0.05), (6.30, 0.10), (5.411, 0.015)),
    ((1.254, 0.08), (1.740, 0.10), (2.307, 0.08), (2.957, 0.04), (3.691, 0.035)),
)
EDGES_OF_WARM_GAS = (
    # edge, cross-section at it for all of the element in the ion [1e-22 cm2 per H], log xi of the peak
    (0.392, 1.1, 0.2), (0.490, 0.46, 0.9), (0.552, 0.13, 0.3), (0.667, 0.11, 1.2), (0.739, 1.2, 1.0), (0.871, 0.49, 1.7),
    (1.196, 0.13, 1.6), (1.362, 0.055, 2.1), (1.05, 0.10, 1.6), (1.35, 0.08, 2.2), (1.762, 0.028, 1.9), (1.963, 0.012, 2.5),
    (2.438, 0.015, 2.2), (2.673, 0.010, 2.7), (3.224, 0.008, 2.5), (7.6, 0.010, 1.5), (8.3, 0.009, 2.6), (8.83, 0.006, 3.3),
)  # fmt: skip
TROUGH = (0.755, 0.028, 0.55, 1.0)
"""Unresolved M-shell iron lines: centre, width [keV], cross-section there [1e-22 cm2 per H], log xi of the peak."""


def share(log_xi: np.ndarray, peak: float, width: float = 0.5) -> np.ndarray:
    """Share of an element in an ion against the ionisation parameter: a Gaussian of `width` dex."""
    return np.exp(-0.5 * ((log_xi - peak) / width) ** 2)


def narrow_line(edges: np.ndarray, energy: float, sigma: float) -> np.ndarray:
    """A Gaussian of one photon integrated over bins, (n + 1,) -> (n,)."""
    return np.diff(0.5 * (1.0 + erf((edges - energy) / (np.sqrt(2.0) * sigma))))


def photoionised(edges: np.ndarray) -> np.ndarray:
    """Photons per bin of recombining gas, one row per `LOG_XI`, shape (17, n)."""
    lines = np.array([narrow_line(edges, e, 0.002 * e) for e, _, _ in PHOTOIONISED])
    strength = np.array([s * share(LOG_XI, peak) for _, s, peak in PHOTOIONISED])
    return strength.T @ lines


def fluorescent(edges: np.ndarray) -> np.ndarray:
    """Photons per bin of cold fluorescence: the iron group and the lighter elements, shape (2, n)."""
    return np.array(
        [sum(s * narrow_line(edges, e, 0.04 if e == 6.30 else 0.002 * e) for e, s in group) for group in FLUORESCENT]
    )


def warm_opacity(edges: np.ndarray) -> np.ndarray:
    """Mean cross-section per bin of warm absorbing gas [1e-22 cm2 per H], one row per `LOG_XI`, shape (17, n)."""
    fine = np.exp(np.linspace(np.log(edges[:-1]), np.log(edges[1:]), 11)[:-1] + 0.5 * np.log(edges[1] / edges[0]) / 10)
    out = np.zeros((len(LOG_XI), len(edges) - 1))
    for edge, sigma, peak in EDGES_OF_WARM_GAS:
        out += np.outer(share(LOG_XI, peak), np.mean(np.where(fine >= edge, sigma * (fine / edge) ** -3, 0.0), 0))
    centre, width, sigma, peak = TROUGH
    return out + np.outer(share(LOG_XI, peak), np.mean(sigma * np.exp(-0.5 * ((fine - centre) / width) ** 2), 0))


SCATTERING = 0.008
"""Thomson cross-section per hydrogen atom, 1.2 electrons each [1e-22 cm2]."""
METALS_OF_REFLECTOR = np.geomspace(0.003, 5.0, 16)
"""Photoelectric opacity of the reflector relative to neutral gas: low values stand for ionised gas."""
BLURS = (0.0, 0.03, 0.12)
"""Smoothing of the reflected spectrum, standard deviations in ln E."""


def albedo(sigma: np.ndarray, energy: np.ndarray, step: float) -> np.ndarray:
    """Reflected share of photons of a thick slab, (1 - sqrt(1 - w)) / (1 + sqrt(1 - w)) with w the single-scattering albedo.

    Parameters
    ----------
    sigma : array, shape (n,)
        Photoelectric cross-section of neutral gas [1e-22 cm2 per H].
    energy : array, shape (n,) [keV]
    step : float
        Width of the bins in ln E.

    Returns
    -------
    array, shape (3 * 16, n), blur times metals
        Recoil takes photons away above 30 keV, ``1 / (1 + (E / 45 keV)^2)``.
    """
    from scipy.ndimage import gaussian_filter1d

    w = SCATTERING / (SCATTERING + METALS_OF_REFLECTOR[:, None] * sigma)
    root = np.sqrt(1.0 - w)
    rows = (1.0 - root) / (1.0 + root) / (1.0 + (energy / 45.0) ** 2)
    return np.concatenate([rows if b == 0 else gaussian_filter1d(rows, b / step, mode="nearest") for b in BLURS])
