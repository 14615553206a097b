"""PHA, ARF and RMF files by the OGIP conventions, written whole or not at all.

Sources: OGIP memos OGIP/92-007 and 92-007a (PHA), CAL/GEN/92-002 and 92-002a (ARF, RMF).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from deepspec.errors import UserError
from deepspec.files import write_beside
from deepspec.io.fits_files import quiet
from deepspec.observation import Observation
from deepspec.response import Response
from deepspec.spectrum import Spectrum

_FACTS = ("TELESCOP", "INSTRUME", "FILTER")


def write_pha(
    path: str | Path,
    counts: np.ndarray,
    like: Observation,
    exposure: float | None = None,
    background: np.ndarray | str | Path | None = None,
    header: Mapping[str, object] | None = None,
) -> tuple[Path, ...]:
    """Write simulated or changed counts with the links and scale factors of another observation.

    Parameters
    ----------
    path : str or Path
    counts : ndarray, shape (n_channel,)
        Counts of the source region; fractional or negative counts are written with ``POISSERR = F``.
    like : Observation
        Gives channels, BACKSCAL, AREASCAL, QUALITY, GROUPING, and the response files to link to.
    exposure : float, optional [s]
        That of `like` by default.
    background : ndarray, shape (n_channel,), or path, optional
        Counts of the background region are written to ``<name>_bkg.pha`` beside the file, with the scale factors and
        exposure of the (first) background of `like`; a path is linked to. None: no background.
    header : mapping, optional
        Further keywords, for instance the seed of a simulation.

    Returns
    -------
    tuple of Path
        The files written: the spectrum, and the background if one was.

    Raises
    ------
    UserError
        The folder cannot be written to, or `background` counts are given and `like` has no background.
    """
    path = Path(path)
    spectrum = like.spectrum
    facts = {"HDUCLAS2": "TOTAL", **dict(header or {})}
    links = {"RESPFILE": "none", "ANCRFILE": "none"}
    if like.response is not None:
        links["RESPFILE"] = _link(like.response.rmf, path)
        links["ANCRFILE"] = _link(like.response.arf, path)
    written: tuple[Path, ...] = ()
    if isinstance(background, (str, Path)):
        links["BACKFILE"] = _link(background, path)
    elif background is not None:
        if not spectrum.backgrounds:
            raise UserError(
                "background counts cannot be written for an observation without background", source=spectrum.path
            )
        file = path.with_name(f"{path.name.split('.')[0]}_bkg.pha")
        links["BACKFILE"] = file.name
        own = {"HDUCLAS2": "BKG", **dict(header or {})}
        _write_spectrum(file, background, spectrum.backgrounds[0], None, {**links, "BACKFILE": "none"}, own)
        written = (file,)
    _write_spectrum(path, counts, spectrum, exposure, links, facts)
    return (path, *written)


def _link(target: str | Path, path: Path) -> str:
    """`target` relative to the folder of `path`, as OGIP links are."""
    return os.path.relpath(target, path.parent) if str(target) else "none"


def _write_spectrum(
    path: Path,
    counts: np.ndarray,
    like: Spectrum,
    exposure: float | None,
    links: Mapping[str, str],
    facts: Mapping[str, object],
) -> None:
    from astropy.io import fits

    counts = np.asarray(counts, dtype=float)
    if counts.shape != (len(like),):
        raise ValueError(f"counts must have shape ({len(like)},), not {counts.shape}")
    if not np.isfinite(counts).all():
        raise ValueError("counts must be finite")
    whole = bool(np.all(counts >= 0) and np.all(counts == np.round(counts)) and counts.max(initial=0.0) < 2**31)
    columns = [
        fits.Column(name="CHANNEL", format="J", array=like.channels.astype(np.int64)),
        fits.Column(name="COUNTS", format="J" if whole else "D", unit="count", array=counts),
    ]
    if not whole:
        error = np.sqrt(np.maximum(counts, 1.0)) if like.error is None else like.error
        columns.append(fits.Column(name="STAT_ERR", format="D", unit="count", array=error))
    columns.append(fits.Column(name="QUALITY", format="I", array=like.quality))
    if like.flags is not None:
        columns.append(fits.Column(name="GROUPING", format="I", array=like.flags))
    cards: dict[str, object] = {"EXPOSURE": like.exposure if exposure is None else float(exposure)}
    for name, values in (("BACKSCAL", like.backscal), ("AREASCAL", like.areascal)):
        if np.all(values == values[0]):
            cards[name] = float(values[0])
        else:
            columns.append(fits.Column(name=name, format="D", array=values))
    table = fits.BinTableHDU.from_columns(columns, name="SPECTRUM")
    low, high = int(like.channels.min()), int(like.channels.max())
    cards = {
        **_facts(like.header),
        "OBJECT": like.header.get("OBJECT", ""),
        "HDUCLASS": "OGIP",
        "HDUCLAS1": "SPECTRUM",
        "HDUCLAS3": "COUNT",
        "HDUVERS": "1.2.1",
        "CHANTYPE": "PI",
        "DETCHANS": len(counts),
        "TLMIN1": low,
        "TLMAX1": high,
        "POISSERR": whole,
        "SYS_ERR": 0.0,
        "CORRFILE": "none",
        "CORRSCAL": 1.0,
        "BACKFILE": "none",
        **cards,
        **links,
        **facts,
    }
    if like.flags is None:
        cards["GROUPING"] = 0
    _write(path, [table], cards)


def write_arf(path: str | Path, response: Response, header: Mapping[str, object] | None = None) -> Path:
    """Write the effective area of a response.

    Parameters
    ----------
    path : str or Path
    response : Response
        Its `edges` [keV] and `area` [cm2].
    header : mapping, optional
        TELESCOP, INSTRUME and further keywords.
    """
    from astropy.io import fits

    columns = [
        fits.Column(name="ENERG_LO", format="D", unit="keV", array=response.edges[:-1]),
        fits.Column(name="ENERG_HI", format="D", unit="keV", array=response.edges[1:]),
        fits.Column(name="SPECRESP", format="D", unit="cm**2", array=response.area),
    ]
    cards = {"HDUCLASS": "OGIP", "HDUCLAS1": "RESPONSE", "HDUCLAS2": "SPECRESP", "HDUVERS": "1.1.0"}
    table = fits.BinTableHDU.from_columns(columns, name="SPECRESP")
    return _write(path, [table], {**_facts(header), **cards, **dict(header or {})})


def write_rmf(
    path: str | Path, response: Response, header: Mapping[str, object] | None = None, threshold: float = 0.0
) -> Path:
    """Write the redistribution matrix of a response, with its EBOUNDS.

    Parameters
    ----------
    path : str or Path
    response : Response
        Its `edges`, `matrix`, `energy_bounds` and `first_channel`.
    header : mapping, optional
        TELESCOP, INSTRUME and further keywords.
    threshold : float
        Elements up to this value are left out; written as LO_THRES.

    Notes
    -----
    Elements are stored in single precision, as the convention has it: they come back within 6e-8 relative.
    """
    from astropy.io import fits

    matrix = csr_matrix(response.matrix)
    matrix.sort_indices()
    rows = [_groups(matrix, row, threshold) for row in range(matrix.shape[0])]
    first = response.first_channel

    def column(name: str, kind: str, values: list[np.ndarray], dtype: type) -> fits.Column:
        array = np.empty(len(values), dtype=object)
        array[:] = [np.asarray(v, dtype=dtype) for v in values]
        longest = max(len(v) for v in values)
        return fits.Column(name=name, format=f"P{kind}({longest})", array=array)

    columns = [
        fits.Column(name="ENERG_LO", format="D", unit="keV", array=response.edges[:-1]),
        fits.Column(name="ENERG_HI", format="D", unit="keV", array=response.edges[1:]),
        fits.Column(name="N_GRP", format="I", array=[len(start) for start, _, _ in rows]),
        column("F_CHAN", "J", [start + first for start, _, _ in rows], np.int32),
        column("N_CHAN", "J", [length for _, length, _ in rows], np.int32),
        column("MATRIX", "E", [values for _, _, values in rows], np.float32),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="MATRIX")
    n_channel = response.n_channel
    common = {**_facts(header), "CHANTYPE": "PI", "DETCHANS": n_channel, "HDUCLASS": "OGIP", "HDUCLAS1": "RESPONSE"}
    table.header.update(
        {
            **common,
            "HDUCLAS2": "RSP_MATRIX",
            "HDUCLAS3": "REDIST",
            "HDUVERS": "1.3.0",
            "TLMIN4": first,
            "TLMAX4": first + n_channel - 1,
            "LO_THRES": threshold,
            "NUMGRP": sum(len(start) for start, _, _ in rows),
            "NUMELT": sum(len(values) for _, _, values in rows),
            **dict(header or {}),
        }
    )
    bounds = fits.BinTableHDU.from_columns(
        [
            fits.Column(name="CHANNEL", format="J", array=np.arange(n_channel) + first),
            fits.Column(name="E_MIN", format="D", unit="keV", array=response.energy_bounds[:, 0]),
            fits.Column(name="E_MAX", format="D", unit="keV", array=response.energy_bounds[:, 1]),
        ],
        name="EBOUNDS",
    )
    cards = {**common, "HDUCLAS2": "EBOUNDS", "HDUVERS": "1.2.0", "TLMIN1": first, "TLMAX1": first + n_channel - 1}
    bounds.header.update(cards)
    return _write(path, [table, bounds], {})


def _groups(matrix: csr_matrix, row: int, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First column and length of each run of elements above the threshold in one row, and the elements."""
    start, end = matrix.indptr[row : row + 2]
    values, columns = matrix.data[start:end], matrix.indices[start:end]
    keep = np.abs(values) > threshold
    values, columns = values[keep], columns[keep]
    begins = np.flatnonzero(np.diff(columns, prepend=-2) > 1)
    return columns[begins], np.diff(np.append(begins, len(columns))), values


def _facts(header: Mapping[str, object] | None) -> dict[str, object]:
    """The keywords OGIP asks for in every table."""
    return {key: (header or {}).get(key, "UNKNOWN" if key != "FILTER" else "NONE") for key in _FACTS}


def _write(path: str | Path, tables: list, cards: Mapping[str, object]) -> Path:
    from astropy.io import fits

    from deepspec import __version__

    path = Path(path)
    with quiet():
        for key, value in cards.items():
            tables[0].header[key] = value
        for table in tables:
            table.header["CREATOR"] = f"deepspec {__version__}"
        with write_beside(path) as temporary:
            fits.HDUList([fits.PrimaryHDU(), *tables]).writeto(temporary, overwrite=True)
    return path
