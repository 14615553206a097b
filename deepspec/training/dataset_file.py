"""The HDF5 file of a catalogue of spectra: its columns, how it is written, and what is refused when it is opened.

Rows come in chunks of `CHUNK`, so that whatever is read is read by the chunk. Every chunk carries a checksum.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepspec.errors import UserError
from deepspec.learned.grids import COUNT, DETECTOR_COUNT, DETECTOR_EDGES, EDGES
from deepspec.training.rebinning import Redistribution

FORMAT = "deepspec dataset"
VERSION = 1
CHUNK = 256
"""Rows of a chunk."""
_COMPRESSION = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}
REMAKE = "make it again with `deepspec dataset build`"


@dataclass(frozen=True)
class Column:
    """Shape and type of one spectrum's entry, and what it is."""

    shape: tuple[int, ...]
    dtype: str
    words: str


COLUMNS: dict[str, Column] = {
    "counts": Column((DETECTOR_COUNT,), "u4", "counts of the source region per bin of detector_edges"),
    "background": Column((DETECTOR_COUNT,), "u4", "counts of the background region"),
    "valid": Column((DETECTOR_COUNT,), "u1", "1 where all channels of the bin are good and in the band"),
    "ratio": Column((), "f8", "background expected in the source region per count of the background region"),
    "exposure": Column((), "f8", "EXPOSURE times AREASCAL [s]"),
    "arf": Column((COUNT,), "f4", "effective area, mean over each bin of edges [cm2]"),
    "rmf": Column((), "u2", "row of rmf/matrix"),
    "total": Column((), "u4", "counts in the valid bins"),
    "net": Column((), "f4", "the same less the background expected"),
    "split": Column((), "u4", "first four bytes of SHA-256 of `source`: validation takes the lowest"),
    "name": Column((), "S160", "name of the product"),
    "obsid": Column((), "S24", "observation"),
    "camera": Column((), "S16", "pn, mos1, mos2, or INSTRUME"),
    "exposure_id": Column((), "S8", "exposure within the observation"),
    "number": Column((), "i4", "source number within the observation; -1 if unknown"),
    "source": Column((), "S80", "what is the same for all spectra of one source"),
    "hashes": Column((3, 32), "u1", "SHA-256 of spectrum, background and area files"),
}
REJECTED = {"name": "S160", "path": "S400", "reason": "S24", "detail": "S400"}
"""Columns of the table of rejected spectra."""


class Writer:
    """Appends spectra to a new file.

    Parameters
    ----------
    path : str or Path
        Give a temporary name, and rename when `close` has returned: `files.write_beside` does.
    about : mapping
        Settings and origin, written as JSON.
    """

    def __init__(self, path: str | Path, about: Mapping[str, object]):
        import h5py

        self.file = h5py.File(path, "w", libver=("earliest", "v110"))
        self.file.attrs.update({"format": FORMAT, "version": VERSION, "about": json.dumps(dict(about))})
        self.file["edges"], self.file["detector_edges"] = EDGES, DETECTOR_EDGES
        self.file["edges"].attrs["unit"] = self.file["detector_edges"].attrs["unit"] = "keV"
        spectra = self.file.create_group("spectra")
        for name, column in COLUMNS.items():
            made = spectra.create_dataset(
                name,
                shape=(0, *column.shape),
                maxshape=(None, *column.shape),
                chunks=(CHUNK, *column.shape),
                dtype=column.dtype,
                **_COMPRESSION,
            )
            made.attrs["meaning"] = column.words

    def append(self, rows: Mapping[str, np.ndarray]) -> None:
        """Add rows: every column of `COLUMNS`, first axis the spectra."""
        count = len(rows["counts"])
        for name, column in COLUMNS.items():
            values = np.asarray(rows[name])
            if values.shape != (count, *column.shape):
                raise ValueError(f"{name} has shape {values.shape}, not {(count, *column.shape)}")
            target = self.file["spectra"][name]
            target.resize(len(target) + count, axis=0)
            target[len(target) - count :] = values

    def close(self, matrices: Sequence[Redistribution | str], rejected: Sequence[Sequence[str]] = ()) -> None:
        """Add the matrices that `rmf` counts (of a part: their hashes alone) and what was rejected; close the file."""
        group = self.file.create_group("rmf")
        hashes = [m if isinstance(m, str) else m.sha256 for m in matrices]
        group["sha256"] = np.array(hashes, dtype="S64")
        whole = [m for m in matrices if not isinstance(m, str)]
        if len(whole) == len(matrices):
            _write_matrices(group, whole)
        table = self.file.create_group("rejected")
        for at, (name, dtype) in enumerate(REJECTED.items()):
            values = np.array([_bytes(row[at], dtype) for row in rejected], dtype=dtype)
            table.create_dataset(name, data=values, chunks=(4096,), maxshape=(None,), **_COMPRESSION)
        self.file.attrs["complete"] = True
        self.file.close()


