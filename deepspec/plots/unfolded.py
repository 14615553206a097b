"""E^2 N(E) of the model, with the data unfolded through it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from deepspec.fluxes import ERG_PER_KEV
from deepspec.models.base import Grid
from deepspec.plots import style
from deepspec.plots.points import Points, make_points
from deepspec.problem import Problem


def plot_unfolded(problem: Problem, theta: Tensor, min_sigma: float = 3.0) -> Figure:
    """E^2 N(E) of the model and its components, with the data unfolded through this very model.

    A point is the model's E^2 N(E) in its bin times (counts - background) / predicted counts, as in XSPEC's ``eeuf``:
    it depends on the model and must not be fitted. Points below half a sigma are drawn as upper limits.

    Parameters
    ----------
    theta : Tensor, shape (P,)
    min_sigma : float
        As in `plot_spectrum`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = style.new_figure(7.5, 5.0)
    axes = figure.subplots()
    alone = len(problem.datasets) == 1
    low, high = style.band(problem)
    # Bins of 0.7 %, finer than a CCD resolves: with less, the lines of a plasma hide everything else.
    grid = Grid(torch.logspace(np.log10(low), np.log10(high), int(np.log(high / low) / 0.007) + 2, dtype=torch.float64))
    with torch.no_grad():
        values = problem.parameters.expand(theta)
        flux = problem.model.flux(grid, values).reshape(-1).numpy()
        terms = [(name, term.flux(grid, values).reshape(-1).numpy()) for name, term in problem.model.terms]
        predicted = problem.predict(theta)
        found = [make_points(d, m, min_sigma) for d, m in zip(problem.datasets, predicted, strict=True)]
    square = grid.middle.numpy() ** 2 / grid.width.numpy()
    axes.plot(grid.middle, flux * square, color=style.MODEL if alone else "black", lw=1.3, zorder=4, label="model")
    for i, (name, term) in enumerate(terms if len(terms) > 1 else ()):
        shade, line = style.TERMS[i % len(style.TERMS)], style.LINES[i % len(style.LINES)]
        shade = shade if alone else style.GREY
        axes.plot(grid.middle, term * square, color=shade, ls=line, lw=1.0, zorder=2, label=name)
    extent = []
    for i, (dataset, point) in enumerate(zip(problem.datasets, found, strict=True)):
        colour = "black" if alone else style.COLOURS[i % len(style.COLOURS)]
        label = "data, unfolded through the model" if alone else f"{dataset.name}, unfolded"
        extent.append(_draw_unfolded(axes, point, unfolding(point, grid, flux), colour, label))
    style.value_axis(axes, extent)
    axes.set_ylabel("$E^2\\,N(E)$  [keV cm$^{-2}$ s$^{-1}$]")
    other = axes.secondary_yaxis("right", functions=(lambda y: y * ERG_PER_KEV, lambda y: y / ERG_PER_KEV))
    other.set_ylabel("$E^2\\,N(E)$  [erg cm$^{-2}$ s$^{-1}$]")
    style.energy_axis(axes, problem)
    style.legend_above(figure, axes, problem.model.text, right=0.85)
    return figure


def unfolding(point: Points, grid: Grid, flux: np.ndarray) -> np.ndarray:
    """E^2 N(E) per net count of each point, shape (n_point,) [keV cm^-2 s^-1]; NaN where the model is zero.

    Parameters
    ----------
    grid, flux : photon flux of the model per bin of a fine grid over the fitted band.
    """
    summed = np.concatenate([[0.0], np.cumsum(flux)])
    ends = np.interp(np.stack([point.low, point.high]), grid.edges.numpy(), summed)
    density = (ends[1] - ends[0]) / (point.high - point.low)
    return point.middle**2 * density / np.where(point.model > 0, point.model, np.nan)


def _draw_unfolded(axes: Any, point: Points, scale: np.ndarray, colour: str, label: str) -> tuple[float, float]:
    usable = np.isfinite(scale) & (scale > 0)
    net, sigma = point.counts - point.measured, np.sqrt(point.variance)
    seen, rest = usable & (net > 0.5 * sigma), usable & (net <= 0.5 * sigma)
    value, error = net * scale, sigma * scale
    down = np.minimum(error, 0.999 * np.maximum(value, 0.0))
    style.error_bars(axes, point[seen], value[seen], down[seen], error[seen], colour, label=label)
    ceiling = (np.maximum(net, 0.0) + sigma) * scale
    style.upper_limits(axes, point[rest], ceiling[rest], colour)
    lowest = np.concatenate([np.maximum(value - error, 0.4 * value)[seen], 0.7 * ceiling[rest]])
    highest = np.concatenate([(value + error)[seen], ceiling[rest]])
    return (float(lowest.min()), float(highest.max())) if len(lowest) else (np.inf, 0.0)
