"""XSPEC table models (OGIP memo 92-009) in and out, as arrays."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from deepspec.errors import UserError
from deepspec.files import write_beside

MAKER = "ask whoever made the file for a table model after OGIP memo 92-009"


@dataclass(frozen=True)
class TableParameter:
    """One parameter of a table model, with the names of the file's columns.

    Attributes
    ----------
    name, unit : str
    initial, delta, minimum, bottom, top, maximum : float
        Start value, step (negative: frozen), hard and soft limits.
    values : ndarray
        Tabulated values, rising; empty for an additional parameter, which scales a spectrum of its own.
    log : bool
        Interpolated in the logarithm.
    """

    name: str
    initial: float
    delta: float
    minimum: float
    bottom: float
    top: float
    maximum: float
    values: np.ndarray
    log: bool = False
    unit: str = ""


@dataclass(frozen=True, eq=False)
class TableFile:
    """What a table-model file holds.

    Attributes
    ----------
    name : model name from the file.
    additive : True for photon/cm2/s per bin, False for a factor.
    redshift : whether a redshift parameter is to be appended.
    edges : shape (n + 1,) [keV]
    parameters : interpolated ones.
    additional : additional ones.
    spectra : shape (1 + n_additional, *grid, n); first the interpolated spectrum, then those that additional parameters scale.
    low_outside, high_outside : value of a factor below and above the energies (LOELIMIT, HIELIMIT).
    escale : whether an escale parameter is asked for.
    """

    name: str
    additive: bool
    redshift: bool
    edges: np.ndarray
    parameters: tuple[TableParameter, ...]
    additional: tuple[TableParameter, ...]
    spectra: np.ndarray
    low_outside: float = 0.0
    high_outside: float = 0.0
    escale: bool = False


def read_table_model(path: str | Path) -> TableFile:
    """Read an additive or multiplicative table model.

    Raises
    ------
    UserError
        The file is missing, not FITS, truncated, not a table model, or has NaN or missing grid points.
    """
    from astropy.io import fits

    path = Path(path)
    if not path.is_file():
        raise UserError("no such file", source=path, remedy="give the path of a table model")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, memmap=False) as file:
                return _from_hdus(file, path)
    except UserError:
        raise
    except Exception as error:  # astropy raises many kinds on damaged files
        raise UserError(f"cannot be read as a table model ({error})", source=path, remedy=MAKER) from error


def _from_hdus(file, path: Path) -> TableFile:
    head = file[0].header
    missing = [name for name in ("PARAMETERS", "ENERGIES", "SPECTRA") if name not in file]
    if missing:
        raise UserError(f"is not a table model (no {missing[0]} extension)", source=path, remedy=MAKER)
    if head.get("NXFLTEXP", 1) not in (0, 1):
        raise UserError("holds several spectra per grid point (NXFLTEXP), which is not supported", source=path)
    columns = file["PARAMETERS"].data
    units = _column(columns, "UNITS", [""] * len(columns))
    count = int(file["PARAMETERS"].header.get("NINTPARM", len(columns)))
    everything = [
        _parameter(row, unit, index < count) for index, (row, unit) in enumerate(zip(columns, units, strict=True))
    ]
    parameters, additional = tuple(everything[:count]), tuple(everything[count:])
    _check_parameters(parameters, path)
    energies = file["ENERGIES"].data
    low, high = np.asarray(energies["ENERG_LO"], float), np.asarray(energies["ENERG_HI"], float)
    edges = np.append(low, high[-1:])
    if not (
        np.isfinite(edges).all()
        and edges[0] >= 0
        and (np.diff(edges) > 0).all()
        and np.allclose(low[1:], high[:-1], 1e-5)
    ):
        raise UserError("its energies do not rise without gaps", source=path, remedy=MAKER)
    spectra = _spectra(file["SPECTRA"].data, parameters, len(additional), len(edges) - 1, path)
    return TableFile(
        str(head.get("MODLNAME", path.stem)).strip(), bool(head.get("ADDMODEL", True)), bool(head.get("REDSHIFT", False)),
        edges, parameters, additional, spectra,
        float(head.get("LOELIMIT", 0.0)), float(head.get("HIELIMIT", 0.0)), bool(head.get("ESCALE", False)),
    )  # fmt: skip


def _column(data, name: str, default):
    names = {known.upper(): known for known in data.names}
    return data[names[name]] if name in names else default


def _parameter(row, unit, interpolated: bool) -> TableParameter:
    count = int(row["NUMBVALS"]) if interpolated else 0
    values = np.atleast_1d(np.asarray(row["VALUE"], float))[:count] if count else np.zeros(0)
    names = ("INITIAL", "DELTA", "MINIMUM", "BOTTOM", "TOP", "MAXIMUM")
    # blanks in names would not survive a model expression
    name = "_".join(str(row["NAME"]).split())
    return TableParameter(
        name, *(float(row[n]) for n in names), values, interpolated and int(row["METHOD"]) == 1, str(unit).strip()
    )


def _check_parameters(parameters, path: Path) -> None:
    if not parameters:
        raise UserError("is a table model without parameters", source=path, remedy=MAKER)
    for parameter in parameters:
        values = parameter.values
        if len(values) == 0 or not np.isfinite(values).all() or (np.diff(values) <= 0).any():
            raise UserError(f"the tabulated values of {parameter.name} do not rise", source=path, remedy=MAKER)
        if parameter.log and values[0] <= 0:
            raise UserError(
                f"{parameter.name} is interpolated in the logarithm but not positive", source=path, remedy=MAKER
            )


def _spectra(data, parameters, n_additional: int, n: int, path: Path) -> np.ndarray:
    """Spectra put on the grid of parameter values by what each row says, not by its place in the file."""
    shape = tuple(len(p.values) for p in parameters)
    place = np.asarray(data["PARAMVAL"], float).reshape(len(data), -1)
    if place.shape[1] != len(shape):
        raise UserError(f"its spectra name {place.shape[1]} parameters, not {len(shape)}", source=path, remedy=MAKER)
    index = []
    for axis, parameter in enumerate(parameters):
        nearest = np.abs(place[:, axis, None] - parameter.values).argmin(1)
        if not np.allclose(place[:, axis], parameter.values[nearest], rtol=1e-4, atol=1e-30):
            raise UserError(
                f"a spectrum lies between the tabulated values of {parameter.name}", source=path, remedy=MAKER
            )
        index.append(nearest)
    columns = ["INTPSPEC", *(f"ADDSP{k:03d}" for k in range(1, n_additional + 1))]
    out = np.full((len(columns), *shape, n), np.nan)
    filled = np.zeros(shape, bool)
    filled[tuple(index)] = True
    if not filled.all():
        first = tuple(np.argwhere(~filled)[0])
        where = ", ".join(f"{p.name} = {p.values[i]:g}" for p, i in zip(parameters, first, strict=True))
        raise UserError(
            f"{(~filled).sum()} of {filled.size} spectra are missing, first {where}", source=path, remedy=MAKER
        )
    for number, column in enumerate(columns):
        values = np.asarray(data[column], float).reshape(len(data), -1)
        if values.shape[1] != n:
            raise UserError(f"{column} has {values.shape[1]} bins and ENERGIES {n}", source=path, remedy=MAKER)
        out[(number, *index)] = values
    if not np.isfinite(out).all():
        raise UserError("has NaN or infinite values in its spectra", source=path, remedy=MAKER)
    return out


def write_table_model(path: str | Path, table: TableFile) -> None:
    """Write a table model that XSPEC and Sherpa read; the file appears whole or not at all.

    Raises
    ------
    UserError
        The file cannot be written.
    """
    from astropy.io import fits

    head = {
        "MODLNAME": table.name[:12],
        "MODLUNIT": "photons/cm^2/s" if table.additive else " ",
        "REDSHIFT": table.redshift,
    }
    head |= {
        "ADDMODEL": table.additive,
        "ESCALE": table.escale,
        "HDUCLASS": "OGIP",
        "HDUCLAS1": "XSPEC TABLE MODEL",
        "HDUVERS": "1.1.0",
    }
    head |= {"LOELIMIT": table.low_outside, "HIELIMIT": table.high_outside}
    primary = fits.PrimaryHDU()
    primary.header.update(head)
    hdus = [_parameter_hdu(table), _energy_hdu(table.edges), _spectra_hdu(table)]
    for hdu, kind in zip(hdus, ("PARAMETERS", "ENERGIES", "MODEL SPECTRA"), strict=True):
        hdu.header.update({"HDUCLASS": "OGIP", "HDUCLAS1": "XSPEC TABLE MODEL", "HDUCLAS2": kind, "HDUVERS": "1.0.0"})
    with write_beside(path) as temporary:
        fits.HDUList([primary, *hdus]).writeto(temporary, overwrite=True)


def _parameter_hdu(table: TableFile):
    from astropy.io import fits

    everything = (*table.parameters, *table.additional)
    longest = max(len(p.values) for p in table.parameters)
    values = np.array([np.pad(p.values, (0, longest - len(p.values))) for p in everything])
    numbers = {
        key: [getattr(p, key.lower()) for p in everything]
        for key in ("INITIAL", "DELTA", "MINIMUM", "BOTTOM", "TOP", "MAXIMUM")
    }
    columns = [fits.Column("NAME", "12A", array=[p.name for p in everything])]
    columns.append(fits.Column("METHOD", "J", array=[int(p.log) for p in everything]))
    columns += [fits.Column(key, "E", array=np.array(column)) for key, column in numbers.items()]
    columns.append(fits.Column("NUMBVALS", "J", array=[len(p.values) for p in everything]))
    columns.append(fits.Column("VALUE", f"{longest}E", array=values))
    columns.append(fits.Column("UNITS", "12A", array=[p.unit for p in everything]))
    hdu = fits.BinTableHDU.from_columns(columns, name="PARAMETERS")
    hdu.header["NINTPARM"], hdu.header["NADDPARM"] = len(table.parameters), len(table.additional)
    return hdu


def _energy_hdu(edges: np.ndarray):
    from astropy.io import fits

    columns = [
        fits.Column("ENERG_LO", "E", "keV", array=edges[:-1]),
        fits.Column("ENERG_HI", "E", "keV", array=edges[1:]),
    ]
    return fits.BinTableHDU.from_columns(columns, name="ENERGIES")


def _spectra_hdu(table: TableFile):
    from astropy.io import fits

    n = len(table.edges) - 1
    place = np.array(list(product(*(p.values for p in table.parameters))))
    unit = "photons/cm^2/s" if table.additive else ""
    columns = [fits.Column("PARAMVAL", f"{len(table.parameters)}E", array=place)]
    for number, spectra in enumerate(table.spectra):
        name = "INTPSPEC" if number == 0 else f"ADDSP{number:03d}"
        columns.append(fits.Column(name, f"{n}E", unit, array=spectra.reshape(-1, n)))
    return fits.BinTableHDU.from_columns(columns, name="SPECTRA")
