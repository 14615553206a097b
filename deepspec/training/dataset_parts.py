"""A catalogue under way: whole part files in a folder beside it, joined at the end.

A part is written under another name and renamed when it is complete, so that whatever stops a build (a kill, a full
disk) leaves parts that can be read, and nothing else that counts.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deepspec.errors import UserError
from deepspec.files import write_beside, writing_failed
from deepspec.training import dataset_file
from deepspec.training.dataset_file import COLUMNS, Writer, open_dataset, readable
from deepspec.training.rebinning import Redistribution

RETRIED = ("no matrix", "no area", "no background", "unreadable", "twice")
"""Reasons that may be gone when a build goes on: these spectra are tried again."""
_BLOCK = 4 * dataset_file.CHUNK


class Parts:
    """The parts of one build.

    Parameters
    ----------
    target : Path
        The catalogue to be; parts lie in ``target.parts/``.
    settings : mapping
        What must not change between a build and its continuation.
    """

    def __init__(self, target: Path, settings: Mapping[str, object]):
        self.target, self.settings = target, dict(settings)
        self.folder = Path(f"{target}.parts")
        self._whole = target if target.is_file() else None

    def begin(self, resume: bool, clobber: bool) -> None:
        """Make the folder, or check that what is there can be gone on with.

        Raises
        ------
        UserError
            There is a catalogue, or the parts of one, and neither `resume` nor `clobber`; other settings than those
            it was begun with.
        """
        there = self._whole or (self.folder if self.folder.is_dir() else None)
        if there and clobber:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._whole = None
        elif there and not resume:
            what = "is there already" if self._whole else "holds the parts of an unfinished catalogue"
            raise UserError(what, source=there, remedy="add --resume to go on with it, or --clobber to begin anew")
        try:
            self.folder.mkdir(exist_ok=True)
            for left in self.folder.glob(".*"):
                left.unlink()
        except OSError as error:
            raise writing_failed(error, self.target) from error
        self._agree()

    def _agree(self) -> None:
        record = self.folder / "settings.json"
        before = None
        if self._whole:
            with open_dataset(self._whole) as file:
                before = dataset_file.about(file).get("settings", {})
        elif record.is_file():
            before = json.loads(record.read_text())
        for name, value in self.settings.items():
            if before is not None and before.get(name) != value:
                raise UserError(
                    f"was begun with {name} {before.get(name)}, not {value}",
                    source=self.target,
                    remedy="use the same settings, or --clobber to begin anew",
                )
        with write_beside(record) as temporary:
            temporary.write_text(json.dumps(self.settings))

    def files(self) -> list[Path]:
        """The finished catalogue that is being added to, if there is one, and the parts in order."""
        return ([self._whole] if self._whole else []) + sorted(self.folder.glob("part-*.h5"))

    def done(self) -> set[str]:
        """Names of the spectra that need not be looked at again."""
        names: set[str] = set()
        for path in self.files():
            with open_dataset(path) as file, readable(path):
                names |= {name.decode() for name in file["spectra"]["name"][()]}
                names |= {row[0] for row in dataset_file.read_rejected(file) if row[2] not in RETRIED}
        return names

    def append(self, rows: Sequence[Mapping[str, object]], rejected: Sequence[Sequence[str]]) -> None:
        """Write one more part; `rows` carry the hash of their matrix as ``rmf``."""
        hashes = sorted({str(row["rmf"]) for row in rows})
        columns = {name: _stack([row[name] for row in rows], name) for name in COLUMNS if name != "rmf"}
        columns["rmf"] = np.array([hashes.index(str(row["rmf"])) for row in rows], dtype="u2")
        number = sum(1 for _ in self.folder.glob("part-*.h5"))
        with write_beside(self.folder / f"part-{number:06d}.h5") as temporary:
            writer = Writer(temporary, {"settings": self.settings})
            writer.append(columns)
            writer.close(hashes, rejected)

    # --- matrices ---------------------------------------------------------------------------------------------------

    def keep_matrix(self, matrix: Redistribution) -> None:
        """Keep a matrix beside the parts; the same one more than once does no harm."""
        path = self.folder / f"rmf-{matrix.sha256}.npz"
        if not path.exists():
            with write_beside(path) as temporary, open(temporary, "wb") as stream:
                np.savez(
                    stream,
                    matrix=matrix.matrix,
                    total=matrix.total,
                    name=matrix.name,
                    includes_area=matrix.includes_area,
                )

    def _matrix(self, sha256: str) -> Redistribution:
        with np.load(self.folder / f"rmf-{sha256}.npz") as kept:
            none = np.zeros(0, dtype=np.int16)
            return Redistribution(
                str(kept["name"]), sha256, kept["matrix"], kept["total"], none, 0, bool(kept["includes_area"])
            )

    # --- the end ----------------------------------------------------------------------------------------------------

    def join(self, about: Mapping[str, object]) -> list[tuple[str, ...]]:
        """Write the catalogue from its parts, put it in its place and remove them; the table of what was rejected."""
        matrices: list[Redistribution] = []
        place: dict[str, int] = {}
        rejected: dict[str, tuple[str, ...]] = {}
        kept: set[str] = set()
        made = self.folder / "joined.h5"
        with write_beside(made) as temporary:
            writer = Writer(temporary, {**about, "settings": self.settings})
            for path in self.files():
                with open_dataset(path) as file, readable(path):
                    hashes = [value.decode() for value in file["rmf"]["sha256"][()]]
                    own = {m.sha256: m for m in dataset_file.read_matrices(file)} if path == self._whole else {}
                    for sha in hashes:
                        if sha not in place:
                            place[sha] = len(matrices)
                            matrices.append(own[sha] if sha in own else self._matrix(sha))
                    index = np.array([place[sha] for sha in hashes], dtype="u2")
                    rejected |= {row[0]: row for row in dataset_file.read_rejected(file)}
                    self._copy(file, writer, index, kept)
            table = [row for name, row in rejected.items() if name not in kept]
            writer.close(matrices, table)
        try:
            made.replace(self.target)
        except OSError as error:
            raise writing_failed(error, self.target) from error
        shutil.rmtree(self.folder, ignore_errors=True)
        return table

    def _copy(self, file, writer: Writer, index: np.ndarray, kept: set[str]) -> None:
        """Append the rows of a part that are not in `kept`, and add their names to it.

        A kill between the renaming and the removal of parts leaves some that the catalogue holds already.
        """
        count = len(file["spectra"]["name"])
        for first in range(0, count, _BLOCK):
            rows = dataset_file.read_rows(file, first, min(first + _BLOCK, count))
            names = [name.decode() for name in rows["name"]]
            new = np.array([name not in kept for name in names])
            rows["rmf"] = index[rows["rmf"]]
            writer.append({name: values[new] for name, values in rows.items()})
            kept.update(names)

    def discard(self) -> None:
        """Remove the parts: nothing of them is worth keeping."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _stack(values: list, name: str) -> np.ndarray:
    column = COLUMNS[name]
    if column.dtype.startswith("S"):
        values = [str(value).encode("utf-8", "backslashreplace")[: int(column.dtype[1:])] for value in values]
    return np.array(values, dtype=column.dtype).reshape(len(values), *column.shape)
