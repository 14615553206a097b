"""Source catalogues as FITS tables: quality flags of detections."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepspec.errors import UserError
from deepspec.io.fits_files import existing, foreign_errors, quiet

COLUMNS = ("OBS_ID", "SRC_NUM", "SUM_FLAG")
"""Columns of 4XMM that a table must have; ``SRCID``, which tells sources from detections, is used where it is there."""


@dataclass(frozen=True, eq=False)
class DetectionTable:
    """Flags of detections, found by observation and source number.

    Attributes
    ----------
    path : str
    keys : ndarray of str, shape (n,)
        Sorted ``OBS_ID/SRC_NUM``.
    flag : ndarray of int, shape (n,)
        SUM_FLAG: 0 is best, 4 worst.
    source : ndarray of int, shape (n,)
        SRCID; 0 where the table has none.
    """

    path: str
    keys: np.ndarray
    flag: np.ndarray
    source: np.ndarray

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.keys)

    def find(self, obsid: str, number: int) -> tuple[int, int] | None:
        """(SUM_FLAG, SRCID) of a detection; None if the table has none of that name."""
        key = _key(obsid, number)
        at = int(np.searchsorted(self.keys, key))
        if at == len(self.keys) or self.keys[at] != key:
            return None
        return int(self.flag[at]), int(self.source[at])


def _key(obsid: str, number: int) -> bytes:
    return f"{obsid.strip().zfill(10)}/{number}".encode()


def read_detections(path: str | Path) -> DetectionTable:
    """Read a catalogue of detections, such as 4XMM_DR13cat.fits: columns OBS_ID, SRC_NUM, SUM_FLAG, and SRCID if there.

    Only these columns are read, so that a catalogue of a million rows takes tens of megabytes.

    Raises
    ------
    UserError
        The file is missing, not FITS, or has no such columns.
    """
    file = existing(path)
    with quiet(), foreign_errors(file, "a catalogue"):
        from astropy.io import fits

        with fits.open(file, memmap=not file.name.endswith(".gz")) as hdus:
            tables = [hdu for hdu in hdus if hasattr(hdu, "columns")]
            names = [{name.upper() for name in hdu.columns.names} for hdu in tables]
            found = [hdu for hdu, own in zip(tables, names, strict=True) if set(COLUMNS) <= own]
            if not found:
                missing = [name for name in COLUMNS if not any(name in own for own in names)]
                raise UserError(
                    f"is no table of detections: it has no column {' or '.join(missing or COLUMNS)}",
                    source=file,
                    remedy=f"give a FITS table with {', '.join(COLUMNS)}, as that of 4XMM",
                )
            data = found[0].data
            has_source = any(name.upper() == "SRCID" for name in found[0].columns.names)
            number, flag = (np.array(data[name], dtype=np.int64) for name in COLUMNS[1:])
            source = np.array(data["SRCID"], dtype=np.int64) if has_source else np.zeros_like(flag)
            keys = np.array([_key(str(o), n) for o, n in zip(data["OBS_ID"], number, strict=True)], dtype="S24")
    order = np.argsort(keys, kind="stable")
    return DetectionTable(str(file), keys[order], flag[order], source[order])
