"""From the grid of the learned spectra to any other bins: the cumulative photon number, linear in ln E within a bin."""

from __future__ import annotations

import numpy as np

from deepspec.learned.grids import COUNT, EDGES, STEP


class Bins:
    """Which share of each bin of `grids.EDGES` lies in each of the given bins: one row-sparse matrix.

    A bin has a first and a last part on the grid, and perhaps whole bins between them. Energies outside the grid hold no
    photons. No large sums are subtracted from each other, so tails keep their relative precision and nothing becomes negative.

    Parameters
    ----------
    edges : ndarray, shape (n + 1,) [keV]
        Rising.
    """

    def __init__(self, edges: np.ndarray):
        place = np.clip(np.log(np.maximum(edges, 1e-30) / EDGES[0]) / STEP, 0.0, float(COUNT))
        whole = np.minimum(place.astype(np.int64), COUNT - 1)
        part = place - whole
        self.first, self.last = whole[:-1], whole[1:]
        same = self.first == self.last
        self.low = np.where(same, part[1:] - part[:-1], 1.0 - part[:-1])
        self.high = np.where(same, 0.0, part[1:])
        self.wide = np.flatnonzero(self.last - self.first > 1)
        self._between = np.stack([self.first[self.wide] + 1, self.last[self.wide]], -1).ravel()

    def __len__(self) -> int:
        """Number of bins."""
        return len(self.first)

    def sums(self, shape: np.ndarray) -> np.ndarray:
        """Photons per bin (..., n) from photons per bin of the grid (..., 600)."""
        flux = shape[..., self.first] * self.low
        flux += shape[..., self.last] * self.high
        if len(self.wide):
            flux[..., self.wide] += np.add.reduceat(shape, self._between, axis=-1)[..., ::2]
        return flux

    def sparse(self, transposed: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The matrix (n, 600) of shares, or its transpose, in CSR form: starts of the rows, columns, values."""
        inner = [np.arange(self.first[i] + 1, self.last[i]) for i in self.wide]
        own = np.arange(len(self))
        rows = np.concatenate([own, own, *(np.full(len(c), i) for i, c in zip(self.wide, inner, strict=True))])
        columns = np.concatenate([self.first, self.last, *inner])
        values = np.concatenate([self.low, self.high, *(np.ones(len(c)) for c in inner)])
        used = values != 0.0
        rows, columns, values = rows[used], columns[used], values[used]
        rows, columns = (columns, rows) if transposed else (rows, columns)
        order = np.lexsort((columns, rows))
        counts = np.bincount(rows, minlength=COUNT if transposed else len(self))
        return np.concatenate([[0], np.cumsum(counts)]), columns[order], values[order]
