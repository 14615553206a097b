"""Which file of weights a name means: the one that ships, the user's own, or a path."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from deepspec import resources
from deepspec.errors import UserError
from deepspec.registry import did_you_mean

DEFAULT = "default"
SUFFIX = ".h5"
VARIABLE = "DEEPSPEC_WEIGHTS"


@dataclass(frozen=True)
class Place:
    """Where weights are: their name, the file, and whether they are the user's own."""

    name: str
    path: Path
    own: bool


def user_folder() -> Path:
    """Folder of the weights that the user made: DEEPSPEC_WEIGHTS, or the system's place for a user's data."""
    return resources.user_folder("weights", VARIABLE)


def package_folder() -> Path:
    """Folder of the weights that ship."""
    return resources.folder().parent / "weights"


def list_weights() -> list[Place]:
    """All weights that have a name, the default first; a user's own come before shipped ones of the same name."""
    found: dict[str, Place] = {}
    for folder, own in ((user_folder(), True), (package_folder(), False)):
        if folder.is_dir():
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                if not (own and path.stem == DEFAULT):  # that name is the package's
                    found.setdefault(path.stem, Place(path.stem, path, own))
    return sorted(found.values(), key=lambda place: (place.name != DEFAULT, place.own, place.name))


def find_weights(name: str | os.PathLike | None = None) -> Path:
    """The file that `name` means.

    Parameters
    ----------
    name : str or path, optional
        The name of weights in the user's folder or the package, "default", or a path (with a folder in it or ending in .h5).

    Raises
    ------
    UserError
        There are no such weights.
    """
    text = DEFAULT if name is None else os.fspath(name).strip()
    path = Path(text).expanduser()
    if path.suffix == SUFFIX or os.sep in text:
        if path.is_file():
            return path
        raise UserError("there is no such file of weights", path, "`deepspec weights list` shows what there is")
    places = list_weights()
    for place in places:
        if place.name == text:
            return place.path
    if text == DEFAULT:
        raise UserError(
            "this installation of deepspec has no default weights",
            remedy="install a release of deepspec, or train some with `deepspec train` and write deepspec{FILE} in the model",
        )
    remedy = did_you_mean(text, [place.name for place in places]) if places else "give the path of a file"
    raise UserError(f"there are no weights called '{text}'", remedy=remedy)
