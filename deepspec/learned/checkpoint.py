"""Weights as files: networks and card in one HDF5 file, without pickle, read without torch.

File format, "deepspec weights 1"
    attributes: ``format``; ``sha256`` of all content (`content_hash`).
    ``card``: JSON text: what it is, when and how it was made, and how well it does.
    ``grid/edges`` [keV], ``grid/band`` [keV], ``grid/unit`` [erg cm^-2 s^-1]: the energies of the spectra and what the norm means.
    ``decoder``, ``flow``, ``oracle``, ``encoder`` (all but the first may be absent): ``config``, JSON text, and ``arrays/<name>``,
    float32, named as in the state dictionary.
    ``check/constants``: JSON text, every number of the code on which spectra depend; ``check/places`` (n, D) and
    ``check/shapes`` (n, 600): coordinates and the spectra there. Whoever builds networks from the file compares both: the same
    weights with another constant give plausible but wrong spectra.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deepspec.errors import UserError
from deepspec.files import write_beside
from deepspec.learned.grids import BAND, EDGES, FLUX_UNIT

if TYPE_CHECKING:
    import h5py

FORMAT = "deepspec weights"
VERSION = 1
SECTIONS = ("decoder", "flow", "oracle", "encoder")
AGAIN = "get the file again, or train anew with `deepspec train`"


class Section(NamedTuple):
    """One network.

    Attributes
    ----------
    config : dict
        Its settings as plain data.
    arrays : dict of str to ndarray
        Its state dictionary, float32.
    """

    config: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Check(NamedTuple):
    """What the networks gave when they were written.

    Attributes
    ----------
    constants : dict of str to float
    places : ndarray, shape (n, D)
        Coordinates as a user sees them.
    shapes : ndarray, shape (n, 600)
        The decoder's spectra there.
    """

    constants: dict[str, float]
    places: np.ndarray
    shapes: np.ndarray


@dataclass(frozen=True, eq=False)
class Weights:
    """The networks of a learned component, as plain data.

    Attributes
    ----------
    decoder : Section
    flow, oracle, encoder : Section or None
    card : dict
        Plain data (JSON). Known to this package: ``name``, ``made``, ``command``, ``summary``, ``band`` (energies of the data
        it was trained for [keV]) and ``figures``; anything else is kept and shown.
    check : Check or None
        Filled in when the weights are written.
    path : str
        Where they were read from.
    sha256 : str
        Hash of the content, empty before they were written.
    """

    decoder: Section
    flow: Section | None = None
    oracle: Section | None = None
    encoder: Section | None = None
    card: dict[str, Any] = field(default_factory=dict)
    check: Check | None = None
    path: str = ""
    sha256: str = ""

    @property
    def latent(self) -> int:
        """Number of latent coordinates."""
        return int(self.decoder.config["latent"])

    @property
    def band(self) -> tuple[float, float]:
        """Energies of the data that these weights were trained for [keV]."""
        low, high = self.card.get("band") or BAND
        return float(low), float(high)

    @property
    def range(self) -> tuple[float, float]:
        """Energies on which spectra are defined [keV]; they have no photons outside."""
        return float(EDGES[0]), float(EDGES[-1])

    def sections(self) -> Iterator[tuple[str, Section]]:
        """Name and content of the networks that are there."""
        for name in SECTIONS:
            if getattr(self, name) is not None:
                yield name, getattr(self, name)

    def count(self) -> dict[str, int]:
        """Number of weights of each network."""
        return {name: sum(a.size for a in section.arrays.values()) for name, section in self.sections()}


# --- writing --------------------------------------------------------------------------------------------------------


def write_weights(path: str | os.PathLike, weights: Weights) -> Weights:
    """Write `weights`; a cut at any moment leaves what was there before.

    Returns
    -------
    Weights
        What a reader of the file gets.

    Raises
    ------
    UserError
        A weight that is not finite; a folder that may not be written to, or a full disk.
    """
    import h5py

    for name, section in weights.sections():
        for key, array in section.arrays.items():
            if not np.isfinite(array).all():
                raise UserError(
                    f"the weights {name}/{key} are not finite, nothing was written", path, "go back to an earlier state"
                )
    if weights.check is None:
        from deepspec.learned.modules import checked

        weights = checked(weights)
    with write_beside(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = f"{FORMAT} {VERSION}"
        for name, value in _content(weights):
            if isinstance(value, str):
                file.create_dataset(name, data=value, dtype=h5py.string_dtype())
            else:
                file.create_dataset(name, data=value)
        file.attrs["sha256"] = content_hash(weights)
    return read_weights(path)


def content_hash(weights: Weights) -> str:
    """SHA-256 over names, types, shapes and values of everything in the file, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(_content(weights)):
        if isinstance(value, str):
            digest.update(f"{name}\0text\0{value}\0".encode())
        else:
            digest.update(f"{name}\0{value.dtype.str}\0{value.shape}\0".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _content(weights: Weights) -> Iterator[tuple[str, str | np.ndarray]]:
    """Path in the file and value of every data set."""
    yield "card", _text(weights.card)
    yield "grid/edges", EDGES.astype("<f8")
    yield "grid/band", np.array(BAND, "<f8")
    yield "grid/unit", np.array(FLUX_UNIT, "<f8")
    yield "check/constants", _text(weights.check.constants)
    yield "check/places", np.asarray(weights.check.places, "<f8")
    yield "check/shapes", np.asarray(weights.check.shapes, "<f8")
    for name, section in weights.sections():
        yield f"{name}/config", _text(section.config)
        for key, array in section.arrays.items():
            yield f"{name}/arrays/{key}", np.asarray(array, "<f4")


def _text(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError):
        # numpy's numbers become plain ones, and what is no number becomes null
        return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int | str) or value is None else str(value)


