"""Posteriors of simulated observations of known background, many at once: what coverage is measured with.

The coordinates of the sampler all have the prior N(0,1): latents as they are; log10 nH and ln of the expected source counts through the
quantiles of their priors. The priors are those that the truths were drawn from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from quick_flow import QuickFlow
from torch import Tensor

from deepspec.inference.smc import Draws, StandardNormal, TemperOptions, temper
from deepspec.learned.decoder import ComposedDecoder, Table
from deepspec.learned.grids import energy_weights
from deepspec.training.acceptance import View
from deepspec.training.foreground import DEVIATION, LIMITS, MEAN

BANDS = {"0.5-2": (0.5, 2.0), "2-10": (2.0, 10.0)}
QUANTITIES = ("unabsorbed 0.5-2", "unabsorbed 2-10", "absorbed 0.5-2", "absorbed 2-10", "nH")
SPREAD = 0.7
"""ln of the expected counts is drawn this far to both sides of that of the count level, and has this prior."""


@dataclass(frozen=True, eq=False)
class Observations:
    """Counts of simulated sources in the bins of a camera.

    Attributes
    ----------
    counts : Tensor, shape (P, 238)
    background : Tensor, shape (P, 238)
        Expected, known.
    level : float
        Expected source counts in the middle of their range.
    truth : Tensor, shape (P, 5)
        log10 of QUANTITIES: energy fluxes for an exposure of 1 s, and nH.
    """

    counts: Tensor
    background: Tensor
    level: float
    truth: Tensor

    def __len__(self) -> int:
        return len(self.counts)


def observe(
    shape: Tensor, log_nH: Tensor, view: View, background: Tensor, level: float, generator: torch.Generator
) -> Observations:
    """Draw counts of sources (P, 600), with a background of 0.5 % to 50 % of the source's counts."""
    size = len(shape)
    uniform = torch.rand((2, size), generator=generator, dtype=torch.float64)
    log_counts = math.log(level) + SPREAD * (2.0 * uniform[0] - 1.0)
    ratio = torch.exp(math.log(0.005) + math.log(100.0) * uniform[1])
    rates = view.rates(shape, log_nH)
    source = torch.exp(log_counts).unsqueeze(-1) * rates / rates.sum(-1, keepdim=True)
    expected = (ratio * level).unsqueeze(-1) * background
    truth = fluxes(shape, log_nH, log_counts, view)
    counts = torch.poisson(source + expected, generator=generator)
    return Observations(counts, expected, level, torch.cat([truth, log_nH.unsqueeze(-1)], -1))


def fluxes(shape: Tensor, log_nH: Tensor, log_counts: Tensor, view: View) -> Tensor:
    """log10 of the four energy fluxes [1e-12 erg cm^-2 s^-1] that give these expected counts in 1 s; shape (..., 4)."""
    weights = torch.stack([torch.as_tensor(energy_weights(band)) for band in BANDS.values()], -1).to(shape.dtype)
    absorbed = shape * torch.exp(-view.depth(log_nH))
    rate = (absorbed @ view.matrix).sum(-1, keepdim=True)
    found = torch.cat([shape @ weights, absorbed @ weights], -1) / rate.clamp(min=1e-30)
    return torch.log10(found.clamp(min=1e-30)) + (log_counts / math.log(10.0)).unsqueeze(-1)


