"""Weighted sums of learned spectra and their gradients, for a batch: one pass back through closed forms, in float64.

A gradient needs one number per latent coordinate, so it costs about as much as the spectrum itself, where the slopes of every bin
cost as much per coordinate. Sources lie along the last axis, so that every step over the bins of a spline is one operation on
contiguous numbers. Products are those of torch, which are faster; the small steps of the splines are numpy's, whose calls are.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from deepspec.learned import closed
from deepspec.learned.grids import ENERGY_WEIGHTS
from deepspec.learned.tabulated import Tabulated, tabulated_at


class Pulled:
    """Spectra of a batch, with the function that takes weights per bin back to the latent coordinates.

    Parameters
    ----------
    spectrum : Tabulated
        Its `plain` is True: templates that add up in ln flux and stay.
    """

    def __init__(self, spectrum: Tabulated):
        self._spectrum = spectrum
        decoder, flow = spectrum.decoder, spectrum.flow
        self._branch = _Perceptron(decoder.branch.layers)
        self._couplings = [_Coupling(layer) for layer in flow.layers] if flow else []
        self._end = _Both(flow.matrix, flow.offset) if flow else None
        self._templates = _Both(decoder.still, decoder.mean)
        self._weights = torch.from_numpy(ENERGY_WEIGHTS)

    def __call__(self, z: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Photons per bin of the grid (600, B) for z (D, B), and a function from weights (600, B) to gradients (D, B)."""
        states = []
        for layer in self._couplings:
            z, state = layer(z)
            states.append(state)
        z = z if self._end is None else self._end(z)
        coefficients, slopes = self._branch(z)
        y = self._templates(coefficients)
        y -= y[self._spectrum.inside].amax(0)
        ceiling = self._spectrum.ceiling
        capped = y > ceiling if float(y.max()) > ceiling else None
        photons = y.clamp_(max=ceiling).exp_()
        photons /= self._weights @ photons

        def pull(weights: Tensor) -> Tensor:
            rows = weights * photons
            # the norm of the spectrum follows every bin
            rows.addcmul_(photons, torch.outer(self._weights, rows.sum(0)), value=-1.0)
            if capped is not None:
                rows.masked_fill_(capped, 0.0)
            rows = self._branch.pull(self._templates.back @ rows, slopes)
            rows = rows if self._end is None else self._end.back @ rows
            for layer, state in zip(self._couplings[::-1], states[::-1], strict=True):
                rows = layer.pull(rows, state)
            return rows

        return photons, pull


class _Both:
    """An affine step of columns, and the matrix of the way back."""

    def __init__(self, matrix: np.ndarray, offset: np.ndarray | None = None):
        """`matrix` (in, out) as in `closed`, for rows."""
        self.back = torch.from_numpy(np.ascontiguousarray(matrix))
        self._forward = torch.from_numpy(np.ascontiguousarray(matrix.T))
        self._offset = None if offset is None else torch.from_numpy(np.ascontiguousarray(offset)).unsqueeze(-1)

    def __call__(self, x: Tensor) -> Tensor:
        return self._forward @ x if self._offset is None else torch.addmm(self._offset, self._forward, x)


