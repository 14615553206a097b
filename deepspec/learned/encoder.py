"""Encoders: from the counts of one observation to a distribution over latent coordinates, absorption and brightness.

An encoder sees counts, background and effective area on the bins of `grids.DETECTOR_EDGES`, so that one network serves every
camera. It answers with a Gaussian over (u, v, c): u the latent coordinates of the decoder, v the standardised
log10 nH, c = ln of the expected source counts. Its start knows what no training should have to find: without signal the
answer is the prior, and with a signal-to-noise ratio s the widths fall as 1/s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepspec.learned.branch import perceptron
from deepspec.learned.grids import DETECTOR_COUNT
from deepspec.learned.settings import Settings, require
from deepspec.registry import Registry

ENCODERS = Registry(
    "encoder",
    {
        "mlp": "deepspec.learned.encoder:PerceptronBody",
        "mixer": "deepspec.learned.mixer:MixerBody",
    },
)
"""Bodies by name: ``(config) -> nn.Module`` from features to the numbers that make the distribution."""

LOG_NH_MEAN, LOG_NH_SPREAD = -1.0, 0.6
"""v = (log10(nH / 1e22 cm^-2) - mean) / spread has the prior N(0,1)."""
LARGEST_OFFSET = 5.0
"""c stays within this of ln of the net counts: nothing else holds it where there is no signal."""
LARGEST_SPREAD = 2.0
"""Standard deviation of c without signal."""
AREA_FLOOR = 1e-3
"""Relative effective area where there is no channel, or none that is used."""
RATIOS = (0.02, 2.0)
"""Background scalings beyond these look like them: the training draws none, and less than the first hardly differs from none."""
CHANNELS = 4
"""Numbers per bin that an encoder sees."""
GLOBALS = 2
"""Numbers per spectrum."""


@dataclass(frozen=True)
class EncoderConfig(Settings):
    """Settings of an encoder.

    Attributes
    ----------
    kind : str
        "mlp" or "mixer".
    latent : int
        Latent coordinates D; the answer has D + 2 dimensions.
    widths : tuple of int
        Hidden layers of the perceptron; of the mixer, those after its blocks.
    patch, width, blocks, token_hidden, channel_hidden : int
        Mixer only: bins per token, numbers per token, blocks, hidden units of the two perceptrons of a block.
    """

    kind: str = "mlp"
    latent: int = 12
    widths: tuple = (320, 256, 256)
    patch: int = 14
    width: int = 64
    blocks: int = 4
    token_hidden: int = 64
    channel_hidden: int = 128

    def __post_init__(self) -> None:
        require(self.kind in ENCODERS, "kind", self.kind, f"one of {', '.join(ENCODERS)}")
        require(self.latent >= 1, "latent", self.latent, "at least 1")
        wide = all(isinstance(w, int) and not isinstance(w, bool) and w > 0 for w in self.widths)
        require(wide and len(self.widths) > 0, "widths", self.widths, "one positive whole number or more")
        for name in ("width", "blocks", "token_hidden", "channel_hidden"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        divides = self.patch >= 1 and DETECTOR_COUNT % self.patch == 0
        require(divides, "patch", self.patch, f"a divisor of {DETECTOR_COUNT}: 7, 14, 17, 34")

    @property
    def dimension(self) -> int:
        """Of the distribution: D + 2."""
        return self.latent + 2

    @property
    def outputs(self) -> int:
        """Numbers that the body gives: mean, precisions, and what ties the dimensions to each other."""
        return 2 * self.dimension + self.dimension * (self.dimension - 1) // 2


@dataclass(frozen=True, eq=False)
class EncoderInput:
    """One batch of observations as an encoder sees them; bins are those of `grids.DETECTOR_EDGES`.

    Attributes
    ----------
    counts : Tensor, shape (..., 238) [count]
        In the source region.
    background : Tensor, shape (..., 238) [count]
        In the background region; zero without one.
    ratio : Tensor, shape (..., 1)
        Source-region background per background-region count; zero without background.
    area : Tensor, shape (..., 238)
        Effective area relative to its largest value.
    valid : Tensor, shape (..., 238), bool
        Bins that are used.
    """

    counts: Tensor
    background: Tensor
    ratio: Tensor
    area: Tensor
    valid: Tensor

    def masked(self, floor: float | Tensor = AREA_FLOOR) -> EncoderInput:
        """The same with nothing in the bins that are not used, and an area of `floor` there."""
        keep = self.valid.to(self.counts.dtype)
        area = torch.clamp(self.area * keep, min=floor)
        return EncoderInput(self.counts * keep, self.background * keep, self.ratio, area, self.valid)

    def strength(self) -> tuple[Tensor, Tensor]:
        """Net counts, and the square of their ratio to the noise; shapes (..., 1), both positive.

        Where the net counts are below the noise σ (σ² the variance of net counts, plus one) they are replaced, smoothly,
        by a number near σ/2.
        """
        net = self.counts.sum(-1, keepdim=True) - self.ratio * self.background.sum(-1, keepdim=True)
        variance = self.counts.sum(-1, keepdim=True) + self.ratio**2 * self.background.sum(-1, keepdim=True) + 1.0
        root = torch.sqrt(net * net + variance)
        # The form without cancellation for either sign
        positive = 0.5 * torch.where(net > 0, root + net, variance / (root + net.abs()))
        return positive, positive * positive / variance


@dataclass(frozen=True, eq=False)
class Posterior:
    """A Gaussian over (u_1 ... u_D, v, c).

    Attributes
    ----------
    mean : Tensor, shape (..., D + 2)
    tril : Tensor, shape (..., D + 2, D + 2)
        Lower-triangular Cholesky factor of the covariance.
    """

    mean: Tensor
    tril: Tensor

    @property
    def covariance(self) -> Tensor:
        """Shape (..., D + 2, D + 2)."""
        return self.tril @ self.tril.transpose(-1, -2)

    @property
    def spread(self) -> Tensor:
        """Standard deviations, shape (..., D + 2)."""
        return self.tril.square().sum(-1).sqrt()

    def draw(self, noise: Tensor) -> Tensor:
        """Draws for standard normal `noise` of shape (..., D + 2), differentiable."""
        return self.mean + (self.tril @ noise.unsqueeze(-1)).squeeze(-1)

    def divergence(self) -> Tensor:
        """KL[q || N(0,1) on u and v] less the entropy that c adds, shape (...,) [nat].

        c has no prior: only its entropy counts (given u and v), up to a constant. The part of u and v alone is the
        ordinary KL between two Gaussians.
        """
        inside = self.mean[..., :-1].square().sum(-1) + self.tril[..., :-1, :].square().sum((-1, -2))
        entropy = torch.log(torch.diagonal(self.tril, dim1=-2, dim2=-1)).sum(-1)
        return 0.5 * (inside - (self.mean.shape[-1] - 1)) - entropy

    def log_density(self, at: Tensor) -> Tensor:
        """ln q at points of shape (..., D + 2) [nat]."""
        white = torch.linalg.solve_triangular(self.tril, (at - self.mean).unsqueeze(-1), upper=False).squeeze(-1)
        diagonal = torch.diagonal(self.tril, dim1=-2, dim2=-1)
        return -0.5 * (white.square() + math.log(2 * math.pi)).sum(-1) - torch.log(diagonal).sum(-1)


def column_density(v: Tensor) -> Tensor:
    """nH [1e22 cm^-2] of the standardised coordinate v."""
    return torch.exp(math.log(10.0) * (LOG_NH_MEAN + LOG_NH_SPREAD * v))


def standardised(log_nH: Tensor) -> Tensor:
    """The coordinate v of log10(nH / 1e22 cm^-2)."""
    return (log_nH - LOG_NH_MEAN) / LOG_NH_SPREAD


class Encoder(nn.Module):
    """Features of an observation, a body, and the distribution that the body's numbers make.

    Parameters
    ----------
    config : EncoderConfig

    Notes
    -----
    Every constant that the answer depends on is a buffer, stored with the weights: the shifts and scales that bring features
    near N(0,1), the floor of the area, the limits of c and of the background scaling.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.register_buffer("offset", torch.tensor([1.0, 0.8, 0.3, -1.2]))
        self.register_buffer("scale", torch.tensor([1.2, 0.6, 0.6, 1.2]))
        self.register_buffer("global_offset", torch.tensor([6.0, -2.0]))
        self.register_buffer("global_scale", torch.tensor([2.0, 1.5]))
        self.register_buffer("limits", torch.tensor([LARGEST_OFFSET, LARGEST_SPREAD, AREA_FLOOR, *RATIOS]))
        self.body = ENCODERS[config.kind](config)
        below = torch.tril_indices(config.dimension, config.dimension, offset=-1)
        self.register_buffer("_below", below[0] * config.dimension + below[1], persistent=False)

    @property
    def latent(self) -> int:
        """Number of latent coordinates."""
        return self.config.latent

    def features(self, seen: EncoderInput) -> tuple[Tensor, Tensor]:
        """Per bin, shape (..., 4, 238), and per spectrum, shape (..., 2); `seen` is masked.

        ln(1+n), sqrt(n / mean n), ln(1+αb) and ln of the relative area; ln of the net counts and ln α.
        """
        n, scaled = seen.counts, seen.ratio * seen.background
        share = n * DETECTOR_COUNT / n.sum(-1, keepdim=True).clamp(min=1.0)
        channels = torch.stack([torch.log1p(n), torch.sqrt(share), torch.log1p(scaled), torch.log(seen.area)], dim=-2)
        net, _ = seen.strength()
        ratio = torch.clamp(seen.ratio, self.limits[3], self.limits[4])
        whole = torch.cat([torch.log(net), torch.log(ratio).expand_as(net)], dim=-1)
        channels = (channels - self.offset.unsqueeze(-1)) / self.scale.unsqueeze(-1)
        return channels, (whole - self.global_offset) / self.global_scale

    def forward(self, seen: EncoderInput) -> Posterior:
        """The distribution over (u, v, c) of each observation."""
        seen = seen.masked(self.limits[2])
        channels, whole = self.features(seen)
        numbers = self.body(channels, whole)
        return self._posterior(numbers, *seen.strength())

    def _posterior(self, numbers: Tensor, net: Tensor, strength: Tensor) -> Posterior:
        size = self.config.dimension
        mean, log_information, ties = torch.split(numbers, [size, size, size * (size - 1) // 2], dim=-1)
        # A Laplace approximation with one unit of prior precision: width and shrinkage go with the signal by construction
        information = strength * torch.exp(log_information.clamp(-12.0, 12.0))
        spread = torch.rsqrt(1.0 + information)
        centre = mean * (information / (1.0 + information))
        farthest, widest = self.limits[0], self.limits[1]
        brightness = torch.log(net) + farthest * torch.tanh(mean[..., -1:] / farthest)
        width = torch.rsqrt(widest**-2 + information[..., -1:])
        spread = torch.cat([spread[..., :-1], width], dim=-1)
        # Rows of a unit triangle times the widths: ties are free of scale
        unit = torch.zeros(*ties.shape[:-1], size * size, dtype=ties.dtype, device=ties.device)
        unit = unit.index_copy(-1, self._below, ties).unflatten(-1, (size, size))
        unit = unit + torch.eye(size, dtype=ties.dtype, device=ties.device)
        return Posterior(torch.cat([centre[..., :-1], brightness], dim=-1), spread.unsqueeze(-1) * unit)


class PerceptronBody(nn.Module):
    """All features of all bins into one perceptron."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.net = perceptron([CHANNELS * DETECTOR_COUNT + GLOBALS, *config.widths, config.outputs])
        start_quietly(self.net[-1], config)

    def forward(self, channels: Tensor, whole: Tensor) -> Tensor:
        """Numbers of the distribution, shape (..., outputs)."""
        return self.net(torch.cat([channels.flatten(-2), whole], dim=-1))


def start_quietly(last: nn.Linear, config: EncoderConfig) -> None:
    """Let the last layer start near the prior: small means, wide, without ties."""
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.zero_()
        # A latent coordinate learns its share of information; brightness has all of it (width 1/s)
        last.bias[config.dimension : 2 * config.dimension - 1] = -3.0


def build_encoder(config: EncoderConfig) -> Encoder:
    """The encoder that `config` describes, with fresh weights from torch's global generator."""
    return Encoder(config)


def parameter_count(module: nn.Module) -> int:
    """Trained numbers of a module."""
    return sum(p.numel() for p in module.parameters())
