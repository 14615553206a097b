"""ARF, RMF and RSP files through ``sherpa.astro.io``."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from deepspec.errors import UserError
from deepspec.io.fits_files import existing, foreign_errors, open_fits, quiet
from deepspec.response import Response

#: Folder of canned matrices, beside the option --rmf-dir.
RMF_FOLDER_VARIABLE = "DEEPSPEC_RMF_DIR"

#: Sherpa's replacement of a lower limit of 0 keV.
LOWEST_ENERGY = 1e-10

#: Rows that sum to more than this cannot be probabilities: the matrix holds areas.
_LARGEST_PROBABILITY = 1.5

#: INTEGRAL's ISGRI matrix dips to -0.6 % of its peak; more than this share cannot be meant.
_LARGEST_NEGATIVE = 0.02

#: Energy limits of ARF and RMF agree if they differ by less than this share of a bin.
_GRID_TOLERANCE = 0.05


def find_canned(name: str, folder: str | Path | None = None) -> Path | None:
    """The matrix called `name` in `folder`, else in the folder that DEEPSPEC_RMF_DIR names.

    .gz is tried, and the version that canned XMM matrices carry in their names: ``epn_e3_ef20_sdY6.rmf`` finds
    ``epn_e3_ef20_sdY6_v19.0.rmf.gz``, the newest if there are several.
    """
    wanted = Path(name).name
    for place in (folder, os.environ.get(RMF_FOLDER_VARIABLE)):
        if not place:
            continue
        for candidate in (Path(place) / wanted, Path(place) / f"{wanted}.gz"):
            if candidate.is_file():
                return candidate
        versions = _versions(Path(place), wanted)
        if versions:
            return max(versions)[1]
    return None


def _versions(place: Path, wanted: str) -> list[tuple[tuple[int, ...], Path]]:
    stem, _, ending = wanted.partition(".")
    pattern = re.compile(rf"{re.escape(stem)}_v(\d+(?:\.\d+)*)\.{re.escape(ending)}(\.gz)?")
    files = sorted(place.iterdir()) if place.is_dir() else []
    found = [(pattern.fullmatch(file.name), file) for file in files]
    return [(tuple(map(int, match.group(1).split("."))), file) for match, file in found if match]


def read_response(rmf: str | Path, arf: str | Path | None = None) -> Response:
    """Read a redistribution matrix, and the effective area unless the matrix includes it.

    Parameters
    ----------
    rmf : str or Path
        RMF, or RSP (matrix times area).
    arf : str or Path, optional
        "none" if the matrix is to be used as it is.

    Raises
    ------
    UserError
        A file is missing, damaged or of another kind; energy grids that do not match; no effective area.
    """
    file = existing(rmf)
    hdus, digest = open_fits(file)
    with quiet(), foreign_errors(file, "a response matrix"):
        edges, matrix, bounds, first, notes = _matrix(hdus, file)
    hashes = {str(file): digest}
    includes_area = _row_sum(matrix).max(initial=0.0) > _LARGEST_PROBABILITY
    if arf is None and not includes_area:
        raise UserError(
            "no effective area is given and this matrix has none",
            source=file,
            remedy="give --arf FILE, or --arf none to use the matrix as it is",
        )
    area, arf_name = np.ones(len(edges) - 1), ""
    if arf is not None and str(arf).lower() != "none":
        arf_file = existing(arf)
        arf_hdus, hashes[str(arf_file)] = open_fits(arf_file)
        with quiet(), foreign_errors(arf_file, "an effective area"):
            low, high, values, arf_notes = _area(arf_hdus, arf_file)
        notes += arf_notes
        edges, area = _on_grid(low, high, values, edges, arf_file, file)
        arf_name = str(arf_file)
    if edges[0] > edges[-1]:
        edges, matrix, area = edges[::-1], matrix[::-1], area[::-1]
    return Response(
        edges=edges,
        matrix=matrix,
        area=area,
        energy_bounds=bounds,
        first_channel=first,
        rmf=str(file),
        arf=arf_name,
        hashes=hashes,
        notes=tuple(notes),
    )


def read_area(arf: str | Path) -> tuple[np.ndarray, np.ndarray, str]:
    """Read an effective area on its own, whatever matrix it goes with.

    Returns
    -------
    edges : ndarray, shape (n + 1,) [keV]
        Rising and positive.
    area : ndarray, shape (n,) [cm2]
    hash : str
        SHA-256 of the file.

    Raises
    ------
    UserError
        The file is missing, damaged or of another kind; its energy bins overlap or leave gaps.
    """
    file = existing(arf)
    hdus, digest = open_fits(file)
    with quiet(), foreign_errors(file, "an effective area"):
        low, high, values, _ = _area(hdus, file)
        edges = _edges(low, high, file)
    return (edges, values, digest) if edges[0] < edges[-1] else (edges[::-1], values[::-1], digest)


def _row_sum(matrix: csr_matrix) -> np.ndarray:
    return np.asarray(matrix.sum(axis=1)).ravel()


# --- matrix ---------------------------------------------------------------------------------------------------------


def _ready(hdus, file: Path):
    """Give EBOUNDS its standard name, and say what is missing."""
    tables = [hdu for hdu in hdus if hasattr(hdu, "columns")]
    columns = {id(hdu): {c.upper() for c in hdu.columns.names} for hdu in tables}
    matrices = [hdu for hdu in tables if {"ENERG_LO", "N_GRP", "F_CHAN", "N_CHAN", "MATRIX"} <= columns[id(hdu)]]
    bounds = [hdu for hdu in tables if {"CHANNEL", "E_MIN", "E_MAX"} <= columns[id(hdu)]]
    if not matrices:
        is_arf = any("SPECRESP" in names for names in columns.values())
        remedy = "it is an effective area: give it with --arf" if is_arf else "give an RMF file"
        raise UserError("holds no response matrix (columns N_GRP, F_CHAN, N_CHAN, MATRIX)", source=file, remedy=remedy)
    if not bounds:
        raise UserError("has no channel energies (EBOUNDS extension)", source=file, remedy="give a complete RMF file")
    if len(matrices) > 1:
        raise UserError(
            f"holds {len(matrices)} matrices, of which only one could be used",
            source=file,
            remedy="give one RMF file each",
        )
    matrices[0].name, bounds[0].name = "MATRIX", "EBOUNDS"
    return matrices[0], bounds[0]


def _matrix(hdus, file: Path):
    from astropy.io import fits
    from sherpa.astro import io as sherpa_io

    matrix_hdu, bounds_hdu = _ready(hdus, file)
    with quiet() as said:
        rmf = sherpa_io.read_rmf(fits.HDUList([fits.PrimaryHDU(), matrix_hdu, bounds_hdu]))
    notes, offset = [], int(rmf.offset)
    if any("TLMIN" in message for message in said):
        # The standard's default is 1; a matrix that uses channel 0 cannot count from 1
        offset = min(1, int(np.min(rmf.f_chan, initial=1)))
        notes.append(f"{file.name}: no TLMIN for F_CHAN; its channels are taken to count from {offset}")
    bounds = np.column_stack([rmf.e_min, rmf.e_max]).astype(float)
    if not np.isfinite(bounds).all():
        raise UserError("EBOUNDS holds values that are not numbers", source=file, remedy="fetch the file again")
    bounds.sort(axis=1)
    low, high = np.asarray(rmf.energ_lo, dtype=float), np.asarray(rmf.energ_hi, dtype=float)
    matrix = _sparse(rmf, offset, len(bounds), file)
    # The ROSAT PSPC matrix has energy bins without width, into which no photon falls
    filled = low != high
    edges = _edges(low[filled], high[filled], file)
    matrix = matrix[filled]
    if (matrix.data < 0).any():
        notes.append(f"{file.name}: the matrix has small negative elements, used as they are")
    return edges, matrix, bounds, offset, notes


def _sparse(rmf, offset: int, n_channel: int, file: Path) -> csr_matrix:
    """CSR matrix of Sherpa's flat arrays, shape (n_energy, n_channel)."""
    groups, length = np.asarray(rmf.n_grp).astype(np.int64), np.asarray(rmf.n_chan).astype(np.int64)
    first = np.asarray(rmf.f_chan).astype(np.int64) - offset
    values = np.asarray(rmf.matrix, dtype=float)
    total = int(length.sum())
    if groups.sum() != len(length) or len(length) != len(first) or total != len(values) or (length < 0).any():
        raise UserError("N_GRP, N_CHAN and MATRIX disagree", source=file, remedy="fetch the file again")
    row = np.repeat(np.repeat(np.arange(len(groups)), groups), length)
    within = np.arange(total) - np.repeat(np.cumsum(length) - length, length)
    column = np.repeat(first, length) + within
    outside = (column < 0) | (column >= n_channel)
    if (values[outside] != 0).any():
        raise UserError(
            f"F_CHAN points outside the {n_channel} channels of EBOUNDS", source=file, remedy="check TLMIN of F_CHAN"
        )
    if not np.isfinite(values).all() or values.min(initial=0.0) < -_LARGEST_NEGATIVE * values.max(initial=0.0):
        raise UserError("the matrix holds negative values or NaN", source=file, remedy="fetch the file again")
    keep = ~outside & (values != 0)
    result = csr_matrix((values[keep], (row[keep], column[keep])), shape=(len(groups), n_channel))
    if result.nnz == 0:
        raise UserError("the matrix is empty", source=file, remedy="fetch the file again")
    return result


