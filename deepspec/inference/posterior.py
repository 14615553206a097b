"""Draws from the posterior of a fitted problem: tempered Monte Carlo that begins around the best fit.

The parameters of a fit that carry no prior are flat within their limits, so there is no prior to draw from. The particles begin in
a Student-t distribution about the best fit, wider than the curvature there says, and are moved from it to the posterior
(`deepspec.inference.smc`); what the reference assumed is divided out. Ridges and skewness are followed. A separate minimum far
outside the reference, which none of the fit's starts found, is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deepspec.inference.smc import TemperOptions, temper
from deepspec.problem import Problem

WIDER = 1.5
"""Width of the reference in units of that from the curvature."""
TAILS = 5.0
"""Degrees of freedom of the reference."""
CHUNK = 128
"""Parameter vectors evaluated together: keeps what is folded in the processor's cache."""


@dataclass(frozen=True, eq=False)
class PosteriorDraws:
    """Draws of equal weight.

    Attributes
    ----------
    theta : Tensor, shape (N, P)
        In the order of ``problem.names``.
    log_prob : Tensor, shape (N,)
        ln posterior up to a constant, as `Problem.log_prob`.
    correlation : float
        What is left of the correlation of a draw with the particle it was made from; 0.12 or less unless the time ran out.
    temperatures, moves, evaluations : int
        How much work it was.
    """

    theta: Tensor
    log_prob: Tensor
    correlation: float
    temperatures: int
    moves: int
    evaluations: int

    @property
    def settled(self) -> bool:
        """True where the draws have forgotten where they began."""
        return self.correlation <= 2.0 * TemperOptions.final


class Reference:
    """A Student-t distribution, shape P, as `smc.temper` wants its prior.

    Parameters
    ----------
    centre : Tensor, shape (P,)
    scale : Tensor, shape (P, P)
        Lower triangular factor of the scale matrix.
    """

    def __init__(self, centre: Tensor, scale: Tensor):
        self.centre, self.scale = centre, scale
        size = len(centre)
        self._offset = float(
            math.lgamma(0.5 * (TAILS + size))
            - math.lgamma(0.5 * TAILS)
            - 0.5 * size * math.log(TAILS * math.pi)
            - torch.log(torch.diagonal(scale)).sum()
        )

    def sample(self, particles: int, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Draws, shape (p, particles, P)."""
        count, size = len(rows), len(self.centre)
        normal = torch.randn((count, particles, size), generator=generator, dtype=torch.float64)
        # chi-squared with an odd number of degrees is a sum of that many squares
        squares = torch.randn((count, particles, int(TAILS)), generator=generator, dtype=torch.float64).square().sum(-1)
        return self.centre + (normal @ self.scale.T) * torch.sqrt(TAILS / squares).unsqueeze(-1)

    def log_prob(self, values: Tensor, rows: Tensor | None = None) -> Tensor:
        """ln density, shape (...), of values (..., P)."""
        flat = (values - self.centre).reshape(-1, len(self.centre)).T
        whitened = torch.linalg.solve_triangular(self.scale, flat, upper=False)
        distance = whitened.square().sum(0).reshape(values.shape[:-1])
        return self._offset - 0.5 * (TAILS + len(self.centre)) * torch.log1p(distance / TAILS)


def posterior_draws(
    problem: Problem,
    theta: Tensor,
    count: int = 512,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> PosteriorDraws:
    """Draw from the posterior of a problem whose best fit is `theta`.

    Priors are those of the problem; parameters without one are flat within their limits.

    Parameters
    ----------
    theta : Tensor, shape (P,)
    count : int
        Draws.
    seed : int
    progress : callable, optional
        Told the number of parameter vectors evaluated so far.

    Returns
    -------
    PosteriorDraws
    """
    reference = Reference(theta.detach().double(), _scale(problem, theta.detach().double()))
    low, high = problem.parameters.bounds()
    told = 0

    def log_likelihood(values: Tensor, rows: Tensor) -> Tensor:
        nonlocal told
        inside = ((values >= low) & (values <= high)).all(-1)
        points = torch.minimum(torch.maximum(values, low), high).reshape(-1, values.shape[-1])
        found = torch.cat([problem.log_prob(part) for part in points.split(CHUNK)]).reshape(inside.shape)
        told += len(points)
        if progress is not None:
            progress(told)
        # zero likelihood outside the limits
        return torch.where(inside, found, torch.full_like(found, -torch.inf)) - reference.log_prob(values)

    found = temper(log_likelihood, reference, 1, TemperOptions(particles=count, seed=seed))
    values = found.values[0]
    return PosteriorDraws(
        values,
        found.log_likelihood[0] + reference.log_prob(values),
        float(found.correlation[0]),
        len(found.temperatures[0]),
        int(found.moves[0]),
        found.evaluations,
    )


def _scale(problem: Problem, theta: Tensor) -> Tensor:
    """Factor of the reference's scale matrix, from the expected curvature at the best fit; no wider than the limits."""
    low, high = problem.parameters.bounds()
    with torch.no_grad():
        # of -2 ln posterior, so twice the information
        information = 0.5 * problem.linearise(theta.unsqueeze(0)).fisher[0]
    # A parameter of which the data say nothing has no width of its own; limits too far apart to mean anything are not one either.
    allowed = torch.minimum(0.3 * (high - low), 3.0 * theta.abs() + 3.0)
    information = information + torch.diag(allowed**-2)
    unit = torch.diagonal(information).rsqrt()
    values, vectors = torch.linalg.eigh(information * unit.unsqueeze(-1) * unit)
    covariance = (vectors / values.clamp(min=1e-8)) @ vectors.T * unit.unsqueeze(-1) * unit
    return WIDER * torch.linalg.cholesky(covariance + 1e-12 * torch.diag(torch.diagonal(covariance)))
