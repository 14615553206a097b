"""What the learned component is made of: its templates, its latent coordinates, which class of source uses what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

from deepspec.errors import UserError
from deepspec.learned.decoder import ComposedDecoder, DeepONet
from deepspec.learned.grids import BAND, CENTRES, STEP
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
_PROBES = 4000


def coefficients(decoder: ComposedDecoder, count: int = _PROBES, seed: int = 0) -> Tensor:
    """Amplitudes of the templates for coordinates drawn from N(0,1), shape (count, K)."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(count, decoder.latent, generator=generator)
    with torch.no_grad():
        return templates_of(decoder).branch(decoder.inner(u)).amplitude


def templates_of(decoder: ComposedDecoder) -> DeepONet:
    """The DeepONet inside.

    Raises
    ------
    UserError
        The decoder is a plain perceptron.
    """
    if not isinstance(decoder.decoder, DeepONet):
        raise UserError(
            "these weights have no templates (kind = mlp)", remedy="choose weights of a DeepONet, or `plot latents`"
        )
    return decoder.decoder


def template_curves(decoder: ComposedDecoder) -> np.ndarray:
    """Templates on the grid in the order of their amplitudes, shape (K, 600).

    Those that add up in ln flux as they are; those that add up in flux as flux per ln E.
    """
    inner = templates_of(decoder)
    with torch.no_grad():
        table = inner.table()
        moving = table.moving[:, 84:684] if inner.config.moving else table.moving[:0, :600]
        parts = [moving, table.linear] if inner.config.combine == "linear" else [moving, table.log, table.linear]
        return torch.cat(parts).numpy()


