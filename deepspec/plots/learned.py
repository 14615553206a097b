"""What the learned component is made of: its templates, its latent coordinates, which class of source uses what."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from torch import Tensor

from deepspec.errors import UserError
from deepspec.learned.decoder import ComposedDecoder, DeepONet
from deepspec.learned.grids import BAND, CENTRES, COUNT, STEP
from deepspec.learned.shifting import MARGIN
from deepspec.plots import style

LINES = {
    "C VI": 0.368,
    "N VII": 0.500,
    "O VII": 0.574,
    "O VIII": 0.654,
    "Fe XVII": 0.826,
    "Ne X": 1.022,
    "Mg XI": 1.352,
    "Si XIII": 1.865,
    "S XV": 2.461,
    "Ar XVII": 3.140,
    "Ca XIX": 3.902,
    "Fe Kα": 6.404,
    "Fe XXV": 6.700,
}
"""Strong lines of X-ray sources [keV]: resonance lines of the ions in AtomDB 3.0.9, neutral iron K-alpha."""
INSIDE = (CENTRES > BAND[0]) & (CENTRES < BAND[1])
"""Bins of the grid that the norm is defined on, and that are drawn."""
SMALL = 8
"""Size of what is written on panels [points]."""
_PROBES = 1000


def coefficients(decoder: ComposedDecoder, count: int = _PROBES, seed: int = 0) -> Tensor:
    """Amplitudes of the templates for coordinates drawn from N(0,1), shape (count, K)."""
    with torch.no_grad():
        return templates_of(decoder).branch(_drawn(decoder, count, seed)).amplitude


def _drawn(decoder: ComposedDecoder, count: int, seed: int) -> Tensor:
    """The decoder's own coordinates of draws from the prior N(0,1), shape (count, latent)."""
    u = torch.randn(count, decoder.latent, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return decoder.inner(u)


def templates_of(decoder: ComposedDecoder) -> DeepONet:
    """The DeepONet inside.

    Raises
    ------
    UserError
        The decoder is a plain perceptron.
    """
    if not isinstance(decoder.decoder, DeepONet):
        raise UserError(
            "these weights have no templates (kind = mlp)",
            remedy="choose weights of a DeepONet, or look at `deepspec plot latents`",
        )
    return decoder.decoder


def template_curves(decoder: ComposedDecoder) -> np.ndarray:
    """Templates on the grid in the order of their amplitudes, at rest, shape (K, 600).

    Those that add up in ln flux as they are; those that add up in flux as photons per ln E.
    """
    inner = templates_of(decoder)
    with torch.no_grad():
        table = inner.table()
        moving = table.moving[:, MARGIN : MARGIN + COUNT] if inner.config.moving else table.moving[:0, :COUNT]
        parts = [moving, table.linear] if inner.config.combine == "linear" else [moving, table.log, table.linear]
        return torch.cat(parts).numpy()


def template_effects(decoder: ComposedDecoder) -> np.ndarray:
    """What each template does at its typical amplitude, for sources drawn from the prior; shape (K, 600).

    A template in ln flux: the factor by which one standard deviation of its amplitude changes the spectrum, mean and slope over the
    band taken out, since a norm and a power law change nothing that the others could not; of the two signs that in which the largest
    change is upwards. One in flux: its mean share of the photons.
    """
    inner, curves = templates_of(decoder), template_curves(decoder)
    logarithmic = inner.config.logarithmic
    factors = np.exp(template_signs(decoder)[:, None] * _changes(decoder))
    if logarithmic == len(curves):
        return factors
    return np.concatenate([factors[:logarithmic], _shares(decoder, curves)[logarithmic:]])


def template_signs(decoder: ComposedDecoder) -> np.ndarray:
    """Signs (K,) by which amplitudes are multiplied so that a positive one makes the largest change an increase; 1 for templates in flux."""
    change = _changes(decoder)
    middle = np.median(change[:, INSIDE], axis=-1, keepdims=True)
    away = change[:, INSIDE] - middle
    signs = np.sign(np.take_along_axis(away, np.abs(away).argmax(-1)[:, None], -1)[:, 0])
    signs[(signs == 0) | (np.arange(len(signs)) >= templates_of(decoder).config.logarithmic)] = 1.0
    return signs


def _changes(decoder: ComposedDecoder) -> np.ndarray:
    """ln of the change by one standard deviation of each amplitude, mean and slope over the band taken out, shape (K, 600)."""
    curves = template_curves(decoder).astype(float)
    x = np.log(CENTRES)
    straight = np.polynomial.polynomial.polyfit(x[INSIDE], curves[:, INSIDE].T, 1)
    away = curves - np.polynomial.polynomial.polyval(x, straight)
    return away * coefficients(decoder).numpy().astype(float).std(0)[:, None]


def _shares(decoder: ComposedDecoder, curves: np.ndarray) -> np.ndarray:
    """Mean share of every template in the photons per ln E of sources drawn from the prior, shape (K, 600)."""
    inner = templates_of(decoder)
    z = _drawn(decoder, _PROBES, 0)
    total = np.zeros(curves.shape)
    x = inner.x_grid
    for part in z.split(100):
        with torch.no_grad():
            found, density = inner.branch(part), inner.log_density(part)
            if inner.config.combine == "linear":
                density = density - found.slope[..., :1] * x - found.slope[..., 1:] * x**2
            for k, curve in enumerate(torch.as_tensor(curves)):
                shares = torch.exp(found.amplitude[:, k : k + 1] + torch.log(curve.clamp(min=1e-30)) - density)
                total[k] += shares.double().sum(0).numpy()
    return total / len(z)


# --- templates ------------------------------------------------------------------------------------------------------


def plot_components(decoder: ComposedDecoder, most: int = 16) -> Figure:
    """The templates that matter most, each at its typical amplitude, over energy; see `template_effects`.

    Parameters
    ----------
    decoder : ComposedDecoder
    most : int
        Panels.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if most < 1:
        raise UserError(f"{most} templates cannot be drawn", "--most", "give 1 or more")
    logarithmic = templates_of(decoder).config.logarithmic
    effects = template_effects(decoder)
    order, shown = by_effect(effects)[:most], effects[:, INSIDE]
    figure, axes = _panels(len(order), 2.35, 1.55, header=0.75)
    for panel, k in zip(axes.ravel(), order, strict=False):
        for energy in LINES.values():
            panel.axvline(energy, color=style.GREY, lw=0.5, alpha=0.45)
        panel.plot(CENTRES[INSIDE], shown[k], color=style.COLOURS[0] if k < logarithmic else style.COLOURS[1], lw=1.1)
        low, high = shown[k].min(), shown[k].max()
        panel.set_ylim(low - 0.06 * (high - low), high + 0.16 * (high - low))
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.text(0.03, 0.955, f"{k + 1}", transform=panel.transAxes, fontsize=SMALL, va="top", bbox=_BOX)
    for panel in axes[0]:
        _name_lines(panel)
    words = {
        "log": "factor by which 1 s.d. of its amplitude changes the spectrum",
        "linear": "mean share of the photons",
        "both": "blue: factor by 1 s.d. of the amplitude; orange: mean share of the photons",
    }[templates_of(decoder).config.combine]
    lines = textwrap.fill(words, int(figure.get_figheight() / 0.07))
    figure.supylabel(lines, fontsize=9, x=0.06 / figure.get_figwidth(), ha="left")
    return figure


_BOX = {"boxstyle": "square,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.85}


def _panels(count: int, width: float, height: float, header: float, left: float = 0.75) -> tuple[Figure, Any]:
    """A figure of `count` panels over energy, in rows of four, with ticks and the label of the energy below each column."""
    columns = min(4, count)
    rows = -(-count // columns)
    size = left + columns * width + 0.15, header + rows * height + 0.5
    figure = style.new_figure(*size)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    gap = 0.42 / (width - 0.42), 0.14 / (height - 0.14)
    figure.subplots_adjust(left / size[0], 0.45 / size[1], 1.0 - 0.12 / size[0], 1.0 - header / size[1], *gap)
    for index, panel in enumerate(axes.ravel()):
        panel.set_visible(index < count)
        panel.tick_params(labelsize=SMALL)
        energy_ticks(panel)
    for column in axes.T:
        lowest = [panel for panel in column if panel.get_visible()][-1]
        lowest.set_xlabel("energy  [keV]", fontsize=9)
        lowest.tick_params(labelbottom=True)
    return figure, axes


def line_names(apart: float = 1.17) -> dict[str, float]:
    """What is written at which energy [keV]: lines of one element nearer than a factor `apart` share a name between them."""
    found: dict[str, float] = {}
    last, since = "", 0.0
    for name, energy in LINES.items():
        element, ion = name.split()
        if last.split(" ")[0] == element and energy < apart * since:
            del found[last]
            name, energy = f"{last}, {ion}", float(np.sqrt(energy * since))
        elif energy < 1.12 * since:
            continue
        found[name] = energy
        last, since = name, energy
    return found


def _name_lines(panel: Any) -> None:
    """Names of lines above a panel."""
    for name, energy in line_names().items():
        panel.annotate(
            name,
            (energy, 1.0),
            xytext=(0, 3),
            xycoords=panel.get_xaxis_transform(),
            textcoords="offset points",
            rotation=90,
            fontsize=6.5,
            ha="center",
            va="bottom",
        )


def energy_ticks(axes: Any, low: float = BAND[0], high: float = BAND[1]) -> None:
    """A logarithmic energy axis with plain numbers."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(LogLocator(subs=tuple(range(1, 10))))
    axes.xaxis.set_minor_formatter(NullFormatter())


# --- latent coordinates ---------------------------------------------------------------------------------------------


def traversals(decoder: ComposedDecoder, values: Sequence[float]) -> np.ndarray:
    """E^2 N(E) of unit energy flux along each coordinate, all others at 0, shape (latent, len(values), 600) [keV cm^-2 s^-1]."""
    points = torch.zeros(decoder.latent, len(values), decoder.latent)
    for index in range(decoder.latent):
        points[index, :, index] = torch.as_tensor(values, dtype=torch.float32)
    with torch.no_grad():
        return decoder(points, decoder.table()).numpy().astype(float) * CENTRES / STEP


def plot_latents(decoder: ComposedDecoder, reach: float = 2.0, count: int = 9) -> Figure:
    """What each latent coordinate does: spectra along it, all others at 0, and their ratio to the spectrum at 0.

    Parameters
    ----------
    decoder : ComposedDecoder
    reach : float
        From -reach to reach standard deviations of the prior.
    count : int
        Spectra along the way.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if not (0.0 < reach <= 6.0 and count >= 2):
        raise UserError(
            f"there is nothing to draw in {count} steps to {reach:g}", "--reach", "give 0 to 6, and 2 spectra or more"
        )
    values = np.linspace(-reach, reach, count)
    curves = traversals(decoder, values)[..., INSIDE]
    centre = traversals(decoder, [0.0])[..., INSIDE]
    limits = _limits(curves, 1e-3)
    colours = ScalarMappable(Normalize(-reach, reach), colormaps["coolwarm"])
    columns = min(4, decoder.latent)
    rows = -(-decoder.latent // columns)
    size = 0.95 + 2.45 * columns, 0.8 + 2.35 * rows
    figure = style.new_figure(*size)
    outer = figure.add_gridspec(
        rows,
        columns,
        left=0.85 / size[0],
        right=1.0 - 0.1 / size[0],
        bottom=0.45 / size[1],
        top=1.0 - 0.55 / size[1],
        wspace=0.32,
        hspace=0.16,
    )
    for index in range(decoder.latent):
        row, column = divmod(index, columns)
        upper, lower = outer[row, column].subgridspec(2, 1, height_ratios=[1.5, 1.0], hspace=0.06).subplots(sharex=True)
        for value, curve, ratio in zip(values, curves[index], curves[index] / centre[index], strict=True):
            for panel, y in ((upper, curve), (lower, ratio)):
                panel.plot(CENTRES[INSIDE], y, color=colours.to_rgba(value), lw=0.9)
        upper.set_yscale("log")
        upper.set_ylim(limits)
        upper.set_title(f"z{index + 1}", loc="left", fontsize=9, pad=2)
        _ratio_axis(lower, curves[index] / centre[index])
        for panel in (upper, lower):
            panel.tick_params(labelsize=SMALL)
            energy_ticks(panel)
        lowest = index + columns >= decoder.latent
        upper.tick_params(labelbottom=False)
        lower.tick_params(labelbottom=lowest)
        if lowest:
            lower.set_xlabel("energy  [keV]", fontsize=9)
    words = (
        "$E^2\\,N(E)$ of $10^{-12}$ erg cm$^{-2}$ s$^{-1}$ in 0.3-10 keV",
        "[keV cm$^{-2}$ s$^{-1}$];  below: ratio to $z=0$",
    )
    figure.supylabel(
        ("  " if rows > 1 else "\n").join(words), fontsize=9 if rows > 1 else 7.5, x=0.06 / size[0], ha="left"
    )
    _coordinate_bar(figure, colours, reach)
    return figure


def _coordinate_bar(figure: Figure, colours: ScalarMappable, reach: float) -> None:
    """What the colours mean, above the panels."""
    width, height = figure.get_size_inches()
    place = [1.0 - 1.2 / width, 1.0 - 0.2 / height, 1.0 / width, 0.1 / height]
    bar = figure.colorbar(colours, cax=figure.add_axes(place), orientation="horizontal")
    bar.set_ticks([-reach, 0.0, reach], labels=[f"{value:g}" for value in (-reach, 0.0, reach)])
    bar.ax.tick_params(labelsize=SMALL, pad=1.5, length=2)
    words = "coordinate  [s.d. of the prior]"
    bar.ax.text(-0.08, 0.5, words, transform=bar.ax.transAxes, fontsize=SMALL, ha="right", va="center")


def _limits(curves: np.ndarray, deepest: float) -> tuple[float, float]:
    """Limits of a logarithmic axis that hold all curves, but no more than a factor `deepest` below the highest."""
    highest = float(curves.max())
    low = max(0.7 * float(curves.min()), deepest * highest)
    # no labelled power of ten at the very end, where it would meet the labels of the panel below
    decade = 10.0 ** np.ceil(np.log10(low))
    return min(low, decade / 1.8), 1.5 * highest


def _ratio_axis(panel: Any, ratios: np.ndarray) -> None:
    """A logarithmic axis around 1 with plain numbers, symmetrical."""
    reach = float(np.clip(np.abs(np.log(ratios)).max() * 1.1, np.log(1.15), np.log(300.0)))
    panel.set_yscale("log")
    panel.set_ylim(np.exp(-reach), np.exp(reach))
    choices = ((1.1, 0.24), (1.2, 0.5), (1.5, 0.86), (2.0, 1.35), (3.0, 2.0), (5.0, 2.9), (10.0, 9.0))
    step = next((step for step, largest in choices if reach <= largest), 10.0)
    panel.yaxis.set_minor_locator(NullLocator())
    panel.set_yticks([1.0 / step, 1.0, step], [f"{1.0 / step:.2g}", "1", f"{step:g}"])
    panel.axhline(1.0, color=style.GREY, lw=0.5, zorder=0)


# --- classes of sources ---------------------------------------------------------------------------------------------


def mean_activation(decoder: ComposedDecoder, latents: Mapping[str, np.ndarray]) -> np.ndarray:
    """Mean amplitude of every template over each class, from the mean over all classes in units of the standard deviation of all sources.

    Parameters
    ----------
    decoder : ComposedDecoder
    latents : mapping of class to ndarray, shape (n, latent)
        The decoder's own coordinates (before the flow) of sources of each class.

    Returns
    -------
    ndarray, shape (classes, K)
    """
    inner = templates_of(decoder)
    with torch.no_grad():
        found = [inner.branch(torch.as_tensor(z, dtype=torch.float32)).amplitude.numpy() for z in latents.values()]
    means = np.stack([amplitude.mean(0) for amplitude in found]).astype(float)
    # classes count alike, whatever their shares
    spread = np.sqrt(np.mean([((a - means.mean(0)) ** 2).mean(0) for a in found], axis=0))
    return (means - means.mean(0)) / np.maximum(spread, 1e-12)


def plot_activation(decoder: ComposedDecoder, latents: Mapping[str, np.ndarray], most: int = 32) -> Figure:
    """Which class of source uses which template: rows are classes, columns the templates that matter most.

    Colours are `mean_activation`, in the sign of `plot_components`: red where a class has more of what is drawn there.

    Parameters
    ----------
    decoder : ComposedDecoder
    latents : mapping of class to ndarray, shape (n, latent)
        As `mean_activation`.
    most : int
        Templates, in the order of `plot_components`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    effects = template_effects(decoder)
    order = by_effect(effects)[:most]
    values = (mean_activation(decoder, latents) * template_signs(decoder))[:, order]
    figure = style.new_figure(max(5.0, 2.2 + 0.22 * len(order)), 0.27 * len(latents) + 1.7, layout="constrained")
    axes = figure.subplots()
    limit = max(float(np.abs(values).max()), 1e-6)
    image = axes.imshow(values, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_yticks(range(len(latents)), [name.replace("_", " ") for name in latents], fontsize=9)
    axes.set_xticks(range(len(order)), [str(k + 1) for k in order], fontsize=SMALL)
    axes.set_xlabel("number of the template, those that change spectra most first", fontsize=9)
    above = axes.secondary_xaxis("top")
    above.set_xticks(range(len(order)), [f"{energy:.2f}" for energy in strongest(effects[order])], rotation=90)
    above.tick_params(labelsize=SMALL)
    above.set_xlabel("energy of its largest effect  [keV]", fontsize=9)
    bar = figure.colorbar(image, ax=axes, pad=0.015)
    bar.ax.tick_params(labelsize=SMALL)
    bar.set_label("mean amplitude  [s.d.]", fontsize=9)
    return figure


def by_effect(effects: np.ndarray) -> np.ndarray:
    """Numbers of the templates, that with the largest effect inside the band first, shape (K,)."""
    return np.argsort(-effects[:, INSIDE].std(-1))


def strongest(effects: np.ndarray) -> np.ndarray:
    """Energy inside the band where each effect (k, 600) is furthest from its median, shape (k,) [keV]."""
    inside = effects[:, INSIDE]
    return CENTRES[INSIDE][np.abs(inside - np.median(inside, axis=-1, keepdims=True)).argmax(-1)]
