"""The panel of classical models, and the one protocol by which they and the learned component are compared.

Same observation, same bins, same statistic, same engine for every model. Channels go to the 238 bins of the encoder
(`deepspec.learned.grids.DETECTOR_EDGES`) by their middle, bad ones and those of bins that leave the band to none; neighbours are
merged until a bin has a count in the source region, and enough in the background region where the background matters.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepspec.binned import BACKGROUND_MATTERS
from deepspec.inference.maximum import MaximumOptions, maximum
from deepspec.io import read_observation
from deepspec.learned.grids import DETECTOR_EDGES, EDGES, STEP
from deepspec.models.absorption import TBabs
from deepspec.models.base import Grid
from deepspec.models.model import Model
from deepspec.observation import RICH_BACKGROUND, WANTED_BACKGROUND, Observation
from deepspec.parameters import ParameterSet
from deepspec.problem import Problem, default_parameters
from deepspec.statistics import STATISTICS
from deepspec.statistics.base import Statistic

#: Foreground absorption, for every model alike [1e22 cm^-2].
NH = (1e-4, 40.0)
#: Limits of all other parameters, by component and name.
LIMITS = {
    "tbabs.nH": NH,
    # Wider than the foreground's: up to where nothing is left of a source below 10 keV.
    "ztbabs.nH": (1e-4, 500.0),
    "powerlaw.PhoIndex": (-3.0, 9.0),
    "bbody.kT": (0.02, 8.0),
    "diskbb.Tin": (0.02, 10.0),
    "bremss.kT": (0.05, 150.0),
    "mekal.kT": (0.0815, 24.9),
    "mekal.Abundanc": (0.01, 5.0),
}


@dataclass(frozen=True)
class Classical:
    """A model of the panel.

    Attributes
    ----------
    name : str
        As the tables show it.
    source : str
        What lies behind the one tbabs.
    thaw : parameters that are free although XSPEC freezes them.
    links : parameters tied to others.
    """

    name: str
    source: str
    thaw: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The whole expression."""
        return f"tbabs*({self.source})"

    def parameters(self) -> ParameterSet:
        """Parameters with the limits of the protocol."""
        chosen = default_parameters(Model(self.text))
        for key, limits in self.limits.items():
            chosen = chosen.limit(key, *limits)
        for key in self.thaw:
            chosen = chosen.thaw(key)
        for key, expression in self.links.items():
            chosen = chosen.link(key, expression)
        return chosen

    @property
    def limits(self) -> dict[str, tuple[float, float]]:
        """Limits by parameter of this model; norms have none but 0."""
        named = {key: re.sub(r"(_[0-9]+)?\.", ".", key) for key in Model(self.text).parameters}
        return {key: LIMITS[name] for key, name in named.items() if name in LIMITS}

    @property
    def free(self) -> int:
        """Number of free parameters, tbabs and norms included."""
        return len(self.parameters().free)


#: One component: the first five.
PANEL = (
    Classical("powerlaw", "powerlaw"),
    Classical("bbody", "bbody"),
    Classical("diskbb", "diskbb"),
    Classical("bremss", "bremss"),
    Classical("mekal", "mekal", thaw=("mekal.Abundanc",)),
    Classical("powerlaw+bbody", "powerlaw+bbody"),
    Classical("powerlaw+diskbb", "powerlaw+diskbb"),
    Classical(
        "mekal+mekal",
        "mekal+mekal",
        thaw=("mekal.Abundanc",),
        links={"mekal_2.Abundanc": "mekal.Abundanc"},
    ),
    Classical(
        "powerlaw+ztbabs*powerlaw",
        "powerlaw+ztbabs*powerlaw",
        links={"powerlaw_2.PhoIndex": "powerlaw.PhoIndex"},
    ),
)
ONE_COMPONENT = tuple(model.name for model in PANEL[:5])


# --- the spectra ----------------------------------------------------------------------------------------------------

