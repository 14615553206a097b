"""Second derivatives at the best fit, and the covariance that follows from them."""

from __future__ import annotations

import torch
from torch import Tensor

from deepspec.problem import Problem


def hessian(problem: Problem, theta: Tensor) -> Tensor:
    """Matrix of second derivatives of statistic - 2 ln prior at `theta`, shape (P, P).

    Exact by automatic differentiation. Components of XSPEC's library hide their second derivatives; models that hold one
    have the exact gradient differenced instead.

    Parameters
    ----------
    theta : Tensor, shape (P,)
    """
    if problem.model.smooth:
        found = torch.autograd.functional.hessian(problem.objective, theta.detach().clone())
        if torch.isfinite(found).all():
            return 0.5 * (found + found.T)
    return _differenced_gradient(problem, theta)


def _differenced_gradient(problem: Problem, theta: Tensor) -> Tensor:
    """Central differences of the gradient, all directions in one batch; steps of 1e-2 sigma keep both errors small."""
    size = len(theta)
    with torch.no_grad():
        diagonal = torch.diagonal(problem.linearise(theta.unsqueeze(0)).fisher[0])
        sigma = torch.where(diagonal > 0, (0.5 * diagonal).clamp(min=1e-300).rsqrt(), 1e-3 * theta.abs().clamp(min=1e-3))
        low, high = problem.parameters.bounds()
        step = torch.diag(1e-2 * sigma)
        up, down = torch.minimum(theta + step, high), torch.maximum(theta - step, low)
        gradient = problem.linearise(torch.cat([up, down])).gradient
        width = torch.diagonal(up - down).unsqueeze(-1).clamp(min=1e-300)
        found = (gradient[:size] - gradient[size:]) / width
    return 0.5 * (found + found.T)


def covariance(problem: Problem, theta: Tensor, held: tuple[str, ...] = ()) -> tuple[Tensor, str | None]:
    """Covariance of the free parameters from the Hessian, 2 H^-1.

    Parameters
    ----------
    theta : Tensor, shape (P,)
    held : names at a limit; their rows are NaN and the others are conditional on them.

    Returns
    -------
    covariance : Tensor, shape (P, P)
    warning : str or None
        A sentence when the Hessian does not describe a minimum.
    """
    size = len(theta)
    result = torch.full((size, size), torch.nan, dtype=torch.float64)
    inner = [i for i, key in enumerate(problem.names) if key not in held]
    if not inner:
        return result, None
    matrix = hessian(problem, theta)[inner][:, inner]
    diagonal = torch.diagonal(matrix)
    warning = None
    if not (diagonal > 0).all() or not torch.isfinite(matrix).all():
        flat = [problem.names[inner[i]] for i in torch.nonzero(~(diagonal > 0)).squeeze(-1).tolist()]
        return result, f"no curvature in {', '.join(flat) or 'any parameter'}: errors from the covariance do not exist, use profiles"
    scale = diagonal.rsqrt()
    values, vectors = torch.linalg.eigh(matrix * scale.unsqueeze(-1) * scale)
    if float(values.min()) < 1e-10 * float(values.max()):
        worst = problem.names[inner[int(vectors[:, 0].abs().argmax())]]
        warning = f"the parameters are degenerate (foremost {worst}): errors from the covariance are lower limits, use profiles"
        values = values.clamp(min=1e-10 * float(values.max()))
    inverse = 2.0 * (vectors / values) @ vectors.T * scale.unsqueeze(-1) * scale
    for row, i in enumerate(inner):
        result[i, inner] = inverse[row]
    return result, warning
