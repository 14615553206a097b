"""Rise of the statistic over a grid of one or two parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deepspec.plots import style

#: Rise of the statistic that encloses a share of the probability, for one and for two parameters.
LEVELS = {
    1: {1.0: "68.3 %", 2.706: "90 %", 6.635: "99 %"},
    2: {2.296: "68.3 %", 4.605: "90 %", 9.210: "99 %"},
}


def plot_steppar(grid: Mapping[str, Any]) -> Figure:
    """Rise of the statistic over a grid of one parameter (a curve) or two (contours).

    Parameters
    ----------
    grid : mapping
        An entry of ``FitResult.grids``: names, units, axes, value, best, at.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = style.new_figure(6.0, 4.5, layout="constrained")
    axes = figure.subplots()
    value = np.array([[np.nan if v is None else v for v in np.atleast_1d(row)] for row in grid["value"]], dtype=float)
    rise = np.squeeze(value, axis=1) - grid["best"] if len(grid["names"]) == 1 else value - grid["best"]
    named = zip(grid["names"], grid["units"], strict=True)
    labels = [f"{name}  [{style.unit_label(unit)}]" if unit else name for name, unit in named]
    axes.set_xlabel(labels[0])
    if len(labels) == 1:
        _draw_curve(axes, np.asarray(grid["axes"][0]), rise, grid["at"][0])
    else:
        axes.set_ylabel(labels[1])
        _draw_contours(axes, *map(np.asarray, grid["axes"]), rise.T, grid["at"])
    return figure


def _draw_curve(axes: Any, x: np.ndarray, rise: np.ndarray, at: float) -> None:
    axes.plot(x, rise, color=style.COLOURS[0], marker=".", ms=4)
    finite = rise[np.isfinite(rise)]
    # Higher up there is nothing to read, and the levels would lie on each other.
    top = min(max(4.0, 1.1 * float(finite.max(initial=0.0))), 15.0)
    for level, name in LEVELS[1].items():
        if level < top:
            axes.axhline(level, color=style.GREY, lw=0.8, ls=":")
            place = {"xycoords": ("axes fraction", "data"), "xytext": (4, 0), "textcoords": "offset points"}
            axes.annotate(f"{name} ({level:g})", (1.0, level), va="center", fontsize=8, color=style.GREY, **place)
    if x[0] <= at <= x[-1]:
        axes.axvline(at, color=style.MODEL, lw=0.9, label="best fit")
        axes.figure.legend(loc="outside upper right", frameon=False, fontsize=8)
    axes.set_ylim(min(-0.03 * top, 1.1 * float(finite.min(initial=0.0))), top)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylabel("rise of the statistic")


def _draw_contours(axes: Any, x: np.ndarray, y: np.ndarray, rise: np.ndarray, at: Sequence[float]) -> None:
    shown = {level: name for level, name in LEVELS[2].items() if np.nanmin(rise) < level < np.nanmax(rise)}
    handles = []
    if shown:
        colours = style.COLOURS[: len(shown)]
        axes.contour(x, y, rise, levels=list(shown), colors=colours)
        handles = [
            Line2D([], [], color=c, label=f"{n} ({v:.2f})") for c, (v, n) in zip(colours, shown.items(), strict=True)
        ]
    else:
        words = "no confidence contour crosses this grid"
        axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", color=style.GREY)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    if x[0] <= at[0] <= x[-1] and y[0] <= at[1] <= y[-1]:
        handles += axes.plot(*at, marker="+", ms=10, ls="none", color="black", label="best fit")
    if handles:
        axes.figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
