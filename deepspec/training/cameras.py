"""CCD cameras to train with: responses of our own that resemble those in orbit, written as a few numbers each.

No observational file is needed. `camera("pn")` is a typical one; `relatives("pn", 4)` are as different from it
as two observations of one camera are from each other. Real responses come through
`deepspec.training.camera_files.from_folder`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from scipy.special import erfc, ndtr
from torch import Tensor

from deepspec.errors import UserError
from deepspec.learned.grids import COUNT, DETECTOR_COUNT, DETECTOR_EDGES, EDGES, RANGE
from deepspec.registry import did_you_mean
from deepspec.spectrum import frozen_array
from deepspec.training.camera_table import CAMERA_PARAMETERS, FANO, KNOTS, PAIR_ENERGY, CameraParameters
from deepspec.training.foreground import SIGMA

CAMERAS = tuple(CAMERA_PARAMETERS)
"""Names that `camera` knows."""

_SUBDIVISIONS = 8
_FWHM = np.sqrt(8.0 * np.log(2.0))
_SILICON_ESCAPE = 1.740
"""Energy that a silicon K-alpha photon carries away [keV]."""
_SILICON_EDGE = 1.839


@dataclass(frozen=True, eq=False)
class Camera:
    """A response on the two grids of `deepspec.learned.grids`, and the shape of its background.

    Attributes
    ----------
    name : str
    matrix : ndarray, shape (600, 238) [cm2]
        Effective area times redistribution, from bins of `EDGES` to bins of `DETECTOR_EDGES`; columns outside
        `band` are zero.
    area : ndarray, shape (238,) [cm2]
        Effective area at the energies of the detector bins; zero outside `band`.
    background : ndarray, shape (238,)
        Expected background, normalised to sum 1.
    band : tuple of two floats [keV]
    """

    name: str
    matrix: np.ndarray
    area: np.ndarray
    background: np.ndarray
    band: tuple[float, float]

    def __post_init__(self) -> None:
        shapes = {"matrix": (COUNT, DETECTOR_COUNT), "area": (DETECTOR_COUNT,), "background": (DETECTOR_COUNT,)}
        for name, shape in shapes.items():
            values = frozen_array(getattr(self, name))
            if values.shape != shape:
                raise ValueError(f"{name} has shape {values.shape}, not {shape}")
            object.__setattr__(self, name, values)

    def __repr__(self) -> str:
        return f"<Camera {self.name}: {self.band[0]:g}-{self.band[1]:g} keV, {self.area.max():.3g} cm2>"


@lru_cache(maxsize=16)
def camera(name: str) -> Camera:
    """The camera called `name`, one of `CAMERAS`.

    Raises
    ------
    UserError
        There is none of that name.
    """
    return build(name, parameters(name))


def parameters(name: str) -> CameraParameters:
    """What describes the camera called `name`; UserError as `camera`."""
    if name not in CAMERA_PARAMETERS:
        raise UserError(f"there is no camera '{name}'", remedy=did_you_mean(name, CAMERA_PARAMETERS))
    return CAMERA_PARAMETERS[name]


def build(name: str, of: CameraParameters) -> Camera:
    """A camera made from its parameters."""
    inside = columns_of_band(of.band)
    fine = np.geomspace(*RANGE, COUNT * _SUBDIVISIONS + 1)
    energy = np.sqrt(fine[1:] * fine[:-1])
    shares = redistribution(of, energy, DETECTOR_EDGES) * effective_area(of, energy)[:, None]
    matrix = shares.reshape(COUNT, _SUBDIVISIONS, DETECTOR_COUNT).mean(axis=1)
    steps = np.linspace(0.0, 1.0, 2 * _SUBDIVISIONS + 1)[1::2]
    within = DETECTOR_EDGES[:-1, None] + np.diff(DETECTOR_EDGES)[:, None] * steps
    area = effective_area(of, within.ravel()).reshape(within.shape).mean(axis=1)
    background = background_shape(of) * inside
    return Camera(name, matrix * inside, area * inside, background / background.sum(), of.band)


def relatives(name: str, count: int, seed: int = 0) -> list[Camera]:
    """Cameras that differ from `camera(name)` as epochs, filters and places on the detector do.

    Widths, tails, edges and the parts of the background scatter by some ten per cent; a layer of contamination or a
    thicker filter absorbs exp(-depth (E/0.7 keV)^-3), and off-axis mirrors lose exp(-loss E/6 keV).

    Raises
    ------
    UserError
        As `camera`.
    """
    of = parameters(name)
    random = np.random.default_rng([seed, CAMERAS.index(name)])

    def scatter(value: float, spread: float) -> float:
        return float(value * np.exp(spread * np.clip(random.standard_normal(), -2.5, 2.5)))

    made = []
    for number in range(count):
        depth, loss = random.uniform(*of.contamination), random.uniform(-0.05, 0.3)
        knots = np.array(KNOTS)
        # Where nothing passes the layer the area does not matter; the limit keeps its logarithm in range
        layer = np.clip(depth * (knots / 0.7) ** -3.0, -1.0, 12.0) + loss * knots / 6.0
        changed = replace(
            of,
            smooth_area=tuple(np.array(of.smooth_area) * np.exp(-layer)),
            edges=tuple(replace(edge, depth=scatter(edge.depth, 0.1)) for edge in of.edges),
            noise=scatter(of.noise, 0.12),
            transfer=scatter(of.transfer, 0.3),
            tail=scatter(of.tail, 0.3),
            tail_length=scatter(of.tail_length, 0.15),
            shelf=scatter(of.shelf, 0.3),
            escape=scatter(of.escape, 0.15),
            sky_share=float(np.clip(scatter(of.sky_share, 0.25), 0.05, 0.95)),
            sky_soft=scatter(of.sky_soft, 0.4),
            particle_soft=scatter(of.particle_soft, 0.4),
            lines=tuple((line, scatter(strength, 0.3)) for line, strength in of.lines),
        )
        made.append(build(f"{name} {number + 1}", changed))
    return made


def columns_of_band(band: tuple[float, float]) -> np.ndarray:
    """Which bins of `DETECTOR_EDGES` lie wholly in `band` [keV], shape (238,) bool."""
    slack = 1e-9
    return (DETECTOR_EDGES[:-1] >= band[0] - slack) & (DETECTOR_EDGES[1:] <= band[1] + slack)


def effective_area(of: CameraParameters, energy: np.ndarray) -> np.ndarray:
    """Effective area at photon energies, in the shape of `energy` [keV] -> [cm2].

    Mirror, filters and depletion depth make a smooth curve through `KNOTS` (monotone between them, in ln E and
    ln area); each absorption edge at E0 multiplies it by exp(-depth (E/E0)^-power) above E0.
    """
    smooth = PchipInterpolator(np.log(KNOTS), np.log(of.smooth_area))(np.log(energy))
    absorbed = np.zeros_like(energy)
    for edge in of.edges:
        above = energy >= edge.energy
        absorbed[above] += edge.depth * (energy[above] / edge.energy) ** -edge.power
    return np.exp(smooth - absorbed)


def resolution(of: CameraParameters, energy: np.ndarray) -> np.ndarray:
    """Full width at half maximum [keV] at `energy` [keV].

    Readout noise, fluctuation of the number of pairs (Fano), and charge lost in transfer, which grows with energy;
    added in quadrature.
    """
    pairs = _FWHM**2 * FANO * PAIR_ENERGY * energy
    return np.sqrt(of.noise**2 + pairs + (of.transfer * energy) ** 2)


def redistribution(of: CameraParameters, energy: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of photons of `energy` [keV] (n,) recorded between each two of `edges` [keV], shape (n, len(edges) - 1).

    A Gaussian; an exponential tail below it, from charge lost near the entrance window, most for soft photons that
    stop there; a flat shelf down to zero; above the silicon edge an escape peak. The parts sum to 1 over all energies.
    """
    sigma = resolution(of, energy)[:, None] / _FWHM
    energy = energy[:, None]
    tail = np.minimum(of.tail / energy**2, 0.4)
    escape = np.where(energy > _SILICON_EDGE, of.escape * _SILICON_EDGE / energy, 0.0)
    peak = 1.0 - tail - of.shelf - escape
    cumulative = peak * ndtr((edges - energy) / sigma)
    cumulative += tail * _tail_below(edges - energy, sigma, of.tail_length * energy)
    cumulative += of.shelf * np.clip(edges / energy, 0.0, 1.0)
    cumulative += escape * ndtr((edges - energy + _SILICON_ESCAPE) / sigma)
    return np.diff(cumulative, axis=1)


