"""Best fits of many simulated observations at once: a decoder and classical models on one grid, with one engine.

Counts are Poisson over a known background, the statistic is C-stat, every source is seen through the same camera. What a model gives is
ln of its photons per bin; its norm is ln of the expected source counts, and the foreground is fitted with the rest or known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deepspec.learned.decoder import ComposedDecoder
from deepspec.learned.grids import COUNT
from deepspec.training.acceptance import NH_PRIOR, View
from deepspec.training.populations.bench import bench

NH_LIMITS = (-4.0, 1.6)
"""Of log10 nH, where it has no prior."""
STEP = 3e-3
DRAWN, STARTS, EXPLORE, STEPS = 400, 4, 3, 40
"""Points that are compared to choose the starts; starts; steps until all but the best are given up; steps of that one."""


@dataclass(frozen=True, eq=False)
class GridModel:
    """A model whose parameters are any real numbers.

    Attributes
    ----------
    name : str
    size : int
        Number of parameters, without foreground and norm.
    log_photons : callable
        (B, size) -> (B, 600): ln photons per bin, any scale, float32.
    prior : float
        1 where the parameters have the prior N(0,1), 0 where none.
    """

    name: str
    size: int
    log_photons: Callable[[Tensor], Tensor]
    prior: float = 0.0

    @property
    def free(self) -> int:
        """Number of fitted parameters, norm included; one more with the foreground."""
        return self.size + 1


def learned(decoder: ComposedDecoder) -> GridModel:
    """The learned component."""
    table = decoder.table()
    return GridModel("deepspec", decoder.latent, lambda z: torch.log(decoder(z, table).clamp(min=1e-37)), 1.0)


def _between(t: Tensor, low: float, high: float, log: bool = False) -> Tensor:
    """A parameter within limits, from any real number."""
    if log:
        return torch.exp(_between(t, math.log(low), math.log(high)))
    return low + (high - low) * torch.sigmoid(t)


def _sum(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """ln of two spectra added, a share (B,) of the energy flux in the second."""
    on, part = bench(COUNT), torch.sigmoid(2.0 * share).unsqueeze(-1)
    return torch.log(((1.0 - part) * on.unit(first) + part * on.unit(second)).clamp(min=1e-37))


def classical() -> list[GridModel]:
    """One- and two-component models, with the limits of the panel for real spectra."""
    on = bench(COUNT)

    def law(t: Tensor) -> Tensor:
        return on.law(_between(t, -3.0, 9.0))

    def body(t: Tensor) -> Tensor:
        return on.body(_between(t, 0.02, 8.0, log=True))

    def disk(t: Tensor) -> Tensor:
        return on.disk(_between(t, 0.02, 4.0, log=True))

    def plasma(t: Tensor, metals: Tensor) -> Tensor:
        bank = on.plasma_bank.single(_between(t, 0.0815, 24.9, log=True))
        return on.solar_plasma(bank, _between(metals, 0.01, 5.0, log=True))

    def log(spectrum: Tensor) -> Tensor:
        return torch.log(on.unit(spectrum).clamp(min=1e-37))

    def absorbed(t: Tensor) -> Tensor:
        return law(t[:, 0]) * on.transmission(_between(t[:, 1], 1e-2, 300.0, log=True))

    return [
        GridModel("powerlaw", 1, lambda t: log(law(t[:, 0]))),
        GridModel("bbody", 1, lambda t: log(body(t[:, 0]))),
        GridModel("diskbb", 1, lambda t: log(disk(t[:, 0]))),
        GridModel("mekal", 2, lambda t: log(plasma(t[:, 0], t[:, 1]))),
        GridModel("powerlaw+bbody", 3, lambda t: _sum(law(t[:, 0]), body(t[:, 1]), t[:, 2])),
        GridModel("powerlaw+diskbb", 3, lambda t: _sum(law(t[:, 0]), disk(t[:, 1]), t[:, 2])),
        GridModel("mekal+mekal", 4, lambda t: _sum(plasma(t[:, 0], t[:, 1]), plasma(t[:, 2], t[:, 1]), t[:, 3])),
        GridModel("powerlaw+ztbabs*powerlaw", 3, lambda t: _sum(law(t[:, 0]), absorbed(t[:, :2]), t[:, 2])),
    ]


@dataclass(frozen=True, eq=False)
class Fitted:
    """Best fits of one model.

    Attributes
    ----------
    statistic : Tensor, shape (B,)
        C-stat without its saturated part.
    free : int
    log_photons : Tensor, shape (B, 600)
        Unabsorbed.
    log_nH, log_counts : Tensor, shape (B,)
    """

    statistic: Tensor
    free: int
    log_photons: Tensor
    log_nH: Tensor
    log_counts: Tensor


def fit(
    model: GridModel,
    counts: Tensor,
    background: Tensor,
    view: View,
    log_nH: Tensor | None = None,
    seed: int = 0,
    chunk: int = 100,
) -> Fitted:
    """Best fits of `model` to counts (B, 238) over a known background (B, 238).

    Parameters
    ----------
    view : View
        In float64.
    log_nH : Tensor, shape (B,), optional
        The known foreground; fitted otherwise, under its prior for models that have one and flat in its log for others.
    """
    parts = []
    with torch.no_grad():
        start = _Starts(model, view, seed)
        for first in range(0, len(counts), chunk):
            rows = slice(first, first + chunk)
            known = None if log_nH is None else log_nH[rows]
            parts.append(_Fit(model, counts[rows], background[rows], view, known).from_starts(start))
    statistic, log_photons, found, log_counts = (torch.cat(each) for each in zip(*parts, strict=True))
    return Fitted(statistic, model.free + (log_nH is None), log_photons, found, log_counts)


class _Starts:
    """Spectra of random parameters, folded, each behind a foreground of its own."""

    def __init__(self, model: GridModel, view: View, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.t = torch.randn((DRAWN, model.size), generator=generator) * (1.0 if model.prior else 1.3)
        self.log_nH = (NH_PRIOR[0] + NH_PRIOR[1] * torch.randn(DRAWN, generator=generator)).clamp(*NH_LIMITS).double()
        rates = view.rates(torch.exp(model.log_photons(self.t).double()), self.log_nH)
        self.share = rates / rates.sum(-1, keepdim=True)

    def nearest(self, counts: Tensor, background: Tensor, total: Tensor) -> Tensor:
        """The best points for each observation, shape (B, STARTS)."""
        expected = total[:, None, None] * self.share + background.unsqueeze(1)
        likeness = (counts.unsqueeze(1) * torch.log(expected.clamp(min=1e-30)) - expected).sum(-1)
        return likeness.topk(STARTS, dim=-1).indices


class _Fit:
    """Levenberg-Marquardt steps of some observations; parameters are (shape, log10 nH if free, ln counts)."""

    def __init__(self, model: GridModel, counts: Tensor, background: Tensor, view: View, log_nH: Tensor | None):
        self.model, self.counts, self.background, self.view = model, counts, background, view
        self.known = log_nH
        self.single = view.matrix.float()
        net = counts.sum(-1) - background.sum(-1)
        self.total = torch.maximum(net, counts.sum(-1).sqrt().clamp(min=1.0))

    def from_starts(self, starts: _Starts) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Statistic, ln photons, log10 nH and ln counts at the best of the minima reached."""
        size = len(self.counts)
        chosen = starts.nearest(self.counts, self.background, self.total).flatten()
        rows = torch.arange(size).repeat_interleave(STARTS)
        theta = [starts.t[chosen].double(), torch.log(self.total[rows]).unsqueeze(-1)]
        if self.known is None:
            theta.insert(1, starts.log_nH[chosen].unsqueeze(-1))
        theta, objective, _ = self._minimise(torch.cat(theta, -1), rows, EXPLORE)
        best = objective.view(size, STARTS).argmin(-1) + STARTS * torch.arange(size)
        theta, _, statistic = self._minimise(theta[best], torch.arange(size), STEPS)
        photons = self.model.log_photons(theta[:, : self.model.size].float()).double()
        return statistic, photons, self._log_nH(theta, torch.arange(size)), theta[:, -1]

    def _log_nH(self, theta: Tensor, rows: Tensor) -> Tensor:
        return theta[:, -2] if self.known is None else self.known[rows]

    def _minimise(self, theta: Tensor, rows: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        theta = self._within(theta.clone())
        objective, statistic, _ = self._value(theta, rows)
        gradient, fisher = self._derivatives(theta, rows)
        damping = torch.full_like(objective, 1e-2)
        active = torch.arange(len(theta))
        for _ in range(steps):
            move, promise = _damped(gradient[active], fisher[active], damping[active])
            going = (promise > 1e-3) & (damping[active] < 1e6)
            active, trial = active[going], self._within((theta[active] - move)[going])
            if not len(active):
                break
            tried, without_prior, _ = self._value(trial, rows[active])
            better = tried < objective[active]
            taken = active[better]
            damping[active] = (damping[active] * torch.where(better, 0.2, 8.0)).clamp(1e-7, 1e7)
            theta[taken], objective[taken], statistic[taken] = trial[better], tried[better], without_prior[better]
            if len(taken):
                gradient[taken], fisher[taken] = self._derivatives(theta[taken], rows[taken])
        return theta, objective, statistic

    def _within(self, theta: Tensor) -> Tensor:
        # beyond 12 a limited parameter does not move any more
        theta[:, : self.model.size] = theta[:, : self.model.size].clamp(-12.0, 12.0)
        if self.known is None:
            theta[:, -2] = theta[:, -2].clamp(*NH_LIMITS)
        theta[:, -1] = torch.minimum(theta[:, -1], torch.tensor(30.0)).clamp(min=-5.0)
        return theta

    def _prior(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Centre and weight of the prior of each parameter."""
        weight, centre = theta.new_zeros(theta.shape[-1]), theta.new_zeros(theta.shape[-1])
        weight[: self.model.size] = self.model.prior
        if self.known is None and self.model.prior:
            weight[-2], centre[-2] = NH_PRIOR[1] ** -2, NH_PRIOR[0]
        # holds a direction that the data say nothing about
        return centre, weight.clamp(min=1e-6)

    def _value(self, theta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Objective (B,), statistic (B,), and photons, their total counts and expected counts."""
        density = self.model.log_photons(theta[:, : self.model.size].float()).double()
        density = density - self.view.depth(self._log_nH(theta, rows))
        photons = torch.exp(density - density.amax(-1, keepdim=True))
        source = photons @ self.view.matrix
        total = source.sum(-1, keepdim=True)
        expected = torch.exp(theta[:, -1:]) * source / total + self.background[rows]
        statistic = 2.0 * (expected - torch.xlogy(self.counts[rows], expected.clamp(min=1e-30))).sum(-1)
        centre, weight = self._prior(theta)
        objective = statistic + (weight * (theta - centre).square()).sum(-1)
        objective = torch.where(torch.isfinite(objective), objective, torch.full_like(objective, torch.inf))
        return objective, statistic, (photons, total, expected)

    def _derivatives(self, theta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (B, P) and Fisher matrix (B, P, P) of the objective."""
        _, _, (photons, total, expected) = self._value(theta, rows)
        shape = theta[:, : self.model.size].float()
        shifts = STEP * torch.eye(self.model.size)
        places = torch.cat([shape.unsqueeze(1), shape.unsqueeze(1) + shifts], dim=1)
        density = self.model.log_photons(places.flatten(0, 1)).view(len(theta), self.model.size + 1, -1)
        slopes = (density[:, 1:] - density[:, :1]) / STEP
        if self.known is None:
            depth = self.view.depth(theta[:, -2]).float().unsqueeze(1)
            slopes = torch.cat([slopes, -math.log(10.0) * depth], dim=1)
        weighted = slopes * (photons / total).float().unsqueeze(1)
        columns = (weighted.flatten(0, 1) @ self.single).view(*slopes.shape[:2], -1).double()
        source = expected - self.background[rows]
        norm = torch.exp(theta[:, -1])[:, None, None]
        columns = norm * columns - source.unsqueeze(1) * columns.sum(-1, keepdim=True)
        columns = torch.cat([columns, source.unsqueeze(1)], dim=1)
        safe = expected.clamp(min=1e-30)
        gradient = 2.0 * (columns @ (1.0 - self.counts[rows] / safe).unsqueeze(-1)).squeeze(-1)
        fisher = 2.0 * (columns / safe.unsqueeze(1)) @ columns.transpose(-1, -2)
        centre, weight = self._prior(theta)
        return gradient + 2.0 * weight * (theta - centre), fisher + torch.diag(2.0 * weight)


def _damped(gradient: Tensor, fisher: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Levenberg-Marquardt step (B, P) and the descent of the undamped one (B,)."""
    diagonal = torch.diagonal(fisher, dim1=-2, dim2=-1)
    move, failed = torch.linalg.solve_ex(
        fisher + torch.diag_embed(damping.unsqueeze(-1) * diagonal), gradient.unsqueeze(-1)
    )
    newton, _ = torch.linalg.solve_ex(fisher, gradient.unsqueeze(-1))
    move = torch.where((failed == 0)[:, None, None], move, torch.zeros_like(move)).squeeze(-1)
    return move, 0.5 * (newton.squeeze(-1) * gradient).sum(-1)
