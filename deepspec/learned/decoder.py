"""Decoders: latent coordinates to the photons per bin of a spectrum of unit energy flux.

The DeepONet has templates over ln E (the trunk) and amplitudes, shifts and smoothings of them (the branch). Templates add
up in ln flux ("log": multiplying a continuum by what absorbs or bends it is a sum there), in flux ("linear": parts of a source
are a sum there, and none is negative), or half and half ("both"). ``ComposedDecoder`` puts a flow before it, so that the
coordinates a user sees have the prior N(0,1) exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from deepspec.learned.branch import Branch, Coefficients, perceptron
from deepspec.learned.flow import Flow
from deepspec.learned.grids import BAND, CENTRES, COUNT, ENERGY_WEIGHTS
from deepspec.learned.settings import Settings, require
from deepspec.learned.shifting import MARGIN, moved_sum, places, taper
from deepspec.learned.trunk import Siren

CEILING = 30.0
"""ln density may exceed its maximum inside the band by this much outside of it, no more."""


@dataclass(frozen=True)
class DecoderConfig(Settings):
    """What a decoder is made of; a file of weights holds it.

    Parameters
    ----------
    kind : "deeponet" or "mlp"
        The latter has no templates: a perceptron from latent coordinates to ln density on the grid, for comparison.
    latent : int
    templates : int
        Without the fixed mean template.
    combine : "log", "linear" or "both"
    moving : int
        How many templates shift and smooth; 0 is the plain DeepONet.
    trunk_width, trunk_layers, frequency
        Of the SIREN.
    branch : tuple of int
        Hidden widths; of the whole network for kind "mlp".
    largest_shift : float
        Bins of 0.7 % in energy.
    """

    kind: str = "deeponet"
    latent: int = 12
    templates: int = 64
    combine: str = "log"
    moving: int = 0
    trunk_width: int = 128
    trunk_layers: int = 3
    frequency: float = 30.0
    branch: tuple = (192, 192)
    largest_shift: float = 60.0

    def __post_init__(self):
        require(self.kind in ("deeponet", "mlp"), "kind", self.kind, '"deeponet" or "mlp"')
        require(self.combine in ("log", "linear", "both"), "combine", self.combine, '"log", "linear" or "both"')
        require(1 <= self.latent <= 64, "latent", self.latent, "1 to 64")
        require(
            self.combine != "both" or self.templates >= 2, "templates", self.templates, "2 or more to combine both ways"
        )
        require(1 <= self.templates <= 1024, "templates", self.templates, "1 to 1024")
        most = self.templates // 2 if self.combine == "both" else self.templates
        require(0 <= self.moving <= most, "moving", self.moving, f"0 to {most} with these templates")
        require(self.trunk_width >= 1, "trunk_width", self.trunk_width, "1 or more")
        require(self.trunk_layers >= 1, "trunk_layers", self.trunk_layers, "1 or more")
        require(self.frequency > 0, "frequency", self.frequency, "positive")
        require(0 < self.largest_shift < MARGIN, "largest_shift", self.largest_shift, f"between 0 and {MARGIN} bins")
        require(all(isinstance(w, int) and w > 0 for w in self.branch), "branch", self.branch, "positive whole numbers")

    @property
    def logarithmic(self) -> int:
        """Number of templates that add up in ln flux; the first ones."""
        return {"log": self.templates, "linear": 0, "both": self.templates // 2}[self.combine]


class Table(NamedTuple):
    """The templates on the grid, as the decoder uses them.

    Attributes
    ----------
    mean : Tensor, shape (600,)
    log : Tensor, shape (K_log, 600)
        Those in ln flux that stay.
    linear : Tensor, shape (K_linear, 600)
        Those in flux that stay; none is negative.
    moving : Tensor, shape (M, 600 + 2 MARGIN)
        Those that shift and smooth, tapered.
    """

    mean: Tensor
    log: Tensor
    linear: Tensor
    moving: Tensor


class Decoder(nn.Module):
    """What all decoders share: `log_density` of the subclass, normalised to unit energy flux."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.latent = config.latent
        within = np.flatnonzero((CENTRES > BAND[0]) & (CENTRES < BAND[1]))
        self.inside = slice(int(within[0]), int(within[-1]) + 1)
        self.register_buffer("weights", torch.as_tensor(ENERGY_WEIGHTS, dtype=torch.float32), persistent=False)

    def table(self) -> Table | None:
        """What does not depend on the latent coordinates; give it to `forward` to evaluate it once for many calls."""
        return None

    def log_density(self, z: Tensor, table: Table | None = None) -> Tensor:
        """ln of photons per ln E, up to a constant, shape (..., 600), for z of shape (..., latent)."""
        raise NotImplementedError

    def forward(self, z: Tensor, table: Table | None = None) -> Tensor:
        """Photons cm^-2 s^-1 per bin, of unit energy flux in 0.3-10 keV.

        Parameters
        ----------
        z : Tensor, shape (..., latent)
        table : Table, optional
            From `table()`, if it was evaluated before.

        Returns
        -------
        Tensor, shape (..., 600)
        """
        return self.normalised(self.log_density(z, table))

    def normalised(self, y: Tensor) -> Tensor:
        """Photons per bin of unit energy flux, from ln density up to a constant, shape (..., 600)."""
        # The largest value inside the band, so that a tail running away outside of it cannot underflow the rest.
        top = y.detach()[..., self.inside].amax(-1, keepdim=True)
        photons = torch.exp((y - top).clamp(max=CEILING))
        return photons / (photons @ self.weights.to(photons.dtype)).unsqueeze(-1)


