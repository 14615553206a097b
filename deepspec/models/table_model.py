"""XSPEC's table models (atable, mtable, etable; OGIP memo 92-009), with derivatives.

Spectra tabulated on a grid of parameter values are interpolated linearly in each parameter (in its logarithm where the file says
so). Additional parameters multiply spectra of their own. A redshift is applied as XSPEC does: the table is read at E (1 + z), an
additive one divided by 1 + z.
"""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.io.table_files import TableFile, TableParameter, read_table_model
from deepspec.models.base import Additive, Component, Grid, Multiplicative, Parameter
from deepspec.models.redshift import REDSHIFT, rest_frame


def load_table_model(path: str | Path, kind: str) -> Component:
    """A component from a table-model file.

    Parameters
    ----------
    path : path of the FITS file
    kind : str
        "atable" (adds photons), "mtable" (a factor) or "etable" (the factor exp(-table)).

    Raises
    ------
    UserError
        As `read_table_model`; or the file holds the other kind.
    """
    table = read_table_model(path)
    if table.additive != (kind == "atable"):
        holds, right = ("photons", "atable") if table.additive else ("a factor", "mtable")
        raise UserError(f"holds {holds}, so {kind} cannot use it", source=path, remedy=f"write {right}{{{path}}}")
    if table.escale:
        raise UserError("asks for an energy scale parameter (ESCALE), which is not supported", source=path)
    made = {"atable": AdditiveTable, "mtable": MultiplicativeTable, "etable": ExponentialTable}[kind]
    return made(table, str(path))


def _parameter(given: TableParameter) -> Parameter:
    limits = sorted((given.minimum, given.bottom, given.top, given.maximum))
    if len(given.values):  # the table says nothing beyond its values
        limits = [min(max(x, given.values[0]), given.values[-1]) for x in limits]
    low, soft_low, soft_high, high = limits
    start = min(max(given.initial, soft_low), soft_high)
    return Parameter(given.name, start, given.unit, low, soft_low, soft_high, high, frozen=given.delta <= 0)