def _tail_below(offset: np.ndarray, sigma: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Cumulative distribution at `offset` of a Gaussian less an exponential of mean `length`."""
    # The mirrored exponentially modified Gaussian: Phi(x/s) + exp(x/l + s^2/2l^2) Phi(-x/s - s/l)
    ratio = sigma / length
    argument = np.minimum(offset / length + 0.5 * ratio**2, 500.0)
    with np.errstate(under="ignore"):
        beyond = np.exp(argument) * 0.5 * erfc((offset / sigma + ratio) / np.sqrt(2.0))
    return ndtr(offset / sigma) + beyond


def background_shape(of: CameraParameters) -> np.ndarray:
    """Expected background counts per bin of `DETECTOR_EDGES`, shape (238,), in arbitrary units.

    Particles make a continuum that no mirror has seen and fluorescent lines of the camera body; the sky comes
    through the mirrors: local hot gas (a soft exponential) and unresolved active galaxies (photon index 1.4).
    """
    energy = np.sqrt(EDGES[1:] * EDGES[:-1])
    shares = redistribution(of, energy, DETECTOR_EDGES)
    width = np.diff(EDGES)
    sky = energy**-1.4 + of.sky_soft * np.exp(-energy / 0.15) / energy
    sky_counts = (sky * width * effective_area(of, energy)) @ shares
    middle = 0.5 * (DETECTOR_EDGES[1:] + DETECTOR_EDGES[:-1])
    continuum = np.diff(DETECTOR_EDGES) * (1.0 + of.particle_soft * (middle / 0.5) ** -2.0)
    continuum /= continuum.sum()
    lines = sum(strength * redistribution(of, np.array([line]), DETECTOR_EDGES)[0] for line, strength in of.lines)
    return of.sky_share * sky_counts / sky_counts.sum() + (1.0 - of.sky_share) * (continuum + lines)


@lru_cache(maxsize=4)
def ideal(n: int = 150) -> np.ndarray:
    """An ideal detector: `n` bins uniform in ln E over .2-14 keV, area in proportion to the energy, shape (600, n).

    Each photon of a bin of `EDGES` (spread uniformly in ln E) is recorded at its own energy; area 1 cm2 at 1 keV.
    """
    if not 1 <= n <= COUNT:
        raise ValueError(f"an ideal detector has 1 to {COUNT} bins, not {n}")
    log_edges, bins = np.log(EDGES), np.linspace(*np.log(RANGE), n + 1)
    low = np.maximum(log_edges[:-1, None], bins[:-1])
    high = np.minimum(log_edges[1:, None], bins[1:])
    # The mean of E over the overlap is (E2 - E1)/(ln E2 - ln E1), times the overlap's share of the bin
    matrix = np.where(high > low, np.exp(high) - np.exp(np.minimum(low, high)), 0.0) / np.diff(log_edges)[:, None]
    return frozen_array(matrix)


class CameraBank:
    """Cameras stacked as tensors.

    Parameters
    ----------
    cameras : iterable of str or Camera
    device : str or torch.device
    dtype : torch.dtype

    Attributes
    ----------
    names : tuple of str
    matrix : Tensor, shape (n, 600, 238) [cm2]
    area : Tensor, shape (n, 238) [cm2]
    background : Tensor, shape (n, 238)
        Sum 1 each.
    valid : Tensor, shape (n, 238), bool
        Bins in the camera's band.
    sigma : Tensor, shape (600,) [1e-22 cm2]
        Cross-section of the foreground, which every camera looks through.

    Raises
    ------
    UserError
        An unknown name, or no camera at all.
    """

    def __init__(
        self,
        cameras: Iterable[str | Camera],
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        chosen = [camera(c) if isinstance(c, str) else c for c in cameras]
        if not chosen:
            raise UserError("no camera is given", source="cameras", remedy=f"choose from {', '.join(CAMERAS)}")

        def stacked(name: str) -> Tensor:
            return torch.as_tensor(np.stack([getattr(c, name) for c in chosen]), dtype=dtype, device=device)

        self.names = tuple(c.name for c in chosen)
        self.matrix, self.area, self.background = stacked("matrix"), stacked("area"), stacked("background")
        self.sigma = torch.tensor(SIGMA, dtype=dtype, device=device)
        self.valid = torch.as_tensor(np.stack([columns_of_band(c.band) for c in chosen]), device=device)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"<CameraBank: {', '.join(self.names)}>"

    def fold(self, photons: Tensor, cameras: Tensor) -> Tensor:
        """Count rates of photons through one camera for each run of neighbouring spectra.

        Parameters
        ----------
        photons : Tensor, shape (..., batch, 600) [photon cm^-2 s^-1 per bin]
        cameras : Tensor of int, shape (k,)
            `batch` is a multiple of k: the first batch / k spectra go through camera ``cameras[0]``, and so on.

        Returns
        -------
        Tensor, shape (..., batch, 238) [count s^-1]
        """
        runs = photons.unflatten(-2, (len(cameras), -1))
        return (runs @ self.matrix[cameras]).flatten(-3, -2)
