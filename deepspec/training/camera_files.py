"""Cameras from real responses: ARF, RMF and background spectra of a folder, on the grids of the learned component."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import diags

from deepspec.errors import UserError
from deepspec.io import read_observation
from deepspec.learned.amortised import channel_shares
from deepspec.learned.grids import DETECTOR_COUNT, DETECTOR_EDGES
from deepspec.observation import Observation
from deepspec.response import Response
from deepspec.spectrum import Spectrum
from deepspec.training.cameras import CAMERAS, Camera, camera, columns_of_band
from deepspec.training.rebinning import detector_means, overlap

#: Endings of files that may be spectra; whatever else lies in the folder is not opened.
SPECTRUM_ENDINGS = (".pha", ".pi", ".fits", ".fit", ".fts", ".ftz", ".grp")

#: Full width at half maximum at 6 keV above which a detector is no CCD [keV].
_WIDEST = 0.5
#: Counts of a typical background that are added to those of a file before smoothing.
_BORROWED_COUNTS = 50.0
#: Area below this share of the largest counts as none.
_LEAST_AREA = 0.005


def from_folder(
    path: str | Path,
    rmf_dir: str | Path | None = None,
    report: Callable[[str], None] | None = None,
    most: int = 64,
) -> list[Camera]:
    """Cameras of the spectra in a folder and the folders in it: their responses, and the shapes of their backgrounds.

    Parameters
    ----------
    path : str or Path
        Folder with spectra whose headers name ARF and RMF.
    rmf_dir : str or Path, optional
        Folder of canned matrices.
    report : callable, optional
        Called with a sentence for each file that gave no camera.
    most : int
        As many cameras at most; of a larger folder files are taken in an order drawn at random, always the same.

    Returns
    -------
    list of Camera
        One for each different pair of ARF and RMF, named after the spectrum.

    Raises
    ------
    UserError
        The folder is not there, or nothing in it gives a camera.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError("no such folder", source=path, remedy="give the folder of spectra with their ARF and RMF")
    found: dict[tuple[str, ...], Camera] = {}
    reasons: list[str] = []
    for file in _sampled(_spectra(folder), most):
        if len(found) >= most:
            break
        try:
            observation = read_observation(file, rmf_dir=rmf_dir, strict=True)
            key, made = _camera_of(observation, str(file.relative_to(folder)))
        except UserError as error:
            reasons.append(f"{file.name}: {error.problem}")
            if report is not None:
                report(str(error))
            continue
        found.setdefault(key, made)
    if not found:
        first = f" ({reasons[0]}{', and others' if len(reasons) > 1 else ''})" if reasons else ""
        raise UserError(
            f"no spectrum with a response was found{first}",
            source=path,
            remedy="give a folder of spectra with their ARF and RMF, or set DEEPSPEC_RMF_DIR to where canned RMFs lie",
        )
    return sorted(found.values(), key=lambda made: made.name)


def _sampled(files: list[Path], most: int) -> list[Path]:
    """In their order if they are few, else shuffled, so that the first ones are a fair sample."""
    if len(files) <= most:
        return files
    return [files[i] for i in np.random.default_rng(0).permutation(len(files))]


def _spectra(folder: Path) -> list[Path]:
    """Files that may be spectra; those whose name says background or response are left out."""
    chosen = []
    for file in sorted(folder.rglob("*")):
        name = file.name.lower().removesuffix(".gz")
        other = any(word in name for word in ("bkg", "bgspec", "back", "rmf", "arf", "rsp.", "lightc", "image"))
        if name.endswith(SPECTRUM_ENDINGS) and not other and file.is_file():
            chosen.append(file)
    return chosen


def _camera_of(observation: Observation, name: str) -> tuple[tuple[str, ...], Camera]:
    response = observation.response
    if response is None:
        raise UserError(
            "names no response matrix", source=observation.spectrum.path, remedy="set RESPFILE in its header"
        )
    key = tuple(sorted(response.hashes.values()))
    spectrum = observation.spectrum
    like = _family(spectrum.header)
    return key, camera_from_response(name, response, spectrum.backgrounds, like)


def _family(header: Mapping[str, object]) -> str | None:
    """Which of `CAMERAS` the header names; None if it names another or none."""
    words = " ".join(str(header.get(key, "")) for key in ("TELESCOP", "INSTRUME", "DETNAM")).upper()
    table = {"EPN": "pn", "EMOS": "mos", "XRT": "xrt", "EROSITA": "erosita", "ACIS": "acis_s"}
    return next((name for word, name in table.items() if word in words), None)


