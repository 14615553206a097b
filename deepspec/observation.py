"""A spectrum with its response: what is noticed, how it is grouped, and the two things a fit needs of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from deepspec.binned import BACKGROUND_MATTERS, BinnedData, FoldedResponse
from deepspec.errors import UserError
from deepspec.grouping import Binning, Grouping, parse_grouping
from deepspec.response import Response
from deepspec.spectrum import DEFAULT_RULE, Spectrum

#: The grouping of a fit unless the user says otherwise; `Observation.group` says what it becomes.
DEFAULT_GROUPING = "auto"

#: Background counts that "auto" wants in every bin: with one or two, W-stat biases the norm by half a sigma and more.
WANTED_BACKGROUND = 5
#: Counts in the background region below which "auto" is content with one a bin, lest few bins remain.
RICH_BACKGROUND = 300


@dataclass(frozen=True, eq=False)
class Observation:
    """A spectrum and its response.

    Attributes
    ----------
    name : str
        Short name for tables and constants, unique in a joint fit.
    spectrum : Spectrum
    response : Response or None
    """

    name: str
    spectrum: Spectrum
    response: Response | None = None

    def __post_init__(self) -> None:
        if self.response is None:
            return
        if self.response.n_channel != len(self.spectrum):
            raise UserError(
                f"the spectrum has {len(self.spectrum)} channels, its response {self.response.n_channel}",
                source=self.spectrum.path or self.name,
                remedy="give the matching matrix with --rmf FILE",
            )
        if self.spectrum.energy_bounds is None:
            bounds = self.response.energy_bounds
            object.__setattr__(self, "spectrum", replace(self.spectrum, energy_bounds=bounds))

    def __repr__(self) -> str:
        return f"<Observation {self.name}: {self.spectrum!r}, {self.response!r}>"

    # --- changes: always a new object -------------------------------------------------------------------------------

    def with_name(self, name: str) -> Observation:
        """The same under another name."""
        return replace(self, name=name)

    def with_spectrum(self, spectrum: Spectrum) -> Observation:
        """The same with another spectrum (simulated counts, for instance)."""
        return replace(self, spectrum=spectrum)

    def with_response(self, response: Response) -> Observation:
        """The same seen through another response."""
        spectrum = replace(self.spectrum, energy_bounds=response.energy_bounds, resolution=None)
        return replace(self, spectrum=spectrum, response=response)._with_resolution()

    def without_background(self) -> Observation:
        """The same with the background left in the source."""
        return replace(self, spectrum=replace(self.spectrum, backgrounds=()))

    def notice(self, low: float | None = None, high: float | None = None, rule: str = DEFAULT_RULE) -> Observation:
        """With the range from `low` to `high` keV noticed; see `Spectrum.notice`."""
        return replace(self, spectrum=self.spectrum.notice(low, high, rule))

    def ignore(self, low: float | None = None, high: float | None = None) -> Observation:
        """Without the bins that touch the range from `low` to `high` keV."""
        return replace(self, spectrum=self.spectrum.ignore(low, high))

    def group(self, method: str | Grouping = DEFAULT_GROUPING, number: float | None = None) -> Observation:
        """Grouped by another method; the noticed ranges stay.

        Parameters
        ----------
        method : str or Grouping
            As `Spectrum.group`, or "auto": "optimal" (Kaastra & Bleeker 2016) where a response matrix is known, and
            if the background is more than 3 % of the noticed counts, each bin with at least 5 background
            counts besides (1 where the region holds less than 300), because W-stat is biased where they are few. Rates and subtracted spectra keep the groups
            of the file, if it has any, for which their errors are made.
        number : float, optional
        """
        if isinstance(method, str) and method.strip().lower() == "auto":
            method = self.default_grouping()
        grouped = replace(self, spectrum=self.spectrum.group(method, number))
        return grouped._with_resolution()

    def _with_resolution(self) -> Observation:
        spectrum = self.spectrum
        if self.response is None or spectrum.resolution is not None or not spectrum.grouping.needs_resolution:
            return self
        return replace(self, spectrum=replace(spectrum, resolution=self.response.resolution))

    def default_grouping(self) -> Grouping:
        """What "auto" stands for with the channels noticed now."""
        spectrum = self.spectrum
        if not spectrum.poisson and spectrum.has_groups:
            # Errors of rates often hold for the file's groups only (ROSAT: one channel of each carries them)
            return parse_grouping("file")
        text = "none" if self.response is None else "optimal"
        if spectrum.backgrounds and all(b.poisson for b in spectrum.backgrounds):
            used = replace(spectrum, grouping=parse_grouping("none")).noticed
            share = BACKGROUND_MATTERS * max(spectrum.counts[used].sum(), 1.0)
            if spectrum.scaled_background[used].sum() > share and spectrum.background[used].sum() >= 1:
                least = WANTED_BACKGROUND if spectrum.background[used].sum() >= RICH_BACKGROUND else 1
                text = f"minbkg:{least}" if text == "none" else f"{text}+minbkg:{least}"
        return parse_grouping(text)

    # --- what a fit needs -------------------------------------------------------------------------------------------

    @property
    def binning(self) -> Binning:
        """The assignment of channels to bins that counts and model both pass through."""
        return self.spectrum.binning

    @cached_property
    def binned(self) -> BinnedData:
        """Counts per fitted bin.

        Raises
        ------
        UserError
            No channel is left, or there are no channel energies.
        """
        self._check_energies()
        self._check_channels()
        spectrum, binning = self.spectrum, self.binning
        low, high = spectrum.energy_bounds.T
        result = {
            "counts": binning.sum(spectrum.counts),
            "energy_low": binning.low(low),
            "energy_high": binning.high(high),
            "channels": binning.sum(np.ones(len(spectrum))),
            "exposure": spectrum.exposure,
            "poisson": spectrum.poisson,
            "notes": self.notes,
        }
        if spectrum.error is not None and not spectrum.poisson:
            result["error"] = np.sqrt(binning.sum(spectrum.error**2))
        if spectrum.backgrounds:
            result |= self._background()
        return BinnedData(**result)

    def _background(self) -> dict[str, object]:
        spectrum, binning = self.spectrum, self.binning
        poisson = all(b.poisson for b in spectrum.backgrounds)
        result = {
            "background": binning.sum(spectrum.background),
            # One ratio per bin: the mean over its channels, exact where BACKSCAL and AREASCAL are numbers
            "ratio": binning.sum(spectrum.ratio) / binning.sum(np.ones(len(spectrum))),
            "background_poisson": poisson,
        }
        if not poisson:
            result["background_error"] = np.sqrt(binning.sum(spectrum.background_variance))
        return result

    @cached_property
    def folded(self) -> FoldedResponse:
        """Exposure x AREASCAL x ARF x RMF, grouped, noticed channels and the energies that reach them only.

        Raises
        ------
        UserError
            There is no response, no channel is left, or nothing of the response reaches the noticed channels.
        """
        self._check_energies()
        self._check_channels()
        response, spectrum = self.response, self.spectrum
        per_channel = spectrum.exposure * spectrum.areascal
        grouped = response.matrix @ self.binning.matrix.multiply(per_channel[:, None]).tocsr()
        weight = grouped.multiply(response.area[:, None]).tocsr()
        reached = np.flatnonzero(abs(weight).sum(axis=1) > 0)
        if not len(reached):
            raise UserError(
                "no photon energy of the response reaches the noticed channels",
                source=spectrum.path or self.name,
                remedy="notice a range where the effective area is not zero",
            )
        first, last = int(reached[0]), int(reached[-1]) + 1
        return FoldedResponse(
            edges=response.edges[first : last + 1], matrix=np.ascontiguousarray(weight[first:last].toarray())
        )

    # --- checks -----------------------------------------------------------------------------------------------------

    def _check_energies(self) -> None:
        if self.response is None:
            raise UserError(
                "there is no response, so channels have no energies and a model cannot be folded",
                source=self.spectrum.path or self.name,
                remedy="give --rmf FILE (and --arf FILE), or --rmf-dir FOLDER for canned matrices",
            )

    def _check_channels(self) -> None:
        spectrum = self.spectrum
        source = spectrum.path or self.name
        if not spectrum.good.any():
            raise UserError("all channels are flagged bad", source=source, remedy="check its QUALITY column")
        if not spectrum.usable.any():
            raise UserError(
                "all good channels have a zero scale factor", source=source, remedy="check its AREASCAL and BACKSCAL"
            )
        if not spectrum.noticed.any():
            raise UserError("all channels are ignored", source=source, remedy="notice a range, for example 0.5:7")

    def check_fittable(self, statistic: str = "auto") -> None:
        """Refuse what no fit with `statistic` can make sense of.

        Parameters
        ----------
        statistic : str
            "auto", "cstat", "wstat", "pgstat", "chi2" and its variants.

        Raises
        ------
        UserError
            No response, no channel, one bin only, no exposure; counts that cannot be Poisson counts for a Poisson
            statistic; a background of rates with EXPOSURE 1 unless the statistic is "pgstat" or a "chi2".
        """
        self._check_energies()
        self._check_channels()
        spectrum = self.spectrum
        source = spectrum.path or self.name
        if self.binning.n_bin < 2:
            raise UserError(
                "only one bin is noticed", source=source, remedy="notice a wider range or group less (--group none)"
            )
        gaussian = statistic.lower().startswith("chi2")
        if not (gaussian or statistic == "auto" or spectrum.poisson):
            raise UserError(
                f"{statistic} needs Poisson counts, and {spectrum.why_not_poisson}",
                source=source,
                remedy="use --stat chi2",
            )
        error = self.binned.error
        if error is not None and not (error > 0).all():
            raise UserError(
                f"{int((error <= 0).sum())} of {len(error)} bins have no error (STAT_ERR is 0)",
                source=source,
                remedy="group them: --group file or --group snr:3",
            )
        for background in spectrum.backgrounds:
            if background.rates_without_exposure and background.error is None:
                raise UserError(
                    f"the background holds rates with EXPOSURE {background.exposure:g} and no errors (STAT_ERR)",
                    source=background.path,
                    remedy="use --bkg none to fit the total",
                )
            if background.rates_without_exposure and not gaussian and statistic != "pgstat":
                raise UserError(
                    f"the background holds rates with EXPOSURE {background.exposure:g}, not counts, "
                    "so no Poisson statistic applies to it",
                    source=background.path,
                    remedy="use --stat pgstat or --stat chi2 to go by its errors, or --bkg none to fit the total",
                )

    # --- words ------------------------------------------------------------------------------------------------------

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What reading found and decided, for spectrum, backgrounds and response."""
        found = list(self.spectrum.notes)
        for background in self.spectrum.backgrounds:
            found += background.notes
        if self.response is not None:
            found += self.response.notes
        return tuple(dict.fromkeys(found))

    def describe(self) -> list[str]:
        """Sentences on the range, the rule and the grouping truly used."""
        return [self.describe_range(), self.describe_grouping()]

    def describe_range(self) -> str:
        """For example "touching: 0.296-10.004 keV, 112 bins, 1938 channels"."""
        spectrum, used = self.spectrum, self.spectrum.range_used
        if used is None:
            return (
                "no channel noticed" if spectrum.energy_bounds is not None else f"{len(spectrum)} channels, no energies"
            )
        rules = dict.fromkeys(s.rule for s in spectrum.selections if s.keep)
        label = " and ".join(rules) if rules else "all good channels"
        what = f"{used[0]:.3f}-{used[1]:.3f} keV, {self.binning.n_bin} bins, {int(spectrum.noticed.sum())} channels"
        return f"{label}: {what}"

    def describe_grouping(self) -> str:
        """Grouping in force for source and background, and where the file's own differs."""
        spectrum = self.spectrum
        words = {"none": "one bin per channel", "file": "as in the file"}.get(
            str(spectrum.grouping), str(spectrum.grouping)
        )
        text = f"grouping: {words}"
        if spectrum.backgrounds:
            text += "; the background has the bins of the source"
        if spectrum.has_groups and not spectrum.grouping.from_file:
            text += "; the file's own groups are not used"
        if any(b.has_groups for b in spectrum.backgrounds):
            text += "; groups in the background file are not used"
        return text
