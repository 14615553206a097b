"""The compact table of a plasma: emissivity per element on nodes of energy and rows of temperature.

The spectrum of a part (hydrogen, helium, ... one chemical element at solar abundance) is a sum of hat functions on fixed
energy nodes, and its dependence on temperature a spline whose coefficients are the rows of the table. Both are linear in the
table, so the table can be brought onto a user's bins once, bins that are split keep their sum, and the coefficients, none of
which is negative, can give no negative flux.

File format (HDF5), "deepspec plasma table 1"
    attributes: format, model, source, made_by, abundances ("angr"), unit, rule ("cubic": uniform cubic B-spline in ln kT;
    "linear": between rows in kT), log_step (quantum of ln), and of the nodes: step, bend, low, count (`EnergyNodes`).
    ``kT`` (n_row,) [keV]; ``parts`` (n_part,): names of elements, or "trace" for elements that are always solar.
    ``first``, ``last`` (n_part, n_node): rows outside [first, last) are 0.
    ``start`` (n_part, n_node) and ``code`` (n_part, n_node, n_row): level = round(ln(coefficient exp(E / kT)) / log_step)
    at the row `first`, and its second differences along the rows from there on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.models.base import Grid

FORMAT = "deepspec plasma table 1"
RULES = ("cubic", "linear")
SMALLEST = 1e-32
"""Fluxes below this are written as 0 [photon cm^-2 s^-1]."""


@dataclass(frozen=True)
class EnergyNodes:
    """Energies at which a table is given: spacing ``step sqrt(E) (1 + E / bend)``, a fixed fraction of a CCD's resolution.

    Parameters
    ----------
    step : float [sqrt(keV)]
        Spacing at 1 keV.
    bend : float [keV]
        Above it, where only continuum is left, the spacing grows faster.
    low : float [keV]
        Energy of the first node.
    count : int
    """

    step: float
    bend: float
    low: float
    count: int

    @classmethod
    def between(cls, low: float, high: float, step: float = 2.2e-3, bend: float = 20.0) -> EnergyNodes:
        """Nodes from `low` up to the first one at or above `high` [keV]."""
        start = cls(step, bend, low, 1)
        span = float(start.place(torch.tensor(high, dtype=torch.float64)))
        return cls(step, bend, low, int(np.ceil(span)) + 1)

    @property
    def _scale(self) -> float:
        return 2.0 * np.sqrt(self.bend) / self.step

    @property
    def _origin(self) -> float:
        return self._scale * float(np.arctan(np.sqrt(self.low / self.bend)))

    def place(self, energy: Tensor) -> Tensor:
        """Position on the nodes (0 at the first, 1 at the second), the integral of 1 / spacing; any shape [keV]."""
        return self._scale * torch.atan(torch.sqrt(energy.clamp(min=0.1 * self.low) / self.bend)) - self._origin

    def energy(self, place) -> np.ndarray:
        """Inverse of `place`, as numpy [keV]."""
        return self.bend * np.tan((np.asarray(place, float) + self._origin) / self._scale) ** 2

    def cells(self, pieces: int = 16) -> np.ndarray:
        """Edges that cut every interval between nodes into `pieces`, shape ((count - 1) * pieces + 1,) [keV]."""
        return self.energy(np.arange((self.count - 1) * pieces + 1) / pieces)

    def from_cells(self, flux: np.ndarray, pieces: int = 16) -> np.ndarray:
        """Shares of the nodes in flux given on `cells`, shape (..., count): sum and mean place are kept."""
        flux = np.reshape(flux, (*np.shape(flux)[:-1], self.count - 1, pieces))
        part = (np.arange(pieces) + 0.5) / pieces
        out = np.zeros((*flux.shape[:-2], self.count))
        out[..., :-1] += flux @ (1.0 - part)
        out[..., 1:] += flux @ part
        return out

    def from_lines(self, energy: np.ndarray, flux: np.ndarray) -> np.ndarray:
        """Shares of the nodes in lines, shape (count,); lines outside the nodes are left out."""
        place = self.place(torch.as_tensor(np.asarray(energy, float))).numpy()
        inside = (place >= 0) & (place <= self.count - 1)
        place, flux = place[inside], np.asarray(flux, float)[inside]
        lower = np.minimum(place.astype(int), self.count - 2)
        out = np.bincount(lower, flux * (1.0 - (place - lower)), self.count)
        return out + np.bincount(lower + 1, flux * (place - lower), self.count)

    def overlap(self, edges: Tensor):
        """Share of every node's hat in every bin, a scipy sparse matrix (n, count), for edges of shape (n + 1,)."""
        from scipy.sparse import csr_matrix

        place = self.place(edges).detach().numpy().clip(-1.0, self.count)
        first = np.floor(place[:-1]).astype(int)
        length = np.floor(place[1:]).astype(int) + 2 - first
        row = np.repeat(np.arange(len(first)), length)
        node = np.arange(len(row)) - np.repeat(np.cumsum(length) - length - first, length)
        share = _hat_integral(place[1:][row] - node) - _hat_integral(place[:-1][row] - node)
        keep = (node >= 0) & (node < self.count) & (share > 0)
        return csr_matrix((share[keep], (row[keep], node[keep])), shape=(len(first), self.count))

    def rebin(self, flux: Tensor, edges: Tensor) -> Tensor:
        """Flux per bin of spectra on the nodes; differentiable in the edges too.

        Parameters
        ----------
        flux : Tensor, shape (..., count)
        edges : Tensor, shape (..., n + 1) [keV]

        Returns
        -------
        Tensor, shape (..., n)

        Notes
        -----
        Counts above an energy are summed from the top, so that the steep tail keeps its relative precision.
        """
        padded = torch.nn.functional.pad(flux, (1, 3))
        above = torch.flip(torch.cumsum(torch.flip(padded, (-1,)), -1), (-1,))
        place = (self.place(edges) + 1.0).clamp(0.0, self.count + 1.0)
        index = place.detach().floor().long()
        batch = np.broadcast_shapes(flux.shape[:-1], edges.shape[:-1])
        index = index.expand(*batch, index.shape[-1])
        padded, above = (x.expand(*batch, x.shape[-1]) for x in (padded, above))
        part = place - index
        beyond = (
            0.5 * (1.0 - part) ** 2 * padded.gather(-1, index)
            + (1.0 - 0.5 * part**2) * padded.gather(-1, index + 1)
            + above.gather(-1, index + 2)
        )
        return (beyond[..., :-1] - beyond[..., 1:]).clamp(min=0.0)