def camera_from_response(
    name: str, response: Response, backgrounds: tuple[Spectrum, ...] = (), like: str | None = None
) -> Camera:
    """A real response on the grids of the learned component.

    Parameters
    ----------
    name : str
    response : Response
    backgrounds : tuple of Spectrum
        Poisson counts on the channels of the response give the shape of the background, smoothed; otherwise that
        of `like`.
    like : str, optional
        Which of `CAMERAS` it resembles, for the band and the background; by default that of the most similar area.

    Raises
    ------
    UserError
        It has no area in .3-10 keV, or not the resolution of a CCD.
    """
    matrix = rebin_response(response)
    area = _rebin_area(response)
    _check(response, area)
    model = camera(like or _most_similar(area))
    enough = area > _LEAST_AREA * area.max()
    inside = columns_of_band(model.band) & _longest_run(enough & (matrix.sum(axis=0) > 0))
    if not inside.any():
        raise UserError("it has no effective area in 0.3-10 keV", source=response.arf or response.rmf)
    at = np.flatnonzero(inside)
    band = (float(DETECTOR_EDGES[at[0]]), float(DETECTOR_EDGES[at[-1] + 1]))
    counts = sum((_rebin_counts(b, response) for b in backgrounds if b.poisson), np.zeros(DETECTOR_COUNT))
    shape = _background_shape(counts * inside, model.background * inside)
    return Camera(name, matrix * inside, area * inside, shape, band)


def rebin_response(response: Response) -> np.ndarray:
    """Effective area times redistribution from `EDGES` to `DETECTOR_EDGES`, shape (600, 238) [cm2].

    Photons lie uniformly in ln E within a bin of `EDGES`, counts uniformly in E within a channel: rows of the
    original are shared out by their overlap, as are channels. No photon is lost or counted twice.
    """
    photons = overlap(response.edges) @ diags(response.area)
    return (photons @ response.matrix) @ channel_shares(response.energy_bounds)


def _rebin_area(response: Response) -> np.ndarray:
    """Effective area at the energies of the detector bins, shape (238,) [cm2]."""
    return (overlap(response.edges) @ response.total_area) @ detector_means()


def _rebin_counts(background: Spectrum, response: Response) -> np.ndarray:
    bounds = response.energy_bounds
    if len(background.counts) != len(bounds):
        return np.zeros(DETECTOR_COUNT)
    return np.maximum(background.counts, 0.0) @ channel_shares(bounds)


def _check(response: Response, area: np.ndarray) -> None:
    source = response.arf or response.rmf
    if not area.max() > 0:
        raise UserError("it has no effective area in 0.3-10 keV", source=source)
    nominal = response.energy_bounds.mean(axis=1)
    width = response.resolution * np.ptp(response.energy_bounds, axis=1)
    if np.interp(6.0, nominal, width) > _WIDEST:
        raise UserError(f"its resolution at 6 keV is worse than {_WIDEST} keV: no CCD", source=response.rmf)


def _most_similar(area: np.ndarray) -> str:
    """Which of `CAMERAS` has the most similar effective area, whatever its size."""

    def distance(name: str) -> float:
        model = camera(name).area
        ours, theirs = area / area.sum(), model / model.sum()
        return float(np.sum((np.sqrt(ours) - np.sqrt(theirs)) ** 2))

    return min(CAMERAS, key=distance)


def _longest_run(flags: np.ndarray) -> np.ndarray:
    """The longest run of true values, alone."""
    steps = np.flatnonzero(np.diff(np.r_[False, flags, False].astype(int)))
    result = np.zeros(len(flags), dtype=bool)
    if len(steps):
        starts, ends = steps[::2], steps[1::2]
        longest = int(np.argmax(ends - starts))
        result[starts[longest] : ends[longest]] = True
    return result


def _background_shape(counts: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Smoothed counts, drawn towards the typical shape where they are few; sum 1.

    The ratio of the two is what is smoothed, so that fluorescent lines stay as sharp as the typical shape has them;
    the width falls from 12 bins to 2 as the counts grow, for about 40 counts under the kernel.
    """
    typical = typical / typical.sum()
    total = counts.sum()
    if total < 1:
        return typical
    inside = typical > 0
    width = float(np.clip(40.0 * inside.sum() / (2.5 * total), 2.0, 12.0))
    observed = gaussian_filter1d(counts + _BORROWED_COUNTS * typical, width, mode="constant")
    expected = gaussian_filter1d((total + _BORROWED_COUNTS) * typical, width, mode="constant")
    shape = np.where(inside, typical * observed / np.maximum(expected, 1e-300), 0.0)
    return shape / shape.sum()
