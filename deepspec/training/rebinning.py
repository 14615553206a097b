"""Responses of any instrument on the two grids of `deepspec.learned.grids`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from deepspec.errors import UserError
from deepspec.learned.grids import COUNT, DETECTOR_COUNT, DETECTOR_EDGES, EDGES
from deepspec.response import Response

_LARGEST_PROBABILITY = 1.5


@dataclass(frozen=True, eq=False)
class Redistribution:
    """A response matrix without the effective area of a source, ready to be shared by many spectra.

    Attributes
    ----------
    name : str
        Of the file.
    sha256 : str
        Of the file; two spectra with the same one share the matrix.
    matrix : ndarray, shape (600, 238), float32
        Probability that a photon of a bin of `EDGES` is recorded in a bin of `DETECTOR_EDGES` (times cm2 if the file
        includes an area).
    total : ndarray, shape (600,), float32
        The same over all channels, those outside of `DETECTOR_EDGES` included.
    bin_of_channel : ndarray, shape (n_channel,), int16
        Where each channel's centre lies in `DETECTOR_EDGES`; -1 outside.
    first_channel : int
    includes_area : bool
        True if no effective area is wanted besides (an RSP file).
    """

    name: str
    sha256: str
    matrix: np.ndarray
    total: np.ndarray
    bin_of_channel: np.ndarray
    first_channel: int
    includes_area: bool = False

    @property
    def n_channel(self) -> int:
        """Number of channels of the file."""
        return len(self.bin_of_channel)


def redistribution(response: Response, name: str, sha256: str) -> Redistribution:
    """The matrix of a response (its `area` is left out) on the grids.

    Raises
    ------
    UserError
        None of its channels, or none of its photon energies, lies on the grids.
    """
    place = bins_of_channels(response.energy_bounds)
    inside = place >= 0
    shares = overlap(response.edges)
    if not inside.any() or shares.nnz == 0:
        raise UserError(
            f"none of its channels lies in {DETECTOR_EDGES[0]:g}-{DETECTOR_EDGES[-1]:g} keV",
            source=response.rmf or name,
            remedy="only instruments that see this band can be used",
        )
    columns = np.flatnonzero(inside)
    gather = csr_matrix((np.ones(len(columns)), (columns, place[columns])), shape=(len(place), DETECTOR_COUNT))
    mean = shares @ response.matrix
    total = np.asarray(mean.sum(axis=1)).ravel()
    return Redistribution(
        name=name,
        sha256=sha256,
        matrix=np.asarray((mean @ gather).todense(), dtype=np.float32),
        total=total.astype(np.float32),
        bin_of_channel=place.astype(np.int16),
        first_channel=response.first_channel,
        includes_area=float(np.asarray(response.matrix.sum(axis=1)).max()) > _LARGEST_PROBABILITY,
    )


def overlap(edges: np.ndarray) -> csr_matrix:
    """Mean over each bin of `EDGES` of a step function on `edges`, as a matrix of shape (600, len(edges) - 1).

    Photons are spread uniformly in ln E within a bin of `EDGES`, as in the definition of the grid; where the step
    function does not reach it counts as zero.
    """
    fine, own = np.log(EDGES), np.log(edges)
    joined = np.unique(np.concatenate([fine, own[(own > fine[0]) & (own < fine[-1])]]))
    middle, width = 0.5 * (joined[1:] + joined[:-1]), np.diff(joined)
    row = np.searchsorted(fine, middle, side="right") - 1
    column = np.searchsorted(own, middle, side="right") - 1
    reached = (column >= 0) & (column < len(own) - 1)
    row, column, width = row[reached], column[reached], width[reached]
    return csr_matrix((width / np.diff(fine)[row], (row, column)), shape=(COUNT, len(own) - 1))


def bins_of_channels(energy_bounds: np.ndarray) -> np.ndarray:
    """Bin of `DETECTOR_EDGES` that holds the centre of each channel, shape (n_channel,); -1 outside.

    Parameters
    ----------
    energy_bounds : ndarray, shape (n_channel, 2) [keV]
    """
    place = np.searchsorted(DETECTOR_EDGES, energy_bounds.mean(axis=1), side="right") - 1
    return np.where((place >= 0) & (place < DETECTOR_COUNT), place, -1)


def sum_to_bins(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Sum `values` of channels into the bins `place` of `bins_of_channels`, shape (238,)."""
    inside = place >= 0
    return np.bincount(place[inside], weights=values[inside], minlength=DETECTOR_COUNT)


def detector_means() -> np.ndarray:
    """Mean over each bin of `DETECTOR_EDGES` of a step function on `EDGES`, as a matrix of shape (600, 238)."""
    low = np.maximum(EDGES[:-1, None], DETECTOR_EDGES[:-1])
    high = np.minimum(EDGES[1:, None], DETECTOR_EDGES[1:])
    return np.maximum(high - low, 0.0) / np.diff(DETECTOR_EDGES)