def _hat_integral(x: np.ndarray) -> np.ndarray:
    """Integral of the hat max(0, 1 - |x|) from minus infinity to x."""
    x = np.clip(x, -1.0, 1.0)
    return np.where(x < 0, 0.5 * (1.0 + x) ** 2, 1.0 - 0.5 * (1.0 - x) ** 2)


@dataclass(frozen=True, eq=False)
class PlasmaTable:
    """Emission of a plasma at norm 1 and redshift 0 [photon cm^-2 s^-1 per node].

    Attributes
    ----------
    coefficients : Tensor, shape (n_row, n_part, n_node)
        Coefficients of the temperature spline, none negative.
    kT : ndarray, shape (n_row,) [keV]
    parts : names, n_part of them
    nodes : EnergyNodes
    rule : "cubic" or "linear"
    about : attributes of the file
    """

    coefficients: Tensor
    kT: np.ndarray
    parts: tuple[str, ...]
    nodes: EnergyNodes
    rule: str
    about: Mapping[str, str]

    def combined(self, groups: Sequence[Mapping[str, float]]) -> PlasmaTable:
        """A table whose parts are weighted sums of these parts: ``group[element]`` is the weight."""
        weights = torch.tensor([[g.get(p, 0.0) for p in self.parts] for g in groups], dtype=torch.float64)
        names = tuple("+".join(g) for g in groups)
        return PlasmaTable(weights @ self.coefficients, self.kT, names, self.nodes, self.rule, self.about)

    def temperature_weights(self, kT: Tensor) -> tuple[Tensor, Tensor, slice]:
        """Weights of the rows and their derivative by kT, shape (..., n_used), and which rows; kT of shape (..., 1) [keV]."""
        if self.rule == "cubic":
            position = (torch.log(kT) - float(np.log(self.kT[0]))) / self._log_spacing
            position = position.clamp(1.0, len(self.kT) - 2.0)
            first = (position.detach().floor() - 1.0).clamp(0, len(self.kT) - 4)
            t, scale = position - first - 1.0, 1.0 / (self._log_spacing * kT)
            local = ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (1 + 3 * t * (1 + t - t**2)) / 6, t**3 / 6)
            slope = (-((1 - t) ** 2) / 2, (3 * t**2 - 4 * t) / 2, (1 + 2 * t - 3 * t**2) / 2, t**2 / 2)
        else:
            rows = torch.as_tensor(self.kT)
            index = (torch.searchsorted(rows, kT.detach().contiguous(), right=True) - 1).clamp(0, len(self.kT) - 2)
            first, scale = index.to(kT.dtype), 1.0 / (rows[index + 1] - rows[index])
            t = ((kT - rows[index]) * scale).clamp(0.0, 1.0)
            local, slope = (1 - t, t), (-torch.ones_like(t), torch.ones_like(t))
        used = slice(int(first.min()), int(first.max()) + len(local))
        row = torch.arange(used.start, used.stop, dtype=torch.float64)
        hits = [row == first + j for j in range(len(local))]
        weights = sum(weight * hit for weight, hit in zip(local, hits, strict=True))
        return weights, sum(change * hit for change, hit in zip(slope, hits, strict=True)) * scale, used

    @cached_property
    def _log_spacing(self) -> float:
        return float(np.log(self.kT[-1] / self.kT[0])) / (len(self.kT) - 1)

    def on_grid(self, grid: Grid) -> Tensor:
        """The coefficients brought onto bins without batch axes, shape (n_row, n_part, n); kept with the grid."""

        def make() -> Tensor:
            matrix = self.nodes.overlap(grid.edges)
            flat = self.coefficients.reshape(-1, self.nodes.count).numpy()
            binned = np.ascontiguousarray((matrix @ flat.T).T)
            return torch.from_numpy(binned).reshape(*self.coefficients.shape[:2], -1)

        return grid.memo(self, make)

    def flux(self, grid: Grid, kT: Tensor, abundances: Tensor) -> Tensor:
        """Flux per bin of the rest-frame grid.

        Parameters
        ----------
        grid : Grid, n bins, with or without batch axes
        kT : Tensor, shape (..., 1) [keV]
        abundances : Tensor, shape (..., n_part)
            Relative to the table's own.

        Returns
        -------
        Tensor, shape (..., n) [photon cm^-2 s^-1]
        """
        weights, _, used = self.temperature_weights(kT)
        both = (weights.unsqueeze(-1) * abundances.unsqueeze(-2)).flatten(-2)
        if is_plain(grid):
            return both @ self.on_grid(grid)[used].flatten(0, 1)
        return self.nodes.rebin(both @ self.coefficients[used].flatten(0, 1), grid.edges)

    def flux_and_slopes(
        self, grid: Grid, kT: Tensor, abundances: Tensor, wanted: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Flux and its derivatives on bins without batch axes, in a few matrix products.

        Parameters
        ----------
        grid, kT, abundances : as `flux`
        wanted : sequence of int
            -1 for kT, or the index of the part whose abundance is meant.

        Returns
        -------
        flux : Tensor, shape (..., n)
        slopes : Tensor, shape (len(wanted), ..., n)
        """
        weights, change, used = self.temperature_weights(kT)
        table = self.on_grid(grid)[used]
        slopes = {}
        if -1 in wanted:
            both = torch.stack(torch.broadcast_tensors(weights, change)).unsqueeze(-1) * abundances.unsqueeze(-2)
            flux, slopes[-1] = both.flatten(-2) @ table.flatten(0, 1)
        else:
            flux = (weights.unsqueeze(-1) * abundances.unsqueeze(-2)).flatten(-2) @ table.flatten(0, 1)
        for part in set(wanted) - {-1}:
            slopes[part] = (weights @ table[:, part]).expand_as(flux)
        return flux, torch.stack([slopes[part] for part in wanted])


def is_plain(grid: Grid) -> bool:
    """Bins without batch axes that are not differentiated: the table can be brought onto them once."""
    return grid.edges.ndim == 1 and not grid.edges.requires_grad


def spline_coefficients(rows: np.ndarray) -> np.ndarray:
    """Cubic B-spline coefficients through uniformly spaced rows (axis 0), same shape.

    Only nodes inside the first and last row are met exactly, so let the rows reach beyond the range used. Coefficients are
    kept between 0 and 1.5 times their row, which changes them only where neighbouring rows differ by more than a factor of about four.
    """
    from scipy.linalg import solve_banded

    band = np.array([1.0, 4.0, 1.0])[:, None] * np.ones(len(rows)) / 6.0
    # the coefficients beyond both ends continue the end ones
    band[1, 0] = band[1, -1] = 5.0 / 6.0
    flat = solve_banded((1, 1), band, rows.reshape(len(rows), -1))
    return np.clip(flat, 0.0, 1.5 * rows.reshape(flat.shape)).reshape(rows.shape)


def write_plasma_table(path, table: PlasmaTable, log_step: float = 1e-3, floor: float = 1e-5) -> None:
    """Write a table compactly; the same table gives the same bytes.

    Parameters
    ----------
    path : path of the file
    table : PlasmaTable
    log_step : float
        Coefficients are rounded to this step in their logarithm.
    floor : float
        A part that contributes less than this fraction of the solar spectrum at a node and a row is left out there.
    """
    import h5py

    flux = np.moveaxis(table.coefficients.numpy(), 0, -1)
    least = np.maximum(floor * flux.sum(0), SMALLEST)
    keep = flux > least
    n_row = len(table.kT)
    first = np.where(keep.any(-1), keep.argmax(-1), n_row)
    last = np.where(keep.any(-1), n_row - keep[..., ::-1].argmax(-1), n_row)
    exponent = table.nodes.energy(np.arange(table.nodes.count))[:, None] / table.kT
    level = np.round((np.log(np.maximum(flux, 0.5 * least)) + exponent) / log_step)
    inside = (np.arange(n_row) >= first[..., None]) & (np.arange(n_row) < last[..., None])
    start = np.take_along_axis(level, np.minimum(first, n_row - 1)[..., None], -1)[..., 0]
    slope = np.diff(level, axis=-1, prepend=0.0) * inside * (np.arange(n_row) > first[..., None])
    code = np.diff(slope, axis=-1, prepend=0.0) * inside
    with h5py.File(path, "w", track_order=False) as file:
        nodes = {f"nodes_{key}": getattr(table.nodes, key) for key in ("step", "bend", "low", "count")}
        file.attrs.update({**table.about, **nodes, "format": FORMAT, "rule": table.rule, "log_step": log_step})
        options = {"compression": "gzip", "compression_opts": 9, "shuffle": True, "track_times": False}
        file.create_dataset("kT", data=table.kT, track_times=False)
        file.create_dataset("parts", data=np.array(table.parts, "S8"), track_times=False)
        file.create_dataset("first", data=first.astype("u1" if n_row < 255 else "u2"), **options)
        file.create_dataset("last", data=last.astype("u1" if n_row < 255 else "u2"), **options)
        file.create_dataset("start", data=start.astype(np.int32), **options)
        chunks = (1, min(table.nodes.count, 1024), n_row)
        file.create_dataset("code", data=code.astype(np.int32), chunks=chunks, **options)


def read_plasma_table(path: str | Path) -> PlasmaTable:
    """Read a table.

    Raises
    ------
    UserError
        The file is missing, damaged or of another format.
    """
    import h5py

    remedy = "make it again with `deepspec tables build`"
    try:
        with h5py.File(path, "r") as file:
            about = {key: value for key, value in file.attrs.items()}
            if about.get("format") != FORMAT or about.get("rule") not in RULES:
                raise UserError("is not a plasma table of this version", source=path, remedy=remedy)
            kT, parts = file["kT"][:], tuple(p.decode() for p in file["parts"][:])
            first, last, start, code = (file[key][:] for key in ("first", "last", "start", "code"))
    except (OSError, KeyError) as error:
        raise UserError("cannot be read as a plasma table", source=path, remedy=remedy) from error
    nodes = EnergyNodes(*(about.pop(f"nodes_{key}").item() for key in ("step", "bend", "low", "count")))
    coefficients = _decode(code, start, first, last, float(about["log_step"]), nodes, kT)
    return PlasmaTable(torch.from_numpy(coefficients), kT, parts, nodes, about["rule"], about)


def _decode(code, start, first, last, log_step: float, nodes: EnergyNodes, kT: np.ndarray) -> np.ndarray:
    """Coefficients (n_row, n_part, n_node) from second differences; one part at a time to spare memory."""
    n_part, n_node, n_row = code.shape
    out = np.empty((n_row, n_part, n_node))
    row = np.arange(n_row)
    exponent = nodes.energy(np.arange(n_node))[:, None] / kT
    for part in range(n_part):
        level = np.cumsum(np.cumsum(code[part], axis=-1, dtype=np.int64), axis=-1) + start[part][:, None]
        inside = (row >= first[part][:, None]) & (row < last[part][:, None])
        out[:, part] = np.where(inside, np.exp(np.where(inside, level * log_step - exponent, 0.0)), 0.0).T
    return out
