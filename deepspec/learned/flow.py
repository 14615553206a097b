"""A normalizing flow from N(0,1) to where sources lie: coupling layers of rational-quadratic splines.

Durkan et al. 2019 (arXiv:1906.04032): one half of the coordinates decides a monotonic spline for each of the other half,
identity outside -TAIL ... TAIL. Fixed rotations mix the halves between the layers; a triangular matrix and an offset at the end take
up means and covariances.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepspec.learned.branch import perceptron
from deepspec.learned.settings import Settings, require

TAIL = 5.0
SMALLEST = 1e-3
"""Smallest share of a bin's width and height, and smallest slope at a knot, as in the paper's code."""


@dataclass(frozen=True)
class FlowConfig(Settings):
    """What a flow is made of.

    Parameters
    ----------
    latent : int
    transforms : int
        Coupling layers; 0 leaves the triangular matrix alone.
    bins : int
        Of each spline.
    hidden : tuple of int
        Widths of the network of each coupling layer.
    """

    latent: int = 12
    transforms: int = 4
    bins: int = 8
    hidden: tuple = (64, 64)

    def __post_init__(self):
        require(1 <= self.latent <= 64, "latent", self.latent, "1 to 64")
        require(0 <= self.transforms <= 64, "transforms", self.transforms, "0 to 64")
        require(self.latent > 1 or self.transforms == 0, "transforms", self.transforms, "0 for one latent coordinate")
        require(2 <= self.bins <= 64, "bins", self.bins, "2 to 64")
        require(all(isinstance(w, int) and w > 0 for w in self.hidden), "hidden", self.hidden, "positive whole numbers")


def knots(raw: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places, values (..., bins + 1) and slopes (..., bins + 1) of the knots from raw numbers (..., 3 bins - 1)."""
    widths, heights, slopes = torch.split(raw, [bins, bins, bins - 1], dim=-1)
    x, y = (_edges(part, bins) for part in (widths, heights))
    # softplus(0.5413) = 1: raw numbers of zero make the identity
    inner = SMALLEST + (1.0 - SMALLEST) * torch.nn.functional.softplus(slopes + 0.541324855)
    one = torch.ones_like(inner[..., :1])
    return x, y, torch.cat([one, inner, one], -1)


def _edges(raw: Tensor, bins: int) -> Tensor:
    share = SMALLEST + (1.0 - SMALLEST * bins) * torch.softmax(raw, -1)
    inner = torch.cumsum(share[..., :-1], -1)
    ends = torch.zeros_like(share[..., :1]), torch.ones_like(share[..., :1])
    return 2.0 * TAIL * torch.cat([ends[0], inner, ends[1]], -1) - TAIL


