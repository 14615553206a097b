"""PHA files: type I and II, counts and rates, backgrounds, through ``sherpa.astro.io``."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deepspec.errors import UserError
from deepspec.io.fits_files import existing, foreign_errors, open_fits, quiet, text
from deepspec.spectrum import Spectrum

_LINKS = ("ANCRFILE", "RESPFILE", "BACKFILE")
_FACTS = ("TELESCOP", "INSTRUME", "FILTER", "DETNAM", "OBJECT", "OBS_ID", "DATE-OBS", "DETCHANS")
_PER_ROW = ("TG_M", "TG_PART", "TG_SRCID", "SPEC_NUM")


@dataclass(frozen=True)
class Links:
    """Files a PHA header names, as written there; empty where it names none."""

    arf: str = ""
    rmf: str = ""
    background: str = ""


def split_row(name: str | Path) -> tuple[str, int | None]:
    """Take "file.pha{3}" apart into ("file.pha", 3)."""
    match = re.fullmatch(r"(.*)\{(\d+)\}", str(name))
    return (match.group(1), int(match.group(2))) if match else (str(name), None)


def read_spectrum(
    path: str | Path, row: int | None = None, use_errors: bool = False, background: bool = False
) -> tuple[Spectrum, Links]:
    """Read one spectrum, and the names of the files its header links to; backgrounds only where they are columns.

    Parameters
    ----------
    path : str or Path
        ``file.pha{3}`` names the third spectrum of a type II file.
    row : int, optional
        The same, counted from 1.
    use_errors : bool
        Put STAT_ERR in force although the counts could be Poisson counts.
    background : bool
        Take the background extension of a file that holds source and background.

    Raises
    ------
    UserError
        The file is missing, damaged, not a spectrum; a type II file without a row; no or zero exposure;
        counts that are not numbers, or negative counts without errors.
    """
    name, braced = split_row(path)
    file = existing(name)
    hdus, digest = open_fits(file)
    with quiet(), foreign_errors(file, "a PHA spectrum"):
        hdu = _find_spectrum(hdus, file, background)
        hdu, found_row = _one_row(hdu, braced if row is None else row, file)
        links = Links(*(text(hdu.header, key) for key in _LINKS))
        for key in _LINKS:
            hdu.header.remove(key, ignore_missing=True, remove_all=True)
        spectrum = _convert(hdu, file, digest, use_errors, found_row)
    if background:
        spectrum = _unscaled(spectrum, file)
    return _noted(spectrum, file), links


def _columns(hdu) -> set[str]:
    return {c.upper() for c in hdu.columns.names} if hasattr(hdu, "columns") else set()


def _is_spectrum(hdu) -> bool:
    names = _columns(hdu)
    declared = hdu.name.upper() == "SPECTRUM" or text(hdu.header, "HDUCLAS1").upper() == "SPECTRUM"
    return declared and "CHANNEL" in names and bool(names & {"COUNTS", "RATE"})


def holds_background(path: str | Path) -> bool:
    """True if the file has a SPECTRUM extension that says it is a background, beside the first one."""
    hdus, _ = open_fits(existing(path))
    with foreign_errors(path, "a FITS file"):
        return any(text(hdu.header, "HDUCLAS2").upper() == "BKG" for hdu in hdus if _is_spectrum(hdu))


def _find_spectrum(hdus, file: Path, background: bool):
    """The SPECTRUM extension; for a background the one that says BKG, if there is one."""
    found = [hdu for hdu in hdus if _is_spectrum(hdu)]
    if not found:
        raise UserError(
            "is FITS but not a spectrum (no SPECTRUM extension with CHANNEL and COUNTS or RATE)",
            source=file,
            remedy=_what_it_is(hdus),
        )
    is_background = [text(hdu.header, "HDUCLAS2").upper() == "BKG" for hdu in found]
    if background and any(is_background):
        return found[is_background.index(True)]
    return found[0]


def _what_it_is(hdus) -> str:
    names = {hdu.name.upper() for hdu in hdus}
    if names & {"MATRIX", "SPECRESP MATRIX", "EBOUNDS"} or any("MATRIX" in _columns(hdu) for hdu in hdus):
        return "it is a response matrix: give it with --rmf"
    if "SPECRESP" in names:
        return "it is an effective area: give it with --arf"
    if "EVENTS" in names:
        return "it is an event list: extract a spectrum from it first"
    return "give a PHA file"


def _one_row(hdu, row: int | None, file: Path):
    """A type I table as it is; of a type II table the row asked for, as a type I table."""
    from astropy.io import fits

    column = hdu.columns["CHANNEL"]
    repeat = re.match(r"(\d*)", column.format).group(1)
    if int(repeat or 1) <= 1 and "P" not in column.format and "Q" not in column.format:
        if row not in (None, 1):
            raise UserError(f"holds one spectrum, not a row {row}", source=file, remedy="leave the row out")
        # A copy in memory: links are taken out of its header
        return fits.BinTableHDU(data=hdu.data, header=hdu.header, name=hdu.name), None
    count = len(hdu.data)
    if row is None and count > 1:
        raise UserError(
            f"holds {count} spectra (type II)", source=file, remedy=f"choose one, for example {file.name}{{1}}"
        )
    row = 1 if row is None else row
    if not 1 <= row <= count:
        raise UserError(f"has no row {row}", source=file, remedy=f"choose a row from 1 to {count}")
    header, columns = hdu.header.copy(strip=True), []
    for name in hdu.columns.names:
        value = hdu.data[name][row - 1]
        if np.ndim(value) == 1 and len(value) > 1:
            columns.append(fits.Column(name=name, format=_format(value), array=value))
        elif np.ndim(value) == 0 and len(name) <= 8:
            header[name.upper()] = value.item() if hasattr(value, "item") else str(value)
    return fits.BinTableHDU.from_columns(columns, header=header, name="SPECTRUM"), row


def _format(values: np.ndarray) -> str:
    return {"i": "K", "u": "K", "f": "D", "b": "L"}.get(values.dtype.kind, "D")


def _convert(hdu, file: Path, digest: str, use_errors: bool, row: int | None) -> Spectrum:
    from astropy.io import fits
    from sherpa.astro import io as sherpa_io

    header = hdu.header
    exposure = _exposure(header, file)
    pha = sherpa_io.read_pha(fits.HDUList([fits.PrimaryHDU(), hdu]), use_errors=True)
    is_rate = "COUNTS" not in _columns(hdu)
    spectrum = Spectrum(
        channels=pha.channel,
        counts=pha.counts,
        exposure=exposure,
        backscal=_scale(pha.backscal, "BACKSCAL", file),
        areascal=_scale(pha.areascal, "AREASCAL", file),
        quality=_flags(pha.quality, header.get("QUALITY"), len(pha.channel)),
        flags=pha.grouping,
        error=pha.staterror,
        use_errors=use_errors,
        path=f"{file}{{{row}}}" if row else str(file),
        sha256=digest,
        header={
            key: header[key] for key in _FACTS if isinstance(header.get(key), (str, int, float)) and header[key] != ""
        },
        is_rate=is_rate,
    )
    backgrounds = [
        replace(
            spectrum,
            counts=b.counts,
            backscal=_scale(b.backscal, "BACKSCUP", file),
            areascal=spectrum.areascal,
            error=None,
            is_rate=False,
            flags=None,
        )
        for b in (pha.get_background(i) for i in pha.background_ids)
    ]
    spectrum = _checked(spectrum, file)
    notes = (*spectrum.notes, *_unused(header, file, pha.syserror is not None))
    return replace(spectrum, backgrounds=tuple(_noted(_checked(b, file), file) for b in backgrounds), notes=notes)


def _unused(header, file: Path, systematic: bool) -> list[str]:
    """What the file holds or says that a fit does not act on."""
    notes = []
    if text(header, "HDUCLAS2").upper() == "NET":
        notes.append(f"{file.name}: its background is already subtracted (HDUCLAS2 is NET)")
    if correction := text(header, "CORRFILE"):
        notes.append(f"{file.name}: the correction file {correction} (CORRFILE) is not used")
    if systematic:
        notes.append(f"{file.name}: systematic errors (SYS_ERR) are not used")
    return notes


def _exposure(header, file: Path) -> float:
    value = header.get("EXPOSURE")
    try:
        value = float(value)
    except (TypeError, ValueError) as error:
        raise UserError("has no EXPOSURE", source=file, remedy="set it in the header, in seconds") from error
    if not (np.isfinite(value) and value > 0):
        raise UserError(f"EXPOSURE is {value:g} s", source=file, remedy="set the exposure in the header, in seconds")
    return value


def _scale(value, name: str, file: Path) -> np.ndarray | float:
    """BACKSCAL or AREASCAL; 1 if absent. Zeros in a column mark dead channels, a keyword must be positive."""
    if value is None:
        return 1.0
    value = np.asarray(value, dtype=float)
    if not np.isfinite(value).all() or (value < 0).any() or not (value > 0).any():
        raise UserError(f"{name} is not positive", source=file, remedy=f"correct {name} in the file")
    return value


def _flags(column, keyword, n: int) -> np.ndarray:
    if column is not None:
        return np.asarray(column)
    return np.full(n, keyword if isinstance(keyword, int) else 0)


def _checked(spectrum: Spectrum, file: Path) -> Spectrum:
    """Refuse counts that are no numbers, round what is whole but for arithmetic, and note the rest."""
    if len(spectrum) == 0:
        raise UserError("holds no channel", source=file, remedy="fetch it again")
    steps = np.diff(spectrum.channels)
    if not (np.isfinite(spectrum.channels).all() and ((steps > 0).all() or (steps < 0).all())):
        raise UserError("channel numbers do not rise", source=file, remedy="fetch it again")
    counts, good = spectrum.counts.copy(), spectrum.quality == 0
    if not np.isfinite(counts[good]).all():
        raise UserError("holds counts that are not numbers (NaN)", source=file, remedy="flag these channels in QUALITY")
    counts[~np.isfinite(counts)] = 0.0
    error = spectrum.error
    if error is not None and not (np.isfinite(error[good]).all() and (error[good] >= 0).all()):
        raise UserError("STAT_ERR holds negative values or NaN", source=file, remedy="correct STAT_ERR in the file")
    if (counts[good] < 0).any() and error is None:
        raise UserError(
            "holds negative counts and no errors (STAT_ERR)",
            source=file,
            remedy="use the spectrum before background subtraction, with its background",
        )
    notes = list(spectrum.notes)
    rounded = np.round(counts)
    if spectrum.is_rate and not np.array_equal(counts, rounded):
        whole = np.abs(counts - rounded) <= np.where(rounded == 0, 1e-9, 1e-3 + 2e-6 * np.abs(counts))
        if whole.all() and rounded.any():
            counts = rounded
            notes.append(f"{file.name}: rates times EXPOSURE are whole numbers and were rounded to counts")
    return replace(spectrum, counts=counts, error=None if error is None else np.nan_to_num(error), notes=tuple(notes))


def _noted(spectrum: Spectrum, file: Path) -> Spectrum:
    if spectrum.whole:
        return spectrum
    return replace(spectrum, notes=(*spectrum.notes, f"{file.name}: not Poisson counts, {spectrum.why_not_poisson}"))


def _unscaled(background: Spectrum, file: Path) -> Spectrum:
    """Undo the scaling of a background whose counts are all whole multiples of one number.

    Filter-wheel-closed spectra are often written that way: counts times a factor, with an exposure to match. Dividing
    both by the factor leaves the background expected in the source region as it is and gives back Poisson counts.
    """
    counts = background.counts
    if background.whole or background.is_rate or background.error is not None or (counts < 0).any():
        return background
    values = np.unique(counts)
    if len(values) < 10:
        return background
    unit = float(np.min(np.diff(values)))
    if not unit > 1e-5 * values[-1]:
        return background
    number = np.round(counts / unit)
    unit = float(counts.sum() / number.sum())
    number = np.round(counts / unit)
    if np.abs(counts / unit - number).max() > 1e-3 + 1e-6 * number.max():
        return background
    note = f"{file.name}: counts are whole multiples of {unit:.6g}; counts and exposure were divided by it"
    return replace(background, counts=number, exposure=background.exposure / unit, notes=(*background.notes, note))
