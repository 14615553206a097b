"""Channels to bins: pure functions of arrays, and the one assignment that counts and model both pass through.

A grouping acts on runs of channels that are noticed without a gap, so no bin straddles the edge of an ignored range.
Channels of bad quality inside a run belong to no bin and do not end one: neither counts nor model see them.
Channels left over at the end of a run, too few for a bin of their own, join the last bin; a run that
never reaches the target is one bin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from deepspec.errors import UserError
from deepspec.registry import did_you_mean

#: Counts of a Gaussian line within its full width at half maximum, as a fraction of all its counts.
FRACTION_IN_FWHM = 0.7610


@dataclass(frozen=True, eq=False)
class Binning:
    """Which bin each channel belongs to.

    Attributes
    ----------
    index : ndarray of int, shape (n_channel,)
        Number of the bin, or -1 for a channel in no bin. Rises with the channel.
    """

    index: np.ndarray

    @cached_property
    def n_bin(self) -> int:
        """Number of bins."""
        return int(self.index.max(initial=-1)) + 1

    @cached_property
    def used(self) -> np.ndarray:
        """True for channels that belong to a bin, shape (n_channel,)."""
        return self.index >= 0

    @cached_property
    def matrix(self) -> csr_matrix:
        """Zeros and ones, shape (n_channel, n_bin): ``per_channel @ matrix`` is the sum per bin."""
        channel = np.flatnonzero(self.used)
        shape = (len(self.index), self.n_bin)
        return csr_matrix((np.ones(len(channel)), (channel, self.index[channel])), shape=shape)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum of `values`, shape (n_channel,), over the channels of each bin, shape (n_bin,)."""
        return np.bincount(self.index[self.used], weights=np.asarray(values)[self.used], minlength=self.n_bin)

    def low(self, values: np.ndarray) -> np.ndarray:
        """Smallest of `values` in each bin, shape (n_bin,)."""
        result = np.full(self.n_bin, np.inf)
        np.minimum.at(result, self.index[self.used], np.asarray(values)[self.used])
        return result

    def high(self, values: np.ndarray) -> np.ndarray:
        """Largest of `values` in each bin, shape (n_bin,)."""
        return -self.low(-np.asarray(values))


@dataclass(frozen=True, eq=False)
class Channels:
    """What a grouping may look at; every array has shape (n_channel,), float64, or is None.

    Attributes
    ----------
    counts : counts of the source region.
    variance : variance of `counts`.
    background : background counts, all background regions together.
    background_variance : variance of `background`.
    ratio : expected source-region background per background count.
    energy_low, energy_high : channel limits [keV].
    fwhm : full width at half maximum of the response [channels].
    flags : GROUPING column of the file: 1 starts a group, -1 continues it, 0 is on its own.
    """

    counts: np.ndarray
    variance: np.ndarray | None = None
    background: np.ndarray | None = None
    background_variance: np.ndarray | None = None
    ratio: np.ndarray | None = None
    energy_low: np.ndarray | None = None
    energy_high: np.ndarray | None = None
    fwhm: np.ndarray | None = None
    flags: np.ndarray | None = None

    def take(self, where: np.ndarray) -> Channels:
        """The same for some channels only."""
        return Channels(**{k: None if v is None else v[where] for k, v in self.__dict__.items()})


def runs(noticed: np.ndarray, good: np.ndarray) -> list[np.ndarray]:
    """Channel numbers of the good channels in each run of noticed channels.

    Parameters
    ----------
    noticed, good : ndarray of bool, shape (n_channel,)
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], noticed, [False]]).astype(np.int8)))
    found = [np.arange(a, b)[good[a:b]] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return [run for run in found if len(run)]


def assign(run_list: list[np.ndarray], channels: Channels, grouping: Grouping) -> Binning:
    """Number the bins that `grouping` makes of each run of channels.

    Parameters
    ----------
    run_list : list of ndarray of int
        From `runs`.
    channels : Channels
    grouping : Grouping
    """
    index = np.full(len(channels.counts), -1)
    count = 0
    for run in run_list:
        starts = grouping.starts(channels.take(run))
        starts[0] = True
        number = np.cumsum(starts)
        index[run] = count + number - 1
        count += int(number[-1])
    index.flags.writeable = False
    return Binning(index)


# --- methods: Channels of one run -> True where a bin starts, shape (n,) --------------------------------------------


def each_channel(run: Channels, _: float | None) -> np.ndarray:
    """Every channel is a bin."""
    return np.ones(len(run.counts), dtype=bool)


def as_in_file(run: Channels, _: float | None) -> np.ndarray:
    """Bins start where the file's GROUPING is not -1."""
    return each_channel(run, None) if run.flags is None else run.flags > -1


