"""The learned spectrum as an additive component: ``deepspec`` in a model, ``deepspec{NAME}`` or ``deepspec{FILE}`` for other weights."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepspec.learned.bins import Bins
from deepspec.learned.checkpoint import Weights, read_weights
from deepspec.learned.finding import DEFAULT, find_weights
from deepspec.learned.grids import COUNT, EDGES, STEP
from deepspec.learned.modules import decoder_at
from deepspec.learned.pulled import pulled_at
from deepspec.learned.tabulated import tabulated_at
from deepspec.models.base import NORM, Additive, Grid, Parameter

LIMIT, HARD_LIMIT = 6.0, 8.0
"""Of the latent coordinates in a fit, and of what may be set: beyond, the decoder has never been."""
PRIOR = "normal(0,1)"


class Deepspec(Additive):
    """A spectrum learned from simulated sources: latent coordinates z1, z2, ... and its energy flux.

    The norm is the unabsorbed energy flux in 0.3-10 keV in 1e-12 erg cm^-2 s^-1. The coordinates have the prior N(0,1), which a
    fit uses unless another is given; they have no units and no physical meaning: report fluxes. Absorption in the Galaxy
    apart (tbabs*deepspec), the component holds everything: continua, lines, absorption inside the source, redshift.
    There are no photons outside 0.2-14 keV. Other weights are named in braces: deepspec{NAME} or deepspec{FILE}.

    Parameters
    ----------
    weights : str or path, optional
        A name or a file, as `finding.find_weights`; the default that ships unless given.

    Raises
    ------
    UserError
        There are no such weights, or they are no readable file of this version; when they are first needed.
    """

    name = "deepspec"
    source = "learned from populations of sources; see the card of its weights (deepspec weights info)"
    norm = NORM("1e-12 erg cm^-2 s^-1 in 0.3-10 keV")
    takes_file = True

    def __init__(self, weights: str | os.PathLike | None = None):
        self.given = DEFAULT if weights is None else os.fspath(weights)

    @cached_property
    def path(self) -> Path:
        """The file of weights."""
        return find_weights(self.given).resolve()

    @cached_property
    def weights(self) -> Weights:
        """Content of the file, checked."""
        return read_weights(self.path)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """z1 to zD."""
        ends = (-HARD_LIMIT, -LIMIT, LIMIT, HARD_LIMIT)
        return tuple(Parameter(f"z{i}", 0.0, "", *ends, prior=PRIOR) for i in range(1, self.weights.latent + 1))

    @property
    def latents(self) -> tuple[str, ...]:
        """Names of the latent coordinates."""
        return tuple(p.name for p in self.parameters)

    @property
    def energy_range(self) -> tuple[float, float]:
        """Energies outside which there are no photons [keV]."""
        return self.weights.range

    @property
    def trained_band(self) -> tuple[float, float]:
        """Energies of the data that the weights were trained for [keV]."""
        return self.weights.band

    @property
    def settings(self) -> dict[str, str]:
        """The weights in use; recorded with every result."""
        return {"weights": str(self.path), "sha256": self.weights.sha256}

    def evaluate(self, grid: Grid, **values: Tensor) -> Tensor:
        whole, table = decoder_at(self.path)
        return photons(grid, whole(self._points(values), table))

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            points = self._points(values).numpy()
            if not wanted:
                flux = photons(grid, torch.from_numpy(tabulated_at(self.path).shape(points)))
                return flux, flux.new_zeros((0, *flux.shape))
            columns = [self.latents.index(name) for name in wanted]
            shape, slopes = tabulated_at(self.path).shape_and_slopes(points, columns)
            order = (slopes.ndim - 2, *range(slopes.ndim - 2), slopes.ndim - 1)
            slopes = torch.from_numpy(np.ascontiguousarray(slopes.transpose(order)))
            return photons(grid, torch.from_numpy(shape)), photons(grid, slopes)

    def pullback(
        self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]
    ) -> tuple[Tensor, Callable[[Tensor], dict[str, Tensor]]] | None:
        if grid.edges.dim() > 1:
            return None
        matrix, back = _matrices_of(grid)
        with torch.no_grad():
            points = self._points(values)
            shape, pull_shape = pulled_at(self.path)(points.reshape(-1, points.shape[-1]).T.contiguous())
            flux = (matrix @ shape).T.reshape(*points.shape[:-1], len(grid))

        def pull(weights: Tensor) -> dict[str, Tensor]:
            # The weights go back to the grid of the templates, which has fewer bins.
            with torch.no_grad():
                weights = weights.expand(flux.shape).reshape(-1, len(grid))
                sums = pull_shape(back @ weights.T).reshape(-1, *points.shape[:-1])
            return {name: sums[self.latents.index(name)] for name in wanted}

        return flux, pull

    def _points(self, values: Mapping[str, Tensor]) -> Tensor:
        """Latent coordinates side by side, shape (..., D)."""
        return torch.cat(torch.broadcast_tensors(*(values[name] for name in self.latents)), -1)


# --- any bins from the bins of the grid -----------------------------------------------------------------------------


def photons(grid: Grid, shape: Tensor) -> Tensor:
    """Photons per bin of `grid`, from those per bin of `grids.EDGES`.

    Parameters
    ----------
    grid : Grid with n bins
        Also one with batch axes, or one whose edges are differentiated (a free redshift).
    shape : Tensor, shape (..., 600)

    Returns
    -------
    Tensor, shape (..., n)
    """
    if grid.edges.dim() > 1 or grid.edges.requires_grad:
        return _moving_bins(grid.edges, shape)
    return _Product.apply(shape, *_matrices_of(grid))


def _matrices_of(grid: Grid) -> tuple[Tensor, Tensor]:
    return grid.memo("deepspec.learned.component", lambda: _matrices(grid))


def _matrices(grid: Grid) -> tuple[Tensor, Tensor]:
    """The sparse matrix (n, 600) of shares, and its transpose."""
    bins = Bins(grid.edges.detach().numpy())
    return _compressed(*bins.sparse(), (len(grid), COUNT)), _compressed(
        *bins.sparse(transposed=True), (COUNT, len(grid))
    )


def _compressed(starts: np.ndarray, columns: np.ndarray, values: np.ndarray, size: tuple[int, int]) -> Tensor:
    parts = (torch.from_numpy(part) for part in (starts, columns, values))
    with warnings.catch_warnings():
        # torch says that its sparse tensors are young; a product is all that is used of them
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(*parts, size=size, check_invariants=False)


class _Product(torch.autograd.Function):
    """x @ matrix^T for a sparse matrix whose transpose is at hand, so that it can be differentiated any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.both = transposed, matrix
        flat = x.reshape(-1, x.shape[-1])
        return (matrix @ flat.T).T.reshape(*x.shape[:-1], matrix.shape[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Product.apply(gradient, *ctx.both), None, None


def _moving_bins(edges: Tensor, shape: Tensor) -> Tensor:
    """The same for bins that differ from row to row, or are differentiated."""
    place = ((torch.log(edges) - float(np.log(EDGES[0]))) / STEP).clamp(0.0, float(COUNT))
    whole = place.detach().floor().long().clamp(max=COUNT - 1)
    part = place - whole
    batch = np.broadcast_shapes(tuple(edges.shape[:-1]), tuple(shape.shape[:-1]))
    whole, part = (t.expand(*batch, t.shape[-1]) for t in (whole, part))
    shape = shape.expand(*batch, COUNT)
    first, last = whole[..., :-1], whole[..., 1:]
    same = first == last
    low = torch.where(same, part[..., 1:] - part[..., :-1], 1.0 - part[..., :-1])
    high = torch.where(same, torch.zeros_like(low), part[..., 1:])
    below = torch.nn.functional.pad(torch.cumsum(shape, -1), (1, 0))
    between = torch.where(
        same, torch.zeros_like(low), below.gather(-1, last) - below.gather(-1, torch.where(same, last, first + 1))
    )
    return shape.gather(-1, first) * low + shape.gather(-1, last) * high + between.clamp(min=0.0)
