"""The flow of a decoder for many points at once, in float32 and without gradients, several times faster than the module.

Particles lie along the last axis, so that every step over the bins of a spline is one vectorised operation, and the bin of a
value is found by comparing it with each knot in turn. Values equal those of `deepspec.learned.flow` to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deepspec.learned.flow import SMALLEST, TAIL, Coupling, Flow


class QuickFlow:
    """Coordinates of prior N(0,1), (n, D), to those of the decoder."""

    def __init__(self, flow: Flow):
        self.layers = [_QuickCoupling(layer) for layer in flow.layers]
        self.matrix, self.offset = flow.matrix().float(), flow.offset.float()

    def __call__(self, u: Tensor) -> Tensor:
        u = u.T
        for layer in self.layers:
            u = layer(u)
        return (self.matrix @ u).T + self.offset


class _QuickCoupling:
    def __init__(self, layer: Coupling):
        self.bins, self.kept, self.moved = layer.bins, layer.kept, layer.moved
        self.rotation = layer.rotation.float().T.contiguous()
        linear = [part for part in layer.net if isinstance(part, torch.nn.Linear)]
        self.hidden = [(part.weight.float(), part.bias.float().unsqueeze(-1)) for part in linear[:-1]]
        # rows of the last layer: first by number of the spline (widths, heights, slopes), then by coordinate
        numbers = 3 * self.bins - 1
        weight, bias = linear[-1].weight.float(), linear[-1].bias.float()
        order = torch.arange(self.moved * numbers).view(self.moved, numbers).T.flatten()
        self.weight, self.bias = weight[order].contiguous(), bias[order].unsqueeze(-1)

    def __call__(self, u: Tensor) -> Tensor:
        """(D, n) to (D, n)."""
        u = self.rotation @ u
        h = u[: self.kept]
        for weight, bias in self.hidden:
            h = torch.nn.functional.silu(torch.addmm(bias, weight, h))
        raw = torch.addmm(self.bias, self.weight, h).view(3 * self.bins - 1, self.moved, -1)
        u[self.kept :] = self._spline(u[self.kept :], raw)
        return u

    def _spline(self, value: Tensor, raw: Tensor) -> Tensor:
        """The splines (m, n) of values (m, n) from raw numbers (3 bins - 1, m, n)."""
        bins = self.bins
        widths, heights = (self._shares(part) for part in (raw[:bins], raw[bins : 2 * bins]))
        slopes = raw[2 * bins :]
        edge_x, edge_y = -TAIL + 0.0 * value, -TAIL + 0.0 * value
        x, y, width, height = edge_x, edge_y, widths[0], heights[0]
        before, after = torch.zeros_like(value), slopes[0]
        for k in range(1, bins):
            edge_x, edge_y = edge_x + widths[k - 1], edge_y + heights[k - 1]
            beyond = value >= edge_x
            x, y = torch.where(beyond, edge_x, x), torch.where(beyond, edge_y, y)
            width, height = torch.where(beyond, widths[k], width), torch.where(beyond, heights[k], height)
            before = torch.where(beyond, slopes[k - 1], before)
            if k < bins - 1:
                after = torch.where(beyond, slopes[k], after)
        first, last = value < -TAIL + widths[0], value >= TAIL - widths[-1]
        d0 = torch.where(first, torch.ones_like(value), _slope(before))
        d1 = torch.where(last, torch.ones_like(value), _slope(after))
        t = ((value - x) / width).clamp(0.0, 1.0)
        both = t * (1.0 - t)
        s = height / width
        result = y + height * (s * t * t + d0 * both) / (s + (d0 + d1 - 2.0 * s) * both)
        return torch.where(value.abs() < TAIL, result, value)

    def _shares(self, raw: Tensor) -> Tensor:
        """Widths or heights of the bins, (bins, m, n)."""
        shares = torch.exp(raw - raw.amax(0))
        shares *= 2.0 * TAIL * (1.0 - SMALLEST * self.bins) / shares.sum(0)
        return shares.add_(2.0 * TAIL * SMALLEST)


def _slope(raw: Tensor) -> Tensor:
    return SMALLEST + (1.0 - SMALLEST) * torch.nn.functional.softplus(raw + 0.541324855)
