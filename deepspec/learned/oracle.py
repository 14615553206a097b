"""The oracle encoder: where in latent space a spectrum lies that is known exactly.

It serves the training of the decoder alone. Its answer has the form of a Laplace approximation: an information per latent
coordinate that grows with the reference counts, ``info = N exp(o)``, and a prior N(0,1), so that width and shrinkage have the
right dependence on N by construction: ``mean = m info / (1 + info)``, ``sd = (1 + info)^(-1/2)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepspec.learned.branch import perceptron
from deepspec.learned.settings import Settings, require

GROUP = 3
"""Bins of the grid averaged for the input: 200 numbers."""


@dataclass(frozen=True)
class OracleConfig(Settings):
    """What an oracle is made of: latent coordinates and hidden widths."""

    latent: int = 12
    widths: tuple = (384, 256, 256)

    def __post_init__(self):
        require(1 <= self.latent <= 64, "latent", self.latent, "1 to 64")
        require(all(isinstance(w, int) and w > 0 for w in self.widths), "widths", self.widths, "positive whole numbers")


class Oracle(nn.Module):
    """Known spectrum, foreground and reference counts to a Gaussian over latent coordinates."""

    def __init__(self, config: OracleConfig):
        super().__init__()
        self.config = config
        self.net = perceptron([600 // GROUP + 3, *config.widths, 2 * config.latent])
        with torch.no_grad():
            # Start near what data of some thousand counts tell: an information of about one per coordinate.
            self.net[-1].bias[config.latent :] = -6.0

    def forward(self, shape: Tensor, log_counts: Tensor, log_nH: Tensor, absorbed: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent coordinates.

        Parameters
        ----------
        shape : Tensor, shape (..., 600)
            Photons per bin, in any unit.
        log_counts : Tensor, shape (...)
            ln of the reference counts N.
        log_nH : Tensor, shape (...)
            log10 of the foreground column [1e22 cm^-2]; not used where there is none.
        absorbed : Tensor, shape (...)
            1 where the spectrum is seen through the foreground, else 0.

        Returns
        -------
        mean, sd : Tensor, shape (..., latent)
        """
        y = torch.log(shape.clamp(min=1e-30)).unflatten(-1, (-1, GROUP)).mean(-1)
        y = ((y - y.mean(-1, keepdim=True)) / 2.0).clamp(-8.0, 8.0)
        others = torch.stack([(log_counts - 9.8) / 2.0, absorbed * (log_nH + 1.0), absorbed], -1)
        m, o = self.net(torch.cat([y, others], -1)).chunk(2, -1)
        information = torch.exp((log_counts.unsqueeze(-1) + o).clamp(-20.0, 25.0))
        return m * information / (1.0 + information), torch.rsqrt(1.0 + information)


def build_oracle(config: OracleConfig) -> Oracle:
    """The oracle that the settings describe, with random weights."""
    return Oracle(config)
