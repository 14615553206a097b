"""A spectrum with everything it needs: response, area, backgrounds; named in the header or by the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deepspec.errors import UserError
from deepspec.io.response_files import RMF_FOLDER_VARIABLE, find_canned, read_response
from deepspec.io.spectra import Links, holds_background, read_spectrum, split_row
from deepspec.observation import Observation
from deepspec.response import Response
from deepspec.spectrum import Spectrum

_NONE = "none"


def read_observation(
    path: str | Path,
    row: int | None = None,
    arf: str | Path | None = None,
    rmf: str | Path | None = None,
    background: str | Path | Sequence[str | Path] | None = None,
    rmf_dir: str | Path | None = None,
    use_errors: bool = False,
    strict: bool = True,
    name: str | None = None,
) -> Observation:
    """Read a PHA file with its response and backgrounds.

    Files named in the header are looked for beside the PHA file, a canned matrix by its name in `rmf_dir` and in
    the folder that the environment variable DEEPSPEC_RMF_DIR names. The file's GROUPING is read but not in force:
    group with ``observation.group("file")``.

    Parameters
    ----------
    path : str or Path
        ``file.pha{3}`` names a row of a type II file.
    row : int, optional
        The same, counted from 1.
    arf, rmf : str or Path, optional
        In place of what the header names; "none" for none.
    background : str, Path or sequence of these, optional
        The same; several are combined.
    rmf_dir : str or Path, optional
        Folder of canned matrices.
    use_errors : bool
        Put STAT_ERR in force although the counts could be Poisson counts.
    strict : bool
        If False, a linked file that cannot be read becomes a note and is left out.
    name : str, optional
        Name of the observation; by default that of the file, without its ending.

    Raises
    ------
    UserError
        See the sentence.
    """
    spectrum, links = read_spectrum(path, row, use_errors)
    problems: list[str] = []
    if use_errors and spectrum.error is None:
        problems.append(f"{Path(spectrum.path).name}: has no STAT_ERR to use; errors come from the counts")

    def attempt(function, *arguments):
        try:
            return function(*arguments)
        except UserError as error:
            if strict:
                raise
            problems.append(str(error).rstrip("."))
            return None

    response = attempt(_response, spectrum, links, arf, rmf, rmf_dir)
    backgrounds = attempt(_backgrounds, spectrum, links, background, use_errors)
    if backgrounds is None:
        backgrounds = spectrum.backgrounds
    spectrum = replace(spectrum, backgrounds=backgrounds, notes=(*spectrum.notes, *problems))
    if response is not None:
        response = attempt(_matching, spectrum, response)
    return Observation(name or _short_name(path), spectrum, response)


def _short_name(path: str | Path) -> str:
    file, row = split_row(path)
    stem = Path(file).name.split(".")[0] or "data"
    return stem if row is None else f"{stem}_{row}"


def beside(spectrum: Spectrum, linked: str) -> Path:
    """A link of the header, relative to the PHA file."""
    return Path(split_row(spectrum.path)[0]).parent / linked


def _there(path: Path) -> bool:
    return path.is_file() or path.with_name(path.name + ".gz").is_file()


# --- response -------------------------------------------------------------------------------------------------------


def _response(spectrum: Spectrum, links: Links, arf, rmf, rmf_dir) -> Response | None:
    matrix = _rmf_path(spectrum, links.rmf, rmf, rmf_dir)
    if matrix is None:
        return None
    area = arf
    if area is None and links.arf:
        area = beside(spectrum, links.arf)
        if not _there(area):
            raise UserError(
                f"its effective area {links.arf} (ANCRFILE) is not there",
                source=spectrum.path,
                remedy="give --arf FILE, or --arf none if the matrix includes the area",
            )
    return read_response(matrix, area)


def _rmf_path(spectrum: Spectrum, linked: str, given, folder) -> Path | None:
    if given is not None:
        if str(given).lower() == _NONE:
            return None
        return Path(given)
    if not linked:
        return None
    path = beside(spectrum, linked)
    if _there(path):
        return path
    canned = find_canned(linked, folder)
    if canned is None:
        also = f", nor in {folder}" if folder else ""
        raise UserError(
            f"its response matrix {linked} (RESPFILE) is not there{also}",
            source=spectrum.path,
            remedy=f"give --rmf FILE, or --rmf-dir FOLDER (or {RMF_FOLDER_VARIABLE}) where canned matrices lie",
        )
    return canned


def _matching(spectrum: Spectrum, response: Response) -> Response:
    """The response for the channels of the spectrum: all of them, or those the file holds."""
    n, available = len(spectrum), response.n_channel
    if n == available:
        return response
    position = spectrum.channels - response.first_channel
    whole = np.all(position == np.round(position)) and position.min() >= 0 and position.max() < available
    if not (n < available and whole and spectrum.header.get("DETCHANS", available) == available):
        raise UserError(
            f"it has {n} channels and its response matrix {Path(response.rmf).name} has {available}",
            source=spectrum.path,
            remedy="give the matrix of this spectrum with --rmf FILE",
        )
    column = position.astype(int)
    return replace(response, matrix=response.matrix[:, column], energy_bounds=response.energy_bounds[column])


# --- backgrounds ----------------------------------------------------------------------------------------------------


def _backgrounds(spectrum: Spectrum, links: Links, given, use_errors: bool) -> tuple[Spectrum, ...]:
    if given is None:
        if not links.background:
            return spectrum.backgrounds
        files = [_linked_background(spectrum, links.background)]
    else:
        files = [given] if isinstance(given, (str, Path)) else list(given)
        if [str(file).lower() for file in files] == [_NONE]:
            return ()
    return tuple(_background(spectrum, file, use_errors) for file in files) + (
        spectrum.backgrounds if given is None else ()
    )


def _linked_background(spectrum: Spectrum, linked: str) -> str:
    name, row = split_row(linked)
    path = beside(spectrum, name)
    own = split_row(spectrum.path)[0]
    if not _there(path) and holds_background(own):
        # A file that carries its background in a second extension and was renamed since
        return own
    if not _there(path):
        raise UserError(
            f"its background {linked} (BACKFILE) is not there",
            source=spectrum.path,
            remedy="give --bkg FILE, or --bkg none to fit source and background together",
        )
    return str(path) if row is None else f"{path}{{{row}}}"


def _background(spectrum: Spectrum, file: str | Path, use_errors: bool) -> Spectrum:
    background, _ = read_spectrum(file, use_errors=use_errors, background=True)
    if len(background) != len(spectrum):
        raise UserError(
            f"it has {len(background)} channels and the spectrum {Path(spectrum.path).name} has {len(spectrum)}",
            source=file,
            remedy="give the background of this spectrum with --bkg FILE",
        )
    return replace(background, backgrounds=())
