"""Simulates the bundled observations: two cameras, a bright binary seen by both, a faint source seen by one.

Run ``python data/make_observations.py [FOLDER]``; without FOLDER the files beside this script are made anew. The random
numbers are seeded, so the arrays come out the same.

The telescope and its cameras are our own invention. They have what shapes a real CCD spectrum, with round numbers:

mirror
    Grazing-incidence area, constant at low energy and falling as ``1 / (1 + (E / E_c)^3)``; a coating of gold whose M
    edges at 2.206, 2.291 and 2.743 keV take their part of the reflectivity and give it back slowly.
filters and dead layer
    ``exp(-tau)``, with a depth ``tau_k (E / E_k)^-3`` above each K edge (C 0.284, O 0.543, Al 1.560, Si 1.839 keV) and
    a depth ``tau_0 (E / 0.3 keV)^-3`` for the lighter shells.
absorption in the depleted silicon
    ``1 - exp(-depth / length)``; the attenuation length is 13 um just below 1.839 keV, 2.7 um just above, and grows
    as E^3.
redistribution
    A Gaussian of variance ``noise^2 + F w E`` (Fano factor F = 0.118, w = 3.66 eV per electron-hole pair), an
    exponential tail of the events that lost charge, and above the Si K edge an escape peak 1.740 keV below.
background
    Particles, the same in each keV of channel energy, with fluorescence lines of Al (1.487 keV) and Cu (8.048 keV), not
    focused and so not folded with the area. The background region is six times the source region.

Source spectra are deepspec's own tbabs, powerlaw and bbody; counts are Poisson draws. The true parameters are in
SOURCES.
"""

from __future__ import annotations

import gzip
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.special import ndtr

from deepspec.io.write import write_arf, write_pha, write_rmf
from deepspec.models import COMPONENTS
from deepspec.models.base import Grid
from deepspec.observation import Observation
from deepspec.response import Response
from deepspec.spectrum import Spectrum

SEED = 20261121
ENERGY_EDGES = np.concatenate([np.arange(10, 200), np.arange(200, 1201, 2)]) / 100.0  # keV
GOLD_EDGES = {2.206: 0.10, 2.291: 0.08, 2.743: 0.04}  # keV: fraction of the reflectivity lost at the edge
BACKGROUND_LINES = {1.487: 0.5, 8.048: 0.7}  # keV: counts in the line per count in 1 keV of the flat part


@dataclass(frozen=True)
class Camera:
    """A CCD behind its mirror; areas in cm2, energies in keV, lengths in um, rates in counts s^-1 keV^-1."""

    name: str
    area: float
    cut_off: float
    optical_depth: dict[float, float]
    light_depth: float
    silicon: float
    noise: float
    channels: int
    first_channel: int
    background_rate: float

    @property
    def channel_edges(self) -> np.ndarray:
        return np.linspace(0.0, 12.0, self.channels + 1)


@dataclass(frozen=True)
class Source:
    """Components with XSPEC's parameter names; `absorption` multiplies the sum of `emission`."""

    absorption: dict[str, float]
    emission: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Exposure:
    """One pointing of one camera; seconds."""

    file: str
    source: str
    camera: str
    seconds: float


CAMERAS = {
    "a": Camera(
        "CAM-A", 1100.0, 6.5, {0.284: 0.25, 0.543: 0.30, 1.560: 0.06, 1.839: 0.08}, 0.20, 300.0, 0.025, 400, 0, 4e-4
    ),
    "b": Camera(
        "CAM-B", 520.0, 5.0, {0.284: 0.40, 0.543: 0.45, 1.560: 0.10, 1.839: 0.15}, 0.35, 40.0, 0.018, 480, 1, 2e-4
    ),
}
SOURCES = {
    "binary": Source(
        {"nH": 0.25},
        {"powerlaw": {"PhoIndex": 1.8, "norm": 2.5e-4}, "bbody": {"kT": 0.35, "norm": 4.0e-6}},
    ),
    "faint": Source({"nH": 0.6}, {"powerlaw": {"PhoIndex": 1.7, "norm": 8.0e-6}}),
}
EXPOSURES = (
    Exposure("binary_a", "binary", "a", 20000.0),
    Exposure("binary_b", "binary", "b", 22000.0),
    Exposure("faint_a", "faint", "a", 30000.0),
)
SOURCE_REGION, BACKGROUND_REGION = 0.01, 0.06  # BACKSCAL: parts of the detector


def effective_area(camera: Camera, energy: np.ndarray) -> np.ndarray:
    """Area of mirror, filters and detector, shape (n_energy,) [cm2] at `energy` [keV]."""
    area = camera.area / (1.0 + (energy / camera.cut_off) ** 3)
    for edge, lost in GOLD_EDGES.items():
        area *= np.where(energy >= edge, 1.0 - lost * np.exp(-(energy - edge) / 3.0), 1.0)
    depth = camera.light_depth * (energy / 0.3) ** -3
    for edge, at_edge in camera.optical_depth.items():
        depth += np.where(energy >= edge, at_edge * (energy / edge) ** -3, 0.0)
    length = np.where(energy >= 1.839, 2.7, 13.0) * (energy / 1.839) ** 3
    return area * np.exp(-depth) * -np.expm1(-camera.silicon / length)


