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
EXPLORE = 3
"""Steps after which all starts of a source but the best are given up."""
TOLERANCE = 1e-3
"""A fit has converged when what is left to gain is below this share of 1 + excess."""
STEP = 3e-3
"""Of the difference that gives the derivatives by latents, in float32."""
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
        return cls(
            *(torch.as_tensor(each if torch.is_tensor(each) else each.copy(), dtype=dtype) for each in (matrix, sigma))
        )

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
        With `latent`, `table()` and ``forward(z, table) -> (..., 600)``, as `deepspec.learned.decoder`; copied, not changed.
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
    shapes, log_nH = shapes.double(), log_nH.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        decoder = _Decoder(decoder)
        drawn = torch.randn((draws, decoder.latent), generator=generator, dtype=torch.float64)
        density = decoder.log_shape(drawn)
        parts = []
        for first in range(0, len(shapes), CHUNK):
            rows = slice(first, first + CHUNK)
            fit = _Fit(decoder, shapes[rows], log_nH[rows], view, fit_nH, prior)
            parts.append(fit.levels(drawn[fit.nearest(density, starts)], counts, steps))
    value, z, found = (torch.cat([part[i] for part in parts], dim=1) for i in range(3))
    return Excess(tuple(counts), value, z, found)


class _Decoder:
    """A decoder in float64 for values, and in float32 for derivatives."""

    def __init__(self, decoder: nn.Module):
        self.latent = decoder.latent
        self.double, self.single = (copy.deepcopy(decoder).to(dtype).eval() for dtype in (torch.float64, torch.float32))
        self.tables = self.double.table(), self.single.table()

    def log_shape(self, z: Tensor) -> Tensor:
        """ln of the photons per bin, shape (B, 600), of latents (B, D)."""
        return torch.log(self.double(z, self.tables[0]).clamp(min=1e-300))

    def slopes(self, z: Tensor) -> Tensor:
        """Derivatives of the log density, shape (B, D, 600), to a part in a thousand.

        That is enough: the objective a search ends at is off by the square of it, relative to the excess.
        """
        shifts = STEP * torch.eye(self.latent)
        places = torch.cat([z.float().unsqueeze(1), z.float().unsqueeze(1) + shifts], dim=1)
        density = self.single.log_density(places.flatten(0, 1), self.tables[1]).view(len(z), self.latent + 1, -1)
        return (density[:, 1:] - density[:, :1]) / STEP


