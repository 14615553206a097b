"""The branch: latent coordinates to amplitudes, shifts and smoothings of the templates."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


def perceptron(sizes: list[int], last: bool = True) -> nn.Sequential:
    """Linear layers with SiLU between them; none after the last one unless `last` is False."""
    parts: list[nn.Module] = []
    for index, (a, b) in enumerate(pairwise(sizes)):
        parts.append(nn.Linear(a, b))
        if not last or index < len(sizes) - 2:
            parts.append(nn.SiLU())
    return nn.Sequential(*parts)


@dataclass(frozen=True, eq=False)
class Coefficients:
    """What the branch says of a batch of latent points.

    Attributes
    ----------
    amplitude : Tensor, shape (..., K)
    slope : Tensor, shape (..., 2)
        Of x and x^2 in ln flux.
    shift, width : Tensor, shape (..., M)
        In bins of ln E, for the M templates that move.
    """

    amplitude: Tensor
    slope: Tensor
    shift: Tensor
    width: Tensor


class Branch(nn.Module):
    """A perceptron with one output per number that the templates need.

    Parameters
    ----------
    latent, templates, moving : int
        Latent coordinates; templates; how many of these shift and smooth.
    widths : tuple of int
        Hidden layers.
    largest_shift : float
        Bins; a tanh keeps shifts within it.
    """

    def __init__(self, latent: int, templates: int, moving: int, widths: tuple[int, ...], largest_shift: float = 60.0):
        super().__init__()
        self.templates, self.moving, self.largest_shift = templates, moving, float(largest_shift)
        self.net = perceptron([latent, *widths, templates + 2 + 2 * moving])

    def forward(self, z: Tensor) -> Coefficients:
        """Coefficients for latent points z, shape (..., latent)."""
        amplitude, slope, shift, width = torch.split(self.net(z), [self.templates, 2, self.moving, self.moving], dim=-1)
        return Coefficients(
            amplitude, slope, self.largest_shift * torch.tanh(shift), 3.0 * torch.nn.functional.softplus(width)
        )