def _edges(low, high, file: Path) -> np.ndarray:
    """Limits of the energy bins in the order of the rows, shape (n_energy + 1,); 0 becomes `LOWEST_ENERGY`."""
    if len(low) == 0 or not (np.isfinite(low).all() and np.isfinite(high).all() and (high > low).all()):
        raise UserError("ENERG_LO and ENERG_HI are no energy bins", source=file, remedy="fetch the file again")
    if (low < 0).any():
        raise UserError("holds negative photon energies", source=file, remedy="fetch the file again")
    falling = len(low) > 1 and low[0] > low[-1]
    edges = np.append(high, low[-1]) if falling else np.append(low, high[-1])
    joined = (low[:-1] - high[1:]) if falling else (low[1:] - high[:-1])
    steps = np.diff(edges)
    gap = len(low) > 1 and np.abs(joined).max() > _GRID_TOLERANCE * (high - low).min()
    if gap or not ((steps < 0).all() if falling else (steps > 0).all()):
        raise UserError("its energy bins overlap or leave gaps", source=file, remedy="use a matrix on one energy grid")
    if edges.min() <= 0:
        edges[np.argmin(edges)] = min(LOWEST_ENERGY, 0.5 * np.sort(edges)[1])
    return edges


# --- area -----------------------------------------------------------------------------------------------------------


