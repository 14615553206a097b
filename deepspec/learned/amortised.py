"""What an encoder says of an observation at once: a start for fits, and a first posterior.

Channels become the bins of `grids.DETECTOR_EDGES` in proportion to the energy they share, so that no pattern of wide and narrow
bins arises where channels are about as wide as the bins; the encoder never saw one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from deepspec.errors import UserError
from deepspec.learned.checkpoint import Weights
from deepspec.learned.encoder import LOG_NH_MEAN, LOG_NH_SPREAD, Encoder, EncoderInput, Posterior, column_density
from deepspec.learned.grids import DETECTOR_COUNT, DETECTOR_EDGES, EDGES
from deepspec.models import COMPONENTS
from deepspec.models.base import Grid
from deepspec.observation import Observation

COVERED = 0.5
"""A bin counts if at least this share of its width lies in channels of the fit."""


@dataclass(frozen=True, eq=False)
class Sight:
    """An observation on the grids of the learned component.

    Attributes
    ----------
    seen : EncoderInput
        Without batch axes, float32.
    reach : ndarray, shape (600,) [cm2 s]
        Expected counts, in all bins that are used, of one photon cm^-2 s^-1 in each bin of `EDGES`.
    """

    seen: EncoderInput
    reach: np.ndarray


@dataclass(frozen=True, eq=False)
class Amortised:
    """The encoder's posterior of one observation, in the parameters of ``tbabs*deepspec``.

    Attributes
    ----------
    names : tuple of str
        "z1" ... "zD", "log10 nH", "ln norm": the coordinates of `mean` and `covariance`.
    mean : ndarray, shape (D + 2,)
        nH in 1e22 cm^-2, the norm in 1e-12 erg cm^-2 s^-1.
    covariance : ndarray, shape (D + 2, D + 2)
        Of the norm to first order about the mean.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    covariance: np.ndarray
    _posterior: Posterior
    _brightness: _Brightness

    @property
    def z(self) -> np.ndarray:
        """Latent coordinates, shape (D,)."""
        return self.mean[:-2]

    @property
    def nH(self) -> float:
        """Foreground column density [1e22 cm^-2]."""
        return float(10.0 ** self.mean[-2])

    @property
    def norm(self) -> float:
        """Unabsorbed energy flux in 0.3-10 keV [1e-12 erg cm^-2 s^-1]."""
        return float(np.exp(self.mean[-1]))

    def draws(self, count: int, seed: int = 0) -> np.ndarray:
        """Points of the posterior in the coordinates `names`, shape (count, D + 2); the norm exact, not linearised."""
        noise = np.random.default_rng(seed).standard_normal((count, len(self.mean)))
        with torch.no_grad():
            points = self._posterior.draw(torch.as_tensor(noise))
            return _in_units(points, points[..., -1] - self._brightness(points[..., :-1])).numpy()


class _Brightness:
    """ln of the counts that norm 1 gives, as a function of (u, v)."""

    def __init__(self, decoder: nn.Module, reach: np.ndarray):
        self.decoder, self.reach = decoder, torch.as_tensor(reach)
        self.table = decoder.table()
        self.sigma = cross_section()

    def __call__(self, uv: Tensor) -> Tensor:
        shape = self.decoder(uv[..., :-1], self.table)
        counts = (shape * torch.exp(-column_density(uv[..., -1:]) * self.sigma)) @ self.reach
        # A source behind so much gas that nothing arrives has no norm; the smallest positive number says so
        return torch.log(counts.clamp(min=torch.finfo(counts.dtype).tiny))


def cross_section() -> Tensor:
    """-ln transmission of tbabs for 1e22 cm^-2 on `EDGES`, shape (600,), float64."""
    one = torch.ones(1, dtype=torch.float64)
    return -torch.log(COMPONENTS["tbabs"]().evaluate(Grid(EDGES), nH=1e-2 * one)).reshape(-1) / 1e-2


def estimate(observation: Observation, weights: Weights) -> Amortised:
    """What the encoder of `weights` says of an observation.

    Parameters
    ----------
    observation : Observation
        With a response; its noticed channels count, its grouping does not matter.
    weights : Weights

    Raises
    ------
    UserError
        The weights have no encoder; the observation has no response, or no channel in 0.3-10 keV.
    """
    from deepspec.learned.modules import load_decoder, load_encoder

    encoder = load_encoder(weights, dtype=torch.float64)
    if encoder is None:
        raise UserError(
            "these weights have no encoder",
            source=weights.path or None,
            remedy="run the encoder stage of `deepspec train` on them, or start from the prior",
        )
    decoder = load_decoder(weights, dtype=torch.float64)
    return estimated(sight(observation), encoder, decoder)


