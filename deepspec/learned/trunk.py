"""The trunk: spectral templates over ln E, a SIREN (Sitzmann et al. 2020, arXiv:2006.09661)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn


class Siren(nn.Module):
    """Sine layers of one coordinate.

    ``h1 = sin(frequency W1 x + b1)``, ``h_{i+1} = sin(W h_i + b)``, ``out = W_o h``. Weights start uniform: W1 within 1,
    hidden ones within sqrt(6 / width) (which keeps the spread of every layer's arguments at 1, section 3.2 of the paper), the
    last ones at 0.4 of that, phases within pi.

    Parameters
    ----------
    outputs : int
        Number of templates.
    width, layers : int
        Units of a sine layer; number of sine layers.
    frequency : float
        The paper's omega_0: how fast the first layer oscillates over x in -1 ... 1.
    """

    def __init__(self, outputs: int, width: int = 128, layers: int = 3, frequency: float = 30.0):
        super().__init__()
        self.frequency = float(frequency)
        sizes = [1] + [width] * layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.out = nn.Linear(width, outputs)
        spread = math.sqrt(6.0 / width)
        for index, layer in enumerate(self.hidden):
            nn.init.uniform_(layer.weight, *((-1.0, 1.0) if index == 0 else (-spread, spread)))
            nn.init.uniform_(layer.bias, -math.pi, math.pi)
        nn.init.uniform_(self.out.weight, -0.4 * spread, 0.4 * spread)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Templates at x.

        Parameters
        ----------
        x : Tensor, shape (n,)
            ln E scaled to -1 ... 1 on the grid.

        Returns
        -------
        Tensor, shape (outputs, n)
        """
        first, *others = self.hidden
        h = torch.sin(self.frequency * (x.unsqueeze(-1) @ first.weight.T) + first.bias)
        for layer in others:
            h = torch.sin(layer(h))
        return self.out(h).T
