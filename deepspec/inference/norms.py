"""The norms that fit best for given shapes: a small convex problem, solved for a whole batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deepspec.problem import Problem

#: A step that would lower the statistic by less than this is not taken.
NEGLIGIBLE = 1e-7
#: A row gives up when its step has been cut to this share of a Newton step.
SHORTEST = 1e-3


def solve_norms(
    problem: Problem, theta: Tensor, fresh: bool = False, fixed: Tensor | None = None, steps: int = 15
) -> Tensor:
    """`theta` with its free norms moved to the minimum of the statistic, all else held.

    Parameters
    ----------
    problem : Problem
    theta : Tensor, shape (B, P)
    fresh : bool
        Begin with equal counts in every component instead of the norms in `theta` (random starts).
    fixed : Tensor, shape (B, P) of bool, optional
        Coordinates that must not move, vector by vector.
    steps : int
        Most evaluations of the statistic.

    Returns
    -------
    Tensor, shape (B, P)
        Never worse than `theta` (unless `fresh`): a step that does not descend is cut and tried again.
    """
    norms = problem.free_norms
    if not norms:
        return theta
    linear = _Linear(problem, theta, norms)
    low, high = (bound[norms] for bound in problem.parameters.bounds())
    still = torch.zeros_like(theta[:, norms], dtype=torch.bool) if fixed is None else fixed[:, norms]
    norm = _equal_counts(problem, linear).clamp(low, high) if fresh else theta[:, norms]
    value, gradient, fisher = linear.terms(norm)
    length = torch.ones_like(value)
    for _ in range(steps):
        move, promise = _newton(gradient, fisher, _held(norm, gradient, low, high) | still)
        todo = (promise > NEGLIGIBLE) & (length > SHORTEST)
        if not todo.any():
            break
        trial = torch.where(todo.unsqueeze(-1), (norm - length.unsqueeze(-1) * move).clamp(low, high), norm)
        tried, slope, curve = linear.terms(trial)
        better = todo & (tried < value)
        norm = torch.where(better.unsqueeze(-1), trial, norm)
        value = torch.where(better, tried, value)
        gradient = torch.where(better.unsqueeze(-1), slope, gradient)
        fisher = torch.where(better[:, None, None], curve, fisher)
        length = torch.where(better, torch.ones_like(length), 0.3 * length)
    solved = theta.clone()
    finite = torch.isfinite(norm).all(-1, keepdim=True)
    solved[:, norms] = torch.where(finite, norm, theta[:, norms])
    return solved


@dataclass(frozen=True, eq=False)
class _Part:
    """One observation: counts that do not depend on the norms (B, n), and counts per unit norm (B, T, n)."""

    rest: Tensor
    columns: Tensor
    statistic: object


class _Linear:
    """The prediction as a linear function of the norms."""

    def __init__(self, problem: Problem, theta: Tensor, norms: list[int]):
        self.parts = []
        for dataset, (counts, columns) in zip(problem.datasets, problem.norm_columns(theta), strict=True):
            rest = counts - (theta[:, None, norms] @ columns).squeeze(1)
            self.parts.append(_Part(rest, columns, dataset.statistic))

    def terms(self, norm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Statistic (B,), gradient (B, T) and Fisher matrix (B, T, T) by the norms."""
        value, gradient, fisher = 0.0, 0.0, 0.0
        for part in self.parts:
            counts = (part.rest + (norm.unsqueeze(1) @ part.columns).squeeze(1)).clamp(min=0.0)
            per_bin, slope, weight = part.statistic.terms(counts)
            value = value + per_bin.sum(-1)
            gradient = gradient + (part.columns @ slope.unsqueeze(-1)).squeeze(-1)
            fisher = fisher + (part.columns * weight.unsqueeze(-2)) @ part.columns.transpose(-1, -2)
        return value, gradient, fisher


def _equal_counts(problem: Problem, linear: _Linear) -> Tensor:
    """Norms that give every component the same share of the observed net counts."""
    wanted = sum(_net(dataset) for dataset in problem.datasets)
    counts = sum(part.columns.sum(-1) for part in linear.parts)
    return max(wanted, 1.0) / counts.shape[-1] / counts.clamp(min=1e-300)


def _net(dataset) -> float:
    """Net counts, at least a tenth of all counts."""
    binned = dataset.binned
    background = 0.0 if binned.background is None else float((binned.background * binned.ratio).sum())
    return max(float(binned.counts.sum()) - background, 0.1 * float(binned.counts.clip(min=0).sum()))


def _held(norm: Tensor, gradient: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Norms at a limit that the descent would leave."""
    return ((norm <= low) & (gradient > 0)) | ((norm >= high) & (gradient < 0))


def _newton(gradient: Tensor, fisher: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Newton step with Fisher weights (B, T), and the descent it promises (B,)."""
    diagonal = torch.diagonal(fisher, dim1=-2, dim2=-1)
    held = held | ~(diagonal > 0)
    scale = torch.where(held, torch.zeros_like(diagonal), diagonal.clamp(min=1e-300).rsqrt())
    ridge = torch.diag_embed(held.to(gradient.dtype) + 1e-10)
    matrix = fisher * scale.unsqueeze(-1) * scale.unsqueeze(-2) + ridge
    solution, info = torch.linalg.solve_ex(matrix, (gradient * scale).unsqueeze(-1))
    move = solution.squeeze(-1) * scale
    move = torch.where((info == 0).unsqueeze(-1) & torch.isfinite(move), move, torch.zeros_like(move))
    return move, (move * gradient).sum(-1)