def _area(hdus, file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    from astropy.io import fits
    from sherpa.astro import io as sherpa_io

    wanted = {"ENERG_LO", "ENERG_HI", "SPECRESP"}
    found = [hdu for hdu in hdus if hasattr(hdu, "columns") and wanted <= {c.upper() for c in hdu.columns.names}]
    if not found:
        raise UserError(
            "holds no effective area (columns ENERG_LO, ENERG_HI, SPECRESP)", source=file, remedy="give an ARF file"
        )
    found[0].name = "SPECRESP"
    arf = sherpa_io.read_arf(fits.HDUList([fits.PrimaryHDU(), found[0]]))
    values = np.asarray(arf.specresp, dtype=float)
    if values.ndim != 1:
        raise UserError(
            f"holds {len(values)} effective areas (type II)", source=file, remedy="extract one of them first"
        )
    if not np.isfinite(values).all() or not (values > 0).any():
        raise UserError("SPECRESP holds NaN or no area at all", source=file, remedy="correct it or make the ARF again")
    low, high = np.asarray(arf.energ_lo, dtype=float), np.asarray(arf.energ_hi, dtype=float)
    notes = []
    if (values < 0).any():
        # Interpolated areas of ISGRI fall below zero far above its band
        where = f"{low[values < 0].min():.4g} and {high[values < 0].max():.4g} keV"
        notes.append(f"{file.name}: negative areas between {where} count as zero")
        values = np.maximum(values, 0.0)
    filled = high > low
    if not filled.any():
        raise UserError("ENERG_LO and ENERG_HI are no energy bins", source=file, remedy="fetch the file again")
    return low[filled], high[filled], values[filled], notes


def _on_grid(low, high, values, edges: np.ndarray, arf: Path, rmf: Path) -> tuple[np.ndarray, np.ndarray]:
    """Energies of the matrix, and the area on them: grids must be equal, or one a part of the other.

    Energies that the ARF does not reach get no area. Where the first or last bin of the ARF is the narrower one
    (the pn matrix of Circinus starts at 0.001 keV, its ARF at 0.05 keV) its limit holds, as in Sherpa.
    """
    falling = edges[0] > edges[-1]
    grid = edges[::-1].copy() if falling else edges.copy()
    order = np.argsort(low)
    low, high, values = low[order], high[order], values[order]
    at = np.clip(np.searchsorted(grid, 0.5 * (low + high)) - 1, 0, len(grid) - 2)
    close = _GRID_TOLERANCE * (high - low)
    low_fits, high_fits = np.abs(low - grid[at]) < close, np.abs(high - grid[at + 1]) < close
    # Only the outermost limits may lie inside a bin of the matrix
    low_fits[0] |= at[0] == 0 and low[0] > grid[0]
    high_fits[-1] |= at[-1] == len(grid) - 2 and high[-1] < grid[-1]
    inside = (high > grid[0] + close) & (low < grid[-1] - close)
    steps = np.diff(at[inside])
    if not (inside.any() and (low_fits & high_fits)[inside].all() and (steps == 1).all()):
        raise UserError(
            f"its energy bins do not match those of {rmf.name}",
            source=arf,
            remedy="use the ARF that was made with this RMF, or make it again on its grid",
        )
    area = np.zeros(len(grid) - 1)
    area[at[inside]] = values[inside]
    if at[0] == 0 and low[0] - grid[0] >= close[0]:
        grid[0] = low[0]
    if at[-1] == len(grid) - 2 and grid[-1] - high[-1] >= close[-1]:
        grid[-1] = high[-1]
    return (grid[::-1], area[::-1]) if falling else (grid, area)