class Posterior:
    """Likelihood and coordinates of a batch of observations under one decoder, in float32.

    Neighbouring bins of the energy grid are folded together, which changes no expected count by more than its noise.
    """

    def __init__(self, decoder: ComposedDecoder, view: View, observations: Observations):
        self.decoder, self.view = decoder.float(), View(view.matrix.float(), view.sigma.float())
        self.observations = observations
        self.dimension = decoder.latent + 2
        self.table = decoder.table()
        self.flow = None if decoder.flow is None else QuickFlow(decoder.flow)
        self.rows = _stacked(decoder, self.table, self.view.sigma)
        self.paired = 0.5 * (self.view.matrix[0::2] + self.view.matrix[1::2])
        self.counts, self.background = observations.counts.float(), observations.background.float()
        self.saturated = torch.log(self.counts.clamp(min=1.0))

    def log_nH(self, x: Tensor) -> Tensor:
        """log10 nH: a normal distribution cut at its limits."""
        low, high = (0.5 * math.erfc(-(limit - MEAN) / DEVIATION / math.sqrt(2.0)) for limit in LIMITS)
        level = low + (high - low) * torch.special.ndtr(x)
        return (MEAN + DEVIATION * torch.special.ndtri(level)).clamp(*LIMITS)

    def log_counts(self, x: Tensor) -> Tensor:
        """ln of the expected source counts: flat."""
        return math.log(self.observations.level) + SPREAD * (2.0 * torch.special.ndtr(x) - 1.0)

    def log_likelihood(self, values: Tensor, rows: Tensor) -> Tensor:
        """ln likelihood (p, n) of coordinates (p, n, D + 2), over that of a perfect model; one observation after the other."""
        return torch.stack([self._one(x, row) for x, row in zip(values, rows.tolist(), strict=True)])

    def _one(self, x: Tensor, row: int) -> Tensor:
        y = self._arriving(x)
        # every eighth is enough to keep the exponential in range
        y -= y[:, ::8].amax(-1, keepdim=True)
        photons = y.exp_()[:, 0::2] + y[:, 1::2]
        source = photons @ self.paired
        expected = torch.exp(self.log_counts(x[:, -1]))
        source *= (expected / source.sum(-1)).unsqueeze(-1)
        source += self.background[row]
        # the sum of all bins is known, so one logarithm is all that is needed
        source.log_().sub_(self.saturated[row])
        return source @ self.counts[row] - (expected - self.counts[row].sum() + self.background[row].sum())

    def _arriving(self, x: Tensor) -> Tensor:
        """ln of the photons behind the foreground, (n, 600), up to a constant."""
        depth = torch.pow(10.0, self.log_nH(x[:, -2])).unsqueeze(-1)
        z = x[:, :-2] if self.flow is None else self.flow(x[:, :-2])
        if self.rows is None:
            return self.decoder.decoder.log_density(z, self.table) - depth * self.view.sigma
        found = self.decoder.decoder.branch(z)
        return torch.cat([found.amplitude, found.slope, depth, torch.ones_like(depth)], -1) @ self.rows

    def quantities(self, draws: Draws) -> Tensor:
        """log10 of QUANTITIES, shape (P, N, 5), float64."""
        found = []
        for x in draws.values:
            shape = self.decoder(x[:, :-2], self.table).double()
            log_nH, log_counts = self.log_nH(x[:, -2]).double(), self.log_counts(x[:, -1]).double()
            view = View(self.view.matrix.double(), self.view.sigma.double())
            found.append(torch.cat([fluxes(shape, log_nH, log_counts, view), log_nH.unsqueeze(-1)], -1))
        return torch.stack(found)


def _stacked(decoder: ComposedDecoder, table: Table | None, sigma: Tensor) -> Tensor | None:
    """Templates, slopes, foreground and mean as the rows of one matrix, where ln flux is linear in all of them."""
    inner = decoder.decoder
    if table is None or inner.config.combine != "log" or inner.config.moving:
        return None
    return torch.cat([table.log, torch.stack([inner.x_grid, inner.x_grid**2, -sigma, table.mean])])


def posteriors(
    decoder: ComposedDecoder, view: View, observations: Observations, options: TemperOptions, batch: int = 20
) -> Iterator[tuple[Tensor, Draws]]:
    """log10 of QUANTITIES (p, N, 5) and draws, some observations at a time."""
    with torch.no_grad():
        for first in range(0, len(observations), batch):
            rows = slice(first, first + batch)
            some = Observations(
                observations.counts[rows], observations.background[rows], observations.level, observations.truth[rows]
            )
            posterior = Posterior(decoder, view, some)
            draws = temper(
                posterior.log_likelihood, StandardNormal(posterior.dimension, torch.float32), len(some), options
            )
            yield posterior.quantities(draws), draws
