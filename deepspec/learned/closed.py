"""Perceptrons and flows as plain products of numpy arrays, with their derivatives in closed form.

What a fit needs many times per second, without torch: tens of small products, each a few microseconds.
Points have the shape (B, D); tangents, which say how a point moves with each of P parameters, (B, P, D).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from deepspec.errors import UserError

Arrays = Mapping[str, np.ndarray]

OFFSET = 0.541324855
"""Added to raw slopes by `flow.knots`."""
PAIR = np.arange(2)


def taken(arrays: Arrays, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight as float64, after its shape was found to be the expected one.

    Raises
    ------
    UserError
        The weights belong to another architecture.
    """
    if name not in arrays or arrays[name].shape != shape:
        raise UserError(f"its weights are of another architecture than its settings say ({name} does not fit)")
    return np.asarray(arrays[name], dtype=np.float64)


class Perceptron:
    """Linear layers with SiLU between them, as `branch.perceptron`.

    Parameters
    ----------
    arrays : state dictionary
    prefix : str
        Of the names of its weights, ``prefix.0.weight`` and so on.
    sizes : sequence of int
        Inputs, hidden widths, outputs.
    """

    def __init__(self, arrays: Arrays, prefix: str, sizes: list[int]):
        self.layers = []
        for index, (into, out) in enumerate(pairwise(sizes)):
            weight = taken(arrays, f"{prefix}.{2 * index}.weight", (out, into))
            self.layers.append((np.ascontiguousarray(weight.T), taken(arrays, f"{prefix}.{2 * index}.bias", (out,))))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Outputs (B, out) for x (B, in)."""
        *hidden, (weight, bias) = self.layers
        for w, b in hidden:
            x = x @ w
            x += b
            x *= _sigmoid(x)
        return x @ weight + bias

    def push(self, x: np.ndarray, tangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outputs (B, out), and their tangents (B, P, out) for those of the inputs (B, P, in)."""
        *hidden, (weight, bias) = self.layers
        for w, b in hidden:
            x, slope = _silu(x @ w + b)
            tangent = tangent @ w
            tangent *= slope[:, None, :]
        return x @ weight + bias, tangent @ weight

    def hidden(self, x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Outputs (B, out), and the slopes of the hidden units, which `pull` needs."""
        *hidden, (weight, bias) = self.layers
        slopes = []
        for w, b in hidden:
            x, slope = _silu(x @ w + b)
            slopes.append(slope)
        return x @ weight + bias, slopes

    def pull(self, rows: np.ndarray, slopes: list[np.ndarray]) -> np.ndarray:
        """Derivatives (B, R, in) by the inputs of R sums with derivatives `rows` (B, R, last hidden) by the last hidden layer."""
        for (w, _), slope in zip(self.layers[-2::-1], slopes[::-1], strict=True):
            rows = (rows * slope[:, None, :]) @ w.T
        return rows


def _sigmoid(x: np.ndarray) -> np.ndarray:
    # by tanh, which cannot overflow
    half = np.tanh(0.5 * x)
    half *= 0.5
    half += 0.5
    return half


def _silu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x sigmoid(x), and its slope."""
    s = _sigmoid(x)
    y = x * s
    return y, s + y * (1.0 - s)


class Coupling:
    """A rotation, then rational-quadratic splines of the second half of the coordinates, as `flow.Coupling`."""

    def __init__(self, arrays: Arrays, prefix: str, config: Mapping[str, Any], constants: Mapping[str, float]):
        d, self.bins = int(config["latent"]), int(config["bins"])
        self.tail, self.smallest = float(constants["tail"]), float(constants["smallest"])
        self.moved = d // 2
        self.kept = d - self.moved
        bins = self.bins
        sizes = [self.kept, *config["hidden"], self.moved * (3 * bins - 1)]
        self.rotation = taken(arrays, f"{prefix}.rotation", (d, d))
        self.net = Perceptron(arrays, f"{prefix}.net", sizes)
        self._rearrange()
        # slot of the first number of every spline, for picking one of them from flat arrays
        self.share_slot = np.arange(self.moved) * 2 * bins
        self.slope_slot = np.arange(self.moved) * (bins + 1)

    def _rearrange(self) -> None:
        """Outputs of the network as all shares, then all slopes, with constant outputs that give the slope 1 at both ends."""
        bins, (weight, bias) = self.bins, self.net.layers[-1]
        weight, bias = weight.reshape(-1, self.moved, 3 * bins - 1), bias.reshape(self.moved, 3 * bins - 1)
        width = len(weight)
        # softplus(OFFSET + end) = 1 exactly
        end = math.log(math.expm1(1.0))
        slopes = np.zeros((width, self.moved, bins + 1))
        slopes[..., 1:-1] = weight[..., 2 * bins :]
        offsets = np.full((self.moved, bins + 1), end)
        offsets[:, 1:-1] = bias[:, 2 * bins :] + OFFSET
        shares = weight[..., : 2 * bins]
        self.split = self.moved * 2 * bins
        self.net.layers[-1] = (
            np.ascontiguousarray(np.concatenate([shares.reshape(width, -1), slopes.reshape(width, -1)], -1)),
            np.concatenate([bias[:, : 2 * bins].ravel(), offsets.ravel()]),
        )
        self.share_rows = np.ascontiguousarray(shares.transpose(1, 2, 0))
        self.slope_rows = np.ascontiguousarray(slopes.transpose(1, 2, 0))

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """z (B, D) for u (B, D)."""
        u = u @ self.rotation
        kept = u[:, : self.kept]
        if len(u) == 1:
            u[0, self.kept :] = self._single(u[0, self.kept :].tolist(), self.net(kept)[0])
            return u
        u[:, self.kept :] = _Splines(self, u[:, self.kept :], self.net(kept)).result
        return u

    def push(self, u: np.ndarray, tangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z (B, D) and its tangents (B, P, D) for those of u."""
        u, tangent = u @ self.rotation, tangent @ self.rotation
        raw, slopes = self.net.hidden(u[:, : self.kept])
        at = _Splines(self, u[:, self.kept :], raw)
        own, by_share, by_slope = at.derivatives()
        rows = np.einsum("bmj,mjk->bmk", by_share, self.share_rows) + np.einsum(
            "bmj,mjk->bmk", by_slope, self.slope_rows
        )
        through = self.net.pull(rows, slopes)  # (B, m, kept): the splines by the coordinates that decide them
        moved = tangent[..., self.kept :] * own[:, None, :] + tangent[..., : self.kept] @ through.transpose(0, 2, 1)
        u[:, self.kept :] = at.result
        return u, np.concatenate([tangent[..., : self.kept], moved], -1)

    def _single(self, values: list[float], raw: np.ndarray) -> list[float]:
        """The splines of one point, as `_Splines`: for a few numbers the calls of numpy cost more than the arithmetic."""
        bins, smallest, side = self.bins, self.smallest, 2.0 * self.tail
        shares = raw[: self.split].reshape(-1, bins)
        running = np.exp(shares - shares.max(-1, keepdims=True)).cumsum(-1).tolist()
        slopes = raw[self.split :].tolist()
        found = []
        for number, value in enumerate(values):
            v = value / side + 0.5
            if not 0.0 < v < 1.0:
                found.append(value)
                continue
            across, up = running[2 * number], running[2 * number + 1]
            scale = (1.0 - smallest * bins) / across[-1]
            x, index = 0.0, 0
            top = smallest + scale * across[0]
            while index < bins - 1 and top <= v:
                index += 1
                x, top = top, smallest * (index + 1) + scale * across[index]
            scale = (1.0 - smallest * bins) / up[-1]
            y = smallest * index + scale * up[index - 1] if index else 0.0
            w, h = top - x, smallest * (index + 1) + scale * up[index] - y
            knot = number * (bins + 1) + index
            d0, d1 = (smallest + (1.0 - smallest) * _softplus(r) for r in slopes[knot : knot + 2])
            t, s = (v - x) / w, h / w
            both = t * (1.0 - t)
            found.append(side * (y + h * (s * t * t + d0 * both) / (s + (d0 + d1 - 2.0 * s) * both) - 0.5))
        return found


def _softplus(x: float) -> float:
    return x + math.log1p(math.exp(-x)) if x > 0.0 else math.log1p(math.exp(x))


class _Splines:
    """The splines of a coupling layer at `value` (B, m), in units where -TAIL ... TAIL is 0 ... 1 on both axes.

    The formulas are equations 4 and 5 of Durkan et al. 2019.
    """

    def __init__(self, layer: Coupling, value: np.ndarray, raw: np.ndarray):
        count, bins = len(value), layer.bins
        self.layer = layer
        shares = raw[:, : layer.split].reshape(count, layer.moved, 2, bins)
        self.probability = np.exp(shares - shares.max(-1, keepdims=True))
        self.probability /= self.probability.sum(-1, keepdims=True)
        share = self.probability * (1.0 - layer.smallest * bins)
        share += layer.smallest
        upper = share.cumsum(-1)
        v = (value + layer.tail) * (0.5 / layer.tail)
        self.inside = (v > 0.0) & (v < 1.0)
        self.index = (upper[:, :, 0, :-1] <= v[..., None]).sum(-1)
        rows = np.arange(count)[:, None]
        place = self.index + layer.share_slot + rows * layer.split
        share, upper = share.reshape(-1), upper.reshape(-1)
        self.w, self.h = share[place], share[place + bins]
        knot = self.index + layer.slope_slot + layer.split
        self.raw = raw[rows[..., None], knot[..., None] + PAIR]
        slope = np.logaddexp(0.0, self.raw)
        slope *= 1.0 - layer.smallest
        slope += layer.smallest
        self.d0, self.d1 = slope[..., 0], slope[..., 1]
        self.t = (v - upper[place]) / self.w + 1.0
        self.s = self.h / self.w
        self.both = self.t * (1.0 - self.t)
        self.below = self.s + (self.d0 + self.d1 - 2.0 * self.s) * self.both
        self.above = self.s * self.t * self.t + self.d0 * self.both
        y = upper[place + bins] + self.h * (self.above / self.below - 1.0)
        self.result = np.where(self.inside, 2.0 * layer.tail * y - layer.tail, value)

    def derivatives(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By the argument (B, m), by the raw shares (B, m, 2 bins), and by the raw slopes (B, m, bins + 1)."""
        t, s, both, below, above, w, h = self.t, self.s, self.both, self.below, self.above, self.w, self.h
        bins, smallest = self.layer.bins, self.layer.smallest
        square = below * below
        own = s * s * (self.d1 * t * t + 2.0 * s * both + self.d0 * (1.0 - t) ** 2) / square
        by_s = h * (t * t * below - above * (1.0 - 2.0 * both)) / square
        by_h = above / below + by_s / w
        by_w = -own * t - by_s * s / w
        numbers = np.arange(bins)
        here, before = numbers == self.index[..., None], numbers < self.index[..., None]
        by_share = np.stack(
            [here * by_w[..., None] - before * own[..., None], here * by_h[..., None] + before], axis=-2
        )
        by_share -= (self.probability * by_share).sum(-1, keepdims=True)
        by_share *= self.probability * (1.0 - smallest * bins)
        by_slope = np.zeros((*t.shape, bins + 1))
        for knot, raw, by in (
            (self.index, self.raw[..., 0], h * both * (below - above)),
            (self.index + 1, self.raw[..., 1], -h * both * above),
        ):
            np.put_along_axis(
                by_slope, knot[..., None], ((1.0 - smallest) * _sigmoid(raw) * by / square)[..., None], -1
            )
        side = (2.0 * self.layer.tail * self.inside)[..., None]
        return np.where(self.inside, own, 1.0), by_share.reshape(*t.shape, 2 * bins) * side, by_slope * side


class Flow:
    """Coordinates of prior N(0,1) to the decoder's own, as `flow.Flow`."""

    def __init__(self, arrays: Arrays, config: Mapping[str, Any], constants: Mapping[str, float]):
        d = int(config["latent"])
        self.layers = [Coupling(arrays, f"layers.{i}", config, constants) for i in range(int(config["transforms"]))]
        lower, scale = taken(arrays, "lower", (d, d)), taken(arrays, "log_scale", (d,))
        self.matrix = np.ascontiguousarray((np.tril(lower, -1) + np.diag(np.exp(scale))).T)
        self.offset = taken(arrays, "offset", (d,))

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """z for u, both (B, D)."""
        for layer in self.layers:
            u = layer(u)
        return u @ self.matrix + self.offset

    def push(self, u: np.ndarray, tangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z (B, D) and its tangents (B, P, D) for those of u."""
        for layer in self.layers:
            u, tangent = layer.push(u, tangent)
        return u @ self.matrix + self.offset, tangent @ self.matrix
