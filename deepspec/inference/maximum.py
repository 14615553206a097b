"""Best fit: damped Fisher scoring on many starts at once, with exact derivatives and the norms solved for."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.inference.norms import solve_norms
from deepspec.inference.simplex import simplex
from deepspec.inference.starts import random_starts
from deepspec.problem import Linearisation, Problem

#: Steps after which the poorer half of the drawn points is given up, and after which only the best go on.
EXPLORE = (2, 4)


@dataclass(frozen=True)
class MaximumOptions:
    """What a user may choose.

    Attributes
    ----------
    starts : number of starting points carried to convergence, the user's values among them.
    draws : points that are tried, most of them random, to choose those from; each is followed for a few steps.
    steps : most steps of any start.
    tolerance : a start has converged when the step still to go would lower the objective by less than this.
    seed : of the random starts.
    """

    starts: int = 16
    draws: int = 96
    steps: int = 120
    tolerance: float = 1e-6
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Maximum:
    """Outcome of a fit.

    Attributes
    ----------
    names : free parameters.
    theta : Tensor, shape (P,); the best fit.
    value : objective there (statistic - 2 ln prior).
    statistic : statistic there.
    converged : bool
    message : how it ended, in words.
    at_limit : names that ended at a limit.
    start_values : Tensor, shape (n_start,): objective at which each start ended.
    steps : steps taken.
    evaluations : model evaluations, each with all derivatives.
    """

    names: tuple[str, ...]
    theta: Tensor
    value: float
    statistic: float
    converged: bool
    message: str
    at_limit: tuple[str, ...]
    start_values: Tensor
    steps: int
    evaluations: int
    warnings: tuple[str, ...] = field(default=())

    @property
    def agreeing(self) -> int:
        """How many starts ended within 0.1 of the best."""
        return int((self.start_values <= self.value + 0.1).sum())


def maximum(problem: Problem, options: MaximumOptions | None = None) -> Maximum:
    """The parameters that minimise statistic - 2 ln prior.

    Parameters
    ----------
    problem : Problem
    options : MaximumOptions, optional

    Returns
    -------
    Maximum
        Not converging is a status, not an exception.

    Raises
    ------
    UserError
        The model is not finite anywhere it was tried.

    Notes
    -----
    Fisher scoring (expected information in place of the Hessian) with Marquardt damping and an active set at the limits.
    Scale parameters move in their logarithm. Norms enter linearly: at every trial point they are solved for, so the search runs
    over the shape of the spectrum only (variable projection; Golub & Pereyra 1973). Random points are compared after a few
    steps rather than where they were drawn: the statistic there says little about the valley they are in.
    """
    options = options or MaximumOptions()
    generator = torch.Generator().manual_seed(options.seed)
    with torch.no_grad():
        search = _Search(problem, _drawn(problem, options, generator), options)
        for steps, count in zip(EXPLORE, (options.draws // 2, options.starts), strict=True):
            if len(search.value) > max(count, options.starts):
                search.run(steps)
                search.keep(max(count, options.starts))
        search.run()
        if not problem.model.smooth:
            search.polish()
        return search.outcome()


def minimise_from(
    problem: Problem, starts: Tensor, options: MaximumOptions | None = None, fixed: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Minima reached from given starts.

    Parameters
    ----------
    starts : Tensor, shape (B, P)
    fixed : Tensor, shape (B, P) of bool, optional
        Coordinates held at their starting values, start by start (profiles).

    Returns
    -------
    theta (B, P), value (B,), converged (B,)
    """
    with torch.no_grad():
        search = _Search(problem, starts, options or MaximumOptions(), fixed)
        search.run()
        return search.theta, search.value, search.converged


def _drawn(problem: Problem, options: MaximumOptions, generator: torch.Generator) -> Tensor:
    """The user's point and random ones, norms solved for in all; shape (draws, P)."""
    if not problem.names:
        return problem.parameters.vector().unsqueeze(0)
    # A call of XSPEC's library costs a thousand times one of a native component.
    wanted = options.draws if problem.model.smooth else options.draws // 3
    drawn = random_starts(problem, max(wanted, options.starts) if options.starts > 1 else 1, generator)
    low, high = problem.parameters.bounds()
    drawn = solve_norms(problem, drawn.clamp(low, high), fresh=True)
    if not torch.isfinite(problem.objective(drawn)).any():
        raise UserError(
            "the model is not finite at any starting point",
            f"model '{problem.model.text}'",
            "check the values given with --set",
        )
    return drawn


