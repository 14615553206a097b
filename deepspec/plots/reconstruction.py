"""A fitted spectrum with bands from the posterior: what the data say of the model, in counts and before absorption."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from deepspec.fluxes import ERG_PER_KEV
from deepspec.models.base import Grid
from deepspec.models.model import Model
from deepspec.plots import style
from deepspec.plots.points import Points, make_points
from deepspec.plots.spectrum import sigma_words
from deepspec.problem import Dataset, Problem

LEVELS = (0.025, 0.16, 0.84, 0.975)
"""Ends of the central 95 and 68 % intervals."""
CHUNK = 64
"""Draws folded together."""
FINE = 0.007
"""Width of a bin of the unfolded spectrum in ln E: that of the learned component, finer than a CCD resolves."""
LEFT, RIGHT = 0.95, 1.0
"""Margins [inch]."""
SHADES = ((0, 3, 0.22), (1, 2, 0.45))
"""Lower end, upper end (places in `LEVELS`) and opacity of the bands."""


@dataclass(frozen=True, eq=False)
class Band:
    """Central intervals of something along an axis.

    Attributes
    ----------
    ends : ndarray, shape (4, n)
        At the levels `LEVELS`.
    """

    ends: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Band:
        """From draws, shape (N, n)."""
        return cls(np.quantile(values, LEVELS, axis=0))

    def times(self, factor: np.ndarray | float) -> Band:
        """The band of the same thing in another positive unit."""
        return Band(self.ends * factor)


def plot_reconstruction(
    problem: Problem,
    theta: Tensor,
    draws: Tensor,
    min_sigma: float = 3.0,
    title: str | None = None,
    truth: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> Figure:
    """Counts with the folded model, residuals, and the unabsorbed spectrum, each with 68 and 95 % bands of posterior draws.

    Parameters
    ----------
    problem : Problem
    theta : Tensor, shape (P,)
        The best fit: the lines.
    draws : Tensor, shape (N, P)
        From the posterior, of equal weight, as `deepspec.inference.posterior.posterior_draws` makes them: the bands.
    min_sigma : float
        Bins are joined in the figure until each point is this significant; the fit is not touched.
    title : str, optional
        Unless given, the model and the statistic of the best fit.
    truth : mapping of label to (edges, photons), optional
        Known spectra to compare with in the lowest panel: edges (n + 1,) [keV], photons per bin (n,) [cm^-2 s^-1].

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = style.new_figure(7.5, 8.2)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1.1, 2.6])
    alone = len(problem.datasets) == 1
    with torch.no_grad():
        best = problem.predict(theta)
        many = [problem.predict(part) for part in draws.split(CHUNK)]
    extent, highest = [], 3.0
    for i, dataset in enumerate(problem.datasets):
        points = make_points(dataset, best[i], min_sigma)
        totals = joined_totals(dataset, points, torch.cat([part[i] for part in many]))
        colour = style.MODEL if alone else style.COLOURS[i % len(style.COLOURS)]
        per = 1.0 / (dataset.binned.exposure * (points.high - points.low))
        name = None if alone else dataset.name
        extent.append(_draw_counts(top, dataset, points, per, Band.of(totals), colour, name))
        highest = max(highest, _draw_residuals(middle, points, totals, colour, alone))
    style.value_axis(top, extent)
    few_decades(top.yaxis, top.get_ylim())
    top.set_ylabel("counts s$^{-1}$ keV$^{-1}$")
    middle.set_ylim(-1.15 * (highest + 0.7), highest + 0.7)
    middle.axhline(0.0, color=style.GREY, lw=0.8, zorder=0)
    middle.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    middle.set_ylabel("(data $-$ model) / $\\sigma$")
    middle.text(0.99, 0.04, sigma_words(problem), transform=middle.transAxes, fontsize=7, color=style.GREY, ha="right")
    colour = style.MODEL if alone else "black"
    _draw_unabsorbed(bottom, problem, theta, draws, colour, truth or {})
    for label, (_, line) in zip(truth or {}, _dashes(truth or {}), strict=True):
        top.plot([], [], color="black", ls=line, lw=1.1, label=label)
    style.energy_axis(bottom, problem)
    style.legend_above(figure, top, default_title(problem, theta) if title is None else title, right=RIGHT)
    figure.subplots_adjust(left=LEFT / figure.get_figwidth())
    for axes in (top, middle, bottom):
        axes.yaxis.set_label_coords(-0.72 / (figure.get_figwidth() - LEFT - RIGHT), 0.5)
    return figure


