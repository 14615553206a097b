"""Tempered sequential Monte Carlo: from the prior to the posterior, many problems at once.

Particles drawn from the prior are moved through ``prior x likelihood^beta`` for rising beta (Del Moral, Doucet & Jasra 2006,
J. R. Stat. Soc. B 68, 411). Nothing is assumed of the posterior's form: modes of one problem keep their weights, and the
evidence comes for free. What can go wrong is that particles copied from a few ancestors do not forget them, which makes intervals
too narrow; so the number of moves at each temperature is what it takes until positions no longer correlate with those where the
moves began.

Two kinds of move alternate. The preconditioned Crank-Nicolson move with a Student-t reference (Kamatani 2018, Bernoulli 24, 3711)
leaves exactly invariant the t-distribution with the particles' mean and covariance, so a posterior near to that is crossed in a few
steps whatever its dimension. Steps along the difference of two particles (ter Braak 2006, Stat. Comput. 16, 239), at times the whole
difference, follow bent ridges and jump between modes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from deepspec.errors import UserError

WHOLE_DIFFERENCE = 0.15
"""Share of the difference moves that step by the whole difference of two particles."""
PULL = 0.35
"""How strongly the length of a step follows the acceptance seen."""
WANTED_ACCEPTANCE = 0.3


class Prior(Protocol):
    """What `temper` must know of a prior. `rows` says which problems are meant, shape (p,)."""

    def sample(self, particles: int, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Draws, shape (p, particles, d)."""

    def log_prob(self, values: Tensor, rows: Tensor) -> Tensor:
        """ln density, shape (p, n), of values (p, n, d); minus infinity outside the support."""


