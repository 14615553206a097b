"""Calls of the library inside torch: values from a loop over rows, derivatives from the component's differences."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

#: Evaluations kept for each grid, so that a frozen component is not computed again at every step of a fit.
KEPT = 256


def array_of(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor, float64, without its history."""
    return tensor.detach().cpu().numpy().astype(np.float64, copy=False)


class Recent:
    """The last few evaluations on one grid, by the bytes of their parameters."""

    def __init__(self, kept: int = KEPT):
        self._kept, self._rows = kept, OrderedDict()

    def get(self, key: bytes, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The row kept under `key`, made by `make()` if there is none."""
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = make()
            while len(self._rows) > self._kept:
                try:
                    self._rows.popitem(last=False)
                except KeyError:  # another thread has emptied it
                    break
        return row


class PerBinCall(torch.autograd.Function):
    """``(points (..., p), edges (..., n + 1)) -> (..., n)``, differentiable once in both directions."""

    @staticmethod
    def forward(points, edges, component, recent, wanted):
        flat = array_of(points).reshape(-1, points.shape[-1])
        rows = component.rows_on(array_of(edges), points.shape[:-1], recent)
        return torch.from_numpy(rows(flat).reshape(*points.shape[:-1], edges.shape[-1] - 1).copy())

    @staticmethod
    def setup_context(ctx, inputs, output):
        points, edges, component, recent, wanted = inputs
        ctx.component, ctx.wanted = component, wanted
        ctx.points, ctx.edges = array_of(points).reshape(-1, points.shape[-1]), array_of(edges)
        ctx.value, ctx.shape = array_of(output).reshape(-1, output.shape[-1]), points.shape
        ctx.recent = recent
        ctx.rows = component.rows_on(ctx.edges, points.shape[:-1], recent)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        if ctx.needs_input_grad[1]:
            raise NotImplementedError(
                f"XSPEC's {ctx.component.name} has no reverse-mode derivative by its bin edges; use forward mode"
            )
        return _pull_back(ctx, gradient, ctx.rows), None, None, None, None

    @staticmethod
    def jvp(ctx, points, edges, *_):
        total = np.zeros_like(ctx.value)
        if points is not None:
            total = total + _push_forward(ctx, points, ctx.rows)
        if edges is not None and np.any(moved := array_of(edges)):
            component, batch = ctx.component, ctx.shape[:-1]
            size = np.abs(moved / ctx.edges).max()

            def shifted(step):
                return component.rows_on(ctx.edges + step * moved, batch, Recent())(ctx.points)

            total = total + component.along(shifted, size)
        return torch.from_numpy(total.reshape(*ctx.shape[:-1], -1))


class ConvolutionCall(torch.autograd.Function):
    """``(points (..., p), flux (..., n)) -> (..., n)``: once differentiable, by the flux in forward mode only."""

    @staticmethod
    def forward(points, flux, edges, component, wanted):
        bins = flux.shape[-1]
        each = np.broadcast_to(array_of(edges), (*points.shape[:-1], bins + 1)).reshape(-1, bins + 1)
        rows = component.rows_on(each)
        out = rows(array_of(points).reshape(-1, points.shape[-1]), array_of(flux).reshape(-1, bins))
        return torch.from_numpy(out.reshape(flux.shape))

    @staticmethod
    def setup_context(ctx, inputs, output):
        points, flux, edges, component, wanted = inputs
        bins = flux.shape[-1]
        ctx.component, ctx.wanted, ctx.shape = component, wanted, points.shape
        ctx.points, ctx.flux = array_of(points).reshape(-1, points.shape[-1]), array_of(flux).reshape(-1, bins)
        ctx.value = array_of(output).reshape(-1, bins)
        each = np.broadcast_to(array_of(edges), (*points.shape[:-1], bins + 1)).reshape(-1, bins + 1)
        ctx.call = component.rows_on(each)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            raise NotImplementedError(
                f"XSPEC's {ctx.component.name} has no reverse-mode derivative by its argument; use forward mode"
            )
        return _pull_back(ctx, gradient, lambda points: ctx.call(points, ctx.flux)), None, None, None, None

    @staticmethod
    def jvp(ctx, points, flux, edges, *_):
        if edges is not None and bool(edges.any()):
            raise NotImplementedError(f"XSPEC's {ctx.component.name} has no derivative by the edges of its bins")
        total = np.zeros_like(ctx.value)
        if points is not None:
            total = total + _push_forward(ctx, points, lambda p: ctx.call(p, ctx.flux))
        if flux is not None and np.any(moved := array_of(flux).reshape(ctx.flux.shape)):
            size = np.abs(moved).max() / (np.abs(ctx.flux).max() or 1.0)
            total = total + ctx.component.along(lambda step: ctx.call(ctx.points, ctx.flux + step * moved), size)
        return torch.from_numpy(total.reshape(*ctx.shape[:-1], -1))


def _pull_back(ctx, gradient: Tensor, rows) -> Tensor:
    """Gradient (..., n) of the output to gradient (..., p) of the parameters that need it."""
    back = np.zeros_like(ctx.points)
    flat = array_of(gradient).reshape(ctx.value.shape)
    for k in ctx.wanted:
        back[:, k] = (flat * ctx.component.slope(rows, ctx.points, ctx.value, k)).sum(axis=-1)
    return torch.from_numpy(back.reshape(ctx.shape))


def _push_forward(ctx, tangent: Tensor, rows) -> np.ndarray:
    """Tangent (..., p) of the parameters to the tangent (m, n) of the output; only rows that move are evaluated."""
    moved, total = array_of(tangent).reshape(ctx.points.shape), np.zeros_like(ctx.value)
    for k in np.flatnonzero(moved.any(axis=0)):
        slope = ctx.component.slope(rows, ctx.points, ctx.value, k)
        total += moved[:, k, None] * slope
    return total