#: Camera and band [keV] by the first word of a set's name. NuSTAR is left out: it begins where the range ends.
CAMERAS = {
    "pn": ("pn", (0.3, 10.0)),
    "mos1": ("MOS", (0.3, 10.0)),
    "mos2": ("MOS", (0.3, 10.0)),
    "acis": ("Chandra", (0.5, 8.0)),
    "xrt": ("Swift", (0.5, 8.0)),
    "erosita": ("eROSITA", (0.3, 8.0)),
    "asca": ("ASCA", (0.6, 8.0)),
}
#: Spectra that are listed apart from the summary: outside what any model here describes.
OUTSIDE = {
    "mos1_psrj0855": "diffuse, sky background in the source",
    "pn_psrj0855": "diffuse, sky background in the source",
    "pn_circinus": "Compton-thick, forest of lines",
    "pn_mcg6_30_15": "1.8 million counts",
}
#: Spectra in the summary whose excess has an explanation outside the model.
BLEMISHED = {
    "acis_q1127": "mildly piled up",
    "acis_cluster_annulus05": "more than 1e5 counts",
    "mos1_ngc7793_ulx4": "borrowed response",
    "mos2_ngc7793_ulx4": "borrowed response",
    "mos1_mnlup": "borrowed response",
    "xrt_pc_op313": "borrowed response",
}
#: The 35 spectra of ../shared/design/science.md, section 7, metric B: these of the field and all named ones that are not outside.
FIELD_OF_PROTOTYPE = "0001 0002 000F 0007 0004 0005 0049 002D 0012 0018 000E 0006 0020 0013 0045 0014 002F 0016".split()
FIELD_MATRIX = "epn_e3_ef20_sdY6_v19.0.rmf.gz"
LEAST_COUNTS = 200


@dataclass(frozen=True)
class Case:
    """A spectrum of the comparison."""

    name: str
    camera: str
    band: tuple[float, float]
    file: Path
    rmf: Path | None = None
    outside: str = ""
    blemish: str = ""

    @property
    def prototype(self) -> bool:
        """Whether it is one of the 35 by which the prototypes were judged."""
        if self.name.startswith("field_"):
            return self.name.removeprefix("field_") in FIELD_OF_PROTOTYPE
        return not self.outside

    def read(self) -> Observation:
        """The observation in the bins of the protocol."""
        return rebinned(read_observation(self.file, rmf=self.rmf, name=self.name), self.band)

    def stamp(self) -> str:
        """Changes when one of the files does."""
        if self.rmf is None:
            files = sorted(self.file.parent.iterdir())
        else:
            files = [*sorted(self.file.parent.glob(self.file.name.replace("SRSPEC", "*"))), self.rmf]
        text = repr([(f.name, f.stat().st_size) for f in files] + [self.band])
        return hashlib.sha256(text.encode()).hexdigest()


def cases(folder: Path, only: list[str] | None = None) -> list[Case]:
    """All named sets with a known camera, then the pn sources of the field, in the order of their names."""
    found = []
    for place in sorted((folder / "spectra").iterdir()):
        camera = CAMERAS.get(place.name.partition("_")[0])
        if camera is not None:
            file = next(place.glob("src.pha*"))
            name = place.name
            found.append(Case(name, *camera, file, None, OUTSIDE.get(name, ""), BLEMISHED.get(name, "")))
    for file in sorted((folder / "field_4xmm").glob("*PNS003SRSPEC*.FTZ")):
        name = "field_" + file.stem[-4:]
        found.append(Case(name, *CAMERAS["pn"], file, folder / "responses" / FIELD_MATRIX))
    return [case for case in found if only is None or case.name in only]


# --- bins -----------------------------------------------------------------------------------------------------------


def rebinned(observation: Observation, band: tuple[float, float]) -> Observation:
    """The observation in the bins of the protocol; a background that holds no Poisson counts is left in the source.

    Parameters
    ----------
    observation : Observation
    band : tuple of float [keV]
    """
    if any(not b.poisson for b in observation.spectrum.backgrounds):
        observation = observation.without_background()
    spectrum = observation.spectrum
    middle = spectrum.energy_bounds.mean(1)
    number = np.searchsorted(DETECTOR_EDGES, middle, side="right")
    # Whole bins of the grid only, so that every camera has the same ones.
    low, high = np.concatenate([[0.0], DETECTOR_EDGES])[number], np.append(DETECTOR_EDGES, np.inf)[number]
    inside = (low >= band[0] * (1 - 1e-9)) & (high <= band[1] * (1 + 1e-9))
    spectrum = replace(spectrum, quality=np.where(inside, spectrum.quality, 5), selections=())
    used = np.flatnonzero(spectrum.usable)
    flags = np.full(len(spectrum), -1)
    # A bin begins at its first channel that counts: bad ones at its beginning must not join it to its neighbour.
    flags[used[np.diff(number[used], prepend=-1) != 0]] = 1
    return observation.with_spectrum(replace(spectrum, flags=flags)).group(merging(spectrum))


