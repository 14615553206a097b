"""A stream of simulated observations: sources behind gas, through a camera, over a background, with Poisson noise.

Every batch is a pure function of (seed, rank, step). Nothing is stored: the stream never repeats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.learned.encoder import EncoderInput
from deepspec.learned.grids import BAND, DETECTOR_EDGES, EDGES, ENERGY_WEIGHTS
from deepspec.learned.settings import Settings, require
from deepspec.training.cameras import CAMERAS, CameraBank, camera, relatives
from deepspec.training.foreground import draw_log_nH
from deepspec.training.stage import mixed, seeded

if TYPE_CHECKING:
    from deepspec.training.sources import SourceStream

DETECTOR_CENTRES = 0.5 * (DETECTOR_EDGES[1:] + DETECTOR_EDGES[:-1])
_TILT_DEGREES = 5
_COARSE = 10
"""Bins of the grid in one of the coarse grid on which the transmission is estimated."""
_LEAST_TRANSMISSION = 1e-4
"""Share of the energy flux that has to reach the observer: nobody has seen a source behind more gas than that."""
_FOREGROUNDS = 3
"""Foregrounds drawn for each source; the first that lets enough through is taken."""
_LEAST_KEPT = 0.1
"""A narrower band is not taken if it keeps less than this share of the source's counts."""


@dataclass(frozen=True)
class ObservationSettings(Settings):
    """What is drawn for each simulated observation; "LU" is log-uniform.

    Attributes
    ----------
    counts : lowest and highest expected source counts in the band, LU
    cameras_per_step : cameras in a batch, each for an equal run of spectra
    tilt : rms of ln of the change of the effective area over .3-10 keV
    background_tilt : the same of the background's shape
    background_ratio : lowest and highest expected background per source count, LU
    background_scatter : of ln of that ratio, besides
    dominated : share of observations in which the background is not small, as most of 4XMM
    dominated_ratio : the same range for these, LU
    alpha : range of source-region per background-region exposure x area, LU
    exposure : range of exposure times [s], LU
    narrowed : share of observations of which only a part of the band is used
    """

    counts: tuple = (10.0, 1e5)
    cameras_per_step: int = 4
    tilt: float = 0.10
    background_tilt: float = 0.20
    background_ratio: tuple = (0.005, 0.5)
    background_scatter: float = 0.4
    dominated: float = 0.25
    dominated_ratio: tuple = (0.5, 5.0)
    alpha: tuple = (0.03, 1.0)
    exposure: tuple = (2e3, 1.2e5)
    narrowed: float = 0.15

    def __post_init__(self) -> None:
        for name in ("counts", "background_ratio", "dominated_ratio", "alpha", "exposure"):
            limits = getattr(self, name)
            good = len(limits) == 2 and 0 < limits[0] <= limits[1] < float("inf")
            require(good, name, list(limits), "two positive numbers, the lower one first")
        for name in ("dominated", "narrowed"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "0 to 1")
        for name in ("tilt", "background_tilt", "background_scatter"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "0 to below 1")
        require(self.cameras_per_step >= 1, "cameras_per_step", self.cameras_per_step, "1 or more")


