"""The log of a run: one CSV file, a row at a time; and what is told to whoever watches."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepspec.files import write_beside, writing_failed


@dataclass(frozen=True)
class Progress:
    """How far a stage has come.

    Attributes
    ----------
    step, steps : done, and in all
    loss : mean since the last row of the log
    speed : spectra per second
    seconds_left : at this speed
    validation : figures of the last validation, the most telling one first
    validated : these figures are new
    """

    stage: str
    step: int
    steps: int
    loss: float
    speed: float
    seconds_left: float
    validation: Mapping[str, float] = field(default_factory=dict)
    validated: bool = False


class CsvLog:
    """Rows of a run. A row is on disk when `write` returns; a torn last row is dropped when the run goes on.

    Parameters
    ----------
    path : Path
    step : int
        Rows after this step belong to what was not saved; they are dropped and will be repeated.
    """

    def __init__(self, path: Path, step: int = 0):
        self.path = path
        self.columns, rows = _read(path, step) if step > 0 else ([], [])
        with write_beside(path) as temporary, open(temporary, "w", newline="") as stream:
            if self.columns:
                csv.writer(stream).writerows([self.columns, *rows])

    def write(self, row: Mapping[str, float | int | str], columns: Sequence[str]) -> None:
        """Add a row; `columns` are written as the first line if there is none yet.

        Raises
        ------
        UserError
            The disk is full.
        """
        try:
            with open(self.path, "a", newline="") as stream:
                if not self.columns:
                    self.columns = list(columns)
                    csv.writer(stream).writerow(self.columns)
                csv.writer(stream).writerow([row.get(name, "") for name in self.columns])
        except OSError as error:
            raise writing_failed(error, self.path) from error


def _read(path: Path, step: int) -> tuple[list[str], list[list[str]]]:
    """Column names, and the whole rows up to `step`."""
    if not path.exists():
        return [], []
    with open(path, newline="") as stream:
        columns, *rows = list(csv.reader(stream)) or [[]]
    return columns, [r for r in rows if len(r) == len(columns) and r[0].isdigit() and int(r[0]) <= step]