def default_title(problem: Problem, theta: Tensor) -> str:
    """The model, and the statistic of the best fit."""
    with torch.no_grad():
        value = float(problem.statistic(theta))
    return f"{short(problem.model.text)},  {problem.statistic_name} {value:.1f} in {problem.bins} bins"


def short(text: str) -> str:
    """A model's text with the names of files in place of their paths."""
    return re.sub(r"\{[^{}]*[/\\]", "{", text)


def joined_totals(dataset: Dataset, points: Points, predicted: Tensor) -> np.ndarray:
    """Source model plus background in each point, shape (N, n_point), of predicted source counts (N, n_bin)."""
    with torch.no_grad():
        total = predicted + dataset.statistic.background(predicted)
    return np.add.reduceat(total.numpy(), points.first, axis=1)


def unabsorbed_curves(problem: Problem, theta: Tensor, grid: Grid) -> np.ndarray:
    """E^2 N(E) without the model's absorption factors [keV cm^-2 s^-1], shape (..., n), for theta (..., P)."""
    model: Model = problem.model.unabsorbed or problem.model
    with torch.no_grad():
        flux = model.flux(grid, problem.parameters.expand(theta)).numpy()
    return flux * (grid.middle.numpy() ** 2 / grid.width.numpy())


def _draw_counts(
    axes: Any, dataset: Dataset, points: Points, per: np.ndarray, band: Band, colour: str, name: str | None
) -> tuple[float, float]:
    """Data, best fit, bands and measured background; the range that must be seen."""
    seen = points.counts > 0
    rate, up = points.counts * per, points.up * per
    down = np.minimum(points.down * per, 0.999 * rate)
    ink = "black" if name is None else colour
    style.error_bars(axes, points[seen], rate[seen], down[seen], up[seen], ink, label=name or "data")
    ceiling = (np.maximum(points.counts, 0.0) + points.up) * per
    style.upper_limits(axes, points[~seen], ceiling[~seen], ink)
    first = not axes.get_legend_handles_labels()[1][1:]
    words = "best fit + background" if points.background.any() else "best fit"
    style.steps(
        axes,
        points,
        (points.model + points.background) * per,
        colour,
        lw=1.1,
        zorder=4,
        label=words if first else None,
    )
    _fill_steps(axes, points, band.times(per), colour, labelled=first)
    binned = dataset.binned
    if binned.background is not None:
        measured = points.add(binned.background * binned.ratio) * per
        style.steps(
            axes, points, measured, style.GREY, lw=0.8, alpha=0.6, label="background, scaled" if first else None
        )
    lowest = np.where(seen, np.maximum(rate - down, 0.3 * rate), 0.7 * ceiling)
    return float(lowest.min()), float(ceiling.max())


def _draw_residuals(axes: Any, points: Points, totals: np.ndarray, colour: str, alone: bool) -> float:
    """Residuals of the best fit, and where the draws lie beside it; the largest value that must be seen."""
    sigma = np.sqrt(points.variance)
    ones = np.ones_like(points.residual)
    style.error_bars(axes, points, points.residual, ones, ones, "black" if alone else colour)
    beside = Band.of((totals - (points.model + points.background)) / sigma)
    _fill_steps(axes, points, beside, colour)
    return float(np.nanmax(np.abs(points.residual), initial=0.0)) + 1.0