@dataclass(frozen=True, eq=False)
class ObservedBatch:
    """Simulated observations; bins are those of `grids.DETECTOR_EDGES`, unused ones hold zeros.

    Attributes
    ----------
    counts : Tensor, shape (batch, 238) [count]
        In the source region, background included.
    background_counts : Tensor, shape (batch, 238) [count]
        In the background region.
    alpha : Tensor, shape (batch, 1)
        Source-region background per background-region count.
    relative_area : Tensor, shape (batch, 238)
        Effective area, tilt included, relative to its largest value; zero where no bin is used.
    valid : Tensor, shape (batch, 238), bool
    log_nH : Tensor, shape (batch,)
        log10 of the foreground [1e22 cm^-2].
    log_counts : Tensor, shape (batch,)
        ln of the expected source counts in the used bins.
    exposure : Tensor, shape (batch,) [s]
    norm : Tensor, shape (batch,) [1e-12 erg cm^-2 s^-1]
        Unabsorbed energy flux in 0.3-10 keV.
    expected, expected_background : Tensor, shape (batch, 238) [count]
        Truth, in the source region.
    tilt : Tensor, shape (batch, 600)
        ln of the change of the effective area at the photon energy.
    cameras : Tensor of int, shape (k,)
        Camera of each run of batch / k spectra, as `CameraBank.fold` takes it.
    camera, label : Tensor of int, shape (batch,)
        Camera and class of source.
    shape : Tensor, shape (batch, 600) [photon cm^-2 s^-1 per bin]
        The source, unabsorbed, with unit energy flux.
    """

    counts: Tensor
    background_counts: Tensor
    alpha: Tensor
    relative_area: Tensor
    valid: Tensor
    log_nH: Tensor
    log_counts: Tensor
    exposure: Tensor
    norm: Tensor
    expected: Tensor
    expected_background: Tensor
    tilt: Tensor
    cameras: Tensor
    camera: Tensor
    label: Tensor
    shape: Tensor

    def __len__(self) -> int:
        return len(self.counts)

    def seen(self) -> EncoderInput:
        """What an encoder sees of it."""
        return EncoderInput(self.counts, self.background_counts, self.alpha, self.relative_area, self.valid)

    def as_dict(self) -> dict[str, Tensor]:
        """Tensors by name; ``ObservedBatch(**batch.as_dict())`` is the same batch."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def training_cameras(names: tuple[str, ...] = CAMERAS, each: int = 4, seed: int = 0) -> list:
    """The cameras called `names`, each with so many `relatives`."""
    return [made for name in names for made in (camera(name), *relatives(name, each, seed))]


class ObservationStream:
    """Simulated observations of a stream of sources.

    Parameters
    ----------
    sources : SourceStream
        ``sources.batch(step)`` gives shapes (batch, 600) and labels (batch,).
    cameras : CameraBank
    batch : int
        Spectra per step, a multiple of `settings.cameras_per_step`.
    seed, rank : int
    settings : ObservationSettings

    Raises
    ------
    UserError
        `batch` is no multiple of `cameras_per_step`.
    """

    def __init__(
        self,
        sources: SourceStream,
        cameras: CameraBank,
        batch: int,
        seed: int = 0,
        rank: int = 0,
        settings: ObservationSettings | None = None,
    ):
        self.sources, self.cameras, self.size = sources, cameras, int(batch)
        self.seed, self.rank, self.settings = int(seed), int(rank), settings or ObservationSettings()
        if self.size % self.settings.cameras_per_step:
            raise UserError(
                f"a batch of {batch} cannot be shared equally by {self.settings.cameras_per_step} cameras",
                source="cameras_per_step",
                remedy="choose a batch that is a multiple of it",
            )
        self.simulator = Simulator(cameras, self.settings)

    def batch(self, step: int) -> ObservedBatch:
        """The observations of one step: a pure function of (seed, rank, step)."""
        shape, label = self.sources.batch(step)
        device = self.cameras.matrix.device
        generator = seeded(device, self.seed, self.rank, step, _PURPOSE)
        # Which cameras is decided on the host, so that the device need not be waited for
        random = np.random.default_rng(mixed(self.seed, self.rank, step, _PURPOSE, 1))
        chosen = random.integers(len(self.cameras), size=self.settings.cameras_per_step)
        return self.simulator(shape.to(device), label.to(device), torch.as_tensor(chosen, device=device), generator)

    def fold(self, shape: Tensor, log_nH: Tensor, log_counts: Tensor, batch: ObservedBatch) -> Tensor:
        """As `fold`, through this stream's cameras."""
        return fold(shape, log_nH, log_counts, batch, self.cameras)


_PURPOSE = 9
"""Tells the random numbers of observations from others of the same (seed, rank, step)."""


def fold(shape: Tensor, log_nH: Tensor, log_counts: Tensor, batch: ObservedBatch, cameras: CameraBank) -> Tensor:
    """Expected source counts of spectra that are seen as those of `batch` were: same camera, tilt and bins.

    Parameters
    ----------
    shape : Tensor, shape (..., batch, 600) [photon cm^-2 s^-1 per bin]
        Unabsorbed; its norm does not matter.
    log_nH : Tensor, shape (..., batch)
        log10 of the foreground [1e22 cm^-2].
    log_counts : Tensor, shape (..., batch)
        ln of the sum of the result.

    Returns
    -------
    Tensor, shape (..., batch, 238) [count]
        Differentiable in the first three.
    """
    sigma = cameras.sigma
    rate = _rate(shape, log_nH, batch.tilt, sigma, batch.cameras, cameras) * batch.valid
    return rate * (torch.exp(log_counts) / _total(rate).squeeze(-1)).unsqueeze(-1)


