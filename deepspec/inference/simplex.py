"""A search without derivatives, for models whose derivatives are differences of noisy numbers (XSPEC's library)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deepspec.inference.norms import solve_norms
from deepspec.problem import Problem

#: The simplex has converged when it is smaller than this share of an error, and flatter than this in the statistic.
SIZE, FLATNESS = 1e-2, 1e-3


def simplex(problem: Problem, theta: Tensor, fisher: Tensor, evaluations: int = 1500) -> tuple[Tensor, float, bool]:
    """Nelder & Mead's simplex (scipy's) over the shape of the spectrum; norms are solved for at every point.

    Parameters
    ----------
    theta : Tensor, shape (P,)
        Where to begin.
    fisher : Tensor, shape (P, P)
        Sets the first steps.
    evaluations : int
        Most evaluations of the model.

    Returns
    -------
    theta, objective, converged
        Never worse than the beginning.
    """
    from scipy.optimize import minimize

    low, high = problem.parameters.bounds()
    shape = [i for i in range(len(theta)) if i not in problem.free_norms]
    if not shape:
        return theta, float(problem.objective(theta)), True
    diagonal = torch.diagonal(fisher)
    steps = torch.where(diagonal > 0, (0.5 * diagonal.clamp(min=1e-300)).rsqrt(), theta.abs())
    # Degenerate parameters have tiny conditional errors; a step of 3 % at least explores.
    steps = torch.maximum(steps, 0.03 * theta.abs().clamp(min=1e-2))[shape]
    begin = theta[shape]

    def place(x: np.ndarray) -> Tensor:
        trial = theta.clone()
        trial[shape] = begin + torch.as_tensor(x) * steps
        return solve_norms(problem, trial.clamp(low, high).unsqueeze(0))[0]

    def objective(x: np.ndarray) -> float:
        value = float(problem.objective(place(x)))
        return value if np.isfinite(value) else 1e30

    first = np.vstack([np.zeros(len(shape)), np.eye(len(shape))])
    options = {"initial_simplex": first, "xatol": SIZE, "fatol": FLATNESS, "maxfev": evaluations, "adaptive": True}
    with torch.no_grad():
        found = minimize(objective, np.zeros(len(shape)), method="Nelder-Mead", options=options)
        best = place(found.x)
        value, before = float(problem.objective(best)), float(problem.objective(theta))
    return (best, value, bool(found.success)) if value <= before else (theta, before, bool(found.success))