def _fill_steps(axes: Any, points: Points, band: Band, colour: str, labelled: bool = False) -> None:
    """Stepped bands, broken where energies are left out."""
    breaks = np.flatnonzero(np.abs(points.low[1:] / points.high[:-1] - 1.0) > 1e-4) + 1
    for part in np.split(np.arange(len(points)), breaks):
        edges = np.append(points.low[part], points.high[part[-1]])
        ends = np.concatenate([band.ends[:, part], band.ends[:, part[-1:]]], axis=1)
        for lower, upper, shade in SHADES:
            axes.fill_between(edges, ends[lower], ends[upper], step="post", color=colour, alpha=shade, lw=0, zorder=1)
    if labelled:
        for (_, _, shade), words in zip(SHADES[::-1], ("68 % of the posterior", "95 %"), strict=False):
            axes.fill_between([], [], [], color=colour, alpha=shade, lw=0, label=words)


def few_decades(axis: Any, limits: tuple[float, float]) -> None:
    """Labels at 1, 2 and 5 where a logarithmic axis has few decades, else at powers of ten."""
    narrow = limits[1] / limits[0] < 60.0
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(value)))
    axis.set_minor_locator(LogLocator(subs=tuple(range(1, 10))))
    axis.set_minor_formatter(NullFormatter())


def power_of_ten(value: float) -> str:
    """A positive number of one digit as 2 x 10^-4, in matplotlib's mathematics."""
    exponent = math.floor(math.log10(value) + 1e-9)
    digit = round(value / 10.0**exponent)
    return f"$10^{{{exponent}}}$" if digit == 1 else f"${digit}\\times10^{{{exponent}}}$"


def _dashes(truth: Mapping) -> list[tuple[str, Any]]:
    return [(label, style.LINES[i % len(style.LINES)]) for i, label in enumerate(truth)]


def _draw_unabsorbed(
    axes: Any, problem: Problem, theta: Tensor, draws: Tensor, colour: str, truth: Mapping[str, tuple]
) -> None:
    """E^2 N(E) without absorption: best fit, bands, and known spectra."""
    low, high = style.band(problem)
    grid = Grid(torch.logspace(np.log10(low), np.log10(high), int(np.log(high / low) / FINE) + 2, dtype=torch.float64))
    x = grid.middle.numpy()
    line = unabsorbed_curves(problem, theta, grid).reshape(-1)
    band = Band.of(np.concatenate([unabsorbed_curves(problem, part, grid) for part in draws.split(CHUNK)]))
    axes.plot(x, line, color=colour, lw=1.1, zorder=4)
    for lower, upper, shade in SHADES:
        axes.fill_between(x, band.ends[lower], band.ends[upper], color=colour, alpha=shade, lw=0, zorder=1)
    shown = [line, np.maximum(band.ends[0], 0.4 * band.ends[1])]
    for (edges, photons), (_, dash) in zip(truth.values(), _dashes(truth), strict=True):
        middle = np.sqrt(edges[1:] * edges[:-1])
        inside = (middle > low) & (middle < high)
        known = (photons * middle**2 / np.diff(edges))[inside]
        axes.plot(middle[inside], known, color="black", ls=dash, lw=1.1, zorder=5)
        shown.append(known)
    axes.set_yscale("log")
    largest = max(float(np.max(values)) for values in [*shown, band.ends[3]])
    lowest = min(float(np.min(values)) for values in shown)
    axes.set_ylim(max(0.6 * lowest, 1e-4 * largest), 1.7 * largest)
    axes.set_ylabel("unabsorbed $E^2\\,N(E)$  [keV cm$^{-2}$ s$^{-1}$]", fontsize=9)
    other = axes.secondary_yaxis("right", functions=(lambda y: y * ERG_PER_KEV, lambda y: y / ERG_PER_KEV))
    other.set_ylabel("[erg cm$^{-2}$ s$^{-1}$]", fontsize=9)
    for each in (axes, other):
        each.tick_params(axis="y", labelsize=8)
        few_decades(each.yaxis, axes.get_ylim())