class _Perceptron:
    """As `closed.Perceptron`, for columns."""

    def __init__(self, layers: list[tuple[np.ndarray, np.ndarray]]):
        *self._hidden, self._last = [_Both(*layer) for layer in layers]

    def __call__(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Outputs (out, B), and the slopes of the hidden units, which `pull` needs."""
        slopes = []
        for layer in self._hidden:
            x = layer(x)
            s = torch.sigmoid(x)
            x *= s
            slopes.append((x + s).addcmul_(x, s, value=-1.0))
        return self._last(x), slopes

    def pull(self, rows: Tensor, slopes: list[Tensor]) -> Tensor:
        """Derivatives by the inputs (in, B), from those by the outputs (out, B)."""
        rows = self._last.back @ rows
        for layer, slope in zip(self._hidden[::-1], slopes[::-1], strict=True):
            rows *= slope
            rows = layer.back @ rows
        return rows


class _Coupling:
    """As `closed.Coupling`, for columns."""

    def __init__(self, layer: closed.Coupling):
        self.bins, self.kept, self.moved = layer.bins, layer.kept, layer.moved
        self.smallest, self.tail = layer.smallest, layer.tail
        self._rotation = _Both(layer.rotation)
        # outputs first by number of the spline, then by coordinate
        shares = np.arange(layer.split).reshape(self.moved, -1).T.ravel()
        slopes = layer.split + np.arange(self.moved * (self.bins + 1)).reshape(self.moved, -1).T.ravel()
        order = np.concatenate([shares, slopes])
        weight, bias = layer.net.layers[-1]
        self._net = _Perceptron([*layer.net.layers[:-1], (weight[:, order], bias[order])])

    def __call__(self, u: Tensor) -> tuple[Tensor, tuple[_Splines, list[Tensor]]]:
        """z (D, B) for u (D, B), and what `pull` needs."""
        u = self._rotation(u)
        raw, slopes = self._net(u[: self.kept])
        at = _Splines(self, u[self.kept :].numpy().ravel(), raw.numpy())
        u[self.kept :] = torch.from_numpy(at.result).view(self.moved, -1)
        return u, (at, slopes)

    def pull(self, rows: Tensor, state: tuple[_Splines, list[Tensor]]) -> Tensor:
        """Derivatives by u (D, B), from those by z."""
        at, slopes = state
        moved, by_raw = at.pull(rows[self.kept :].numpy().ravel())
        by_raw = torch.from_numpy(by_raw).view(-1, rows.shape[1])
        kept = rows[: self.kept] + self._net.pull(by_raw, slopes)
        return self._rotation.back @ torch.cat([kept, torch.from_numpy(moved).view(self.moved, -1)])


class _Splines:
    """As `closed._Splines`, for M splines side by side: `value` (M,) and `raw` (3 bins + 1, M) in any shape."""

    def __init__(self, layer: _Coupling, value: np.ndarray, raw: np.ndarray):
        bins, count = layer.bins, len(value)
        self.layer, self.count, self.columns = layer, count, np.arange(count)
        raw = raw.reshape(-1, count)
        shares = raw[: 2 * bins].reshape(2, bins, count)
        self.probability = np.exp(shares - shares.max(1, keepdims=True))
        self.probability /= self.probability.sum(1, keepdims=True)
        share = self.probability * (1.0 - layer.smallest * bins)
        share += layer.smallest
        upper = share.cumsum(1)
        v = (value + layer.tail) * (0.5 / layer.tail)
        self.inside = (v > 0.0) & (v < 1.0)
        self.index = (upper[0, :-1] <= v).sum(0)
        place = self.index * count + self.columns
        self.knot = place
        self.w, self.h = share[0].take(place), share[1].take(place)
        slopes = raw[2 * bins :]
        self.raw = np.stack([slopes.take(place), slopes.take(place + count)])
        slope = np.logaddexp(0.0, self.raw)
        slope *= 1.0 - layer.smallest
        slope += layer.smallest
        self.d0, self.d1 = slope
        self.t = (v - upper[0].take(place)) / self.w + 1.0
        self.s = self.h / self.w
        self.both = self.t * (1.0 - self.t)
        self.below = self.s + (self.d0 + self.d1 - 2.0 * self.s) * self.both
        self.above = self.s * self.t * self.t + self.d0 * self.both
        y = upper[1].take(place) + self.h * (self.above / self.below - 1.0)
        self.result = np.where(self.inside, 2.0 * layer.tail * y - layer.tail, value)

    def pull(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives by the argument (M,) and by the raw numbers (3 bins + 1, M), from those by the result (M,)."""
        t, s, both, below, above, w, h = self.t, self.s, self.both, self.below, self.above, self.w, self.h
        bins, smallest, count = self.layer.bins, self.layer.smallest, self.count
        side = rows * self.inside
        side *= 2.0 * self.layer.tail
        square = below * below
        own = s * s * (self.d1 * t * t + 2.0 * s * both + self.d0 * (1.0 - t) ** 2) / square
        by_s = h * (t * t * below - above * (1.0 - 2.0 * both)) / square
        by_h = above / below + by_s / w
        by_w = -own * t - by_s * s / w
        found = np.empty((3 * bins + 1, count))
        by_share, by_slope = found[: 2 * bins].reshape(2, bins, count), found[2 * bins :]
        # running sums reach over all bins before
        scale = side * (1.0 - smallest * bins)
        before = np.arange(bins)[:, None] < self.index
        np.multiply(before, -own * scale, out=by_share[0])
        np.multiply(before, scale, out=by_share[1])
        by_share.reshape(2, -1)[:, self.knot] = by_w * scale, by_h * scale
        by_share -= np.einsum("kjm,kjm->km", self.probability, by_share)[:, None]
        by_share *= self.probability
        by_slope[:] = 0.0
        turn = (0.5 - 0.5 * smallest) * (1.0 + np.tanh(0.5 * self.raw)) * (side * h * both / square)
        flat = by_slope.reshape(-1)
        flat[self.knot] = turn[0] * (below - above)
        flat[self.knot + count] = -turn[1] * above
        return np.where(self.inside, own, 1.0) * rows, found


class _Jacobian:
    """As `Pulled` for any decoder, through the slopes of every bin."""

    def __init__(self, spectrum: Tabulated):
        self._spectrum = spectrum

    def __call__(self, z: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        shape, slopes = (torch.from_numpy(part) for part in self._spectrum.shape_and_slopes(z.T.numpy()))
        return shape.T, lambda weights: (slopes @ weights.T.unsqueeze(-1)).squeeze(-1).T


@lru_cache(maxsize=8)
def _pulled(spectrum: Tabulated) -> Pulled | _Jacobian:
    return (Pulled if spectrum.plain else _Jacobian)(spectrum)


def pulled_at(path: str | os.PathLike) -> Pulled | _Jacobian:
    """The batches of a file of weights, read once while the file stays the same."""
    return _pulled(tabulated_at(path))
