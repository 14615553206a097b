"""What is in a spectrum file, as plain numbers and words: the contents of ``deepspec info``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deepspec.io.observations import read_observation
from deepspec.observation import Observation
from deepspec.spectrum import Spectrum

#: Channels count as usable where the effective area is above this share of its maximum.
_SHARE_OF_AREA = 0.01


def summarize(path: str | Path, **options: Any) -> dict[str, Any]:
    """Read a file as far as possible and say what is in it.

    Parameters
    ----------
    path : str or Path
    **options
        As `read_observation` takes them, without `strict`.

    Returns
    -------
    dict
        Only what JSON can hold. What is missing (a response, a background) is None and has a warning.

    Raises
    ------
    UserError
        The file itself is missing, damaged or not a spectrum.
    """
    return describe(read_observation(path, strict=False, **options))


def describe(observation: Observation) -> dict[str, Any]:
    """The same for an observation in memory."""
    spectrum = observation.spectrum
    usable = usable_band(observation)
    return {
        "file": spectrum.path,
        "hash": spectrum.sha256,
        "header": {key: _plain(value) for key, value in spectrum.header.items()},
        "exposure": spectrum.exposure,
        "channels": len(spectrum),
        "first_channel": int(spectrum.channels[0]),
        "rates": spectrum.is_rate,
        "counts": float(spectrum.counts[spectrum.quality == 0].sum()),
        "poisson": spectrum.poisson,
        "errors": spectrum.error is not None,
        "bad_channels": int((spectrum.quality != 0).sum()),
        "file_groups": int((spectrum.flags > -1).sum()) if spectrum.has_groups else None,
        "default_grouping": str(observation.default_grouping()),
        "background": _background(spectrum),
        "response": _response(observation),
        "usable_band": usable,
        "counts_in_band": _counts_in(observation, usable),
        "warnings": _warnings(observation, usable),
    }


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _background(spectrum: Spectrum) -> dict[str, Any] | None:
    if not spectrum.backgrounds:
        return None
    good = spectrum.usable
    ratio = spectrum.ratio[good]
    return {
        "files": [b.path for b in spectrum.backgrounds],
        "hashes": [b.sha256 for b in spectrum.backgrounds],
        "counts": float(spectrum.background[good].sum()),
        "ratio": float(np.median(ratio)) if len(ratio) else None,
        "scaled_counts": float(spectrum.scaled_background[good].sum()),
        "poisson": all(b.poisson for b in spectrum.backgrounds),
    }


def _response(observation: Observation) -> dict[str, Any] | None:
    response = observation.response
    if response is None:
        return None
    area = response.total_area
    return {
        "rmf": response.rmf,
        "arf": response.arf or None,
        "hashes": dict(response.hashes),
        "energies": len(response.area),
        "energy_range": [float(response.edges[0]), float(response.edges[-1])],
        "largest_area": float(area.max()),
        "largest_area_at": float(response.edges[int(area.argmax())]),
    }


def usable_band(observation: Observation) -> list[float] | None:
    """Energies [keV] from the first to the last good channel that holds counts where there is effective area."""
    response, spectrum = observation.response, observation.spectrum
    if response is None:
        return None
    low, high = spectrum.energy_bounds.T
    middle = 0.5 * (low + high)
    area = np.interp(middle, 0.5 * (response.edges[1:] + response.edges[:-1]), response.total_area, left=0, right=0)
    used = spectrum.usable & (spectrum.counts != 0) & (area > _SHARE_OF_AREA * response.total_area.max())
    if not used.any():
        return None
    return [float(low[used].min()), float(high[used].max())]


def _counts_in(observation: Observation, band: list[float] | None) -> dict[str, float] | None:
    if band is None:
        return None
    spectrum = observation.spectrum
    low, high = spectrum.energy_bounds.T
    used = spectrum.usable & (low >= band[0]) & (high <= band[1])
    total = float(spectrum.counts[used].sum())
    background = 0.0 if spectrum.scaled_background is None else float(spectrum.scaled_background[used].sum())
    return {"total": total, "scaled_background": background, "net": total - background}


def _warnings(observation: Observation, band: list[float] | None) -> list[str]:
    spectrum = observation.spectrum
    found = list(observation.notes)
    if observation.response is None and not any("response matrix" in note for note in found):
        found.append("no response: give --rmf FILE and --arf FILE to fit")
    if observation.response is not None and band is None:
        found.append("no counts where the response has effective area")
    if not spectrum.good.any():
        found.append("all channels are flagged bad (QUALITY)")
    for background in spectrum.backgrounds:
        if background.rates_without_exposure:
            found.append(
                f"{Path(background.path).name}: rates with EXPOSURE {background.exposure:g}: "
                "use --stat pgstat or chi2, or --bkg none"
            )
    placeholder = any(b.rates_without_exposure for b in spectrum.backgrounds)
    if (
        spectrum.backgrounds
        and not placeholder
        and spectrum.usable.any()
        and np.median(spectrum.ratio[spectrum.usable]) > 1
    ):
        found.append("the background region is smaller than the source region, so its noise dominates the net counts")
    if spectrum.exposure <= 1:
        found.append(f"EXPOSURE is {spectrum.exposure:g} s: probably a placeholder")
    return found
