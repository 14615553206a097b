"""Effective area and redistribution of an instrument; frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np
from scipy.sparse import csr_matrix

from deepspec.spectrum import frozen_array


@dataclass(frozen=True, eq=False)
class Response:
    """What turns photons into counts per channel.

    Attributes
    ----------
    edges : ndarray, shape (n_energy + 1,) [keV]
        Rising, positive, without gaps.
    matrix : scipy.sparse.csr_matrix, shape (n_energy, n_channel)
        Probability that a photon of the energy bin is recorded in the channel (times area, for a .rsp).
    area : ndarray, shape (n_energy,) [cm2]
        Effective area; 1 if `matrix` includes it.
    energy_bounds : ndarray, shape (n_channel, 2) [keV]
        Nominal energies of the channels.
    first_channel : int
        Number of the first channel.
    rmf, arf : str
        Paths; empty without.
    hashes : mapping of path to SHA-256
    notes : tuple of str
    """

    edges: np.ndarray
    matrix: csr_matrix
    area: np.ndarray
    energy_bounds: np.ndarray
    first_channel: int = 1
    rmf: str = ""
    arf: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("edges", "area", "energy_bounds"):
            object.__setattr__(self, name, frozen_array(getattr(self, name)))
        object.__setattr__(self, "hashes", MappingProxyType(dict(self.hashes)))
        n_energy, n_channel = self.matrix.shape
        if self.edges.shape != (n_energy + 1,) or self.area.shape != (n_energy,):
            raise ValueError("edges, area and matrix disagree about the number of energies")
        if self.energy_bounds.shape != (n_channel, 2):
            raise ValueError("energy_bounds and matrix disagree about the number of channels")

    def __repr__(self) -> str:
        n_energy, n_channel = self.matrix.shape
        return f"<Response {self.rmf or 'in memory'}: {n_energy} energies, {n_channel} channels>"

    @cached_property
    def n_channel(self) -> int:
        """Number of channels."""
        return self.matrix.shape[1]

    @cached_property
    def total_area(self) -> np.ndarray:
        """Effective area with the losses of the matrix, shape (n_energy,) [cm2]."""
        return self.area * np.asarray(self.matrix.sum(axis=1)).ravel()

    @cached_property
    def resolution(self) -> np.ndarray:
        """Full width at half maximum at the nominal energy of each channel, shape (n_channel,) [channels]."""
        rows = np.flatnonzero(np.diff(self.matrix.indptr))
        middle = 0.5 * (self.edges[rows] + self.edges[rows + 1])
        width = np.array([self._width(row) for row in rows])
        known = width > 0
        if not known.any():
            return frozen_array(np.ones(self.n_channel))
        nominal = self.energy_bounds.mean(axis=1)
        return frozen_array(np.maximum(np.interp(nominal, middle[known], width[known]), 1.0))

    def _width(self, row: int) -> float:
        """FWHM of one row of the matrix [channels]; 0 if it holds nothing.

        The half-maximum points are interpolated between channel middles; a peak of one channel is one wide.
        """
        start, end = self.matrix.indptr[row : row + 2]
        value, column = self.matrix.data[start:end], self.matrix.indices[start:end]
        peak = int(np.argmax(value))
        half = 0.5 * value[peak]
        if not half > 0:
            return 0.0
        return max(self._reach(value, column, peak, half, -1) + self._reach(value, column, peak, half, 1), 1.0)

    @staticmethod
    def _reach(value: np.ndarray, column: np.ndarray, peak: int, half: float, step: int) -> float:
        """Distance from the peak to half of its height, in one direction [channels]."""
        part = value[peak::step]
        below = np.flatnonzero(part < half)
        if not len(below) or abs(int(column[peak + step * below[0]]) - int(column[peak])) != below[0]:
            # The row ends, or has a gap, before half height: the next channel holds nothing
            reached = int(below[0]) if len(below) else len(part)
            return reached - 1 + (part[reached - 1] - half) / part[reached - 1]
        at = int(below[0])
        return at - 1 + (part[at - 1] - half) / (part[at - 1] - part[at])