@dataclass(frozen=True)
class StandardNormal:
    """Independent N(0,1) coordinates, the same for every problem."""

    dimension: int
    dtype: torch.dtype = torch.float64

    def sample(self, particles: int, rows: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn((len(rows), particles, self.dimension), generator=generator, dtype=self.dtype)

    def log_prob(self, values: Tensor, rows: Tensor) -> Tensor:
        return -0.5 * (values.square().sum(-1) + self.dimension * math.log(2.0 * math.pi))


@dataclass(frozen=True)
class TemperOptions:
    """What a user may choose.

    Attributes
    ----------
    particles : number of draws per problem.
    ess : effective share of the particles that a rise of beta may leave.
    correlation : moves at a temperature end when no coordinate (nor the likelihood) correlates more with its start.
    final : the same at the posterior itself.
    least, most : moves at a temperature; `most` bounds the time, and `Draws.correlation` tells where it bit.
    stages : most temperatures.
    seed : of everything random.
    """

    particles: int = 768
    ess: float = 0.5
    correlation: float = 0.35
    final: float = 0.12
    least: int = 4
    most: int = 100
    stages: int = 200
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Draws:
    """Posterior draws of equal weight.

    Attributes
    ----------
    values : Tensor, shape (P, N, d)
    log_likelihood : Tensor, shape (P, N)
    log_evidence : Tensor, shape (P,)
        ln of the likelihood averaged over the prior.
    temperatures : tuple of tuples
        The values of beta each problem went through, the last one 1.
    moves : Tensor, shape (P,)
        Moves of all temperatures together.
    acceptance : Tensor, shape (P,)
        Share accepted, of all moves.
    correlation : Tensor, shape (P,)
        What is left of the correlation with the start, after the last moves at beta = 1.
    evaluations : int
        Likelihoods computed, of all problems together.
    """

    values: Tensor
    log_likelihood: Tensor
    log_evidence: Tensor
    temperatures: tuple[tuple[float, ...], ...]
    moves: Tensor
    acceptance: Tensor
    correlation: Tensor
    evaluations: int


def temper(
    log_likelihood: Callable[[Tensor, Tensor], Tensor],
    prior: Prior,
    problems: int = 1,
    options: TemperOptions | None = None,
) -> Draws:
    """Draw from the posteriors of several problems with one prior family.

    Parameters
    ----------
    log_likelihood : callable
        ``log_likelihood(values, rows)``: values of shape (p, n, d) of the problems numbered `rows`, shape (p,); returns (p, n).
        Not finite counts as zero likelihood. Its precision is that of `values`, which is that of the prior's draws.
    prior : Prior
    problems : int
    options : TemperOptions, optional

    Returns
    -------
    Draws

    Raises
    ------
    UserError
        The likelihood is zero wherever the prior has density.
    """
    with torch.no_grad():
        run = _Run(log_likelihood, prior, problems, options or TemperOptions())
        run.all_stages()
        return run.draws()


class _Run:
    """The particles of all problems, and how far each problem has come."""

    def __init__(self, log_likelihood: Callable, prior: Prior, problems: int, options: TemperOptions):
        self.log_likelihood, self.prior, self.options = log_likelihood, prior, options
        self.generator = torch.Generator().manual_seed(options.seed)
        self.evaluations = 0
        rows = torch.arange(problems)
        self.x = prior.sample(options.particles, rows, self.generator)
        self.log_like = self._likelihood(self.x, rows)
        self.log_prior = prior.log_prob(self.x, rows)
        if not torch.isfinite(self.log_like).any(-1).all():
            raise UserError(
                "the likelihood is zero at every draw from the prior", remedy="widen the prior or check the data"
            )
        self.beta = torch.zeros(problems, dtype=torch.float64)
        self.log_evidence = torch.zeros(problems, dtype=torch.float64)
        self.temperatures: list[list[float]] = [[] for _ in range(problems)]
        self.moves, self.accepted = torch.zeros(problems), torch.zeros(problems)
        self.correlation = torch.ones(problems)
        # Logarithms of the two lengths of step that follow the acceptance, problem by problem.
        self.log_length = torch.tensor([math.log(0.5), 0.0]).repeat(problems, 1)

    def all_stages(self) -> None:
        """Raise beta and move, until every problem is at beta = 1."""
        for _ in range(self.options.stages):
            rows = torch.nonzero(self.beta < 1.0).squeeze(-1)
            if not len(rows):
                return
            self._reweight(rows)
            self._move(rows)

    def draws(self) -> Draws:
        """What has been drawn."""
        return Draws(
            self.x,
            self.log_like,
            self.log_evidence,
            tuple(tuple(each) for each in self.temperatures),
            self.moves.to(torch.int64),
            self.accepted / self.moves.clamp(min=1.0),
            self.correlation,
            self.evaluations,
        )

    def _likelihood(self, x: Tensor, rows: Tensor) -> Tensor:
        self.evaluations += x.shape[0] * x.shape[1]
        found = self.log_likelihood(x, rows)
        return torch.where(torch.isfinite(found), found, torch.full_like(found, -torch.inf))

    def _reweight(self, rows: Tensor) -> None:
        """Raise beta as far as the effective share allows, and resample."""
        log_like = self.log_like[rows].double()
        rise = _rise(log_like, self.options.ess, 1.0 - self.beta[rows])
        weight = _tempered(log_like, rise)
        self.log_evidence[rows] += torch.logsumexp(weight, -1) - math.log(weight.shape[-1])
        self.beta[rows] = torch.where(rise >= 1.0 - self.beta[rows], torch.ones_like(rise), self.beta[rows] + rise)
        for row in rows.tolist():
            self.temperatures[row].append(float(self.beta[row]))
        chosen = systematic(torch.softmax(weight, -1), self.generator)
        self.x[rows] = self.x[rows].gather(1, chosen.unsqueeze(-1).expand(-1, -1, self.x.shape[-1]))
        self.log_like[rows] = self.log_like[rows].gather(1, chosen)
        self.log_prior[rows] = self.log_prior[rows].gather(1, chosen)

    def _move(self, rows: Tensor) -> None:
        """Move the particles of `rows` at their temperatures until they have forgotten where they were."""
        options = self.options
        reference = _Reference(self.x[rows])
        start = self._standard(reference, rows)
        last = self.beta[rows] >= 1.0
        target = torch.where(last, options.final, options.correlation)
        going = torch.arange(len(rows))
        for count in range(1, options.most + 1):
            # two in three are Crank-Nicolson moves
            self._step(rows[going], reference.of(going), kind=int(count % 3 == 0))
            if count < options.least or count % 2:
                continue
            left = _correlation(start[going], self._standard(reference.of(going), rows[going]))
            self.correlation[rows[going]] = left.to(self.correlation.dtype)
            going = going[left > target[going]]
            if not len(going):
                return

    def _standard(self, reference: _Reference, rows: Tensor) -> Tensor:
        """Coordinates of unit covariance, and the likelihood; shape (p, N, d + 1)."""
        return torch.cat([reference.whitened(self.x[rows]), self.log_like[rows].unsqueeze(-1)], dim=-1)

    def _step(self, rows: Tensor, reference: _Reference, kind: int) -> None:
        """One move of every particle of `rows`."""
        x = self.x[rows]
        length = torch.exp(self.log_length[rows, kind]).to(x.dtype)
        propose = reference.differences if kind else reference.crank_nicolson
        proposed, log_ratio = propose(x, length, self.generator)
        log_prior = self.prior.log_prob(proposed, rows)
        log_like = self._likelihood(proposed, rows)
        log_like = torch.where(torch.isfinite(log_prior), log_like, torch.full_like(log_like, -torch.inf))
        beta = self.beta[rows].to(x.dtype).unsqueeze(-1)
        gain = beta * (log_like - self.log_like[rows]) + log_prior - self.log_prior[rows] + log_ratio
        taken = torch.log(torch.rand(gain.shape, generator=self.generator, dtype=gain.dtype)) < gain
        self.x[rows] = torch.where(taken.unsqueeze(-1), proposed, x)
        self.log_like[rows] = torch.where(taken, log_like, self.log_like[rows])
        self.log_prior[rows] = torch.where(taken, log_prior, self.log_prior[rows])
        share = taken.float().mean(-1)
        self.moves[rows] += 1.0
        self.accepted[rows] += share
        pulled = self.log_length[rows, kind] + PULL * (share - WANTED_ACCEPTANCE)
        self.log_length[rows, kind] = pulled.clamp(math.log(0.02), 0.0 if kind == 0 else math.log(2.0))


class _Reference:
    """What moves at one temperature know of the posterior: mean, covariance and weight of the tails, and a set of particles.

    They are those of the particles when the moves begin, and stay, so that each move leaves the posterior invariant.
    """

    def __init__(self, x: Tensor):
        self.particles = x
        self.mean = x.mean(1, keepdim=True)
        centred = x - self.mean
        size = x.shape[-1]
        covariance = centred.transpose(-1, -2) @ centred / x.shape[1]
        ridge = 1e-6 * torch.diagonal(covariance, dim1=-2, dim2=-1) + 1e-12
        self.factor = torch.linalg.cholesky(covariance + torch.diag_embed(ridge))
        distance = self.whitened(x).square().sum(-1)
        # Of a t-distribution E q^2 / (E q)^2 = (d + 2) / d (nu - 2) / (nu - 4).
        excess = (distance.square().mean(-1) / distance.mean(-1).square()) * size / (size + 2.0) - 1.0
        self.tails = torch.where(excess > 0.02, 4.0 + 2.0 / excess.clamp(min=0.02), torch.full_like(excess, 104.0))

    def of(self, index: Tensor) -> _Reference:
        """The reference of some of the problems."""
        other = object.__new__(_Reference)
        for name in ("particles", "mean", "factor", "tails"):
            setattr(other, name, getattr(self, name)[index])
        return other

    def whitened(self, x: Tensor) -> Tensor:
        """Coordinates of unit covariance, in the shape of x (p, n, d)."""
        return torch.linalg.solve_triangular(self.factor, (x - self.mean).transpose(-1, -2), upper=False).transpose(
            -1, -2
        )

    def crank_nicolson(self, x: Tensor, length: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Proposals (p, n, d), and what to add to the logarithm of the acceptance (p, n).

        Given the distance q of a point, the t-distribution is a Gaussian whose variance has an inverse gamma distribution; a
        Crank-Nicolson step within that Gaussian keeps the t-distribution.
        """
        size = x.shape[-1]
        tails = self.tails.unsqueeze(-1)
        # A t-distribution of covariance C has the scale matrix C (nu - 2) / nu.
        scale = ((tails - 2.0) / tails).sqrt().unsqueeze(-1)
        here = self.whitened(x) / scale
        before = here.square().sum(-1)
        variance = 0.5 * (tails + before) / _gamma(0.5 * (tails + size).expand(before.shape), generator)
        length = length[:, None, None]
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        there = torch.sqrt(1.0 - length**2) * here + length * variance.sqrt().unsqueeze(-1) * noise
        after = there.square().sum(-1)
        log_ratio = 0.5 * (tails + size) * (torch.log1p(after / tails) - torch.log1p(before / tails))
        return self.mean + scale * (there @ self.factor.transpose(-1, -2)), log_ratio

    def differences(self, x: Tensor, length: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Proposals (p, n, d) along differences of two particles, and zeros (p, n): the move is symmetric."""
        count, particles, size = x.shape
        pairs = torch.randint(particles, (2, count, particles, 1), generator=generator).expand(-1, -1, -1, size)
        along = self.particles.gather(1, pairs[0]) - self.particles.gather(1, pairs[1])
        step = (2.38 / math.sqrt(2.0 * size)) * length.unsqueeze(-1).expand(count, particles)
        whole = torch.rand((count, particles), generator=generator) < WHOLE_DIFFERENCE
        step = torch.where(whole, torch.ones_like(step), step).unsqueeze(-1)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype) @ self.factor.transpose(-1, -2)
        return x + step * along + 0.02 * noise, x.new_zeros((count, particles))


def systematic(probability: Tensor, generator: torch.Generator) -> Tensor:
    """Which particles are kept, and how often: systematic resampling (Kitagawa 1996), shape (P, N) of indices.

    Parameters
    ----------
    probability : Tensor, shape (P, N)
        Sums to 1 along the last axis.
    """
    problems, count = probability.shape
    offset = torch.rand((problems, 1), generator=generator, dtype=torch.float64)
    points = (torch.arange(count, dtype=torch.float64) + offset) / count
    return torch.searchsorted(probability.double().cumsum(-1), points).clamp(max=count - 1)


def _tempered(log_like: Tensor, rise: Tensor) -> Tensor:
    """rise x ln likelihood, (P, N); minus infinity stays whatever the rise."""
    return torch.where(torch.isfinite(log_like), rise.unsqueeze(-1) * log_like, log_like)


def _rise(log_like: Tensor, share: float, most: Tensor) -> Tensor:
    """The largest rise of beta, up to `most` (P,), that leaves an effective share of the particles; by bisection.

    The share is of the particles with any likelihood at all, otherwise a likelihood that is zero for most could not begin.
    """
    wanted = share * torch.isfinite(log_like).sum(-1)

    def effective(rise: Tensor) -> Tensor:
        weight = _tempered(log_like, rise)
        return torch.exp(2.0 * torch.logsumexp(weight, -1) - torch.logsumexp(2.0 * weight, -1))

    low, high = torch.full_like(most, -25.0), torch.log(most)
    enough = effective(most) >= wanted
    for _ in range(40):
        middle = 0.5 * (low + high)
        good = effective(torch.exp(middle)) >= wanted
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    return torch.where(enough, most, torch.minimum(torch.exp(low), most))


def _correlation(start: Tensor, now: Tensor) -> Tensor:
    """The largest correlation of a coordinate with its start, (P,), of tensors of shape (P, N, k)."""
    start, now = (torch.where(torch.isfinite(each), each, torch.zeros_like(each)) for each in (start, now))
    start, now = (each - each.mean(1, keepdim=True) for each in (start, now))
    both = (start * now).sum(1)
    return (both / (start.square().sum(1) * now.square().sum(1)).clamp(min=1e-30).sqrt()).amax(-1)


def _gamma(shape: Tensor, generator: torch.Generator) -> Tensor:
    """Draws from Gamma(shape, 1), shape > 1, by the generator given (torch.distributions has no way to name one).

    Marsaglia & Tsang (2000, ACM Trans. Math. Softw. 26, 363): for such shapes at most a few per cent need a second try.
    """
    d = shape - 1.0 / 3.0
    c = 1.0 / torch.sqrt(9.0 * d)
    found = torch.zeros_like(shape)
    todo = torch.ones_like(shape, dtype=torch.bool)
    while todo.any():
        normal = torch.randn(shape.shape, generator=generator, dtype=shape.dtype)
        uniform = torch.rand(shape.shape, generator=generator, dtype=shape.dtype)
        v = (1.0 + c * normal) ** 3
        good = (v > 0) & (torch.log(uniform) < 0.5 * normal**2 + d - d * v + d * torch.log(v.clamp(min=1e-30)))
        found = torch.where(todo & good, d * v, found)
        todo = todo & ~good
    return found
