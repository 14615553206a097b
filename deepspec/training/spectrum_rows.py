"""One source spectrum as a row of a catalogue, or the reason why it is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from deepspec.errors import UserError
from deepspec.io.fits_files import existing
from deepspec.io.response_files import read_area, read_response
from deepspec.io.spectra import Links, read_spectrum, split_row
from deepspec.learned.grids import DETECTOR_EDGES
from deepspec.spectrum import Spectrum
from deepspec.training.products import CAMERA_NAMES, Matrices, Product
from deepspec.training.rebinning import Redistribution, overlap, redistribution, sum_to_bins

REASONS = {
    "few counts": "fewer counts in the band than --min-counts",
    "flag": "SUM_FLAG of the catalogue table at or above --sum-flag-below",
    "not in table": "no such detection in the catalogue table",
    "no matrix": "the response matrix its header names was not found",
    "no area": "its effective area was not found",
    "no background": "it has no background spectrum",
    "no channels": "no bin of the band has good channels only, or none that the response reaches",
    "not Poisson": "source or background are not whole counts",
    "scale varies": "BACKSCAL or AREASCAL differ between channels",
    "unreadable": "a file is damaged, of another kind, or does not match the others",
    "twice": "the same product was found in an earlier folder",
}
"""Why spectra are left out; the log names one for each."""
_SAME = 1e-3


class Rejected(Exception):
    """A spectrum is left out: one of `REASONS`, and details."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Wanted:
    """What makes a spectrum acceptable.

    Attributes
    ----------
    min_counts : int
        Counts of the source region in the valid bins.
    band : tuple of two floats [keV]
        Bins wholly inside are used.
    """

    min_counts: int
    band: tuple[float, float]


def row_of(product: Product, wanted: Wanted, matrices: Matrices, keep: Callable | None = None) -> dict[str, object]:
    """Read a product and put it on the grids.

    Parameters
    ----------
    product : Product
    wanted : Wanted
    matrices : Matrices
    keep : callable, optional
        Called with the `Redistribution` of an accepted spectrum.

    Returns
    -------
    dict
        The columns of `dataset_file.COLUMNS`, with the hash of the matrix as ``rmf``.

    Raises
    ------
    Rejected
    """
    try:
        return _row(product, wanted, matrices, keep)
    except UserError as error:
        raise Rejected("unreadable", str(error)) from error


def _row(product: Product, wanted: Wanted, matrices: Matrices, keep) -> dict[str, object]:
    spectrum, links = read_spectrum(product.path)
    # What is cheap comes first: most spectra of a catalogue are too faint, and need no more files
    if spectrum.counts[spectrum.good].sum() < wanted.min_counts:
        raise Rejected("few counts", f"{spectrum.counts[spectrum.good].sum():.0f} in all good channels")
    matrix = _matrix(product, links, matrices)
    area_file = product.beside("SRCARF") or _linked(product, links.arf)
    if area_file is None and not matrix.includes_area:
        raise Rejected("no area", links.arf or "ANCRFILE names none")
    spectrum = _with_background(product, spectrum, links)
    valid, counts, background = _binned(spectrum, _rows(spectrum, matrix), matrix.bin_of_channel, wanted)
    ratio, areascal = _constant(spectrum.ratio, spectrum), _constant(spectrum.areascal, spectrum)
    if counts.sum() < wanted.min_counts:
        raise Rejected("few counts", f"{counts.sum()} in {wanted.band[0]:g}-{wanted.band[1]:g} keV")
    arf, arf_hash = np.ones(matrix.matrix.shape[0]), ""
    if area_file is not None:
        edges, area, arf_hash = read_area(area_file)
        arf = overlap(edges) @ area
    if not ((arf @ matrix.matrix)[valid] > 0).any():
        raise Rejected("no channels", "its effective area is zero in the whole band")
    if keep is not None:
        keep(matrix)
    names = _names(product, spectrum)
    return {
        "counts": counts,
        "background": background,
        "valid": valid,
        "ratio": ratio,
        "exposure": spectrum.exposure * areascal,
        "arf": arf,
        "rmf": matrix.sha256,
        "total": counts.sum(),
        "net": counts.sum() - ratio * background.sum(),
        "hashes": np.array([_digest(h) for h in (spectrum.sha256, spectrum.backgrounds[0].sha256, arf_hash)]),
        **names,
    }


# --- the files ------------------------------------------------------------------------------------------------------