def redistribution(camera: Camera, energy: np.ndarray) -> np.ndarray:
    """Probability of each channel for a photon of `energy` [keV], shape (n_energy, n_channel)."""
    energy = energy[:, None]
    edges = camera.channel_edges

    def gaussian(centre):
        sigma = np.sqrt(camera.noise**2 + 0.118 * 0.00366 * centre)
        return np.diff(ndtr((edges - centre) / sigma), axis=1)

    tail_part = 0.02 + 0.10 * np.exp(-energy / 0.5)
    escape_part = np.where(energy > 1.839, 0.015 * np.exp((1.839 - energy) / 5.0), 0.0)
    # The charge that is left is exponential towards zero; a tenth is lost in the mean.
    tail = np.diff(np.exp(np.minimum(edges - energy, 0.0) / (0.1 * energy)), axis=1)
    escape = gaussian(np.maximum(energy - 1.740, 0.01))
    matrix = (1.0 - tail_part - escape_part) * gaussian(energy) + tail_part * tail + escape_part * escape
    return compact(np.where(matrix > 1e-5, matrix, 0.0))


def compact(values: np.ndarray, bits: int = 9) -> np.ndarray:
    """`values` cut down to `bits` bits of mantissa (by 0.4 % at most), so that the files compress.

    The cut matrix is the truth of this instrument: the counts are drawn from it.
    """
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.floor(mantissa * 2.0**bits) / 2.0**bits, exponent).astype(np.float32)


def photon_flux(source: Source) -> np.ndarray:
    """Photon flux at the telescope in each bin of ENERGY_EDGES, shape (n_energy,) [photon cm^-2 s^-1]."""
    grid = Grid(ENERGY_EDGES)

    def evaluate(name, values):
        tensors = {key: torch.tensor([value], dtype=torch.float64) for key, value in values.items() if key != "norm"}
        return values.get("norm", 1.0) * COMPONENTS[name]().evaluate(grid, **tensors)

    emitted = sum(evaluate(name, values) for name, values in source.emission.items())
    return (evaluate("tbabs", source.absorption) * emitted).numpy()


def background_counts(camera: Camera, seconds: float) -> np.ndarray:
    """Expected background counts per channel in the source region, shape (n_channel,)."""
    edges = camera.channel_edges
    flat = np.diff(edges)
    for centre, strength in BACKGROUND_LINES.items():
        sigma = np.sqrt(camera.noise**2 + 0.118 * 0.00366 * centre)
        flat = flat + strength * np.diff(ndtr((edges - centre) / sigma))
    return camera.background_rate * seconds * flat


def expected_counts(exposure: Exposure) -> tuple[np.ndarray, np.ndarray]:
    """Expected counts per channel in the source region and in the background region, each (n_channel,)."""
    camera = CAMERAS[exposure.camera]
    middle = 0.5 * (ENERGY_EDGES[1:] + ENERGY_EDGES[:-1])
    folded = (photon_flux(SOURCES[exposure.source]) * effective_area(camera, middle)) @ redistribution(camera, middle)
    background = background_counts(camera, exposure.seconds)
    return folded * exposure.seconds + background, background * (BACKGROUND_REGION / SOURCE_REGION)


def draw(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Poisson counts of the exposure number `index`: source region, background region."""
    rng = np.random.default_rng([SEED, index])
    source, background = expected_counts(EXPOSURES[index])
    return rng.poisson(source), rng.poisson(background)


# --- files ------------------------------------------------------------------------------------------------------------


def response(letter: str, folder: Path) -> Response:
    """Matrix and area of a camera, with the names of the files they go to."""
    camera = CAMERAS[letter]
    middle = 0.5 * (ENERGY_EDGES[1:] + ENERGY_EDGES[:-1])
    edges = camera.channel_edges
    return Response(
        edges=ENERGY_EDGES,
        matrix=csr_matrix(redistribution(camera, middle)),
        area=effective_area(camera, middle),
        energy_bounds=np.column_stack([edges[:-1], edges[1:]]),
        first_channel=camera.first_channel,
        rmf=str(folder / f"camera_{letter}.rmf.gz"),
        arf=str(folder / f"camera_{letter}.arf"),
    )


def spectrum(
    exposure: Exposure, counts: np.ndarray, backscal: float, backgrounds: tuple[Spectrum, ...] = ()
) -> Spectrum:
    """Counts with what the OGIP header says of them."""
    camera = CAMERAS[exposure.camera]
    return Spectrum(
        channels=np.arange(camera.channels) + camera.first_channel,
        counts=counts,
        exposure=exposure.seconds,
        backscal=backscal,
        areascal=1.0,
        quality=0,
        backgrounds=backgrounds,
        header={**facts(camera), "OBJECT": exposure.source},
    )


def facts(camera: Camera) -> dict[str, str]:
    """Cards that all files of a camera share; the telescope exists on paper only."""
    return {"TELESCOP": "PAPER", "INSTRUME": camera.name, "FILTER": "NONE", "ORIGIN": "simulated"}


def compress(path: Path) -> None:
    """Put `path` into `path`.gz without the time of day, so that the same matrix gives the same bytes."""
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()


def main(folder: Path) -> None:
    """Write all files into `folder`."""
    responses = {letter: response(letter, folder) for letter in CAMERAS}
    for letter, camera in CAMERAS.items():
        write_arf(folder / f"camera_{letter}.arf", responses[letter], facts(camera))
        compress(write_rmf(folder / f"camera_{letter}.rmf", responses[letter], facts(camera)))
    for index, exposure in enumerate(EXPOSURES):
        source, background = draw(index)
        behind = spectrum(exposure, background, BACKGROUND_REGION)
        seen = spectrum(exposure, source, SOURCE_REGION, (behind,))
        observation = Observation(exposure.file, seen, responses[exposure.camera])
        write_pha(folder / f"{exposure.file}.pha", source, like=observation, background=background)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