def _greedy(reached: Callable[[int], int], n: int) -> np.ndarray:
    """Starts of the bins that `reached` makes: it gives the channel after the bin that begins at its argument.

    ``n + 1`` means that the target is not reached: the rest joins the last bin.
    """
    starts = np.zeros(n, dtype=bool)
    first = 0
    while first < n:
        after = reached(first)
        if after > n and first > 0:
            break
        starts[first] = True
        first = after
    return starts


def _reaching(values: np.ndarray, target: float) -> np.ndarray:
    """Starts of the shortest bins whose sum of `values` (not negative) is at least `target`."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    # Sums of whole numbers are exact; the slack is for widths in keV
    slack = 1e-9 * max(target, 1e-300)

    def after(first: int) -> int:
        found = int(np.searchsorted(total, total[first] + target - slack, side="left"))
        return max(found, first + 1)

    return _greedy(after, len(values))


def minimum_counts(run: Channels, least: float | None) -> np.ndarray:
    """Bins of at least `least` counts of the source region."""
    return _reaching(np.clip(run.counts, 0.0, None), least)


def minimum_background(run: Channels, least: float | None) -> np.ndarray:
    """Bins of at least `least` counts of the background region."""
    return _reaching(np.clip(run.background, 0.0, None), least)


def minimum_ratio(run: Channels, least: float | None) -> np.ndarray:
    """Bins whose net counts are at least `least` times their error (background subtracted where there is one)."""
    net, variance = run.counts, run.variance
    if run.background is not None:
        net = net - run.ratio * run.background
        variance = variance + run.ratio**2 * run.background_variance
    n = len(net)

    def after(first: int) -> int:
        signal = np.cumsum(net[first:])
        enough = (signal > 0) & (signal >= least * np.sqrt(np.cumsum(variance[first:])))
        return first + 1 + int(np.argmax(enough)) if enough.any() else n + 1

    return _greedy(after, n)


def constant_width(run: Channels, width: float | None) -> np.ndarray:
    """Bins of `width` keV, rounded up to whole channels."""
    return _reaching(run.energy_high - run.energy_low, width)


def optimal_width(counts_per_element: np.ndarray, n_elements: float) -> np.ndarray:
    """Optimal bin width in units of the resolution (FWHM).

    Parameters
    ----------
    counts_per_element : ndarray
        Counts N_r in one resolution element.
    n_elements : float
        Number R of resolution elements in the fitted range.

    Source: Kaastra & Bleeker 2016, A&A 587, A151, section 5: 1 where x <= 2.119, else
    (0.08 + 7.0/x + 1.8/x^2) / (1 + 5.9/x), x = ln[N_r (1 + 0.20 ln R)].
    """
    argument = np.asarray(counts_per_element, dtype=float) * (1.0 + 0.20 * np.log(max(n_elements, 1.0)))
    x = np.log(np.maximum(argument, 1.0))
    safe = np.maximum(x, 2.119)
    return np.where(x <= 2.119, 1.0, (0.08 + 7.0 / safe + 1.8 / safe**2) / (1.0 + 5.9 / safe))


def optimal(run: Channels, _: float | None) -> np.ndarray:
    """Optimal bins of Kaastra & Bleeker (2016): as wide as the resolution and the counts in it allow without loss.

    N_r is the number of counts within one FWHM around a channel, divided by the 76.1 % of a Gaussian that lie
    there; R is the sum over channels of 1/FWHM. A bin is never wider than the least width of its channels.
    """
    n = len(run.counts)
    fwhm = np.maximum(run.fwhm, 1.0)
    total = np.concatenate([[0.0], np.cumsum(np.clip(run.counts, 0.0, None))])
    middle = np.arange(n) + 0.5
    position = np.arange(n + 1)
    low, high = np.clip(middle - fwhm / 2, 0, n), np.clip(middle + fwhm / 2, 0, n)
    inside = np.interp(high, position, total) - np.interp(low, position, total)
    # Next to the ends of the range only part of the element is inside
    inside *= fwhm / np.maximum(high - low, 1e-300)
    width = optimal_width(inside / FRACTION_IN_FWHM, float(np.sum(1.0 / fwhm))) * fwhm
    whole = np.maximum(np.floor(width + 1e-9), 1).astype(int)
    starts = np.zeros(n, dtype=bool)
    first = 0
    while first < n:
        starts[first] = True
        least, last = whole[first], first
        while last + 1 < n and last + 2 - first <= min(least, whole[last + 1]):
            last += 1
            least = min(least, whole[last])
        first = last + 1
    return starts


#: name -> (function, what the number after the colon means or None, what it needs of `Channels`)
METHODS: dict[str, tuple[Callable[[Channels, float | None], np.ndarray], str | None, str | None]] = {
    "none": (each_channel, None, None),
    "file": (as_in_file, None, None),
    "min": (minimum_counts, "counts", None),
    "snr": (minimum_ratio, "net signal to noise", None),
    "width": (constant_width, "keV", "energy_low"),
    "optimal": (optimal, None, "fwhm"),
    "minbkg": (minimum_background, "background counts", "background"),
}


@dataclass(frozen=True)
class Grouping:
    """One grouping, or several that must all be satisfied ("optimal+minbkg:1").

    Attributes
    ----------
    parts : tuple of (str, float or None)
        Name and number of each.
    """

    parts: tuple[tuple[str, float | None], ...]

    def __str__(self) -> str:
        return "+".join(name if value is None else f"{name}:{value:g}" for name, value in self.parts)

    @property
    def from_file(self) -> bool:
        """True if the bins are those of the file, and only those."""
        return self.parts == (("file", None),)

    @property
    def needs_resolution(self) -> bool:
        """True if the width of the response must be known."""
        return any(name == "optimal" for name, _ in self.parts)

    def starts(self, run: Channels) -> np.ndarray:
        """True where a bin starts, shape (n,): the first part's bins, merged until the others hold as well."""
        starts = None
        for name, value in self.parts:
            function, _, need = METHODS[name]
            if need is not None and getattr(run, need) is None:
                raise UserError(_NEEDS[need], source=f"--group {self}", remedy="use --group min:1 or --group none")
            if starts is None:
                starts = function(run, value)
                starts[0] = True
            else:
                starts = _merged(starts, run, lambda merged, f=function, v=value: f(merged, v))
        return starts


