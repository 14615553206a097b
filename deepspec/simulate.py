"""Fake spectra: a model folded into every channel of an observation's response, and counts drawn from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from deepspec.errors import UserError
from deepspec.models.base import Grid
from deepspec.observation import Observation

BACKGROUNDS = ("like", "none")

#: Counts per channel beyond which a Poisson number cannot be drawn (or held exactly) in 64 bits.
MOST_COUNTS = 1e15


@dataclass(frozen=True, eq=False)
class Simulation:
    """Simulated counts in every channel; arrays have shape (n_channel,).

    Attributes
    ----------
    like : Observation
        What was imitated: response, scale factors, quality, grouping.
    counts : counts in the source region, background included.
    background : counts in the background region of the first background of `like`, or None.
    exposure : float [s]
        Of the source spectrum; the background keeps its own.
    expected : expected counts of the source alone.
    expected_background : expected background in the source region.
    notes : sentences for the user about what was decided.
    """

    like: Observation
    counts: np.ndarray
    background: np.ndarray | None
    exposure: float
    expected: np.ndarray
    expected_background: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def observation(self) -> Observation:
        """The simulated counts as an observation: notice, ignore and grouping as in `like`, links to no file."""
        bare = {"error": None, "use_errors": False, "is_rate": False, "path": "", "sha256": "", "notes": self.notes}
        backgrounds = ()
        if self.background is not None:
            first = self.like.spectrum.backgrounds[0]
            # A background with Gaussian errors keeps them: they say how far the drawn values scatter.
            own = bare if first.poisson else {**bare, "error": np.sqrt(first.variance), "use_errors": True}
            backgrounds = (replace(first, counts=self.background, **own),)
        spectrum = replace(
            self.like.spectrum, counts=self.counts, exposure=self.exposure, backgrounds=backgrounds, **bare
        )
        return self.like.with_spectrum(spectrum)


def expected_counts(
    observation: Observation, model: Callable[[Grid], Any], exposure: float | None = None
) -> np.ndarray:
    """Counts that a model is expected to give in every channel, noticed or not.

    Parameters
    ----------
    observation : Observation
        Gives response and AREASCAL.
    model : callable
        ``model(grid)`` is the photon flux per bin, shape (..., n_energy) [photon cm^-2 s^-1].
    exposure : float, optional [s]
        That of the observation by default.

    Returns
    -------
    ndarray, shape (..., n_channel) [count]

    Raises
    ------
    UserError
        There is no response, the exposure is not positive, or the model is negative or not a number somewhere.
    """
    response = observation.response
    if response is None:
        raise UserError(
            "there is no response to fold a model with",
            source=observation.spectrum.path or observation.name,
            remedy="give --rmf FILE (and --arf FILE)",
        )
    with torch.no_grad():
        flux = np.asarray(model(Grid(response.edges.copy())), dtype=np.float64)
    per_energy = flux * response.area
    channels = (response.matrix.T @ per_energy.reshape(-1, per_energy.shape[-1]).T).T
    channels = channels.reshape(*per_energy.shape[:-1], response.n_channel)
    counts = channels * observation.spectrum.areascal * _exposure(observation, exposure)
    wrong = ~(np.isfinite(counts) & (counts >= 0))
    if wrong.any():
        raise UserError(
            f"the model predicts counts that are negative or not a number in {int(wrong.sum())} channels",
            source="--model",
            remedy="change the parameter values with --set",
        )
    return counts


def _exposure(observation: Observation, exposure: float | None) -> float:
    value = observation.spectrum.exposure if exposure is None else float(exposure)
    if not (np.isfinite(value) and value > 0):
        source = observation.spectrum.path or observation.name if exposure is None else f"--exposure {exposure:g}"
        raise UserError("the exposure is not positive", source=source, remedy="give seconds, e.g. --exposure 20000")
    return value


def simulate_observation(
    observation: Observation,
    model: Callable[[Grid], Any],
    exposure: float | None = None,
    background: str = "like",
    rng: np.random.Generator | None = None,
    noise: bool = True,
) -> Simulation:
    """Draw a spectrum as the instrument of `observation` would deliver it, over all channels.

    Parameters
    ----------
    observation : Observation
    model : callable
        ``model(grid)`` is the photon flux per bin [photon cm^-2 s^-1].
    exposure : float, optional [s]
        Of the source spectrum; that of the observation by default.
    background : {"like", "none"}
        "like": the background counts of the observation are taken as the truth. The source region gets them
        scaled by exposure, BACKSCAL and AREASCAL; a background spectrum of the original exposure is drawn too.
    rng : numpy.random.Generator
        Required when there is noise.
    noise : bool
        False gives the expected counts themselves, not whole numbers.

    Returns
    -------
    Simulation

    Raises
    ------
    UserError
        As `expected_counts`; or an unknown `background`.

    Notes
    -----
    The counts of the background file carry noise of their own, which becomes structure of the simulated truth, as
    in XSPEC's ``fakeit`` with a background file. Several backgrounds are combined in the source region;
    the one that is drawn has the scale factors of the first.
    """
    if background not in BACKGROUNDS:
        raise UserError(f"unknown background '{background}'", source="--background", remedy="use like or none")
    if noise and rng is None:
        raise ValueError("a simulation with noise needs a random generator")
    exposure = _exposure(observation, exposure)
    expected = expected_counts(observation, model, exposure)
    beneath, region, notes = _background_truth(observation, exposure, background)
    if not noise:
        return Simulation(observation, expected + beneath, region, exposure, expected, beneath, notes)
    if (expected + beneath).max() > MOST_COUNTS:
        raise UserError(
            f"a channel is expected to hold {(expected + beneath).max():.2g} counts, too many to draw",
            source="--model",
            remedy="lower the norm with --set, or --exposure",
        )
    drawn = None
    if region is not None:
        first = observation.spectrum.backgrounds[0]
        drawn = (
            rng.poisson(region)
            if first.poisson
            else region + np.sqrt(first.variance) * rng.standard_normal(len(region))
        )
        drawn = drawn.astype(np.float64)
    counts = rng.poisson(expected + beneath).astype(np.float64)
    return Simulation(observation, counts, drawn, exposure, expected, beneath, notes)


def _background_truth(
    observation: Observation, exposure: float, background: str
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Expected background in source region and in the first background region; the latter None without one."""
    spectrum = observation.spectrum
    nothing = np.zeros(len(spectrum))
    if background == "none":
        return nothing, None, ()
    if not spectrum.backgrounds:
        return nothing, None, ("there is no background spectrum, so none is simulated",)
    notes = []
    scaled = spectrum.scaled_background * (exposure / spectrum.exposure)
    if (scaled < 0).any():
        notes.append(f"the background is negative in {int((scaled < 0).sum())} channels and counts as 0 there")
        scaled = np.maximum(scaled, 0.0)
    first, region = spectrum.backgrounds[0], spectrum.background
    if len(spectrum.backgrounds) > 1:
        # What the combined estimate implies for the first region alone, so that the pair drawn is consistent.
        own = exposure * spectrum.backscal * spectrum.areascal
        with np.errstate(divide="ignore", invalid="ignore"):
            implied = scaled * first.exposure * first.backscal * first.areascal / own
        region = np.where(np.isfinite(implied), implied, first.counts)
        notes.append(
            f"{len(spectrum.backgrounds)} backgrounds were combined; one is drawn, with the scale of the first"
        )
    return scaled, np.maximum(region, 0.0) if first.poisson else region, tuple(notes)
