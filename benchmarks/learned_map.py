"""The learned component fitted to counts: the package's own engine on the decoder's grid, 600 bins for every camera.

The folded matrix is summed over photon energies once per spectrum (`panel.Bins.matrix`), which makes a fit cheap enough to
compare many files of weights; tests hold it against tbabs*deepspec in the bins of the response.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from panel import NH, Bins, Case, halves
from torch import Tensor

from deepspec.inference.maximum import MaximumOptions, maximum
from deepspec.learned.checkpoint import read_weights
from deepspec.learned.component import LIMIT, PRIOR
from deepspec.learned.finding import find_weights
from deepspec.learned.tabulated import Tabulated
from deepspec.models.base import NORM, Parameter
from deepspec.parameters import ParameterSet
from deepspec.priors import parse_prior
from deepspec.problem import Problem
from deepspec.statistics.base import Statistic


class LearnedProblem(Problem):
    """tbabs*deepspec confronted with one spectrum, as the engine sees it. The prior of z is N(0,1); that of nH flat.

    Parameters
    ----------
    shapes : Tabulated
    bins : Bins
    statistic : Statistic, optional
        In place of that of the observed counts.
    """

    def __init__(self, shapes: Tabulated, bins: Bins, statistic: Statistic | None = None):
        self.shapes = shapes
        self.model = SimpleNamespace(smooth=True)
        self.statistics = statistic if statistic is not None else bins.statistic()
        self.datasets = (SimpleNamespace(binned=bins, statistic=self.statistics, name="", factor=None),)
        latent = [Parameter(f"z{i}", 0.0, "", -LIMIT, -LIMIT, LIMIT, LIMIT) for i in range(1, shapes.latent + 1)]
        every = [Parameter("nH", 0.1, "10^22", *NH[:1], *NH, NH[1]), *latent, NORM()]
        self.parameters = ParameterSet({f"deepspec.{p.name}": p for p in every})
        self.priors = {f"deepspec.{p.name}": parse_prior(PRIOR) for p in latent}
        self.matrix = torch.as_tensor(bins.matrix)
        self.sigma = torch.as_tensor(bins.sigma)

    @property
    def free_norms(self) -> list[int]:
        """The norm is the last parameter."""
        return [len(self.names) - 1]

    def predict(self, theta: Tensor) -> list[Tensor]:
        """Expected source counts, shape (..., n)."""
        return [theta[..., -1:] * self._at_norm_one(theta)]

    def _at_norm_one(self, theta: Tensor) -> Tensor:
        shape = torch.from_numpy(self.shapes.shape(theta[..., 1:-1].numpy()))
        return (shape * torch.exp(-theta[..., :1] * self.sigma)) @ self.matrix

    def jacobian(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Expected counts (B, n) and their exact derivatives (B, P, n)."""
        shape, slopes = map(torch.from_numpy, self.shapes.shape_and_slopes(theta[:, 1:-1].numpy()))
        through = torch.exp(-theta[:, :1] * self.sigma)
        rows = torch.cat([(-self.sigma * shape).unsqueeze(1), slopes, shape.unsqueeze(1)], 1) * through.unsqueeze(1)
        folded = rows @ self.matrix
        norm = theta[:, -1:]
        columns = torch.cat([folded[:, :-1] * norm.unsqueeze(-1), folded[:, -1:]], 1)
        return [(norm * folded[:, -1], columns)]

    def norm_columns(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Expected counts (B, n) and counts per unit norm (B, 1, n)."""
        column = self._at_norm_one(theta)
        return [(theta[:, -1:] * column, column.unsqueeze(1))]


def effective_parameters(problem: LearnedProblem, theta: Tensor) -> float:
    """tr[F (F + prior)^-1], F the Fisher information of all parameters, the prior's 1 per latent coordinate.

    A parameter at its limit, or of which the data say nothing, counts for nothing.
    """
    ((_, columns),) = problem.jacobian(theta.unsqueeze(0))
    counts = problem.predict(theta.unsqueeze(0))[0]
    weight = problem.statistics.weight(counts)
    fisher = 0.5 * ((columns * weight.unsqueeze(-2)) @ columns.transpose(-1, -2))[0]
    low, high = problem.parameters.bounds()
    scale = torch.ones_like(theta)
    scale[-1] = theta[-1].clamp(min=1e-300)
    inner = (theta > low * (1 + 1e-6)) & (theta < high) | (scale != 1.0)
    inner &= torch.diagonal(fisher) > 0
    fisher = (fisher * scale.unsqueeze(-1) * scale)[inner][:, inner]
    prior = torch.zeros_like(theta)
    prior[1:-1] = 1.0
    total = fisher + torch.diag(prior[inner])
    return float(torch.diagonal(torch.linalg.solve(total, fisher)).sum())


class Learned:
    """A file of weights, fitted to one spectrum after the other.

    Parameters
    ----------
    weights : str or Path
    starts : int
        Carried to convergence, the best of six times as many random ones after a few steps.
    """

    def __init__(self, weights: str | Path, starts: int = 16):
        found = read_weights(find_weights(str(weights)))
        self.shapes = Tabulated(found)
        self.options = MaximumOptions(starts=starts, draws=6 * starts)
        self.facts = {
            "file": Path(found.path).name,
            "sha256": found.sha256[:12],
            "numbers": found.count(),
            "decoder": found.decoder.config,
            "flow": None if found.flow is None else found.flow.config,
            "latent": self.shapes.latent,
            "starts": starts,
        }

    def row(self, case: Case, bins: Bins, seeds: range | tuple, classical: list[dict]) -> dict:
        """Columns of the learned fit; the half-count scores are written into the rows of the classical ones."""
        problem = LearnedProblem(self.shapes, bins)
        best = maximum(problem, self.options)
        for seed, half in zip(seeds, classical, strict=True):
            half |= self.half(case, bins, seed, best.theta)
        free = effective_parameters(problem, best.theta)
        return {
            "learned": best.statistic,
            "prior": float((best.theta[1:-1] ** 2).sum()),
            "effective": free,
            "learned_aic": best.statistic + 2.0 * free,
            "learned_nH": float(best.theta[0]),
            "latent": best.theta[1:-1].tolist(),
            "agreeing": best.agreeing,
            "learned_converged": best.converged,
        }

    def half(self, case: Case, bins: Bins, seed: int, theta: Tensor) -> dict:
        """Fitted to a random half of the counts: the statistic of the other half there."""
        first, second = (bins.statistic(*half) for half in halves(bins, seed, case.name))
        problem = LearnedProblem(self.shapes, bins, first)
        problem.parameters = problem.parameters.with_vector(theta.tolist())
        best = maximum(problem, MaximumOptions(starts=max(self.options.starts // 2, 4), draws=3 * self.options.starts))
        with torch.no_grad():
            score = float(LearnedProblem(self.shapes, bins, second).statistic(best.theta))
        return {"learned_train": best.statistic, "learned_score": score}
