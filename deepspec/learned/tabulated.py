"""A learned spectrum without torch: templates tabulated on the grid, branch and flow as matrix products, in float64.

For Sherpa, and for the derivatives of a fit, which are closed forms here. The numbers are those of the torch modules.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from deepspec.errors import UserError
from deepspec.learned.bins import Bins
from deepspec.learned.checkpoint import AGAIN, Weights, read_weights
from deepspec.learned.closed import Arrays, Flow, Perceptron, taken
from deepspec.learned.grids import BAND, CENTRES, COUNT, ENERGY_WEIGHTS

TINY = 1e-20
"""Added to a sum of templates before its logarithm, as in `decoder.combined`."""
_KEPT = 8


class Tabulated:
    """Photons per bin of unit energy flux, from latent coordinates.

    Parameters
    ----------
    weights : Weights

    Attributes
    ----------
    latent : int
    band, range : (low, high) [keV]
        Energies of the data that the weights were trained for; energies outside which there are no photons.
    plain : bool
        Templates add up in ln flux and stay: the kind of decoder that `pulled` knows.

    Raises
    ------
    UserError
        Weights of another architecture than their settings say, or other spectra than when they were written.

    Examples
    --------
    >>> spectrum = Tabulated(read_weights("my.h5"))  # doctest: +SKIP
    >>> spectrum.flux(edges, z)  # doctest: +SKIP
    """

    def __init__(self, weights: Weights):
        self.latent, self.band, self.range = weights.latent, weights.band, weights.range
        self._plans: dict[Any, tuple[np.ndarray, Bins]] = {}
        constants = weights.check.constants if weights.check else _constants()
        try:
            self.decoder = _KINDS[weights.decoder.config["kind"]](weights.decoder, constants)
            self.flow = Flow(weights.flow.arrays, weights.flow.config, constants) if weights.flow else None
        except (KeyError, TypeError) as error:
            raise UserError(f"its settings are incomplete ({error})", weights.path or None, AGAIN) from error
        except UserError as error:
            raise UserError(error.problem, weights.path or None, AGAIN) from error
        self.ceiling = float(constants["ceiling"])
        inside = np.flatnonzero((CENTRES > BAND[0]) & (CENTRES < BAND[1]))
        self.inside = slice(inside[0], inside[-1] + 1)
        self.plain = getattr(self.decoder, "plain", False)
        if weights.check is not None:
            same_spectra(self.shape(weights.check.places), weights)

    def flux(self, edges: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Photons cm^-2 s^-1 in each bin at norm 1, shape (..., n).

        Parameters
        ----------
        edges : ndarray, shape (n + 1,) [keV]
            Rising. There are no photons outside `range`.
        z : ndarray, shape (..., D)
            Latent coordinates.
        """
        return self._bins(edges).sums(self.shape(z))

    def flux_and_slopes(self, edges: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Photons per bin (..., n) and their derivatives by the latent coordinates (..., D, n)."""
        bins, (shape, slopes) = self._bins(edges), self.shape_and_slopes(z)
        return bins.sums(shape), bins.sums(slopes)

    def shape(self, z: np.ndarray) -> np.ndarray:
        """Photons per bin of `grids.EDGES`, shape (..., 600), for z (..., D)."""
        z = np.asarray(z, dtype=np.float64)
        points = z.reshape(-1, self.latent)
        own = points if self.flow is None else self.flow(points)
        y = self.decoder(own)
        top = y[:, self.inside].max(-1, keepdims=True)
        photons = np.exp(np.minimum(y - top, self.ceiling))
        photons /= (photons @ ENERGY_WEIGHTS)[:, None]
        return photons.reshape(*z.shape[:-1], COUNT)

    def shape_and_slopes(self, z: np.ndarray, wanted: list[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Photons per bin of the grid (..., 600) and their derivatives by the `wanted` coordinates, all unless given (..., P, 600)."""
        z = np.asarray(z, dtype=np.float64)
        points = z.reshape(-1, self.latent)
        unit = np.eye(self.latent) if wanted is None else np.eye(self.latent)[wanted]
        tangent = np.broadcast_to(unit, (len(points), *unit.shape))
        own, tangent = (points, tangent) if self.flow is None else self.flow.push(points, tangent)
        y, slopes = self.decoder.push(own, tangent)
        excess = y - y[:, self.inside].max(-1, keepdims=True)
        photons = np.exp(np.minimum(excess, self.ceiling))
        photons /= (photons @ ENERGY_WEIGHTS)[:, None]
        capped = excess > self.ceiling
        if capped.any():
            slopes = slopes * ~capped[:, None, :]
        slopes -= slopes @ (photons * ENERGY_WEIGHTS)[..., None]
        slopes *= photons[:, None, :]
        return photons.reshape(*z.shape[:-1], COUNT), slopes.reshape(*z.shape[:-1], len(unit), COUNT)

    def _bins(self, edges: np.ndarray) -> Bins:
        """The shares of these bins; those of the last few grids are kept."""
        edges = np.asarray(edges, dtype=np.float64)
        key = (edges.__array_interface__["data"][0], len(edges), float(edges[0]), float(edges[-1]))
        kept = self._plans.get(key)
        # the same memory may hold other numbers by now
        if kept is None or not np.array_equal(kept[0], edges):
            if len(self._plans) >= _KEPT:
                self._plans.pop(next(iter(self._plans)))
            kept = self._plans[key] = (edges.copy(), Bins(edges))
        return kept[1]


def same_spectra(shapes: np.ndarray, weights: Weights) -> None:
    """Refuse weights that give other spectra (n, 600) than when they were written.

    Raises
    ------
    UserError
        They differ by more than 1e-6 of the largest value of a spectrum.
    """
    recorded = weights.check.shapes
    far = shapes.shape != recorded.shape or (np.abs(shapes - recorded).max(-1) > 1e-6 * np.abs(recorded).max(-1)).any()
    if far or not np.isfinite(shapes).all():
        raise UserError(
            "these weights give other spectra than when they were written: this deepspec decodes them differently",
            weights.path or None,
            "install the deepspec that made them, or train anew with `deepspec train`",
        )


def _constants() -> Mapping[str, float]:
    from deepspec.learned.modules import constants

    return constants()


# --- decoders: ln density on the grid -------------------------------------------------------------------------------


class _Mlp:
    """A perceptron to ln density, as `decoder.MLPDecoder`."""

    def __init__(self, section, constants: Mapping[str, float]):
        config = section.config
        self._net = Perceptron(section.arrays, "net", [config["latent"], *config["branch"], COUNT])

    def __call__(self, z: np.ndarray) -> np.ndarray:
        return self._net(z)

    def push(self, z: np.ndarray, tangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._net.push(z, tangent)


class _Coefficients(NamedTuple):
    """What the branch says: amplitudes, slopes, shifts and widths, side by side in one array."""

    amplitude: np.ndarray
    slope: np.ndarray
    shift: np.ndarray
    width: np.ndarray


class _DeepONet:
    """Templates and their coefficients, as `decoder.DeepONet`."""

    def __init__(self, section, constants: Mapping[str, float]):
        config, arrays = section.config, section.arrays
        self._ceiling = float(constants["ceiling"])
        self.templates, self.moving = int(config["templates"]), int(config["moving"])
        self.largest_shift, self.combine = float(config["largest_shift"]), config["combine"]
        self.plain = self.combine == "log" and not self.moving
        self.logarithmic = {"log": self.templates, "linear": 0, "both": self.templates // 2}[self.combine]
        outputs = self.templates + 2 + 2 * self.moving
        self.branch = Perceptron(arrays, "branch.net", [config["latent"], *config["branch"], outputs])
        margin = int(constants["margin"]) if self.moving else 0
        x = (np.arange(-margin, COUNT + margin) + 0.5) * (2.0 / COUNT) - 1.0
        templates = siren(arrays, config, x)
        self._grid = slice(margin, margin + COUNT)
        mean, log, linear = np.split(templates, [1, 1 + self.logarithmic])
        linear = np.exp(linear)
        movers = linear if self.combine == "linear" else log
        moved, still = movers[: self.moving], movers[self.moving :, self._grid]
        self.mean = np.zeros(COUNT) if self.combine == "linear" else mean[0, self._grid]
        x = x[self._grid]
        # what adds up in ln flux: still templates, then x and x^2
        self.still = np.concatenate([still if self.combine != "linear" else still[:0], [x, x**2]])
        self._linear = still if self.combine == "linear" else linear[:, self._grid]
        if self.moving:
            side = 0.5 - 0.5 * np.cos(np.pi * (np.arange(margin) + 0.5) / margin)
            self._transform = np.fft.rfft(moved * np.concatenate([side, np.ones(COUNT), side[::-1]]))
            self._omega = 2.0 * np.pi * np.fft.rfftfreq(COUNT + 2 * margin)

    def _split(self, raw: np.ndarray) -> _Coefficients:
        ends = np.cumsum([self.templates, 2, self.moving])
        return _Coefficients(*np.split(raw, ends, axis=-1))

    def __call__(self, z: np.ndarray) -> np.ndarray:
        raw = self.branch(z)
        if self.plain:
            y = raw @ self.still
            y += self.mean
            return y
        return self._combined(raw, None)[0]

    def push(self, z: np.ndarray, tangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._combined(*self.branch.push(z, tangent))

    def _combined(self, raw: np.ndarray, tangent: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """ln density (B, 600), and its tangents (B, P, 600) if those of the coefficients are given."""
        found, change = self._split(raw), None if tangent is None else self._split(tangent)
        first = self.moving
        last = first if self.combine == "linear" else self.logarithmic
        y = np.concatenate([found.amplitude[:, first:last], found.slope], -1) @ self.still
        dy = None
        if change is not None:
            dy = np.concatenate([change.amplitude[..., first:last], change.slope], -1) @ self.still
        if self.combine == "linear":
            return self._add_linear(y, dy, found, change)
        y += self.mean
        if self.moving:
            moved, slopes = self._moved(found, change, found.amplitude[:, :first], 1.0)
            y += moved
            dy = None if dy is None else dy + slopes
        if self.combine == "both":
            weights = np.exp(np.minimum(found.amplitude[:, last:], self._ceiling))
            flux = weights @ self._linear + TINY
            z = np.logaddexp(y, np.log(flux))
            if dy is not None:
                weights *= found.amplitude[:, last:] < self._ceiling
                slopes = (change.amplitude[..., last:] * weights[:, None, :]) @ self._linear
                dy = dy * np.exp(y - z)[:, None, :] + slopes * np.exp(-z)[:, None, :]
            y = z
        return y, dy

    def _add_linear(self, y, dy, found: _Coefficients, change: _Coefficients | None):
        """ln of the sum of templates in flux, on top of the slopes."""
        first = self.moving
        weights = np.exp(np.minimum(found.amplitude, self._ceiling))
        flux = weights[:, first:] @ self._linear
        free = weights * (found.amplitude < self._ceiling)
        slopes = None if change is None else (change.amplitude[..., first:] * free[:, None, first:]) @ self._linear
        if first:
            moved, by = self._moved(found, change, weights[:, :first], free[:, None, :first])
            flux += np.maximum(moved, 0.0)
            slopes = None if slopes is None else slopes + by * (moved > 0.0)[:, None, :]
        flux += TINY
        return np.log(flux) + y, None if dy is None else dy + slopes / flux[:, None, :]

    def _moved(self, found: _Coefficients, change: _Coefficients | None, amplitude: np.ndarray, by: Any):
        """Sum of the shifted and smoothed templates (B, 600) and its tangents (B, P, 600); `by` is d amplitude / d coefficient."""
        turn = np.tanh(found.shift)
        shift, width = self.largest_shift * turn, 3.0 * np.logaddexp(0.0, found.width)
        omega, count = self._omega, 2 * (len(self._omega) - 1)
        each = np.exp(-0.5 * (omega * width[..., None]) ** 2 - 1j * omega * shift[..., None]) * self._transform
        scaled = amplitude[..., None] * each
        value = np.fft.irfft(scaled.sum(-2), n=count)[..., self._grid]
        if change is None:
            return value, None
        ds = self.largest_shift * (1.0 - turn * turn)[:, None, :] * change.shift
        dw = 3.0 * (0.5 + 0.5 * np.tanh(0.5 * found.width))[:, None, :] * change.width
        first = (change.amplitude[..., : self.moving] * by) @ each
        second = ds @ (-1j * omega * scaled) + dw @ (-(omega**2) * width[..., None] * scaled)
        return value, np.fft.irfft(first + second, n=count)[..., self._grid]


_KINDS = {"deeponet": _DeepONet, "mlp": _Mlp}


def siren(arrays: Arrays, config: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """The templates at x (n,), as `trunk.Siren`; shape (1 + templates, n), the mean first."""
    width, outputs = int(config["trunk_width"]), int(config["templates"]) + 1
    h = x[:, None]
    for index in range(int(config["trunk_layers"])):
        weight = taken(arrays, f"trunk.hidden.{index}.weight", (width, h.shape[1]))
        scale = float(config["frequency"]) if index == 0 else 1.0
        h = np.sin(scale * (h @ weight.T) + taken(arrays, f"trunk.hidden.{index}.bias", (width,)))
    return (h @ taken(arrays, "trunk.out.weight", (outputs, width)).T + taken(arrays, "trunk.out.bias", (outputs,))).T


@lru_cache(maxsize=_KEPT)
def _tabulated_at(path: str, changed: int) -> Tabulated:
    return Tabulated(read_weights(path))


def tabulated_at(path: str | os.PathLike) -> Tabulated:
    """The spectrum of a file of weights, read once while the file stays the same."""
    return _tabulated_at(os.fspath(path), os.stat(path).st_mtime_ns)