def _bytes(text: str, dtype: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")[: int(dtype[1:])]


def _write_matrices(group, matrices: Sequence[Redistribution]) -> None:
    group["name"] = np.array([m.name.encode() for m in matrices], dtype="S120")
    group["includes_area"] = np.array([m.includes_area for m in matrices], dtype=bool)
    for name, shape in (("matrix", (COUNT, DETECTOR_COUNT)), ("total", (COUNT,))):
        values = np.array([getattr(m, name) for m in matrices], dtype="f4").reshape(len(matrices), *shape)
        group.create_dataset(name, data=values, chunks=(1, *shape), maxshape=(None, *shape), **_COMPRESSION)


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Turn what HDF5 raises over a damaged file into one sentence."""
    try:
        yield
    except (OSError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160].rstrip(".")
        raise UserError(f"is damaged or incomplete ({reason})", source=path, remedy=REMAKE) from error


def open_dataset(path: str | Path, cache: int = 16 << 20):
    """Open a file that `Writer` has closed, for reading.

    Parameters
    ----------
    path : str or Path
    cache : int
        Bytes of decompressed chunks that HDF5 keeps per column.

    Returns
    -------
    h5py.File

    Raises
    ------
    UserError
        The file is missing, not HDF5, cut short, of another kind, newer than this version, or never finished.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        parts = Path(f"{path}.parts")
        if parts.is_dir():
            raise UserError(
                "is not finished", source=path, remedy="go on with `deepspec dataset build ... --resume`, same folders"
            )
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise UserError(what, source=path, remedy="make one with `deepspec dataset build FOLDER -o FILE`")
    try:
        if not h5py.is_hdf5(path):
            empty = os.path.getsize(path) == 0
            what = "is an empty file" if empty else "is not an HDF5 file"
            raise UserError(what, source=path, remedy="give a file made by `deepspec dataset build`")
        file = h5py.File(path, "r", rdcc_nbytes=cache)
    except OSError as error:
        raise UserError("is damaged or incomplete", source=path, remedy=REMAKE) from error
    try:
        _check(file, path)
    except UserError:
        file.close()
        raise
    return file


def _check(file, path: Path) -> None:
    with readable(path):
        kind, version = file.attrs.get("format"), file.attrs.get("version", 0)
        if kind != FORMAT:
            raise UserError(
                "is HDF5, but not a catalogue of spectra",
                source=path,
                remedy="give a file made by `deepspec dataset build`",
            )
        if version > VERSION:
            raise UserError(
                f"was written by a newer deepspec (format {version})", source=path, remedy="update deepspec"
            )
        missing = [name for name in COLUMNS if name not in file.get("spectra", {})]
        if missing or not file.attrs.get("complete", False):
            what = f"lacks the column {missing[0]}" if missing else "was never finished"
            raise UserError(what, source=path, remedy=REMAKE)
        lengths = {len(file["spectra"][name]) for name in COLUMNS}
        if len(lengths) != 1:
            raise UserError("holds columns of different lengths", source=path, remedy=REMAKE)
        if not np.array_equal(file["edges"][()], EDGES) or not np.array_equal(
            file["detector_edges"][()], DETECTOR_EDGES
        ):
            raise UserError("was made for other energy grids", source=path, remedy=REMAKE)


def about(file) -> dict:
    """Settings and origin of an open file."""
    return json.loads(file.attrs["about"])


def read_matrices(file) -> list[Redistribution]:
    """The matrices of an open file; their channels are not kept in it."""
    group = file["rmf"]
    rows = zip(
        group["name"][()], group["sha256"][()], group["matrix"][()], group["total"][()], group["includes_area"][()],
        strict=True,
    )  # fmt: skip
    none = np.zeros(0, dtype=np.int16)
    return [
        Redistribution(name.decode(), sha.decode(), matrix, total, none, 0, bool(includes))
        for name, sha, matrix, total, includes in rows
    ]


def read_rejected(file) -> list[tuple[str, ...]]:
    """The table of rejected spectra of an open file: (name, path, reason, detail) each."""
    columns = [file["rejected"][name][()] for name in REJECTED]
    return [tuple(value.decode("utf-8", "replace") for value in row) for row in zip(*columns, strict=True)]


def read_rows(file, first: int, last: int) -> dict[str, np.ndarray]:
    """All columns of rows `first` to `last` (exclusive)."""
    return {name: file["spectra"][name][first:last] for name in COLUMNS}