def _rate(shape: Tensor, log_nH: Tensor, tilt: Tensor, sigma: Tensor, chosen: Tensor, cameras: CameraBank) -> Tensor:
    """Counts per second in all bins of the cameras' bands, shape (..., batch, 238)."""
    nH = torch.exp(math.log(10.0) * log_nH).unsqueeze(-1)
    return cameras.fold(shape * torch.exp(tilt - nH * sigma), chosen)


def _total(rate: Tensor) -> Tensor:
    """Sum over bins, kept from zero: what is too faint for float32 gives no counts, not NaN."""
    return rate.sum(-1, keepdim=True).clamp(min=1e-30)


class Simulator:
    """Draws everything about observations of given sources.

    Parameters
    ----------
    cameras : CameraBank
    settings : ObservationSettings
    """

    def __init__(self, cameras: CameraBank, settings: ObservationSettings):
        self.cameras, self.settings = cameras, settings
        matrix = cameras.matrix

        def tensor(values: np.ndarray) -> Tensor:
            return torch.tensor(values, dtype=matrix.dtype, device=matrix.device)

        basis = _tilts()
        self._tilts = tensor(basis)
        middle = np.sqrt(EDGES[1:] * EDGES[:-1])
        on_detector = np.stack([np.interp(DETECTOR_CENTRES, middle, row) for row in basis])
        self._detector_tilts = tensor(on_detector)
        self._centres = tensor(DETECTOR_CENTRES)
        self._coarse_sigma = cameras.sigma.reshape(-1, _COARSE).mean(-1)
        self._energy = tensor(ENERGY_WEIGHTS)

    def __call__(self, shape: Tensor, label: Tensor, chosen: Tensor, generator: torch.Generator) -> ObservedBatch:
        """Observations of sources (batch, 600), with the cameras `chosen` (k,) for equal runs of them."""
        settings, count = self.settings, len(shape)
        shape = shape.to(self.cameras.sigma.dtype)
        camera_index = chosen.repeat_interleave(count // len(chosen))
        log_nH = self._foreground(shape, generator)
        tilt, detector_tilt = self._tilt(count, settings.tilt, generator)
        rate = _rate(shape, log_nH, tilt, self.cameras.sigma, chosen, self.cameras)
        valid = self._valid(rate, camera_index, generator)
        rate = rate * valid
        log_counts = self._log_uniform(settings.counts, count, generator).log()
        total = _total(rate)
        source_counts = log_counts.exp().unsqueeze(-1)
        expected = rate * (source_counts / total)
        exposure = self._log_uniform(settings.exposure, count, generator)
        beneath = self._background(source_counts, camera_index, valid, generator)
        alpha = self._log_uniform(settings.alpha, count, generator).unsqueeze(-1)
        area = self.cameras.area[camera_index] * torch.exp(detector_tilt) * valid
        return ObservedBatch(
            counts=torch.poisson(expected + beneath, generator=generator),
            background_counts=torch.poisson(beneath / alpha, generator=generator),
            alpha=alpha,
            relative_area=area / area.amax(-1, keepdim=True).clamp(min=1e-30),
            valid=valid,
            log_nH=log_nH,
            log_counts=log_counts,
            exposure=exposure,
            norm=source_counts.squeeze(-1) / exposure / total.squeeze(-1),
            expected=expected,
            expected_background=beneath,
            tilt=tilt,
            cameras=chosen,
            camera=camera_index,
            label=label,
            shape=shape,
        )

    def _uniform(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.rand(count, generator=generator, dtype=self.cameras.sigma.dtype, device=self.cameras.sigma.device)

    def _normal(self, *size: int, generator: torch.Generator) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=self.cameras.sigma.dtype, device=self.cameras.sigma.device)

    def _log_uniform(self, limits: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
        low, high = math.log(limits[0]), math.log(limits[1])
        return torch.exp(low + (high - low) * self._uniform(count, generator))

    def _foreground(self, shape: Tensor, generator: torch.Generator) -> Tensor:
        """log10 nH of each source: the first of three draws that leaves enough to see, else the lowest; (batch,)."""
        count = len(shape)
        drawn = draw_log_nH(_FOREGROUNDS * count, generator, shape.device).to(shape).reshape(count, _FOREGROUNDS)
        energy = (shape * self._energy).unflatten(-1, (-1, _COARSE)).sum(-1)
        through = torch.exp(-(10.0**drawn).unsqueeze(-1) * self._coarse_sigma) @ energy.unsqueeze(-1)
        enough = through.squeeze(-1) > _LEAST_TRANSMISSION * energy.sum(-1, keepdim=True)
        first = drawn.gather(-1, enough.int().argmax(-1, keepdim=True)).squeeze(-1)
        return torch.where(enough.any(-1), first, drawn.amin(-1))

    def _tilt(self, count: int, rms: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """ln of a smooth random change, on `EDGES` (batch, 600) and on `DETECTOR_EDGES` (batch, 238)."""
        weights = rms * self._normal(count, len(self._tilts), generator=generator)
        return weights @ self._tilts, weights @ self._detector_tilts

    def _valid(self, rate: Tensor, camera_index: Tensor, generator: torch.Generator) -> Tensor:
        """Bins in use: the camera's band, for some observations a part of it."""
        count, valid = len(rate), self.cameras.valid[camera_index]
        low = self._log_uniform((BAND[0], 1.0), count, generator).unsqueeze(-1)
        high = self._log_uniform((5.0, BAND[1]), count, generator).unsqueeze(-1)
        wanted = (self._uniform(count, generator) < self.settings.narrowed).unsqueeze(-1)
        narrow = valid & (self._centres > low) & (self._centres < high)
        kept = (rate * narrow).sum(-1, keepdim=True) > _LEAST_KEPT * rate.sum(-1, keepdim=True)
        return torch.where(wanted & kept, narrow, valid)

    def _background(self, source: Tensor, camera_index: Tensor, valid: Tensor, generator: torch.Generator) -> Tensor:
        """Expected background in the source region, shape (batch, 238)."""
        settings, count = self.settings, len(source)
        _, tilt = self._tilt(count, settings.background_tilt, generator)
        shape = self.cameras.background[camera_index] * torch.exp(tilt) * valid
        shape = shape / shape.sum(-1, keepdim=True).clamp(min=1e-30)
        scatter = torch.exp(settings.background_scatter * self._normal(count, generator=generator))
        usual = self._log_uniform(settings.background_ratio, count, generator) * scatter
        high = self._log_uniform(settings.dominated_ratio, count, generator) * scatter
        dominated = self._uniform(count, generator) < settings.dominated
        source = source.squeeze(-1)
        # A point source cannot lie on more background than its extraction circle collects in a long exposure
        limit = torch.where(dominated, 1000.0, 30.0) + 0.5 * source
        total = torch.minimum(torch.where(dominated, high, usual) * source, limit)
        return shape * total.unsqueeze(-1)


def _tilts() -> np.ndarray:
    """Smooth functions of ln E whose sum with N(0,1) weights has rms 1 over `BAND`, shape (5, 600).

    Legendre polynomials of degree 1 to 5 over `BAND`, the higher the weaker; constant beyond it.
    """
    middle = np.sqrt(EDGES[1:] * EDGES[:-1])
    low, high = np.log(BAND)
    x = np.clip((2.0 * np.log(middle) - low - high) / (high - low), -1.0, 1.0)
    degrees = np.arange(1, _TILT_DEGREES + 1)
    rows = np.stack([np.polynomial.Legendre.basis(int(n))(x) for n in degrees])
    # The mean square of P_n is 1/(2n+1); amplitudes fall as 1/n
    share = degrees**-2.0 / np.sum(degrees**-2.0)
    return rows * np.sqrt((2 * degrees + 1) * share)[:, None]


__all__ = [
    "ObservationSettings",
    "ObservationStream",
    "ObservedBatch",
    "Simulator",
    "fold",
    "training_cameras",
]