def spline(value: Tensor, raw: Tensor, bins: int, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Monotonic rational-quadratic spline and ln of its derivative, both of the shape of `value`.

    Parameters
    ----------
    value : Tensor, shape (..., d)
    raw : Tensor, shape (..., d, 3 bins - 1)
    inverse : bool
    """
    x, y, slope = knots(raw, bins)
    inside = (value > -TAIL) & (value < TAIL)
    safe = torch.where(inside, value, torch.zeros_like(value))
    index = (
        torch.searchsorted(
            (y if inverse else x).detach().contiguous(), safe.detach().unsqueeze(-1).contiguous(), right=True
        )
        - 1
    ).clamp(0, bins - 1)

    def at(table: Tensor, offset: int = 0) -> Tensor:
        return table.gather(-1, index + offset).squeeze(-1)

    x0, y0, d0, d1 = at(x), at(y), at(slope), at(slope, 1)
    width, height = at(x, 1) - x0, at(y, 1) - y0
    s = height / width
    bend = d0 + d1 - 2.0 * s
    if inverse:
        rise = safe - y0
        a = height * (s - d0) + rise * bend
        b = height * d0 - rise * bend
        c = -s * rise
        root = torch.sqrt((b * b - 4.0 * a * c).clamp(min=0.0))
        # the form without cancellation for either sign of b; a > 0 where b < 0, since a + b = s height
        t = torch.where(b < 0, (root - b) / torch.where(b < 0, 2.0 * a, 1.0), -2.0 * c / (b.clamp(min=0.0) + root))
    else:
        t = (safe - x0) / width
    both = t * (1.0 - t)
    below = s + bend * both
    log_slope = (
        2.0 * torch.log(s) + torch.log(d1 * t**2 + 2.0 * s * both + d0 * (1.0 - t) ** 2) - 2.0 * torch.log(below)
    )
    result = x0 + t * width if inverse else y0 + height * (s * t**2 + d0 * both) / below
    log_slope = -log_slope if inverse else log_slope
    return torch.where(inside, result, value), torch.where(inside, log_slope, torch.zeros_like(value))


class Coupling(nn.Module):
    """A rotation, then splines of the second half of the coordinates decided by the first half."""

    def __init__(self, config: FlowConfig, rotation: Tensor):
        super().__init__()
        self.bins = config.bins
        self.kept = config.latent - config.latent // 2
        self.moved = config.latent // 2
        self.net = perceptron([self.kept, *config.hidden, self.moved * (3 * config.bins - 1)])
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)
        self.register_buffer("rotation", rotation)

    def _raw(self, kept: Tensor) -> Tensor:
        return self.net(kept).unflatten(-1, (self.moved, 3 * self.bins - 1))

    def forward(self, u: Tensor) -> Tensor:
        u = u @ self.rotation
        kept, moved = u[..., : self.kept], u[..., self.kept :]
        return torch.cat([kept, spline(moved, self._raw(kept), self.bins)[0]], -1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = z[..., : self.kept], z[..., self.kept :]
        moved, log_slope = spline(moved, self._raw(kept), self.bins, inverse=True)
        return torch.cat([kept, moved], -1) @ self.rotation.T, log_slope.sum(-1)


class Flow(nn.Module):
    """Coordinates u of prior N(0,1) to the decoder's coordinates z, and back."""

    def __init__(self, config: FlowConfig):
        super().__init__()
        self.config = config
        d = config.latent
        rotations = [torch.linalg.qr(torch.randn(d, d))[0] for _ in range(config.transforms)]
        self.layers = nn.ModuleList(Coupling(config, rotation) for rotation in rotations)
        self.log_scale = nn.Parameter(torch.zeros(d))
        self.lower = nn.Parameter(torch.zeros(d, d))
        self.offset = nn.Parameter(torch.zeros(d))

    def matrix(self) -> Tensor:
        """The triangular matrix of the last step, shape (latent, latent)."""
        return torch.tril(self.lower, -1) + torch.diag(torch.exp(self.log_scale))

    @torch.no_grad()
    def fit_gaussian(self, samples: Tensor) -> None:
        """Start from the mean and covariance of samples, shape (n, latent)."""
        factor = torch.linalg.cholesky(torch.cov(samples.double().T).reshape(self.config.latent, -1)).to(self.lower)
        self.log_scale.copy_(torch.log(torch.diagonal(factor)))
        self.lower.copy_(torch.tril(factor, -1))
        self.offset.copy_(samples.mean(0))

    def forward(self, u: Tensor) -> Tensor:
        """z for u, both of shape (..., latent)."""
        for layer in self.layers:
            u = layer(u)
        return u @ self.matrix().T + self.offset

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """u for z, and ln |du/dz| of shape (...)."""
        u = torch.linalg.solve_triangular(
            self.matrix(), (z - self.offset).reshape(-1, self.config.latent).T, upper=False
        )
        u = u.T.reshape(z.shape)
        log_slope = -self.log_scale.sum().expand(z.shape[:-1])
        for layer in reversed(self.layers):
            u, change = layer.inverse(u)
            log_slope = log_slope + change
        return u, log_slope

    def log_prob(self, z: Tensor) -> Tensor:
        """ln of the density of z, shape (...)."""
        u, log_slope = self.inverse(z)
        return log_slope - 0.5 * (u**2 + 1.8378770664093453).sum(-1)


def build_flow(config: FlowConfig) -> Flow:
    """The flow that the settings describe, random where it starts at random."""
    return Flow(config)
