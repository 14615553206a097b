"""The norms that fit best for given shapes: a small convex problem, solved for a whole batch."""

from __future__ import annotations

import torch
from torch import Tensor

from deepspec.problem import Problem


def solve_norms(
    problem: Problem, theta: Tensor, fresh: bool = False, fixed: Tensor | None = None, steps: int = 12
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
        Most Newton steps.

    Returns
    -------
    Tensor, shape (B, P)
        Never worse than `theta` (unless `fresh`): steps that do not descend are halved.
    """
    norms = problem.free_norms
    if not norms:
        return theta
    parts = problem.norm_columns(theta)
    low, high = (bound[norms] for bound in problem.parameters.bounds())
    norm = theta[:, norms]
    still = torch.zeros_like(norm, dtype=torch.bool) if fixed is None else fixed[:, norms]
    rests = [counts - torch.einsum("bt,btn->bn", norm, columns) for counts, columns in parts]
    if fresh:
        norm = _equal_counts(problem, parts).clamp(low, high)

    def objective(norm: Tensor) -> Tensor:
        return sum(
            d.statistic.value((rest + torch.einsum("bt,btn->bn", norm, columns)).clamp(min=0.0))
            for d, rest, (_, columns) in zip(problem.datasets, rests, parts, strict=True)
        )

    value = objective(norm)
    for _ in range(steps):
        move, promise = _newton(problem, parts, rests, norm, still, low, high)
        todo = promise > 1e-7
        if not todo.any():
            break
        length = todo.to(norm.dtype)
        improved = torch.zeros_like(todo)
        for _ in range(8):
            trial = (norm - length.unsqueeze(-1) * move).clamp(low, high)
            tried = objective(trial)
            good = todo & ~improved & (tried < value)
            norm = torch.where(good.unsqueeze(-1), trial, norm)
            value = torch.where(good, tried, value)
            improved = improved | good
            if (improved | ~todo).all():
                break
            length = torch.where(improved, torch.zeros_like(length), 0.3 * length)
        if not improved.any():
            break
    solved = theta.clone()
    finite = torch.isfinite(norm).all(-1, keepdim=True)
    solved[:, norms] = torch.where(finite, norm, theta[:, norms])
    return solved


def _equal_counts(problem: Problem, parts) -> Tensor:
    """Norms that give every component the same share of the observed net counts."""
    wanted = sum(float(_net(d)) for d in problem.datasets)
    counts = sum(columns.sum(-1) for _, columns in parts)
    return max(wanted, 1.0) / counts.shape[-1] / counts.clamp(min=1e-300)


def _net(dataset) -> float:
    binned = dataset.binned
    background = 0.0 if binned.background is None else float((binned.background * binned.ratio).sum())
    return max(float(binned.counts.sum()) - background, 0.1 * float(binned.counts.clip(min=0).sum()))


def _newton(
    problem: Problem, parts, rests, norm: Tensor, still: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Newton step for the norms with Fisher weights, and the descent it promises."""
    gradient = torch.zeros_like(norm)
    fisher = norm.new_zeros(*norm.shape, norm.shape[-1])
    for dataset, rest, (_, columns) in zip(problem.datasets, rests, parts, strict=True):
        counts = (rest + torch.einsum("bt,btn->bn", norm, columns)).clamp(min=0.0)
        gradient = gradient + torch.einsum("btn,bn->bt", columns, dataset.statistic.slope(counts))
        weighted = columns * dataset.statistic.weight(counts).unsqueeze(-2)
        fisher = fisher + weighted @ columns.transpose(-1, -2)
    held = ((norm <= low) & (gradient > 0)) | ((norm >= high) & (gradient < 0)) | still
    diagonal = torch.diagonal(fisher, dim1=-2, dim2=-1)
    held = held | ~(diagonal > 0)
    scale = torch.where(held, torch.zeros_like(diagonal), diagonal.clamp(min=1e-300).rsqrt())
    matrix = fisher * scale.unsqueeze(-1) * scale.unsqueeze(-2) + torch.diag_embed(held.to(norm.dtype) + 1e-10)
    solution, info = torch.linalg.solve_ex(matrix, (gradient * scale).unsqueeze(-1))
    move = solution.squeeze(-1) * scale
    move = torch.where((info == 0).unsqueeze(-1) & torch.isfinite(move), move, torch.zeros_like(move))
    return move, (move * gradient).sum(-1)
