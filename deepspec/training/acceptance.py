"""Is a decoder good enough? The statistic above the truth that it reaches on simulated sources never seen.

The figure compares expected counts with expected counts, so no noise enters: ``2 N KL(true || fitted)`` for N expected source
counts, the norm profiled out. It is what C-stat exceeds that of the true model by, on average over the noise, if the latents
were fixed where the fit to the expected counts puts them. Below 1 no observation of N counts can tell the two apart.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

NH_PRIOR = (-1.0, 0.6)
"""Mean and width of log10(nH / 1e22 cm^-2) where nH is fitted: the foreground of the populations."""
CHUNK = 250
"""Sources fitted at a time: bounds the memory at about 200 MB for 16 latents."""


@dataclass(frozen=True, eq=False)
class View:
    """What stands between a source and its counts: foreground absorption and a camera.

    Attributes
    ----------
    matrix : Tensor, shape (600, n_bin) [cm2]
        Effective area times redistribution.
    sigma : Tensor, shape (600,) [1e-22 cm2]
        Cross-section of the foreground.
    """

    matrix: Tensor
    sigma: Tensor

    @classmethod
    def of(cls, matrix: np.ndarray | Tensor, sigma: np.ndarray | Tensor, dtype: torch.dtype = torch.float64) -> View:
        """From arrays."""
        return cls(torch.as_tensor(matrix).to(dtype), torch.as_tensor(sigma).to(dtype))

    def depth(self, log_nH: Tensor) -> Tensor:
        """Optical depth per bin of `EDGES`, shape (..., 600), of log10 nH of shape (...,)."""
        return torch.pow(10.0, log_nH).unsqueeze(-1) * self.sigma

    def rates(self, shape: Tensor, log_nH: Tensor) -> Tensor:
        """Expected counts per second at norm 1, shape (..., n_bin), of `shape` (..., 600) behind log10 nH (...,)."""
        return (shape * torch.exp(-self.depth(log_nH))) @ self.matrix


@dataclass(frozen=True, eq=False)
class Excess:
    """Outcome of `excess`.

    Attributes
    ----------
    counts : tuple of float
        Levels of expected source counts.
    value : Tensor, shape (n_level, n_source)
        Statistic above the truth, without the prior's part.
    z : Tensor, shape (n_level, n_source, latent)
    log_nH : Tensor, shape (n_level, n_source)
    """

    counts: tuple[float, ...]
    value: Tensor
    z: Tensor
    log_nH: Tensor


def excess(
    decoder: nn.Module,
    shapes: Tensor,
    log_nH: Tensor,
    view: View,
    counts: Sequence[float] = (1e3, 1e4, 1e5),
    *,
    fit_nH: bool = False,
    prior: float = 1.0,
    starts: int = 3,
    draws: int = 1000,
    steps: int = 40,
    seed: int = 0,
) -> Excess:
    """Expected C-stat above the truth at the MAP of the latents, source by source and count level by count level.

    Parameters
    ----------
    decoder : Module
        With `latent` and ``log_density(z) -> (..., 600)``; it is copied to float64.
    shapes : Tensor, shape (n_source, 600)
        True photons per bin, unabsorbed, in any norm.
    log_nH : Tensor, shape (n_source,)
        True log10 nH [1e22 cm^-2].
    view : View
        In float64.
    counts : sequence of float
        Levels, fitted in rising order: each starts from the one before.
    fit_nH : bool
        Fit log10 nH too, under its prior, instead of holding it at the truth. The fit starts at the truth.
    prior : float
        Weight of |z|^2 (and of nH's prior) in the objective; 1 is the MAP.
    starts : int
        Points carried through the lowest level, the best of `draws` from the prior; the best of them goes on.
    steps : int
        Most steps at each level.

    Returns
    -------
    Excess
    """
    if list(counts) != sorted(counts):
        raise ValueError("count levels must rise: each is fitted from the one before")
    decoder = copy.deepcopy(decoder).double().eval()
    shapes, log_nH = shapes.double(), log_nH.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        drawn = torch.randn((draws, decoder.latent), generator=generator, dtype=torch.float64)
        density = decoder.log_density(drawn)
        parts = []
        for first in range(0, len(shapes), CHUNK):
            rows = slice(first, first + CHUNK)
            fit = _Fit(decoder, shapes[rows], log_nH[rows], view, fit_nH, prior)
            parts.append(fit.levels(drawn[fit.nearest(density, starts)], counts, steps))
    value, z, found = (torch.cat([part[i] for part in parts], dim=1) for i in range(3))
    return Excess(tuple(counts), value, z, found)


class _Fit:
    """Damped Fisher scoring of some sources at once; the parameters are (z, log10 nH) or z alone."""

    def __init__(self, decoder: nn.Module, shapes: Tensor, log_nH: Tensor, view: View, fit_nH: bool, prior: float):
        self.decoder, self.view, self.fit_nH, self.prior = decoder, view, fit_nH, prior
        self.log_nH = log_nH
        self.single = view.matrix.float()
        true = view.rates(shapes, log_nH)
        self.true = true / true.sum(-1, keepdim=True)
        self.arriving = shapes * torch.exp(-view.depth(log_nH))
        self.rows = torch.arange(len(shapes))

    def nearest(self, density: Tensor, count: int) -> Tensor:
        """Which of the spectra with these log densities (n, 600) are most like each source; shape (n_source, count).

        Compared behind the true absorption and the effective area, without redistribution: two matrix products.
        """
        area = self.view.matrix.sum(-1)
        density = density - density.amax(-1, keepdim=True)
        seen = self.arriving * area / (self.arriving @ area).unsqueeze(-1)
        transmitted = area * torch.exp(-self.view.depth(self.log_nH))
        likeness = seen @ density.T - torch.log(transmitted @ torch.exp(density).T)
        return likeness.topk(count, dim=-1).indices

    def levels(self, starts: Tensor, counts: Sequence[float], steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Excess (L, B), latents (L, B, D) and log10 nH (L, B); `starts` has shape (B, S, D)."""
        size, many = starts.shape[:2]
        self.rows = torch.arange(size).repeat_interleave(many)
        theta = starts.flatten(0, 1)
        if self.fit_nH:
            theta = torch.cat([theta, self.log_nH[self.rows].unsqueeze(-1)], dim=-1)
        theta, objective, _ = self._minimise(theta, counts[0], steps)
        best = objective.view(size, many).argmin(-1) + many * torch.arange(size)
        theta, self.rows = theta[best], torch.arange(size)
        found = []
        for level in counts:
            theta, _, value = self._minimise(theta, level, steps)
            found.append((value, theta[:, : self.decoder.latent], self._log_nH(theta, self.rows)))
        return tuple(torch.stack([each[i] for each in found]) for i in range(3))

    def _log_nH(self, theta: Tensor, rows: Tensor) -> Tensor:
        return theta[:, -1] if self.fit_nH else self.log_nH[rows]

    def _minimise(self, theta: Tensor, level: float, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Parameters (B, P), objective (B,) and excess (B,) at the minimum reached from `theta`."""
        theta = theta.clone()
        objective, value = self._value(theta, self.rows, level)
        damping = torch.full_like(objective, 1e-2)
        active = torch.arange(len(theta))
        for _ in range(steps):
            gradient, fisher = self._derivatives(theta[active], self.rows[active], level)
            move, promise = _damped(gradient, fisher, damping[active])
            trial = theta[active] - move
            tried, tried_value = self._value(trial, self.rows[active], level)
            better = tried < objective[active]
            done = promise < 1e-4 + 1e-4 * value[active].clamp(min=0.0)
            taken = active[better]
            theta[taken], objective[taken], value[taken] = trial[better], tried[better], tried_value[better]
            damping[active] = (damping[active] * torch.where(better, 0.2, 8.0)).clamp(1e-7, 1e7)
            active = active[~done & (damping[active] < 1e6)]
            if not len(active):
                break
        return theta, objective, value

    def _arriving(self, theta: Tensor, rows: Tensor) -> Tensor:
        """Photons behind the absorption, unnormalised (B, 600)."""
        density = self.decoder.log_density(theta[:, : self.decoder.latent])
        density = density - self.view.depth(self._log_nH(theta, rows))
        return torch.exp(density - density.amax(-1, keepdim=True))

    def _value(self, theta: Tensor, rows: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Objective and excess, each (B,)."""
        counts = self._arriving(theta, rows) @ self.view.matrix
        share = counts / counts.sum(-1, keepdim=True)
        true = self.true[rows]
        # xlogy: an empty bin of the truth adds nothing
        value = 2.0 * level * (torch.xlogy(true, true / share.clamp(min=1e-300))).sum(-1)
        penalty = theta[:, : self.decoder.latent].square().sum(-1)
        if self.fit_nH:
            penalty = penalty + ((theta[:, -1] - NH_PRIOR[0]) / NH_PRIOR[1]).square()
        bad = ~torch.isfinite(value)
        objective = torch.where(bad, torch.full_like(value, torch.inf), value + self.prior * penalty)
        return objective, value

    def _derivatives(self, theta: Tensor, rows: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Gradient (B, P) and Fisher matrix (B, P, P) of the objective.

        The log density is differenced, in float64; the gradient is folded back from counts to energies, so only the Fisher matrix
        needs every derivative folded, for which float32 is enough.
        """
        latent = self.decoder.latent
        slopes = self._slopes(theta, rows)
        arriving = self._arriving(theta, rows)
        counts = arriving @ self.view.matrix
        total = counts.sum(-1, keepdim=True)
        residual = 1.0 - self.true[rows] * total / counts.clamp(min=1e-300)
        pulled = arriving * (residual @ self.view.matrix.T) / total
        gradient = 2.0 * level * (slopes @ pulled.unsqueeze(-1)).squeeze(-1)
        weighted = (slopes * (arriving / total).unsqueeze(1)).float()
        columns = (weighted.flatten(0, 1) @ self.single).view(*slopes.shape[:2], -1).double()
        share = (counts / total).unsqueeze(1)
        columns = columns - share * columns.sum(-1, keepdim=True)
        fisher = 2.0 * level * (columns / share.clamp(min=1e-300)) @ columns.transpose(-1, -2)
        scale = theta.new_full((theta.shape[-1],), 2.0 * self.prior)
        centre = torch.zeros_like(scale)
        if self.fit_nH:
            scale[latent], centre[latent] = scale[latent] / NH_PRIOR[1] ** 2, NH_PRIOR[0]
        return gradient + scale * (theta - centre), fisher + torch.diag(scale)

    def _slopes(self, theta: Tensor, rows: Tensor) -> Tensor:
        """Derivatives of the log of the arriving photons, shape (B, P, 600)."""
        step, z = 1e-6, theta[:, : self.decoder.latent]
        shifts = step * torch.eye(z.shape[-1], dtype=z.dtype)
        moved = self.decoder.log_density((z.unsqueeze(1) + shifts).flatten(0, 1)).view(*z.shape, -1)
        slopes = (moved - self.decoder.log_density(z).unsqueeze(1)) / step
        if not self.fit_nH:
            return slopes
        by_nH = -math.log(10.0) * self.view.depth(theta[:, -1])
        return torch.cat([slopes, by_nH.unsqueeze(1)], dim=1)


def _damped(gradient: Tensor, fisher: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Levenberg-Marquardt step (B, P) and the descent of the undamped one (B,)."""
    diagonal = torch.diagonal(fisher, dim1=-2, dim2=-1)
    damped = fisher + torch.diag_embed(damping.unsqueeze(-1) * diagonal)
    move = torch.linalg.solve(damped, gradient.unsqueeze(-1)).squeeze(-1)
    newton = torch.linalg.solve(fisher, gradient.unsqueeze(-1)).squeeze(-1)
    return move, 0.5 * (newton * gradient).sum(-1)


def by_class(value: Tensor, label: Tensor, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Median, mean and number of sources, of all and of each class that occurs.

    Parameters
    ----------
    value : Tensor, shape (n_source,)
    label : Tensor, shape (n_source,) of int
        Positions in `names`.
    """
    groups = {"all": torch.ones_like(label, dtype=torch.bool)}
    groups |= {name: label == i for i, name in enumerate(names) if bool((label == i).any())}
    return {
        name: {
            "sources": int(chosen.sum()),
            "median": float(value[chosen].quantile(0.5)),
            "mean": float(value[chosen].mean()),
        }
        for name, chosen in groups.items()
    }
