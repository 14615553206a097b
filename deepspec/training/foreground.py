"""Absorption by our own Galaxy: where its column lies, and its cross-section on the bins of the learned component."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from deepspec.learned.grids import EDGES
from deepspec.models.absorption import cross_section

MEAN, DEVIATION = -1.0, 0.6
"""Of log10 of the column [1e22 cm^-2]."""
LIMITS = (-2.7, 1.0)
"""Cut of log10 of the column: high Galactic latitudes to the plane."""
PIECES = 200
"""Cuts of a bin over which the transmission is averaged: the oxygen line at 0.526 keV is narrower than a bin."""
REFERENCE = 0.1
"""Column at which the mean transmission is turned back into a cross-section [1e22 cm^-2].

It matters in the one bin that holds the oxygen line, where a bin's transmission is no exponential. In the four bins of the oxygen
edge cross-sections differ by up to 10 % between columns of 0.01 and 1, in all others by less than 4 %.
"""


def draw_log_nH(n: int, generator: torch.Generator, device: str | torch.device = "cpu") -> Tensor:
    """log10 of the foreground column in 1e22 cm^-2: N(-1, 0.6) cut to -2.7 to 1.

    Parameters
    ----------
    n : int
    generator : torch.Generator

    Returns
    -------
    Tensor, shape (n,), float32
    """
    low, high = (0.5 * (1.0 + math.erf((x - MEAN) / DEVIATION / math.sqrt(2.0))) for x in LIMITS)
    level = low + (high - low) * torch.rand(n, generator=generator, device=generator.device)
    value = MEAN + DEVIATION * math.sqrt(2.0) * torch.erfinv(2.0 * level - 1.0)
    return value.clamp(*LIMITS).to(device)


def _sigma() -> np.ndarray:
    part = (np.arange(PIECES) + 0.5) / PIECES
    fine = np.log(EDGES[:-1])[:, None] + np.diff(np.log(EDGES))[:, None] * part
    at = cross_section("tbabs", "wilm")(torch.as_tensor(fine)).numpy()
    return -np.log(np.exp(-REFERENCE * at).mean(-1)) / REFERENCE


SIGMA = _sigma()
"""tbabs with wilm abundances, -ln T / nH averaged over each bin, shape (600,), float64 [1e-22 cm2 per H atom]."""
SIGMA.setflags(write=False)
