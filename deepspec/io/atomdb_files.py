"""AtomDB's emissivity files (apec_v*_line.fits and apec_v*_coco.fits) as arrays, one temperature at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepspec.errors import UserError
from deepspec.io.fits_files import foreign_errors, quiet

ANGSTROM_KEV = 12.398419843320026
"""h c [keV Angstrom]"""
REMEDY = "give the modelData folder of HEASoft or CIAO, which holds apec_v*_coco.fits and apec_v*_line.fits"


@dataclass(frozen=True, eq=False)
class Emission:
    """What a plasma of one temperature emits at solar abundances (Anders & Grevesse 1989).

    Attributes
    ----------
    kT : float [keV]
    line_energy, line_flux, line_element : shape (n_line,) [keV], [photon cm3/s], atomic number
    continua : list of (atomic number, energies [keV], [photon cm3/s/keV]); true and pseudo continuum apart
    """

    kT: float
    line_energy: np.ndarray
    line_flux: np.ndarray
    line_element: np.ndarray
    continua: list[tuple[int, np.ndarray, np.ndarray]]


def find_atomdb(folder: str | Path) -> tuple[Path, Path]:
    """Continuum and line file of the newest AtomDB in `folder`.

    Raises
    ------
    UserError
        The folder or a pair of files is missing.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError("is not a folder", source=folder, remedy=REMEDY)
    pairs = []
    for coco in folder.glob("apec_v*_coco.fits*"):
        version = re.fullmatch(r"apec_v([0-9.]+)_coco\.fits(?:\.gz)?", coco.name)
        line = coco.with_name(coco.name.replace("_coco.", "_line."))
        if version and line.is_file():
            pairs.append((tuple(int(n) for n in version[1].split(".") if n), coco, line))
    if not pairs:
        raise UserError(
            "holds no pair of AtomDB files apec_v*_coco.fits and apec_v*_line.fits", source=folder, remedy=REMEDY
        )
    return max(pairs)[1:]


def read_emissions(coco: Path, line: Path) -> tuple[int, Iterator[Emission]]:
    """How many temperatures there are, and an iterator over them.

    Raises
    ------
    UserError
        A file cannot be read, or the two do not belong together.
    """
    from astropy.io import fits

    with quiet(), foreign_errors(coco, "an AtomDB file"), fits.open(coco) as file:
        kT = np.array(file["PARAMETERS"].data["kT"], float)
    with quiet(), foreign_errors(line, "an AtomDB file"), fits.open(line) as file:
        other = np.array(file["PARAMETERS"].data["kT"], float)
    if kT.shape != other.shape or not np.allclose(kT, other, rtol=1e-5):
        raise UserError(
            "its temperatures are not those of the continuum file", source=line, remedy=f"give the pair of {coco.name}"
        )
    if len(kT) < 2 or not (np.diff(kT) > 0).all():
        raise UserError("its temperatures do not rise", source=coco, remedy="fetch the file again")
    return len(kT), _each(coco, line, kT)


def _each(coco: Path, line: Path, kT: np.ndarray) -> Iterator[Emission]:
    from astropy.io import fits

    with quiet(), foreign_errors(coco, "an AtomDB file"), fits.open(coco) as continua, fits.open(line) as lines:
        for index, temperature in enumerate(kT):
            # the first two HDUs are the primary and PARAMETERS; then one per temperature
            data = lines[index + 2].data
            wavelength = np.array(data["Lambda"], float) if len(data) else np.zeros(0)
            flux, element = (np.array(data[name]) if len(data) else np.zeros(0) for name in ("Epsilon", "Element"))
            found = list(_continua(continua[index + 2].data))
            if not (np.isfinite(flux).all() and (wavelength > 0).all() and all(np.isfinite(c[2]).all() for c in found)):
                raise UserError(
                    f"has NaN or impossible values at kT = {temperature:g} keV", source=line, remedy="fetch it again"
                )
            yield Emission(
                float(temperature), ANGSTROM_KEV / wavelength, flux.astype(float), element.astype(int), found
            )


def _continua(rows) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for row in rows:
        if int(row["rmJ"]) != 0:
            continue  # rmJ = 0 is the sum over the ions, which equilibrium needs
        for count, energy, value in (("N_Cont", "E_Cont", "Continuum"), ("N_Pseudo", "E_Pseudo", "Pseudo")):
            n = int(row[count])
            if n > 1:
                yield int(row["Z"]), np.array(row[energy][:n], float), np.array(row[value][:n], float)