_NEEDS = {
    "energy_low": "needs channel energies, and there is no response",
    "fwhm": "needs a response matrix",
    "background": "needs a background",
}


def _merged(starts: np.ndarray, run: Channels, method: Callable[[Channels], np.ndarray]) -> np.ndarray:
    """Treat the bins that begin at `starts` as channels, group these, and return the starts that are left."""
    first = np.flatnonzero(starts)
    add = {k: np.add.reduceat(v, first) for k, v in run.__dict__.items() if v is not None}
    if run.ratio is not None and run.background is not None:
        add["ratio"] = add["ratio"] / np.diff(np.append(first, len(starts)))
    if run.energy_low is not None:
        low, high = np.minimum.reduceat(run.energy_low, first), np.maximum.reduceat(run.energy_high, first)
        add |= {"energy_low": low, "energy_high": high}
    again = method(Channels(**add))
    again[0] = True
    result = np.zeros(len(starts), dtype=bool)
    result[first[again]] = True
    return result


_MERGEABLE = ("min", "snr", "width", "minbkg")


def parse_grouping(text: str | Grouping) -> Grouping:
    """Read "none", "file", "min:20", "snr:3", "width:0.1", "optimal", "minbkg:5", or several joined by "+".

    Raises
    ------
    UserError
        An unknown name, a missing or superfluous number, a number that is not positive.
    """
    if isinstance(text, Grouping):
        return text
    parts = tuple(_parse_part(part.strip(), text) for part in str(text).split("+"))
    for name, _ in parts[1:]:
        if name not in _MERGEABLE:
            raise UserError(f"'{name}' can only come first", source=f"--group {text}", remedy=f"put {name} first")
    return Grouping(parts)


def _parse_part(part: str, text: str) -> tuple[str, float | None]:
    name, colon, number = part.partition(":")
    name, source = name.strip().lower(), f"--group {text}"
    if name not in METHODS:
        raise UserError(f"unknown grouping '{name}'", source=source, remedy=did_you_mean(name, METHODS))
    meaning = METHODS[name][1]
    if meaning is None:
        if colon:
            raise UserError(f"'{name}' takes no number", source=source, remedy=f"write --group {name}")
        return name, None
    try:
        value = float(number)
    except ValueError:
        value = np.nan
    if not (np.isfinite(value) and value > 0):
        remedy = f"write for example --group {name}:{0.1 if name == 'width' else 5}"
        raise UserError(f"'{name}' needs a positive number ({meaning})", source=source, remedy=remedy)
    return name, value