class _Search:
    """State of all starts; `run` moves those that have not finished."""

    def __init__(self, problem: Problem, starts: Tensor, options: MaximumOptions, fixed: Tensor | None = None):
        self.problem, self.options = problem, options
        self.fixed = torch.zeros_like(starts, dtype=torch.bool) if fixed is None else fixed
        self.low, self.high = problem.parameters.bounds()
        self.theta = starts.clamp(self.low, self.high)
        entries = [problem.parameters[key] for key in problem.names]
        self.log = torch.tensor([e.parameter.log and e.low > 0 for e in entries], dtype=torch.bool)
        count = len(starts)
        self.damping = torch.full((count,), 1e-2, dtype=torch.float64)
        self.converged = torch.zeros(count, dtype=torch.bool)
        self.stuck = torch.zeros(count, dtype=torch.bool)
        self.steps = 0
        self.evaluations = count
        at = problem.linearise(self.theta)
        self.value, self.gradient, self.fisher = at.value, at.gradient, at.fisher

    def run(self, steps: int | None = None) -> None:
        """Move all starts that have not finished, until there are none or `steps` (in all) have been taken."""
        steps = self.options.steps if steps is None else min(steps, self.options.steps)
        if not self.problem.names:
            self.converged[:] = True
            return
        self.stuck |= ~torch.isfinite(self.value)
        while self.steps < steps:
            active = torch.nonzero(~self.converged & ~self.stuck).squeeze(-1)
            if not len(active):
                return
            self._step(active)
            self.steps += 1

    def keep(self, count: int) -> None:
        """Go on with the first start, which is the user's, and the `count` - 1 best of the others."""
        rows = torch.cat([torch.tensor([0]), 1 + torch.argsort(self.value[1:])[: count - 1]])
        self.problem = self.problem.rows(rows)
        for name in ("fixed", "theta", "damping", "converged", "stuck", "value", "gradient", "fisher"):
            setattr(self, name, getattr(self, name)[rows])

    def _scale(self, theta: Tensor) -> Tensor:
        """d theta / d internal coordinate: theta itself where the coordinate is ln theta."""
        return torch.where(self.log, theta, torch.ones_like(theta))

    def _step(self, active: Tensor) -> None:
        theta, value = self.theta[active], self.value[active]
        scale = self._scale(theta)
        gradient = self.gradient[active] * scale
        fisher = self.fisher[active] * scale.unsqueeze(-1) * scale.unsqueeze(-2)
        held = ((theta <= self.low) & (gradient > 0)) | ((theta >= self.high) & (gradient < 0)) | self.fixed[active]
        full = _solve(fisher, gradient, held, torch.zeros_like(value))
        promise = 0.5 * (full * gradient).sum(-1)
        done = promise < self.options.tolerance
        self.converged[active[done]] = True
        if done.all():
            return
        keep = ~done
        active, theta, value, scale = active[keep], theta[keep], value[keep], scale[keep]
        gradient, fisher, held = gradient[keep], fisher[keep], held[keep]
        move = _solve(fisher, gradient, held, self.damping[active])
        trial = torch.where(self.log, theta * torch.exp((-move).clamp(-3.0, 3.0)), theta - move)
        trial = trial.clamp(self.low, self.high)
        rows = self.problem.rows(active)
        trial = solve_norms(rows, trial, fixed=self.fixed[active])
        at = rows.linearise(trial)
        self.evaluations += len(trial)
        better = at.value < value
        self._accept(active, trial, at, better)
        gain = (value - at.value) / promise[keep].clamp(min=1e-300)
        factor = torch.where(gain > 0.5, 0.1, torch.where(gain > 0.1, 0.5, 2.0))
        damping = torch.where(better, self.damping[active] * factor, self.damping[active] * 6.0)
        self.damping[active] = damping.clamp(min=1e-9)
        exhausted = damping > 1e9
        # No descent although damped to nothing: rounding is reached if little was promised, otherwise it is stuck.
        fine = exhausted & (promise[keep] < 1e-3)
        self.converged[active[fine]] = True
        self.stuck[active[exhausted & ~fine]] = True

    def _accept(self, active: Tensor, trial: Tensor, at: Linearisation, better: Tensor) -> None:
        moved = active[better]
        self.theta[moved], self.value[moved] = trial[better], at.value[better]
        self.gradient[moved], self.fisher[moved] = at.gradient[better], at.fisher[better]

    def polish(self) -> None:
        """Finish the best start without derivatives, if noise in them stopped it short of the minimum."""
        best = int(torch.argmin(self.value))
        if self.converged[best] or not torch.isfinite(self.value[best]):
            return
        theta, value, converged = simplex(self.problem, self.theta[best], self.fisher[best])
        self.theta[best], self.value[best], self.converged[best] = theta, value, converged

    def outcome(self) -> Maximum:
        problem = self.problem
        best = int(torch.argmin(self.value))
        ranked = self.value <= self.value[best] + 1e-4
        if not self.converged[best] and (ranked & self.converged).any():
            best = int(torch.nonzero(ranked & self.converged)[0])
        theta, converged = self.theta[best], bool(self.converged[best])
        span = torch.where(torch.isfinite(self.high - self.low), self.high - self.low, torch.ones_like(theta))
        tight = 1e-9 * torch.minimum(span, theta.abs().clamp(min=1e-6))
        edge = (theta <= self.low + tight) | (theta >= self.high - tight)
        message = (
            "converged"
            if converged
            else (
                "no descent although the gradient is not zero"
                if self.stuck[best]
                else f"not converged after {self.steps} steps"
            )
        )
        return Maximum(
            names=problem.names,
            theta=theta.clone(),
            value=float(self.value[best]),
            statistic=float(problem.statistic(theta)),
            converged=converged,
            message=message,
            at_limit=tuple(key for key, hit in zip(problem.names, edge, strict=True) if hit),
            start_values=self.value.clone(),
            steps=self.steps,
            evaluations=self.evaluations,
        )


def _solve(fisher: Tensor, gradient: Tensor, held: Tensor, damping: Tensor) -> Tensor:
    """Solution of (F + damping diag F) x = g with the held rows fixed at zero, scaled by the diagonal."""
    diagonal = torch.diagonal(fisher, dim1=-2, dim2=-1)
    flat = held | (diagonal <= 0)
    scale = torch.where(flat, torch.ones_like(diagonal), diagonal).rsqrt()
    keep = (~flat).to(fisher.dtype)
    matrix = fisher * (scale * keep).unsqueeze(-1) * (scale * keep).unsqueeze(-2)
    # 1e-12 of the diagonal: two degenerate parameters must not stop the batch.
    ridge = (1.0 - keep) + keep * (damping.unsqueeze(-1) + 1e-12)
    matrix = matrix + torch.diag_embed(ridge)
    solution, info = torch.linalg.solve_ex(matrix, (gradient * scale * keep).unsqueeze(-1))
    solution = torch.where((info == 0)[:, None, None], solution, torch.zeros_like(solution)).squeeze(-1)
    return solution * scale * keep