def estimated(sight: Sight, encoder: Encoder, decoder: nn.Module) -> Amortised:
    """As `estimate`, with the networks at hand, in float64."""
    for network in (encoder, decoder):
        network.requires_grad_(False)
    with torch.no_grad():
        double = EncoderInput(
            *(getattr(sight.seen, n).double() for n in ("counts", "background", "ratio", "area")), sight.seen.valid
        )
        posterior = encoder(double)
        brightness = _Brightness(decoder, sight.reach)
    uv = posterior.mean[:-1].clone().requires_grad_()
    offset = brightness(uv)
    (slope,) = torch.autograd.grad(offset, uv)
    with torch.no_grad():
        change = torch.eye(len(posterior.mean), dtype=torch.float64)
        change[-2, -2] = LOG_NH_SPREAD
        change[-1, :-1] = -slope
        mean = _in_units(posterior.mean, posterior.mean[-1] - offset)
        covariance = change @ posterior.covariance @ change.T
    names = (*(f"z{i + 1}" for i in range(decoder.latent)), "log10 nH", "ln norm")
    return Amortised(names, mean.numpy(), covariance.numpy(), posterior, brightness)


def _in_units(points: Tensor, log_norm: Tensor) -> Tensor:
    log_nH = LOG_NH_MEAN + LOG_NH_SPREAD * points[..., -2:-1]
    return torch.cat([points[..., :-2], log_nH, log_norm.unsqueeze(-1)], dim=-1)


# --- from channels to the grids -------------------------------------------------------------------------------------


def sight(observation: Observation) -> Sight:
    """Counts, background and effective area of an observation's noticed channels on the grids.

    Raises
    ------
    UserError
        No response, or too few noticed channels in 0.3-10 keV.
    """
    spectrum, response = observation.spectrum, observation.response
    observation.folded  # noqa: B018 - refuses what has no response, no channel, or a response that sees nothing
    used = spectrum.noticed
    shares = channel_shares(spectrum.energy_bounds)[used]
    coverage = channel_coverage(spectrum.energy_bounds[used])
    valid = coverage >= COVERED
    if valid.sum() < 2:
        raise UserError(
            f"too few noticed channels lie in {DETECTOR_EDGES[0]:g}-{DETECTOR_EDGES[-1]:g} keV for the encoder",
            source=spectrum.path or observation.name,
            remedy="notice a wider range",
        )
    background, ratio = np.zeros(DETECTOR_COUNT), 0.0
    if spectrum.backgrounds:
        background = np.clip(spectrum.background[used], 0.0, None) @ shares
        scaled = spectrum.scaled_background[used]
        total = float(spectrum.background[used].sum())
        # One ratio for the whole spectrum: the one that keeps the background in the source region
        ratio = float(scaled.sum()) / total if total > 0 else float(np.median(spectrum.ratio[used]))
    area = coverage * np.interp(
        0.5 * (DETECTOR_EDGES[1:] + DETECTOR_EDGES[:-1]),
        0.5 * (response.edges[1:] + response.edges[:-1]),
        response.total_area,
    )
    per_channel = (spectrum.exposure * spectrum.areascal)[used] * shares[:, valid].sum(1)
    received = response.area * (response.matrix[:, np.flatnonzero(used)] @ per_channel)
    seen = EncoderInput(
        counts=_single(np.clip(spectrum.counts[used], 0.0, None) @ shares),
        background=_single(background),
        ratio=_single([ratio]),
        area=_single(area / area[valid].max()),
        valid=torch.as_tensor(valid),
    )
    return Sight(seen, photon_shares(response.edges) @ received)


def _single(values: object) -> Tensor:
    return torch.as_tensor(np.asarray(values, dtype=np.float32))


def channel_shares(bounds: np.ndarray) -> np.ndarray:
    """Share of each channel's energies that lies in each bin of `DETECTOR_EDGES`, shape (n_channel, 238).

    Parameters
    ----------
    bounds : ndarray, shape (n_channel, 2) [keV]
    """
    return _overlap(bounds) / np.maximum(bounds[:, 1:] - bounds[:, :1], 1e-12)


def channel_coverage(bounds: np.ndarray) -> np.ndarray:
    """Share of each bin of `DETECTOR_EDGES` that lies in any of the channels, shape (238,)."""
    return np.minimum(_overlap(bounds).sum(0) / np.diff(DETECTOR_EDGES), 1.0)


def _overlap(bounds: np.ndarray) -> np.ndarray:
    low = np.maximum(bounds[:, :1], DETECTOR_EDGES[:-1])
    high = np.minimum(bounds[:, 1:], DETECTOR_EDGES[1:])
    return np.maximum(high - low, 0.0)


def photon_shares(edges: np.ndarray) -> np.ndarray:
    """Share of the photons of each bin of `grids.EDGES` in each bin of `edges` [keV], shape (600, n).

    Photons are uniform in ln E within a bin of the grid, as its definition says.
    """
    fine, other = np.log(EDGES), np.log(np.maximum(edges, 1e-6))
    low = np.maximum(fine[:-1, None], other[:-1])
    high = np.minimum(fine[1:, None], other[1:])
    return np.maximum(high - low, 0.0) / np.diff(fine)[:, None]
