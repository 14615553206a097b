"""Which spectra lie in a folder, and which files belong to each: names of XMM pipeline products, links of headers."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepspec.errors import UserError
from deepspec.io.fits_files import foreign_errors, open_fits, text
from deepspec.io.response_files import RMF_FOLDER_VARIABLE, find_canned

PIPELINE = re.compile(
    r"P(\d{10})(PN|M1|M2)([A-Z]\d{3})SRSPEC([0-9A-F]{4})\.(FTZ|FIT|FITS|FIT\.GZ|FITS\.GZ)", re.IGNORECASE
)
"""Observation, camera, exposure, hexadecimal source number of an EPIC source spectrum."""
ORDINARY = re.compile(r".*\.(pha|pi)(\.gz)?", re.IGNORECASE)
"""Other spectra, whose headers say what belongs to them."""
CAMERA_NAMES = {"PN": "pn", "M1": "mos1", "M2": "mos2", "EPN": "pn", "EMOS1": "mos1", "EMOS2": "mos2"}


@dataclass(frozen=True)
class Product:
    """A source spectrum and what its name says.

    Attributes
    ----------
    name : str
        What the catalogue calls it: the file name of a pipeline product, else the path below the folder given.
    path : str
    obsid, camera, exposure : str
        Empty if the name does not tell.
    number : int
        Source number within the observation; -1 if unknown.
    source : str
        What is the same for all spectra of one source; empty if the header must say.
    """

    name: str
    path: str
    obsid: str = ""
    camera: str = ""
    exposure: str = ""
    number: int = -1
    source: str = ""

    def beside(self, kind: str) -> Path | None:
        """The pipeline product of another `kind` ("BGSPEC", "SRCARF") of the same source, if it is there."""
        if not self.obsid:
            return None
        path = Path(self.path)
        found = path.with_name(re.sub("SRSPEC", kind, path.name, flags=re.IGNORECASE))
        return found if found.is_file() else None


def walk(folders: Sequence[str | Path]) -> tuple[list[Product], list[Product]]:
    """All source spectra below `folders`, in the order of their paths, and those that were there already.

    A pipeline product met again in another folder counts once.

    Raises
    ------
    UserError
        A folder is missing, is a file, or holds no spectrum.
    """
    found: dict[str, Product] = {}
    again: list[Product] = []
    for folder in folders:
        if not Path(folder).is_dir():
            what = "is a file, not a folder" if Path(folder).exists() else "no such folder"
            raise UserError(what, source=folder, remedy="give folders that hold pipeline products or PHA files")
        count = 0
        for product in _walk(Path(folder)):
            count += 1
            if product.name in found:
                again.append(product)
            else:
                found[product.name] = product
        if count == 0:
            raise UserError(
                "holds no spectra",
                source=folder,
                remedy="spectra are called P<observation><camera><exposure>SRSPEC<source>.FTZ, *.pha or *.pi",
            )
    return list(found.values()), again


def _walk(top: Path) -> Iterator[Product]:
    for folder, below, names in os.walk(top, followlinks=True):
        below.sort()
        ordinary = []
        for name in sorted(names):
            path = os.path.join(folder, name)
            if match := PIPELINE.fullmatch(name):
                obsid, camera, exposure, number = match.group(1, 2, 3, 4)
                camera, at = CAMERA_NAMES[camera.upper()], int(number, 16)
                yield Product(name.upper(), path, obsid, camera, exposure.upper(), at, f"{obsid}/{at}")
            elif ORDINARY.fullmatch(name):
                ordinary.append(path)
        backgrounds = _backgrounds(ordinary) if len(ordinary) > 1 else set()
        for path in ordinary:
            if path not in backgrounds:
                yield Product(os.path.join(top.resolve().name, os.path.relpath(path, top)), path)


def _backgrounds(paths: list[str]) -> set[str]:
    """Those of a folder's spectra that are backgrounds: their headers say so, or another names them."""
    found = set()
    for path in paths:
        try:
            linked, own = _background_link(path)
        except UserError:
            # It is tried again, and refused with a reason, when its turn comes
            continue
        if own:
            found.add(path)
        if linked and os.path.join(os.path.dirname(path), linked) != path:
            found |= {os.path.join(os.path.dirname(path), linked + ending) for ending in ("", ".gz")}
    return found


def _background_link(path: str) -> tuple[str, bool]:
    """BACKFILE, and whether the file is a background alone."""
    hdus, _ = open_fits(path)
    with foreign_errors(path, "a FITS file"):
        headers = [hdu.header for hdu in hdus if text(hdu.header, "HDUCLAS1").upper() == "SPECTRUM"]
        kinds = [text(header, "HDUCLAS2").upper() for header in headers]
        return (text(headers[0], "BACKFILE") if headers else ""), bool(kinds) and all(kind == "BKG" for kind in kinds)


@dataclass(frozen=True)
class Matrices:
    """Where response matrices are looked for by their names.

    Attributes
    ----------
    named : tuple of (name or pattern, file)
        ``("epn_*", "epn.rmf")``; exact names come first, then patterns in the order given.
    folders : tuple of str
    """

    named: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()
    _known: dict[str, str | None] = field(default_factory=dict, compare=False, repr=False)

    def find(self, name: str, beside: Path) -> str | None:
        """The file of the matrix called `name`; `beside` is the folder of the spectrum that wants it.

        Named files come first, then the folder of the spectrum, then `folders`, then DEEPSPEC_RMF_DIR.
        """
        wanted = Path(name).name
        if wanted not in self._known:
            self._known[wanted] = self._named(wanted)
        if self._known[wanted] is not None:
            return self._known[wanted]
        for path in (beside / name, beside / f"{name}.gz"):
            if path.is_file():
                return str(path)
        return self._below_folders(wanted)

    def _named(self, wanted: str) -> str | None:
        for name, file in self.named:
            if name == wanted:
                return file
        for pattern, file in self.named:
            if fnmatch.fnmatchcase(wanted, pattern):
                return file
        return None

    def _below_folders(self, wanted: str) -> str | None:
        key = f"/{wanted}"
        if key not in self._known:
            found = next((path for folder in self.folders if (path := find_canned(wanted, folder))), None)
            found = found or find_canned(wanted)
            self._known[key] = str(found) if found else None
        return self._known[key]


def parse_matrices(given: Sequence[str | Path]) -> Matrices:
    """What ``--rmf`` says: folders, and NAME=FILE, where NAME may hold * and ?.

    Raises
    ------
    UserError
        Neither a folder nor NAME=FILE; the file is missing.
    """
    named, folders = [], []
    for value in map(str, given):
        if Path(value).is_dir():
            folders.append(value)
            continue
        name, equals, file = value.partition("=")
        if not (equals and name and file):
            what = "is a file without a name" if Path(value).is_file() else "no such folder"
            raise UserError(what, source=f"--rmf {value}", remedy=f"give a folder, or NAME={Path(value).name}")
        if not Path(file).is_file():
            raise UserError("no such file", source=f"--rmf {value}", remedy="check the name after the equals sign")
        named.append((name, file))
    return Matrices(tuple(named), tuple(folders))


def how_to_give(name: str) -> str:
    """The remedy for a matrix that was not found."""
    return f"give the folder it lies in with --rmf FOLDER (or {RMF_FOLDER_VARIABLE}), or --rmf {name}=FILE"
