"""A small observation of our own making, written with our own writer: PHA, background, ARF and RMF."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.sparse import csr_matrix

from deepspec.io.write import write_arf, write_pha, write_rmf
from deepspec.observation import Observation
from deepspec.response import Response
from deepspec.spectrum import Spectrum

N_ENERGY, N_CHANNEL = 40, 64


def small_response(first_channel: int = 1, **changes) -> Response:
    """Gaussian lines of 0.25 keV width (sigma) over 0.3-10 keV, 200 cm2 at most."""
    edges = np.linspace(0.3, 10.0, N_ENERGY + 1)
    limits = np.linspace(0.1, 10.3, N_CHANNEL + 1)
    middle, nominal = 0.5 * (edges[1:] + edges[:-1]), 0.5 * (limits[1:] + limits[:-1])
    matrix = np.exp(-0.5 * ((nominal - middle[:, None]) / 0.25) ** 2)
    matrix[matrix < 1e-4] = 0.0
    matrix /= matrix.sum(axis=1, keepdims=True)
    values = {
        "edges": edges,
        "matrix": csr_matrix(matrix),
        "area": 200.0 * np.exp(-0.5 * (np.log(middle / 1.5)) ** 2),
        "energy_bounds": np.column_stack([limits[:-1], limits[1:]]),
        "first_channel": first_channel,
    }
    return Response(**{**values, **changes})


def small_spectrum(seed: int = 3, background: bool = True, first_channel: int = 1, **changes) -> Spectrum:
    """Poisson counts, about 2,000, and a background of about 600 in a region four times as large."""
    rng = np.random.default_rng(seed)
    shape = np.exp(-0.5 * (np.log(np.linspace(0.2, 10, N_CHANNEL) / 1.5)) ** 2)
    values = {
        "channels": np.arange(N_CHANNEL) + first_channel,
        "counts": rng.poisson(2000 * shape / shape.sum()),
        "exposure": 1000.0,
        "backscal": 0.01,
        "areascal": 1.0,
        "quality": np.zeros(N_CHANNEL, dtype=int),
        "header": {"TELESCOP": "SMALL", "INSTRUME": "CCD", "OBJECT": "nothing"},
    }
    if background:
        other = {**values, "counts": rng.poisson(600 / N_CHANNEL, N_CHANNEL), "backscal": 0.04}
        values["backgrounds"] = (Spectrum(**other),)
    return Spectrum(**{**values, **changes})


def small_observation(seed: int = 3, background: bool = True, **changes) -> Observation:
    """Both, in memory."""
    return Observation("small", small_spectrum(seed, background, **changes), small_response())


def write_small(folder: Path, seed: int = 3, background: bool = True, **changes) -> Path:
    """Write src.pha, src_bkg.pha, src.arf and src.rmf to `folder`; return the first."""
    response = small_response()
    rmf, arf = write_rmf(folder / "src.rmf", response), write_arf(folder / "src.arf", response)
    response = small_response(rmf=str(rmf), arf=str(arf))
    observation = Observation("small", small_spectrum(seed, background, **changes), response)
    spectrum = observation.spectrum
    counts = spectrum.background if background else None
    write_pha(folder / "src.pha", spectrum.counts, like=observation, background=counts)
    return folder / "src.pha"


def rewrite(path: Path, change) -> None:
    """Apply `change(hdus)` to a FITS file in place."""
    with fits.open(io.BytesIO(path.read_bytes()), lazy_load_hdus=False) as hdus:
        change(hdus)
        content = io.BytesIO()
        hdus.writeto(content)
    path.write_bytes(content.getvalue())


def write_dense_rmf(path: Path, response: Response, **columns) -> None:
    """An RMF whose MATRIX holds one group of all channels in each row; `columns` take the place of its own."""
    n_energy, n_channel = response.matrix.shape
    values = {
        "ENERG_LO": response.edges[:-1],
        "ENERG_HI": response.edges[1:],
        "N_GRP": np.ones(n_energy, dtype=np.int16),
        "F_CHAN": np.full(n_energy, response.first_channel, dtype=np.int16),
        "N_CHAN": np.full(n_energy, n_channel, dtype=np.int16),
        "MATRIX": response.matrix.toarray(),
        **columns,
    }
    formats = {"N_GRP": "I", "F_CHAN": "I", "N_CHAN": "I", "MATRIX": f"{n_channel}D"}
    table = fits.BinTableHDU.from_columns(
        [fits.Column(name=name, format=formats.get(name, "D"), array=array) for name, array in values.items()],
        name="MATRIX",
    )
    table.header.update({"DETCHANS": n_channel, "TLMIN4": response.first_channel, "TELESCOP": "SMALL"})
    bounds = fits.BinTableHDU.from_columns(
        [
            fits.Column(name="CHANNEL", format="I", array=np.arange(n_channel) + response.first_channel),
            fits.Column(name="E_MIN", format="D", array=response.energy_bounds[:, 0]),
            fits.Column(name="E_MAX", format="D", array=response.energy_bounds[:, 1]),
        ],
        name="EBOUNDS",
    )
    fits.HDUList([fits.PrimaryHDU(), table, bounds]).writeto(path, overwrite=True)


def with_cards(**cards):
    """A change of SPECTRUM keywords; None removes one."""

    def change(hdus):
        for key, value in cards.items():
            if value is None:
                hdus[1].header.remove(key)
            else:
                hdus[1].header[key] = value

    return change


def with_columns(hdus, drop=(), **columns):
    """Replace or add columns of the first table."""
    table = hdus[1]
    kept = [c for c in table.columns if c.name not in {*drop, *columns}]
    new = [
        fits.Column(name=k, format="D" if np.asarray(v).dtype.kind == "f" else "J", array=v) for k, v in columns.items()
    ]
    header = table.header.copy(strip=True)
    hdus[1] = fits.BinTableHDU.from_columns(fits.ColDefs([*kept, *new]), header=header, name=table.name)


def without_tlmin(hdus):
    """Leave out where channels count from."""
    hdus["MATRIX"].header.remove("TLMIN4")
    hdus["EBOUNDS"].header.remove("TLMIN1")