# --- reading --------------------------------------------------------------------------------------------------------


def read_weights(path: str | os.PathLike) -> Weights:
    """The weights in a file; torch is not imported.

    Raises
    ------
    UserError
        No such file; not written by deepspec, or by a newer one; cut short or changed; made for another energy grid.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise UserError("there is no such file of weights", path, "`deepspec weights list` shows what there is")
    try:
        with h5py.File(path, "r") as file:
            _known(file, path)
            found = _read(file, path)
            recorded = str(file.attrs.get("sha256", ""))
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise UserError(
            "this is no readable file of weights: it is damaged, cut short or of another kind", path, AGAIN
        ) from error
    if content_hash(found) != recorded:
        raise UserError("this file of weights was changed or damaged (its hash is not the recorded one)", path, AGAIN)
    return replace(found, sha256=recorded)


def _known(file: h5py.File, path: Path) -> None:
    """Refuse a file that is not ours, or is of a later format."""
    found = re.fullmatch(rf"{FORMAT} (\d+)", str(file.attrs.get("format", "")))
    if found is None:
        raise UserError("this is not a file of deepspec weights", path, "`deepspec weights list` shows what there is")
    if int(found[1]) > VERSION:
        raise UserError(
            "these weights were written by a newer deepspec",
            path,
            "update deepspec, or train anew with `deepspec train`",
        )


def _read(file: h5py.File, path: Path) -> Weights:
    edges, band, unit = (np.asarray(file[f"grid/{name}"]) for name in ("edges", "band", "unit"))
    if (
        edges.shape != EDGES.shape
        or not np.allclose(edges, EDGES, rtol=1e-12)
        or tuple(band) != BAND
        or unit != FLUX_UNIT
    ):
        raise UserError(
            "these weights are for another energy grid than this deepspec has",
            path,
            "install the deepspec that made them, or train anew with `deepspec train`",
        )
    sections = {name: _section(file[name]) for name in SECTIONS if name in file}
    check = Check(json.loads(file["check/constants"].asstr()[()]), file["check/places"][()], file["check/shapes"][()])
    card = json.loads(file["card"].asstr()[()])
    if "decoder" not in sections or not isinstance(card, dict):
        raise KeyError("decoder")
    return Weights(**sections, card=card, check=check, path=str(path))


def _section(group: h5py.Group) -> Section:
    config = json.loads(group["config"].asstr()[()])
    arrays = {name: group["arrays"][name][()] for name in group["arrays"]}
    if any(array.dtype != np.float32 for array in arrays.values()):
        raise TypeError("weights are 32-bit numbers")
    return Section(config, arrays)
