"""The tables that ship with the package: found, checked against their recorded hash, opened when first needed."""

from __future__ import annotations

import hashlib
import os
import sys
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from deepspec.errors import UserError

if TYPE_CHECKING:
    import h5py

CHECKSUMS = "SHA256SUMS"
REMEDY = "install deepspec again"


def folder() -> Path:
    """The folder of shipped tables."""
    return Path(str(resources.files("deepspec"))) / "tables"


def user_folder(kind: str, variable: str) -> Path:
    """Folder of what the user made, "tables" or "weights": the environment variable, or the system's place for a user's data."""
    if named := os.environ.get(variable):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "deepspec" / kind


def read_checksums(where: Path) -> dict[str, str]:
    """Name -> sha256 as recorded in ``SHA256SUMS`` (the format of ``sha256sum``)."""
    try:
        lines = (where / CHECKSUMS).read_text().splitlines()
    except OSError as error:
        raise UserError("the list of shipped tables is missing", source=where / CHECKSUMS, remedy=REMEDY) from error
    return {name: digest for digest, name in (line.split() for line in lines if line.strip())}


def write_checksums(where: Path | None = None) -> None:
    """Record the hash of every table in the folder; the scripts that make tables end with it."""
    where = folder() if where is None else where
    tables = sorted(path for path in where.iterdir() if path.is_file() and path.name != CHECKSUMS)
    text = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in tables)
    beside = where / (CHECKSUMS + ".new")
    beside.write_text(text)
    beside.replace(where / CHECKSUMS)


def checked(path: Path) -> Path:
    """`path`, after its content was found to have the recorded hash.

    Raises
    ------
    UserError
        The file is missing, not recorded, or damaged.
    """
    recorded = read_checksums(path.parent).get(path.name)
    if recorded is None:
        raise UserError(f"no shipped table is called '{path.name}'", source=path.parent, remedy=REMEDY)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError("a table of the package is missing", source=path, remedy=REMEDY) from error
    if hashlib.sha256(content).hexdigest() != recorded:
        raise UserError("a table of the package is damaged (its hash is not the recorded one)", path, REMEDY)
    return path


@cache
def table_path(name: str) -> Path:
    """Path of the shipped table `name`, checked once per process.

    Raises
    ------
    UserError
        As `checked`.
    """
    return checked(folder() / name)


def open_table(name: str) -> h5py.File:
    """The shipped HDF5 table `name`, open for reading; close it (``with``).

    Raises
    ------
    UserError
        As `checked`.
    """
    import h5py

    return h5py.File(table_path(name), "r")