class _Table:
    """What the three kinds share: parameters from the file, and the interpolated spectrum on the file's own bins."""

    def __init__(self, table: TableFile, path: str):
        names = [p.name for p in (*table.parameters, *table.additional)]
        taken = [
            name
            for name in names
            if names.count(name) > 1 or (table.redshift and name == REDSHIFT.name) or name == "norm"
        ]
        if taken:
            raise UserError(f"the parameter name {taken[0]} is used twice", source=path)
        self.name = "".join(c if c.isalnum() or c == "_" else "_" for c in table.name.lower()) or "table"
        self.source = f"table model {path}"
        self.path = path
        self.parameters = tuple(map(_parameter, (*table.parameters, *table.additional))) + (REDSHIFT,) * table.redshift
        self.kinks = tuple(p.name for p in self.parameters)
        self._file = table
        self._axes = [torch.as_tensor(np.log(p.values) if p.log else p.values.copy()) for p in table.parameters]
        self._flat = torch.from_numpy(np.ascontiguousarray(table.spectra.reshape(-1, len(table.edges) - 1)))
        self._edges = torch.from_numpy(np.ascontiguousarray(table.edges))

    @property
    def settings(self) -> dict[str, str]:
        """The file; recorded with every result."""
        return {"file": self.path}

    def own_spectrum(self, values: dict[str, Tensor]) -> Tensor:
        """The spectrum for the given parameters on the bins of the file, shape (..., n_table)."""
        places = [
            self._place(axis, p, values[p.name]) for axis, p in zip(self._axes, self._file.parameters, strict=True)
        ]
        sizes = [len(axis) for axis in self._axes]
        spectra = 0.0
        for corner in product(*(range(len(weights)) for _, weights in places)):
            index, weight = 0, 1.0
            for (first, weights), step, size in zip(places, corner, sizes, strict=True):
                index = index * size + first + step
                weight = weight * weights[step]
            total = self._flat[index.squeeze(-1)]
            for number, extra in enumerate(self._file.additional, start=1):
                total = total + values[extra.name] * self._flat[index.squeeze(-1) + number * math.prod(sizes)]
            spectra = spectra + weight * total
        return spectra

    @staticmethod
    def _place(axis: Tensor, parameter: TableParameter, value: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Index of the tabulated value below, and the weights of it and the next; outside the end value holds."""
        if len(axis) == 1:
            return torch.zeros_like(value, dtype=torch.long), (torch.ones_like(value),)
        x = torch.log(value) if parameter.log else value
        x = x.clamp(float(axis[0]), float(axis[-1]))
        first = (torch.searchsorted(axis, x.detach().contiguous(), right=True) - 1).clamp(0, len(axis) - 2)
        t = (x - axis[first]) / (axis[first + 1] - axis[first])
        return first, (1.0 - t, t)

    def _integral(self, spectrum: Tensor, edges: Tensor) -> Tensor:
        """Sum over the table's bins of their value times the fraction of them that each user bin covers."""
        place = torch.searchsorted(self._edges, edges.detach().contiguous(), right=True) - 1
        place = place.clamp(0, len(self._edges) - 2)
        low, high = self._edges[place], self._edges[place + 1]
        part = ((edges - low) / (high - low)).clamp(0.0, 1.0)
        batch = np.broadcast_shapes(tuple(spectrum.shape[:-1]), tuple(edges.shape[:-1]))
        # summed from the top: a falling spectrum keeps its relative precision
        above = torch.flip(torch.cumsum(torch.flip(spectrum, (-1,)), -1), (-1,))
        place = place.expand(*batch, place.shape[-1])
        above, spectrum = (x.expand(*batch, x.shape[-1]) for x in (above, spectrum))
        beyond = above.gather(-1, place) - part * spectrum.gather(-1, place)
        return beyond[..., :-1] - beyond[..., 1:]

    def _rest(self, grid: Grid, values: dict[str, Tensor]) -> Grid:
        return rest_frame(grid, values[REDSHIFT.name]) if self._file.redshift else grid


class AdditiveTable(_Table, Additive):
    """A spectrum from an additive table model; 0 outside its energies."""

    def evaluate(self, grid: Grid, **values: Tensor) -> Tensor:
        flux = self._integral(self.own_spectrum(values), self._rest(grid, values).edges)
        flux = flux.clamp(min=0.0) if bool((self._flat >= 0).all()) else flux
        return flux / (1.0 + values[REDSHIFT.name]) if self._file.redshift else flux


class MultiplicativeTable(_Table, Multiplicative):
    """A factor from a multiplicative table model: the mean over each bin.

    As in XSPEC, each bin of the table weighs by the fraction of it that is covered.

    Below and above its energies the factor is what the file says (LOELIMIT, HIELIMIT), else 0, as in XSPEC.
    """

    def evaluate(self, grid: Grid, **values: Tensor) -> Tensor:
        edges = self._rest(grid, values).edges
        spectrum = self.factor(self.own_spectrum(values))
        total, covered = self._integral(spectrum, edges), self._integral(torch.ones_like(spectrum), edges)
        low, high = self._edges[0], self._edges[-1]
        below = torch.diff(edges.clamp(max=low)) * self._file.low_outside
        above = torch.diff(edges.clamp(min=high)) * self._file.high_outside
        inside = torch.diff(edges.clamp(min=low, max=high)) * total / covered.clamp(min=1e-300)
        return (inside + below + above) / torch.diff(edges)

    def factor(self, spectrum: Tensor) -> Tensor:
        """What the tabulated number means."""
        return spectrum


class ExponentialTable(MultiplicativeTable):
    """The factor exp(-table)."""

    def factor(self, spectrum: Tensor) -> Tensor:
        return torch.exp(-spectrum)