class _Fit:
    """Damped Fisher scoring of some sources at once; the parameters are (z, log10 nH) or z alone."""

    def __init__(self, decoder: _Decoder, shapes: Tensor, log_nH: Tensor, view: View, fit_nH: bool, prior: float):
        self.decoder, self.view, self.fit_nH, self.prior = decoder, view, fit_nH, prior
        self.log_nH = log_nH
        true = view.rates(shapes, log_nH)
        self.true = true / true.sum(-1, keepdim=True)
        self.arriving = shapes * torch.exp(-view.depth(log_nH))
        self.rows = torch.arange(len(shapes))
        # Pairs of bins carry all that the Fisher matrix, a metric here and no more, must know.
        pairs = torch.nn.functional.pad(view.matrix, (0, view.matrix.shape[1] % 2))
        self.paired = (pairs[:, 0::2] + pairs[:, 1::2]).float()

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
        theta, objective, _ = self._minimise(theta, counts[0], EXPLORE)
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
        objective, value, density = self._value(theta, self.rows, level)
        gradient, fisher = self._derivatives(theta, self.rows, level, density)
        damping = torch.full_like(objective, 1e-2)
        active = torch.arange(len(theta))
        for _ in range(steps):
            move, promise = _damped(gradient[active], fisher[active], damping[active])
            going = (promise > TOLERANCE * (1.0 + value[active])) & (damping[active] < 1e6)
            active, trial = active[going], (theta[active] - move)[going]
            if not len(active):
                break
            tried, tried_value, density = self._value(trial, self.rows[active], level)
            better = tried < objective[active]
            taken = active[better]
            damping[active] = (damping[active] * torch.where(better, 0.2, 8.0)).clamp(1e-7, 1e7)
            theta[taken], objective[taken], value[taken] = trial[better], tried[better], tried_value[better]
            if len(taken):
                terms = self._derivatives(theta[taken], self.rows[taken], level, density[better])
                gradient[taken], fisher[taken] = terms
        return theta, objective, value

    def _value(self, theta: Tensor, rows: Tensor, level: float) -> tuple[Tensor, Tensor, Tensor]:
        """Objective (B,), excess (B,) and the photons that arrive (B, 600), in shares of their counts."""
        density = self.decoder.log_shape(theta[:, : self.decoder.latent])
        density = density - self.view.depth(self._log_nH(theta, rows))
        arriving = torch.exp(density - density.amax(-1, keepdim=True))
        counts = arriving @ self.view.matrix
        total = counts.sum(-1, keepdim=True)
        share, true = counts / total, self.true[rows]
        # xlogy: an empty bin of the truth adds nothing
        value = 2.0 * level * torch.xlogy(true, true / share.clamp(min=1e-300)).sum(-1)
        penalty = theta[:, : self.decoder.latent].square().sum(-1)
        if self.fit_nH:
            penalty = penalty + ((theta[:, -1] - NH_PRIOR[0]) / NH_PRIOR[1]).square()
        bad = ~torch.isfinite(value)
        objective = torch.where(bad, torch.full_like(value, torch.inf), value + self.prior * penalty)
        return objective, value, arriving / total

    def _derivatives(self, theta: Tensor, rows: Tensor, level: float, arriving: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (B, P) and Fisher matrix (B, P, P) of the objective.

        The gradient is folded back from counts to energies in float64, so only the Fisher matrix needs every derivative folded.
        """
        latent = self.decoder.latent
        slopes = self.decoder.slopes(theta[:, :latent])
        if self.fit_nH:
            by_nH = -math.log(10.0) * self.view.depth(theta[:, -1])
            slopes = torch.cat([slopes, by_nH.float().unsqueeze(1)], dim=1)
        share = arriving @ self.view.matrix
        residual = 1.0 - self.true[rows] / share.clamp(min=1e-300)
        pulled = arriving * (residual @ self.view.matrix.T)
        gradient = 2.0 * level * (slopes @ pulled.float().unsqueeze(-1)).squeeze(-1).double()
        columns = ((slopes * arriving.float().unsqueeze(1)).flatten(0, 1) @ self.paired).view(*slopes.shape[:2], -1)
        share = (arriving.float() @ self.paired).unsqueeze(1)
        columns = columns - share * columns.sum(-1, keepdim=True)
        fisher = 2.0 * level * ((columns / share.clamp(min=1e-30)) @ columns.transpose(-1, -2)).double()
        scale = theta.new_full((theta.shape[-1],), 2.0 * self.prior)
        centre = torch.zeros_like(scale)
        if self.fit_nH:
            scale[latent], centre[latent] = scale[latent] / NH_PRIOR[1] ** 2, NH_PRIOR[0]
        return gradient + scale * (theta - centre), fisher + torch.diag(scale)


def _damped(gradient: Tensor, fisher: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Levenberg-Marquardt step (B, P) and the descent of the undamped one (B,)."""
    diagonal = torch.diagonal(fisher, dim1=-2, dim2=-1)
    damped = fisher + torch.diag_embed(damping.unsqueeze(-1) * diagonal)
    move, failed = torch.linalg.solve_ex(damped, gradient.unsqueeze(-1))
    newton, _ = torch.linalg.solve_ex(fisher, gradient.unsqueeze(-1))
    move = torch.where((failed == 0)[:, None, None], move, torch.zeros_like(move)).squeeze(-1)
    return move, 0.5 * (newton.squeeze(-1) * gradient).sum(-1)


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
