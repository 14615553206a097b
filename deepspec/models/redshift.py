"""Redshifted versions of components: the grid of the rest frame, kept while the redshift stays the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from deepspec.models.base import Additive, Grid, Multiplicative, Parameter

REDSHIFT = Parameter("Redshift", 0.0, "", -0.999, -0.999, 10.0, 10.0, frozen=True)


def rest_frame(grid: Grid, redshift: Tensor) -> Grid:
    """The grid with edges multiplied by 1 + z, shape of z (..., 1).

    A redshift that is the same for the whole batch and not differentiated gives a grid without batch axes,
    and the last such grid is kept, so that a frozen redshift costs nothing.
    """
    if redshift.requires_grad or grid.edges.requires_grad:
        return grid.times(1.0 + redshift)
    first = redshift.reshape(-1)[:1]
    if not torch.all(redshift == first):
        return grid.times(1.0 + redshift)
    kept = grid.memo("rest_frame", dict)
    z = float(first)
    if kept.get("redshift") != z:
        kept["redshift"], kept["grid"] = z, Grid(grid.edges * (1.0 + z))
    return kept["grid"]


def _split(values: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    rest = dict(values)
    return rest.pop("Redshift"), rest


class RedshiftedAdditive(Additive):
    """An additive component seen at redshift z: ``f(E (1 + z)) / (1 + z)`` per bin, as XSPEC's z-models.

    Photons of one rest-frame bin arrive in the bin ``edges / (1 + z)``; the division is the time dilation.
    Subclasses name the `rest` component.
    """

    rest: ClassVar[Additive]

    def evaluate(self, grid: Grid, **values: Tensor) -> Tensor:
        redshift, others = _split(values)
        return self.rest.evaluate(rest_frame(grid, redshift), **others) / (1.0 + redshift)

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if "Redshift" in wanted:
            return super().derivatives(grid, values, wanted)
        redshift, others = _split(values)
        flux, slope = self.rest.derivatives(rest_frame(grid, redshift), others, wanted)
        return flux / (1.0 + redshift), slope / (1.0 + redshift)


class RedshiftedFactor(Multiplicative):
    """A factor of an absorber at redshift z: ``factor(E (1 + z))``. Subclasses name the `rest` component."""

    rest: ClassVar[Multiplicative]

    def evaluate(self, grid: Grid, **values: Tensor) -> Tensor:
        redshift, others = _split(values)
        return self.rest.evaluate(rest_frame(grid, redshift), **others)

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if "Redshift" in wanted:
            return super().derivatives(grid, values, wanted)
        redshift, others = _split(values)
        return self.rest.derivatives(rest_frame(grid, redshift), others, wanted)
