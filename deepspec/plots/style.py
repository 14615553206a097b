"""What the figures share: colours, lines, axes, legend."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from deepspec.plots.points import Points
from deepspec.problem import Problem

#: Okabe & Ito's colours, told apart by colour-blind readers and in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ((0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1.5)), (0, (8, 2, 1, 1, 1, 2)), (0, (2, 3)))
GREY = "#777777"
MODEL = "#D55E00"
#: Colours of components beside `MODEL`.
TERMS = ("#009E73", "#CC79A7", "#0072B2", "#E69F00", "#56B4E9")


def new_figure(width: float, height: float, layout: str | None = None) -> Figure:
    """A figure that can be saved and shown, made without pyplot.

    matplotlib's own layouts draw everything twice to measure it; figures whose margins are known do without.
    """
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def band(problem: Problem) -> tuple[float, float]:
    """Lowest and highest fitted energy, positive [keV]."""
    low = min(float(d.binned.energy_low.min()) for d in problem.datasets)
    return max(low, 1e-2), max(float(d.binned.energy_high.max()) for d in problem.datasets)


def energy_axis(axes: Any, problem: Problem) -> None:
    """A logarithmic energy axis over the fitted band with plain numbers."""
    low, high = band(problem)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.04, high * 1.04)
    narrow = high / low < 4
    axes.xaxis.set_major_locator(LogLocator(subs=tuple(range(1, 10)) if narrow else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator() if narrow else LogLocator(subs=tuple(range(1, 10))))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("energy  [keV]")


def value_axis(axes: Any, extent: Sequence[tuple[float, float]]) -> None:
    """A logarithmic axis with limits from the data, so that lines which fall off do not squeeze them."""
    axes.set_yscale("log")
    low, high = min(e[0] for e in extent), max(e[1] for e in extent)
    high = high if np.isfinite(high) and high > 0 else 1.0
    low = low if np.isfinite(low) and 0 < low < high else 1e-2 * high
    axes.set_ylim(min(max(0.6 * low, 1e-6 * high), 0.2 * high), 1.8 * high)


def legend_above(figure: Figure, axes: Any, title: str, right: float = 0.2) -> None:
    """A legend above the axes, so that it never lies on the data, data first; and the margins that leave room for it.

    Parameters
    ----------
    right : float
        Margin on the right [inch].
    """
    handles, labels = axes.get_legend_handles_labels()
    # Error bars come last from matplotlib.
    order = sorted(range(len(labels)), key=lambda i: not hasattr(handles[i], "has_yerr"))
    title = textwrap.fill(title, 100, break_long_words=True)
    columns = min(len(labels), 4 if max(map(len, labels), default=0) < 30 else 3)
    lines = -(-len(labels) // max(columns, 1))
    width, height = figure.get_size_inches()
    header = 0.15 + 0.17 * (1 + title.count("\n")) + 0.175 * lines
    left, bottom = 0.8, 0.55
    figure.subplots_adjust(left / width, bottom / height, 1.0 - right / width, 1.0 - header / height, hspace=0.06)
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="upper center",
        bbox_to_anchor=(0.5 * (left + width - right) / width, 1.0),
        borderaxespad=0.3,
        labelspacing=0.35,
        ncols=columns,
        frameon=False,
        fontsize=8,
        title=title,
        title_fontsize=9,
    )


def error_bars(
    axes: Any, found: Points, y: np.ndarray, down: np.ndarray, up: np.ndarray, colour: str, **style: Any
) -> None:
    """Points as crosses: bins horizontally, errors vertically."""
    axes.errorbar(
        found.middle,
        y,
        np.stack([down, up]),
        found.span(),
        fmt="none",
        ecolor=colour,
        elinewidth=0.9,
        zorder=5,
        **style,
    )


def upper_limits(axes: Any, found: Points, y: np.ndarray, colour: str) -> None:
    """Bars with an arrow that points down."""
    if len(y):
        axes.errorbar(
            found.middle,
            y,
            0.25 * y,
            found.span(),
            fmt="none",
            uplims=True,
            color=colour,
            ecolor=colour,
            elinewidth=0.7,
            alpha=0.6,
            capsize=2,
        )


def steps(axes: Any, found: Points, values: np.ndarray, colour: str, **style: Any) -> None:
    """A stepped line over the points, broken where energies are left out."""
    breaks = np.flatnonzero(np.abs(found.low[1:] / found.high[:-1] - 1.0) > 1e-4) + 1
    x, y = [], []
    for part in np.split(np.arange(len(found.low)), breaks):
        x += [np.stack([found.low[part], found.high[part]], axis=1).ravel(), [np.nan]]
        y += [np.repeat(values[part], 2), [np.nan]]
    axes.plot(np.concatenate(x), np.concatenate(y), color=colour, **style)


def unit_label(unit: str) -> str:
    """A unit for an axis."""
    return {"10^22": "10$^{22}$ cm$^{-2}$"}.get(unit, unit)
