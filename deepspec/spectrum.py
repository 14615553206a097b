"""A counts spectrum as a mission delivers it, what is noticed of it, and how it is grouped; frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from deepspec import grouping as groups
from deepspec.errors import UserError
from deepspec.grouping import Binning, Channels, Grouping, parse_grouping

#: Which bins (or channels, before grouping) a range of energies selects.
#: touching: those that share any energy with [low, high), as Sherpa and XSPEC do; inside: those wholly within it.
RULES = ("touching", "inside")
DEFAULT_RULE = "touching"

#: "inside" forgives limits stored in single precision: this fraction of a channel may stick out.
_SLACK = 1e-3


@dataclass(frozen=True)
class Selection:
    """One notice or ignore.

    Attributes
    ----------
    low, high : float [keV]
        Infinite where the range is open.
    keep : bool
        True for notice, False for ignore.
    rule : str
        One of `RULES`.
    """

    low: float
    high: float
    keep: bool
    rule: str

    def picks(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """True for the bins with limits `low`, `high` [keV] that the range selects."""
        if self.rule == "inside" and self.keep:
            slack = _SLACK * (high - low)
            return (low >= self.low - slack) & (high <= self.high + slack)
        return _exceeds(self.high, low) & _exceeds(high, self.low)


def _exceeds(a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
    """True where a > b by more than the rounding of single precision, as Sherpa compares energies.

    EBOUNDS are single precision: a channel that ends at 0.30000001 does not share energy with 0.3:10.
    """
    a, b = np.broadcast_arrays(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
    largest = np.where(np.isfinite(a) & np.isfinite(b), np.maximum(np.abs(a), np.abs(b)), 0.0)
    return a - b > np.ldexp(float(np.finfo(np.float32).eps), np.frexp(largest)[1])


def frozen_array(values, dtype=np.float64) -> np.ndarray:
    """A read-only copy in native byte order."""
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Counts per channel and what is needed to use them.

    Arrays have shape (n_channel,), are float64 unless said otherwise, and read-only.

    Attributes
    ----------
    channels : channel numbers, as in the file.
    counts : counts in the channel (a RATE column is multiplied by the exposure).
    exposure : float [s]
    backscal : fraction of the detector, or area, the region covers.
    areascal : fraction of the effective area in force.
    quality : int; 0 is good, anything else is left out of every fit.
    flags : int, the file's GROUPING column, or None.
    error : 1-sigma error of `counts` from STAT_ERR, or None.
    use_errors : bool
        True if `error` is in force although the counts could be Poisson counts.
    energy_bounds : ndarray, shape (n_channel, 2) [keV], or None without a response.
    resolution : full width at half maximum of the response [channels], or None.
    backgrounds : tuple of Spectrum
    selections : tuple of Selection
    grouping : Grouping
    path, sha256 : str
    header : mapping of keyword to value
        TELESCOP, INSTRUME, FILTER, OBJECT, OBS_ID, DATE-OBS where the file has them.
    is_rate : bool
        True if the file holds rates.
    notes : tuple of str
        What was found and decided while reading.
    """

    channels: np.ndarray
    counts: np.ndarray
    exposure: float
    backscal: np.ndarray
    areascal: np.ndarray
    quality: np.ndarray
    flags: np.ndarray | None = None
    error: np.ndarray | None = None
    use_errors: bool = False
    energy_bounds: np.ndarray | None = None
    resolution: np.ndarray | None = None
    backgrounds: tuple[Spectrum, ...] = ()
    selections: tuple[Selection, ...] = ()
    grouping: Grouping = field(default_factory=lambda: parse_grouping("none"))
    path: str = ""
    sha256: str = ""
    header: Mapping[str, object] = field(default_factory=dict)
    is_rate: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.counts)
        for name in ("channels", "counts", "backscal", "areascal", "error", "resolution"):
            value = getattr(self, name)
            if value is not None:
                # A number stands for every channel
                object.__setattr__(self, name, frozen_array(np.broadcast_to(value, n)))
        for name in ("quality", "flags"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, frozen_array(np.broadcast_to(value, n), dtype=np.int64))
        if self.energy_bounds is not None:
            bounds = frozen_array(self.energy_bounds)
            if bounds.shape != (n, 2):
                raise ValueError(f"energy_bounds must have shape ({n}, 2), not {bounds.shape}")
            object.__setattr__(self, "energy_bounds", bounds)
        object.__setattr__(self, "header", MappingProxyType(dict(self.header)))
        object.__setattr__(self, "exposure", float(self.exposure))

    def __len__(self) -> int:
        """Number of channels."""
        return len(self.counts)

    def __repr__(self) -> str:
        return f"<Spectrum {self.path or 'in memory'}: {len(self)} channels, {self.counts.sum():g} counts>"

    # --- what the numbers are ---------------------------------------------------------------------------------------

    @cached_property
    def good(self) -> np.ndarray:
        """True for channels of good quality in this spectrum and in all its backgrounds."""
        good = self.quality == 0
        for background in self.backgrounds:
            good = good & (background.quality == 0)
        return good

    @cached_property
    def whole(self) -> bool:
        """True if all good channels hold whole, non-negative numbers."""
        counts = self.counts[self.quality == 0]
        return bool(np.all(counts >= 0) and np.all(counts == np.round(counts)))

    @property
    def has_groups(self) -> bool:
        """True if the file groups channels."""
        return self.flags is not None and bool((self.flags == -1).any())

    @property
    def poisson(self) -> bool:
        """True if the counts can be Poisson counts and the file's errors are not in force."""
        return self.whole and not (self.use_errors and self.error is not None)

    @cached_property
    def variance(self) -> np.ndarray:
        """Variance of the counts: the file's errors squared where they are in force, else the counts."""
        if self.error is not None and not self.poisson:
            return self.error**2
        return np.clip(self.counts, 0.0, None)

    @property
    def why_not_poisson(self) -> str:
        """Half a sentence on why `poisson` is False."""
        good = self.counts[self.quality == 0]
        if (good < 0).any():
            return "these are negative in places (a background was subtracted)"
        if not self.whole:
            return "these are not whole numbers"
        return "the errors of the file are in force"

    @property
    def rates_without_exposure(self) -> bool:
        """True for rates whose EXPOSURE is a placeholder, so that not even the number of counts is known."""
        return self.is_rate and self.exposure <= 1.0 and not self.whole

    # --- background -------------------------------------------------------------------------------------------------

    @cached_property
    def ratio(self) -> np.ndarray | None:
        """Expected source-region background per background count, shape (n_channel,); None without background.

        exposure x BACKSCAL x AREASCAL, source over background; several backgrounds b_i with ratios r_i and
        independent Poisson counts add up to one with ratio 1 / sum(1 / r_i). Not finite in dead channels.
        """
        if not self.backgrounds:
            return None
        own = self.exposure * self.backscal * self.areascal
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [own / (b.exposure * b.backscal * b.areascal) for b in self.backgrounds]
            return parts[0] if len(parts) == 1 else 1.0 / np.sum([1.0 / part for part in parts], axis=0)

    @cached_property
    def background(self) -> np.ndarray | None:
        """Counts of all background regions, shape (n_channel,); None without background."""
        return np.sum([b.counts for b in self.backgrounds], axis=0) if self.backgrounds else None

    @cached_property
    def background_variance(self) -> np.ndarray | None:
        """Variance of `background`."""
        return np.sum([b.variance for b in self.backgrounds], axis=0) if self.backgrounds else None

    @cached_property
    def scaled_background(self) -> np.ndarray | None:
        """Background expected in the source region, shape (n_channel,); 0 in dead channels."""
        if self.background is None:
            return None
        with np.errstate(invalid="ignore"):
            product = self.ratio * self.background
        return np.where(np.isfinite(product), product, 0.0)

    # --- selection and grouping -------------------------------------------------------------------------------------

    def notice(self, low: float | None = None, high: float | None = None, rule: str = DEFAULT_RULE) -> Spectrum:
        """A spectrum with the range from `low` to `high` keV noticed.

        The first range replaces "everything"; further ranges are added. Without limits everything is noticed again.
        With ``group("file")`` the range selects whole groups of the file; with any other grouping it selects
        channels, and bins are made within it.

        Parameters
        ----------
        low, high : float, optional [keV]
        rule : str
            "touching": whatever shares energy with the range; "inside": what lies wholly within it.

        Raises
        ------
        UserError
            The limits are reversed, or select nothing; the spectrum has no energies.
        """
        if low is None and high is None:
            return replace(self, selections=())
        selection = self._selection(low, high, True, rule)
        bounds = self.energy_bounds
        if not selection.picks(bounds[:, 0], bounds[:, 1]).any():
            raise UserError(
                f"no channel lies {'within' if rule == 'inside' else 'in'} {_span(low, high)} keV",
                source=self.path or "--notice",
                remedy=f"choose within {bounds.min():.4g}:{bounds.max():.4g}",
            )
        return replace(self, selections=(*self.selections, selection))

    def ignore(self, low: float | None = None, high: float | None = None) -> Spectrum:
        """A spectrum without the bins that touch the range from `low` to `high` keV."""
        return replace(self, selections=(*self.selections, self._selection(low, high, False, "touching")))

    def _selection(self, low: float | None, high: float | None, keep: bool, rule: str) -> Selection:
        source = self.path or "--notice"
        if self.energy_bounds is None:
            raise UserError("its channels have no energies", source=source, remedy="give a response: --rmf FILE")
        if rule not in RULES:
            raise UserError(f"unknown rule '{rule}'", source="--rule", remedy=f"use {' or '.join(RULES)}")
        low = -np.inf if low is None else float(low)
        high = np.inf if high is None else float(high)
        if not low < high:
            raise UserError(
                f"the range {_span(low, high)} keV is empty or reversed", source=source, remedy="write low:high in keV"
            )
        return Selection(low, high, keep, rule)

    def group(self, method: str | Grouping = "optimal", number: float | None = None) -> Spectrum:
        """A spectrum grouped by another method; the noticed ranges stay.

        Parameters
        ----------
        method : str or Grouping
            "none", "file", "min:20", "snr:3", "width:0.1", "optimal", "minbkg:5", or several joined by "+".
        number : float, optional
            ``group("min", 20)`` is ``group("min:20")``.
        """
        if number is not None:
            method = f"{method}:{number!r}"
        chosen = parse_grouping(method)
        if chosen.parts[0][0] == "file" and self.flags is None:
            raise UserError("has no GROUPING column", source=self.path, remedy="use another --group")
        if any(name == "minbkg" for name, _ in chosen.parts) and not self.backgrounds:
            raise UserError(f"--group {chosen} needs a background", source=self.path, remedy="give one with --bkg FILE")
        return replace(self, grouping=chosen)

    @cached_property
    def noticed(self) -> np.ndarray:
        """True for the channels of the fit: noticed, good, and alive; shape (n_channel,)."""
        return self.binning.used

    @cached_property
    def usable(self) -> np.ndarray:
        """True for good channels where source and background regions are alive (scale factors above 0)."""
        alive = self.good & (self.areascal > 0)
        if self.backgrounds:
            # A dead channel of the background (RGS chips) says nothing of the background of the source
            alive &= np.isfinite(self.ratio) & (self.ratio > 0)
        return alive

    @cached_property
    def binning(self) -> Binning:
        """Assignment of channels to the fitted bins."""
        picked = self._picked()
        channels = Channels(
            counts=self.counts,
            variance=self.variance,
            background=self.background,
            background_variance=self.background_variance,
            ratio=self.ratio,
            energy_low=None if self.energy_bounds is None else self.energy_bounds[:, 0],
            energy_high=None if self.energy_bounds is None else self.energy_bounds[:, 1],
            fwhm=self.resolution,
            flags=self.flags,
        )
        return groups.assign(groups.runs(picked, self.usable), channels, self.grouping)

    def _picked(self) -> np.ndarray:
        """True for channels that the selections leave, whatever their quality."""
        n = len(self)
        if not self.selections:
            return np.ones(n, dtype=bool)
        low, high = self.energy_bounds.T
        number = np.arange(n)
        if self.grouping.parts[0][0] == "file":
            number = np.cumsum(self.flags > -1)
            number -= number[0]
            unit = Binning(number)
            low, high = unit.low(low), unit.high(high)
        picked = np.full(len(low), not self.selections[0].keep)
        for selection in self.selections:
            picked[selection.picks(low, high)] = selection.keep
        return picked[number]

    # --- a sentence -------------------------------------------------------------------------------------------------

    @cached_property
    def range_used(self) -> tuple[float, float] | None:
        """Lowest and highest energy of the fitted channels [keV]; None if there are none, or no energies."""
        if self.energy_bounds is None or not self.noticed.any():
            return None
        used = self.energy_bounds[self.noticed]
        return float(used.min()), float(used.max())


def _span(low: float | None, high: float | None) -> str:
    return ":".join("" if v is None or np.isinf(v) else f"{v:g}" for v in (low, high))