def plot_components(decoder: ComposedDecoder, most: int = 16) -> Figure:
    """The templates that matter most, each with its typical amplitude, over energy.

    A template in ln flux is shown as the factor by which one standard deviation of its amplitude (for coordinates drawn
    from the prior) changes the spectrum, its mean and slope over the band taken out: a norm and a power law change nothing that
    another template does not. One that adds up in flux is shown as its share of the flux.

    Parameters
    ----------
    decoder : ComposedDecoder
    most : int
        Panels.

    Returns
    -------
    matplotlib.figure.Figure
    """
    inner, amplitude, curves = templates_of(decoder), coefficients(decoder), template_curves(decoder)
    logarithmic = inner.config.logarithmic
    inside = (CENTRES > BAND[0]) & (CENTRES < BAND[1])
    shown = [_effect(curves[k], amplitude[:, k].numpy(), inside, k < logarithmic) for k in range(len(curves))]
    order = np.argsort([-np.std(curve[inside]) for curve in shown])[:most]
    columns = min(4, len(order))
    rows = -(-len(order) // columns)
    figure = style.new_figure(3.1 * columns, 1.75 * rows + 0.9, layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for panel in axes.ravel()[len(order) :]:
        panel.set_visible(False)
    for panel, k in zip(axes.ravel(), order, strict=False):
        low, high = shown[k][inside].min(), shown[k][inside].max()
        for energy in LINES.values():
            panel.axvline(energy, color=style.GREY, lw=0.5, alpha=0.5)
        panel.plot(CENTRES[inside], shown[k][inside], color=style.COLOURS[0], lw=1.2)
        panel.set_ylim(low - 0.08 * (high - low), high + 0.25 * (high - low))
        kind = "ln flux" if k < logarithmic else "flux"
        panel.set_title(f"template {k + 1} ({kind})", fontsize=8, pad=3)
        panel.tick_params(labelsize=7)
        energy_ticks(panel)
    for panel in axes[:, 0]:
        panel.set_ylabel("effect of 1 s.d.\n[factor]" if logarithmic else "share of flux", fontsize=8)
    for column in range(columns):
        lowest = [row[column] for row in axes if row[column].get_visible()]
        lowest[-1].set_xlabel("energy [keV]", fontsize=8)
        lowest[-1].tick_params(labelbottom=True)
    _name_lines(axes[0])
    return figure


def _effect(curve: np.ndarray, amplitude: np.ndarray, inside: np.ndarray, logarithmic: bool) -> np.ndarray:
    if not logarithmic:
        return curve * float(np.median(np.exp(amplitude)))
    x = np.log(CENTRES)
    straight = np.polynomial.Polynomial.fit(x[inside], curve[inside], 1)
    return np.exp((curve - straight(x)) * float(np.std(amplitude)))


def _name_lines(panels: Sequence[Any]) -> None:
    """Names of lines above the upper panels, those that would touch left out."""
    for panel in panels:
        last = 0.0
        for name, energy in LINES.items():
            if energy > 1.28 * last:
                panel.text(
                    energy,
                    0.985,
                    name,
                    rotation=90,
                    fontsize=4.5,
                    ha="center",
                    va="top",
                    transform=panel.get_xaxis_transform(),
                    backgroundcolor="white",
                    bbox={"pad": 0.2, "fc": "white", "ec": "none"},
                )
                last = energy


def energy_ticks(axes: Any, low: float = BAND[0], high: float = BAND[1]) -> None:
    """A logarithmic energy axis with plain numbers."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def plot_latents(decoder: ComposedDecoder, reach: float = 2.0, count: int = 9) -> Figure:
    """What each latent coordinate does: spectra along it, all others at 0.

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
    latent = decoder.latent
    columns = min(4, latent)
    rows = -(-latent // columns)
    figure = style.new_figure(2.9 * columns + 0.7, 2.0 * rows + 0.5, layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    values = torch.linspace(-reach, reach, count)
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(-reach, reach), colormaps["coolwarm"])
    tops = []
    for index, panel in enumerate(axes.ravel()):
        if index >= latent:
            panel.set_visible(False)
            continue
        u = torch.zeros(count, latent)
        u[:, index] = values
        with torch.no_grad():
            energy_flux = decoder(u).numpy() * CENTRES / STEP
        for value, curve in zip(values.tolist(), energy_flux, strict=True):
            panel.plot(CENTRES, curve, color=colours.to_rgba(value), lw=0.9)
        tops.append(energy_flux.max())
        panel.set_title(f"z{index + 1}", fontsize=9, pad=3)
        panel.tick_params(labelsize=7)
        energy_ticks(panel)
        panel.set_yscale("log")
    top = float(np.median(tops))
    axes[0, 0].set_ylim(3e-4 * top, 3.0 * top)
    for panel in axes[:, 0]:
        panel.set_ylabel("$E^2 N(E)$\n[keV cm$^{-2}$ s$^{-1}$]", fontsize=8)
    for column in range(columns):
        lowest = [row[column] for row in axes if row[column].get_visible()]
        lowest[-1].set_xlabel("energy [keV]", fontsize=8)
        lowest[-1].tick_params(labelbottom=True)
    bar = figure.colorbar(colours, ax=axes, shrink=0.6, pad=0.01)
    bar.set_label("coordinate [s.d. of the prior]", fontsize=8)
    return figure


def plot_activation(decoder: ComposedDecoder, latents: Mapping[str, np.ndarray]) -> Figure:
    """Which class of source uses which template.

    Parameters
    ----------
    decoder : ComposedDecoder
    latents : mapping of class to ndarray, shape (n, latent)
        The decoder's own coordinates (before the flow) of sources of each class.

    Returns
    -------
    matplotlib.figure.Figure
        Rows are classes, columns templates; colour is the mean amplitude over the class, in units of its standard deviation
        over all classes, from the mean over all classes.
    """
    inner = templates_of(decoder)
    found = {}
    with torch.no_grad():
        for name, z in latents.items():
            found[name] = inner.branch(torch.as_tensor(z, dtype=torch.float32)).amplitude.numpy()
    everything = np.concatenate(list(found.values()))
    centre, spread = everything.mean(0), everything.std(0) + 1e-12
    values = np.stack([(amplitude.mean(0) - centre) / spread for amplitude in found.values()])
    energies = _centre_of_weight(template_curves(decoder))
    order = np.argsort(energies)
    figure = style.new_figure(9.0, 0.32 * len(found) + 1.6, layout="constrained")
    axes = figure.subplots()
    limit = max(float(np.abs(values).max()), 1e-6)
    image = axes.imshow(
        values[:, order], aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    axes.set_yticks(range(len(found)), list(found), fontsize=8)
    every = max(1, len(order) // 12)
    places = np.arange(0, len(order), every)
    axes.set_xticks(places, [f"{energies[order[p]]:.2g}" for p in places], fontsize=8)
    axes.set_xlabel("templates, in the order of the energy where they change most [keV]", fontsize=8)
    bar = figure.colorbar(image, ax=axes, pad=0.01)
    bar.set_label("mean amplitude [s.d.]", fontsize=8)
    return figure


def _centre_of_weight(curves: np.ndarray) -> np.ndarray:
    """Energy where a template changes most: mean ln E weighted by its squared slope, shape (K,) [keV]."""
    slope = np.diff(curves, axis=-1) ** 2 + 1e-30
    x = np.log(CENTRES[1:] * CENTRES[:-1]) / 2.0
    return np.exp((slope * x).sum(-1) / slope.sum(-1))