class DeepONet(Decoder):
    """Templates of a SIREN, combined by a branch."""

    def __init__(self, config: DecoderConfig):
        super().__init__(config)
        self.trunk = Siren(config.templates + 1, config.trunk_width, config.trunk_layers, config.frequency)
        self.branch = Branch(config.latent, config.templates, config.moving, tuple(config.branch), config.largest_shift)
        self.register_buffer("x", places(MARGIN if config.moving else 0), persistent=False)
        self.register_buffer("taper", taper(), persistent=False)

    def table(self) -> Table:
        """The templates, evaluated on the grid."""
        config, templates = self.config, self.trunk(self.x)
        grid = slice(MARGIN, MARGIN + COUNT) if config.moving else slice(None)
        mean, log, linear = torch.split(templates, [1, config.logarithmic, config.templates - config.logarithmic])
        if config.combine == "linear":
            linear = torch.exp(linear)
            moving, linear = linear[: config.moving], linear[config.moving :]
        else:
            moving, log = log[: config.moving], log[config.moving :]
            linear = torch.exp(linear)
        moving = moving * self.taper if config.moving else moving
        return Table(mean[0, grid], log[:, grid], linear[:, grid], moving)

    def log_density(self, z: Tensor, table: Table | None = None) -> Tensor:
        table = self.table() if table is None else table
        return combined(self.config, self.branch(z), table, self.x_grid)

    @property
    def x_grid(self) -> Tensor:
        """Middles of the bins of the grid on -1 ... 1, shape (600,)."""
        return self.x[MARGIN : MARGIN + COUNT] if self.config.moving else self.x


def combined(config: DecoderConfig, found: Coefficients, table: Table, x: Tensor) -> Tensor:
    """ln density from coefficients and templates, shape (..., 600)."""
    slope = found.slope[..., :1] * x + found.slope[..., 1:] * x**2
    if config.combine == "linear":
        weights = torch.exp(found.amplitude.clamp(max=CEILING))
        flux = weights[..., config.moving :] @ table.linear
        if config.moving:
            # an exact shift of a sharp template rings a little below zero
            flux = flux + moved_sum(table.moving, weights[..., : config.moving], found.shift, found.width).clamp(
                min=0.0
            )
        return torch.log(flux + 1e-20) + slope
    logarithmic = config.logarithmic
    y = table.mean + found.amplitude[..., config.moving : logarithmic] @ table.log + slope
    if config.moving:
        y = y + moved_sum(table.moving, found.amplitude[..., : config.moving], found.shift, found.width)
    if config.combine == "both":
        weights = torch.exp(found.amplitude[..., logarithmic:].clamp(max=CEILING))
        y = torch.logaddexp(y, torch.log(weights @ table.linear + 1e-20))
    return y


class MLPDecoder(Decoder):
    """A perceptron from latent coordinates to ln density on the grid: no templates, for comparison."""

    def __init__(self, config: DecoderConfig):
        super().__init__(config)
        self.net = perceptron([config.latent, *config.branch, COUNT])

    def log_density(self, z: Tensor, table: Table | None = None) -> Tensor:
        return self.net(z)


class ComposedDecoder(nn.Module):
    """A flow, which makes the prior of the coordinates N(0,1), and a decoder after it.

    Parameters
    ----------
    decoder : Decoder
    flow : Flow or None
        None: the coordinates are those of the decoder.
    """

    def __init__(self, decoder: Decoder, flow: Flow | None = None):
        super().__init__()
        self.decoder, self.flow = decoder, flow
        self.latent = decoder.latent

    def table(self) -> Table | None:
        return self.decoder.table()

    def inner(self, u: Tensor) -> Tensor:
        """The decoder's own coordinates, shape (..., latent)."""
        return u if self.flow is None else self.flow(u)

    def log_density(self, u: Tensor, table: Table | None = None) -> Tensor:
        """As `Decoder.log_density`, for the coordinates a user sees."""
        return self.decoder.log_density(self.inner(u), table)

    def forward(self, u: Tensor, table: Table | None = None) -> Tensor:
        """As `Decoder.forward`, for the coordinates a user sees."""
        return self.decoder(self.inner(u), table)


def build_decoder(config: DecoderConfig) -> Decoder:
    """The decoder that the settings describe, with random weights from torch's own generator."""
    return {"deeponet": DeepONet, "mlp": MLPDecoder}[config.kind](config)
