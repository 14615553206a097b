"""Shift and Gaussian smoothing of templates in ln E, exact for a periodic function: one product in the Fourier domain.

``f(x - s)`` smoothed by ``sigma`` has the transform ``F(w) exp(-i w s - w^2 sigma^2 / 2)``. Templates are made periodic by bins
beyond both ends of the grid on which a cosine brings them to zero; slopes, which would ring, are kept outside.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepspec.learned.grids import COUNT

MARGIN = 84
"""Bins added on each side: 0.6 in ln E, more than the largest shift and a few widths of the smoothing."""


def places(margin: int = 0) -> Tensor:
    """Middles of the bins in units where the grid spans -1 ... 1, shape (600 + 2 margin,)."""
    return (torch.arange(-margin, COUNT + margin) + 0.5) * (2.0 / COUNT) - 1.0


def taper() -> Tensor:
    """1 on the grid, a cosine down to 0 over the margins, shape (600 + 2 MARGIN,)."""
    side = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(MARGIN) + 0.5) / MARGIN)
    return torch.cat([side, torch.ones(COUNT), side.flip(0)])


def moved_sum(templates: Tensor, amplitude: Tensor, shift: Tensor, width: Tensor) -> Tensor:
    """Sum of shifted and smoothed templates: summed before the one inverse transform per spectrum.

    Parameters
    ----------
    templates : Tensor, shape (M, 600 + 2 MARGIN)
        Already tapered.
    amplitude, shift, width : Tensor, shape (..., M)
        Shift and width of the smoothing in bins.

    Returns
    -------
    Tensor, shape (..., 600)
    """
    count = templates.shape[-1]
    transform = torch.fft.rfft(templates)
    omega = 2.0 * math.pi * torch.fft.rfftfreq(count, dtype=templates.dtype, device=templates.device)
    damping = amplitude.unsqueeze(-1) * torch.exp(-0.5 * (omega * width.unsqueeze(-1)) ** 2)
    phase = omega * shift.unsqueeze(-1)
    factor = torch.complex(damping * torch.cos(phase), -damping * torch.sin(phase))
    total = (factor * transform).sum(-2)
    return torch.fft.irfft(total, n=count)[..., MARGIN : MARGIN + COUNT]