def merging(spectrum) -> str:
    """The grouping that merges neighbours of the 238 bins, given the usable channels."""
    text, used = "file+min:1", spectrum.usable
    if spectrum.backgrounds:
        counts, region = spectrum.counts[used].sum(), spectrum.background[used].sum()
        if spectrum.scaled_background[used].sum() > BACKGROUND_MATTERS * counts and region >= 1:
            text += f"+minbkg:{WANTED_BACKGROUND if region >= RICH_BACKGROUND else 1}"
    return text


@dataclass(frozen=True, eq=False)
class Bins:
    """A spectrum as arrays: what fits and scores need of it, without its files.

    Attributes
    ----------
    counts, background, ratio : ndarray, shape (n,); the last two None without a background
    matrix : ndarray, shape (600, n) [cm2 s]
        From photons per bin of the learned component's grid to counts.
    sigma : ndarray, shape (600,) [1e-22 cm2]
        Cross-section of tbabs as it acts on the bins of the response, which resolve its lines more or less.
    digest : str
        Of everything a fit depends on, responses included.
    """

    counts: np.ndarray
    background: np.ndarray | None
    ratio: np.ndarray | None
    matrix: np.ndarray
    sigma: np.ndarray
    digest: str

    @property
    def net(self) -> float:
        """Counts less the scaled background."""
        return float(self.counts.sum() - (0.0 if self.background is None else (self.ratio * self.background).sum()))

    @property
    def statistic_name(self) -> str:
        """cstat or wstat."""
        return "cstat" if self.background is None else "wstat"

    def statistic(self, counts: np.ndarray | None = None, background: np.ndarray | None = None) -> Statistic:
        """The statistic, of these counts in place of the observed ones if given."""
        counts = self.counts if counts is None else counts
        background = self.background if background is None else background
        kind = STATISTICS[self.statistic_name]
        return kind.from_tensors(counts, background, self.ratio)


def bins_of(observation: Observation) -> Bins:
    """The arrays of an observation."""
    binned, folded = observation.binned, observation.folded
    background, ratio = (binned.background, binned.ratio) if binned.background is not None else (None, None)
    digest = hashlib.sha256()
    for array in (binned.counts, background, ratio, folded.edges, folded.matrix):
        digest.update(b"none" if array is None else np.ascontiguousarray(array, dtype="<f8").tobytes())
    share = shares(EDGES, folded.edges)
    sigma = share @ TBabs().sigma(Grid(folded.edges.copy())).numpy() / np.maximum(share.sum(1), 1e-300)
    return Bins(binned.counts, background, ratio, share @ folded.matrix, sigma, digest.hexdigest())


def shares(edges: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Share of each bin of `edges` (uniform in ln E) that falls into each bin of `onto`, shape (n, m).

    Exact for spectra that are constant in ln E within each bin of `edges`.
    """
    low, high = np.log(edges[:-1])[:, None], np.log(edges[1:])[:, None]
    start, end = np.log(onto[:-1])[None], np.log(onto[1:])[None]
    return np.clip(np.minimum(high, end) - np.maximum(low, start), 0.0, None) / STEP


# --- fits -----------------------------------------------------------------------------------------------------------


def problem_of(observation: Observation, model: Classical, statistic: Statistic | None = None) -> Problem:
    """The problem of a model of the panel, on other counts if a statistic is given."""
    name = "cstat" if observation.binned.background is None else "wstat"
    problem = Problem([observation], model.text, name, model.parameters())
    return problem if statistic is None else problem.with_statistics([statistic])


def fit_classical(problem: Problem, options: MaximumOptions) -> dict:
    """Best fit of a classical model as plain numbers."""
    best = maximum(problem, options)
    return {
        "statistic": best.statistic,
        "values": dict(zip(best.names, best.theta.tolist(), strict=True)),
        "at_limit": list(best.at_limit),
        "converged": best.converged,
        "agreeing": best.agreeing,
        "free": len(best.names),
    }


def halves(bins: Bins, seed: int, name: str) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Counts and background counts of two random halves: every count goes to one or the other with equal chance."""
    rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")])
    first = rng.binomial(np.round(bins.counts).astype(int), 0.5).astype(float)
    region = None
    if bins.background is not None:
        region = rng.binomial(np.round(bins.background).astype(int), 0.5).astype(float)
    yield first, region
    yield bins.counts - first, None if region is None else bins.background - region


def as_vector(problem: Problem, values: Mapping[str, float]) -> Tensor:
    """Values by name as the vector of a problem."""
    return torch.tensor([values[key] for key in problem.names], dtype=torch.float64)