def _linked(product: Product, name: str) -> Path | None:
    """A link of the header, beside the spectrum; None if there is no such file."""
    if not name:
        return None
    path = Path(product.path).parent / split_row(name)[0]
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def _matrix(product: Product, links: Links, matrices: Matrices) -> Redistribution:
    # Where the header names none, `none=FILE` and `*=FILE` still give one
    name = links.rmf or "none"
    file = matrices.find(name, Path(product.path).parent)
    if file is None:
        raise Rejected("no matrix", Path(name).name)
    return load_matrix(file)


@lru_cache(maxsize=256)
def load_matrix(file: str) -> Redistribution:
    """The matrix of a file on the grids; each takes 0.6 MB, and a catalogue has some hundred."""
    response = read_response(file, "none")
    return redistribution(response, Path(file).name, response.hashes[str(existing(file))])


def _with_background(product: Product, spectrum: Spectrum, links: Links) -> Spectrum:
    file = product.beside("BGSPEC") or _linked(product, links.background)
    if file is not None:
        background, _ = read_spectrum(file, background=True)
        if len(background) != len(spectrum):
            raise Rejected("unreadable", f"{file}: has {len(background)} channels, its spectrum {len(spectrum)}")
        spectrum = replace(spectrum, backgrounds=(replace(background, backgrounds=()),))
    if not spectrum.backgrounds:
        raise Rejected("no background", links.background or "BACKFILE names none")
    if not (spectrum.poisson and all(b.poisson for b in spectrum.backgrounds)):
        odd = next(s for s in (spectrum, *spectrum.backgrounds) if not s.poisson)
        raise Rejected("not Poisson", f"{Path(odd.path).name}: {odd.why_not_poisson}")
    return spectrum


# --- on the grid ----------------------------------------------------------------------------------------------------


def _rows(spectrum: Spectrum, matrix: Redistribution) -> np.ndarray:
    """Row of `spectrum` for each channel of the matrix, shape (n_channel,); -1 where the file leaves one out."""
    if len(spectrum) == matrix.n_channel:
        return np.arange(matrix.n_channel)
    position = spectrum.channels - matrix.first_channel
    whole = np.all(position == np.round(position)) and position.min() >= 0 and position.max() < matrix.n_channel
    if not whole or spectrum.header.get("DETCHANS", matrix.n_channel) != matrix.n_channel:
        raise Rejected("unreadable", f"{len(spectrum)} channels, its matrix {matrix.name} has {matrix.n_channel}")
    row = np.full(matrix.n_channel, -1)
    row[position.astype(int)] = np.arange(len(spectrum))
    return row


def _binned(
    spectrum: Spectrum, row: np.ndarray, place: np.ndarray, wanted: Wanted
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Valid bins, and counts of source and background in them; shapes (238,).

    A bin is valid only if every channel whose centre it holds is usable: the matrix is shared, and knows of no gaps.
    """
    there = row >= 0
    usable = there & spectrum.usable[row]
    slack = 1e-9
    inside = (DETECTOR_EDGES[:-1] >= wanted.band[0] - slack) & (DETECTOR_EDGES[1:] <= wanted.band[1] + slack)
    valid = inside & (sum_to_bins(np.ones(len(row)), place) > 0) & (sum_to_bins(1.0 - usable, place) == 0)
    if not valid.any():
        raise Rejected("no channels", f"none is good throughout in {wanted.band[0]:g}-{wanted.band[1]:g} keV")
    counts, background = (
        np.where(valid, sum_to_bins(np.where(there, values[row], 0.0), place), 0.0)
        for values in (spectrum.counts, spectrum.background)
    )
    return valid, np.round(counts).astype(np.int64), np.round(background).astype(np.int64)


def _constant(values: np.ndarray, spectrum: Spectrum) -> float:
    """The one value of a scale factor in all usable channels."""
    used = values[spectrum.usable]
    if np.ptp(used) > _SAME * abs(used.mean()):
        raise Rejected("scale varies", f"from {used.min():.4g} to {used.max():.4g}")
    return float(used.mean())


# --- names ----------------------------------------------------------------------------------------------------------


def _names(product: Product, spectrum: Spectrum) -> dict[str, object]:
    header = spectrum.header
    instrument = str(header.get("INSTRUME", "unknown"))
    obsid = product.obsid or str(header.get("OBS_ID", ""))
    # Spectra of one target in an ordinary folder count as one source, so that none is on both sides of the split
    source = product.source or str(header.get("OBJECT", "")).strip() or product.name
    return {
        "name": product.name,
        "obsid": obsid,
        "camera": product.camera or CAMERA_NAMES.get(instrument, instrument.lower()),
        "exposure_id": product.exposure,
        "number": product.number,
        "source": source,
        "split": int.from_bytes(hashlib.sha256(source.encode()).digest()[:4], "big"),
    }


def _digest(text: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(text.rjust(64, "0")), dtype=np.uint8)
