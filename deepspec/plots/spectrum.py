"""Counts with the folded model, its components and the background; residuals below."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from deepspec.plots import style
from deepspec.plots.points import Points, make_points
from deepspec.problem import Dataset, Problem

#: What sigma stands for in the residuals, by statistic.
SIGMA = {
    "cstat": "of the model counts",
    "wstat": "of the model and background counts",
    "pgstat": "of the model counts and the error of the background",
}


def plot_spectrum(problem: Problem, theta: Tensor, min_sigma: float = 3.0) -> Figure:
    """Counts per second and keV with the folded model, its components and the background; residuals below.

    Nothing is subtracted: the line is source model plus background (the profiled one with W-stat), the points
    are all counts of the source region. The residuals compare the counts with the model plus the measured
    background, over the standard deviation that the statistic assigns to this difference.

    Parameters
    ----------
    theta : Tensor, shape (P,)
    min_sigma : float
        Bins are joined in the figure until each point is this significant; the fit is not touched.

    Returns
    -------
    matplotlib.figure.Figure
        Save it with ``figure.savefig("spectrum.png")``.
    """
    figure = style.new_figure(7.5, 6.0)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    alone = len(problem.datasets) == 1
    with torch.no_grad():
        predicted = problem.predict(theta)
        terms = folded_terms(problem, theta)
        found = [make_points(d, m, min_sigma) for d, m in zip(problem.datasets, predicted, strict=True)]
    extent = []
    for i, (dataset, point, term) in enumerate(zip(problem.datasets, found, terms, strict=True)):
        colour = "black" if alone else style.COLOURS[i % len(style.COLOURS)]
        per = 1.0 / (dataset.binned.exposure * (point.high - point.low))
        extent.append(_draw_data(top, point, per, colour, "data" if alone else dataset.name))
        _draw_model(top, point, per, term, colour, alone, i == 0)
        _draw_background(top, dataset, point, per, colour, alone, i == 0)
        _draw_residuals(bottom, point, colour)
    style.value_axis(top, extent)
    top.set_ylabel("counts s$^{-1}$ keV$^{-1}$")
    _residual_axis(bottom, found, sigma_words(problem))
    style.energy_axis(bottom, problem)
    style.legend_above(figure, top, problem.model.text)
    return figure


def folded_terms(problem: Problem, theta: Tensor) -> list[dict[str, np.ndarray]]:
    """Source counts of each additive term per fitted bin, by label, for each observation.

    Empty where there is but one term: it is the model.
    """
    terms = problem.model.terms
    if len(terms) < 2:
        return [{} for _ in problem.datasets]
    values = problem.parameters.expand(theta)
    found = []
    for dataset in problem.datasets:
        factor = 1.0 if dataset.factor is None else float(values[dataset.factor])
        folded = {name: dataset.fold(term.flux(dataset.grid, values)).reshape(-1) for name, term in terms}
        found.append({name: factor * counts.numpy() for name, counts in folded.items()})
    return found


def sigma_words(problem: Problem) -> str:
    """What sigma stands for in the residuals."""
    named = [SIGMA.get(d.statistic.name, f"the error used by {d.statistic.name}") for d in problem.datasets]
    return "σ: " + ", ".join(dict.fromkeys(named))


def _draw_data(axes: Any, point: Points, per: np.ndarray, colour: str, label: str) -> tuple[float, float]:
    """Points with error bars, upper limits where nothing was counted; returns the range that must be seen."""
    seen = point.counts > 0
    rate, up = point.counts * per, point.up * per
    down = np.minimum(point.down * per, 0.999 * rate)
    style.error_bars(axes, point[seen], rate[seen], down[seen], up[seen], colour, label=label)
    ceiling = (np.maximum(point.counts, 0.0) + point.up) * per
    style.upper_limits(axes, point[~seen], ceiling[~seen], colour)
    lowest = np.where(seen, np.maximum(rate - down, 0.3 * rate), 0.7 * ceiling)
    return float(lowest.min()), float(ceiling.max())


def _draw_model(
    axes: Any, point: Points, per: np.ndarray, terms: dict[str, np.ndarray], colour: str, alone: bool, first: bool
) -> None:
    label = ("model + background" if point.background.any() else "model") if first else None
    total = (point.model + point.background) * per
    style.steps(axes, point, total, style.MODEL if alone else colour, lw=1.3, zorder=4, label=label)
    for i, (name, counts) in enumerate(terms.items()):
        shade = style.TERMS[i % len(style.TERMS)] if alone else colour
        line = style.LINES[i % len(style.LINES)]
        style.steps(
            axes, point, point.add(counts) * per, shade, lw=1.0, ls=line, zorder=2, label=name if first else None
        )


def _draw_background(
    axes: Any, dataset: Dataset, point: Points, per: np.ndarray, colour: str, alone: bool, first: bool
) -> None:
    """The measured background, scaled to the source region, whether or not the statistic uses it."""
    binned = dataset.binned
    if binned.background is None:
        return
    label = "background, scaled" if first else None
    rate = point.add(binned.background * binned.ratio) * per
    style.steps(axes, point, rate, style.GREY if alone else colour, lw=0.8, alpha=0.55, zorder=1, label=label)


def _draw_residuals(axes: Any, point: Points, colour: str) -> None:
    residual = point.residual
    ones = np.ones_like(residual)
    style.error_bars(axes, point, residual, ones, ones, colour)


def _residual_axis(axes: Any, found: list[Points], words: str) -> None:
    highest = max(float(np.nanmax(np.abs(p.residual), initial=0.0)) for p in found)
    limit = max(3.0, highest + 1.2)
    axes.set_ylim(-1.15 * limit, limit)
    axes.axhline(0.0, color=style.GREY, lw=0.8, zorder=0)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_ylabel("(data $-$ model) / $\\sigma$")
    axes.text(0.99, 0.03, words, transform=axes.transAxes, fontsize=7, color=style.GREY, ha="right")
