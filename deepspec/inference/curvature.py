"""Second derivatives at the best fit, and the covariance that follows from them."""

from __future__ import annotations

import torch
from torch import Tensor

from deepspec.problem import Problem

#: Smallest over largest eigenvalue of the scaled Hessian below which parameters count as degenerate.
DEGENERATE = 1e-8


def hessian(problem: Problem, theta: Tensor) -> Tensor:
    """Matrix of second derivatives of statistic - 2 ln prior at `theta`, shape (P, P).

    Exact by automatic differentiation. Components of XSPEC's library hide their second derivatives, and those of tables
    interpolated by straight lines jump; models that hold one have the exact gradient differenced instead.

    Parameters
    ----------
    theta : Tensor, shape (P,)
    """
    if problem.model.smooth and problem.model.kinks.isdisjoint(problem.parameters.varying()):
        found = torch.autograd.functional.hessian(problem.objective, theta.detach().clone())
        if torch.isfinite(found).all():
            return 0.5 * (found + found.T)
    return _differenced_gradient(problem, theta)


def _differenced_gradient(problem: Problem, theta: Tensor) -> Tensor:
    """Central differences of the gradient, all directions in one batch; steps of 1e-2 sigma keep both errors small."""
    size = len(theta)
    with torch.no_grad():
        diagonal = torch.diagonal(problem.linearise(theta.unsqueeze(0)).fisher[0])
        sigma = torch.where(
            diagonal > 0, (0.5 * diagonal).clamp(min=1e-300).rsqrt(), 1e-3 * theta.abs().clamp(min=1e-3)
        )
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
    matrix = hessian(problem, theta)
    diagonal = torch.diagonal(matrix)
    flat = [problem.names[i] for i in inner if not (torch.isfinite(diagonal[i]) and diagonal[i] > 0)]
    inner = [i for i in inner if problem.names[i] not in flat]
    warning = None
    if flat:
        warning = f"the data say nothing about {', '.join(flat)} near the best fit: no error from the covariance, use profiles"
    if not inner:
        return result, warning
    matrix = matrix[inner][:, inner]
    scale = torch.diagonal(matrix).rsqrt()
    values, vectors = torch.linalg.eigh(matrix * scale.unsqueeze(-1) * scale)
    if float(values.min()) < DEGENERATE * float(values.max()):
        involved = [problem.names[inner[i]] for i in torch.nonzero(vectors[:, 0].abs() > 0.3).squeeze(-1).tolist()]
        degenerate = (
            f"degenerate parameters ({', '.join(involved)}): their errors from the covariance mean little, use profiles"
        )
        warning = degenerate if warning is None else f"{warning}; {degenerate}"
        values = values.clamp(min=DEGENERATE * float(values.max()))
    inverse = 2.0 * (vectors / values) @ vectors.T * scale.unsqueeze(-1) * scale
    for row, i in enumerate(inner):
        result[i, inner] = inverse[row]
    return result, warning
