"""XSPEC's ``model.dat``: the names, kinds, parameters and entry points of a model library.

No torch here: the child process that tries a model out reads this module too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from deepspec.errors import UserError

KINDS = {"add": "additive", "mul": "multiplicative", "con": "convolution", "acn": "pile-up"}


@dataclass(frozen=True)
class Entry:
    """One parameter line of ``model.dat``.

    Attributes
    ----------
    name, unit : str
        XSPEC's spelling.
    default : float
    limits : tuple of float, or None
        (hard_min, soft_min, soft_max, hard_max); None where the file gives none (switches, scales).
    frozen : bool
        Negative or absent fit step, switches and scale parameters.
    switch : bool
        A ``$`` parameter: an integer that selects a method or a data file.
    delta : float
        XSPEC's fit step; negative where the parameter is frozen.
    """

    name: str
    unit: str
    default: float
    limits: tuple[float, float, float, float] | None = None
    frozen: bool = False
    switch: bool = False
    delta: float = 0.01

    @property
    def scale(self) -> float:
        """Size of a noticeable change near zero: ten of XSPEC's fit steps; of a redshift, which acts as 1 + z, one."""
        return 1.0 if self.name.lower() in ("redshift", "z") else 10.0 * (abs(self.delta) or 0.01)


@dataclass(frozen=True)
class Definition:
    """One model of ``model.dat``.

    Attributes
    ----------
    name : str
        As the file spells it ("TBabs").
    kind : str
        "add", "mul", "con" or "acn".
    symbol : str
        Name of the function in the shared library.
    single : bool
        The function takes and returns 32-bit floats.
    entries : tuple of Entry
        Parameters in order, without the norm.
    """

    name: str
    kind: str
    symbol: str
    single: bool
    entries: tuple[Entry, ...] = field(default=())

    @property
    def defaults(self) -> list[float]:
        """Default value of every parameter, in order."""
        return [entry.default for entry in self.entries]

    @property
    def switches(self) -> tuple[int, ...]:
        """Positions of the parameters that select a method or a data file."""
        return tuple(i for i, entry in enumerate(self.entries) if entry.switch)

    def describe(self) -> str:
        """Kind and parameters in one line."""
        named = [entry.name + (f" [{entry.unit}]" if entry.unit else "") for entry in self.entries]
        return f"{KINDS[self.kind]}: {', '.join(named) or 'no parameters'}"


def symbol_of(function: str) -> tuple[str, bool]:
    """Library symbol and precision of the function field of ``model.dat``.

    ``C_x`` is the C entry of a C++ function and ``c_x`` a plain C function called ``x``, both of 64-bit floats; ``F_x``
    is Fortran of 64-bit, a bare ``x`` Fortran of 32-bit floats (XSPEC manual, appendix C).

    Returns
    -------
    symbol : str
    single : bool
    """
    prefix = function[:2]
    if prefix == "C_":
        return function, False
    if prefix == "c_":
        return function[2:], False
    if prefix == "F_":
        return function[2:].lower() + "_", False
    return function.lower() + "_", True


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def parse_entry(line: str) -> Entry:
    """One parameter line: ``[$*]name [unit] default [hard_min soft_min soft_max hard_max delta] [P]``.

    Raises
    ------
    ValueError
        If the line has no name or no default.
    """
    text = line.strip()
    if not text:
        raise ValueError("a parameter line is missing")
    mark = text[0]
    text = text.lstrip("$*")
    name, rest = _first_word(text)
    unit = ""
    if rest.startswith('"'):
        unit, _, rest = rest[1:].partition('"')
    elif rest and not _is_number(rest.split()[0]):
        unit, rest = _first_word(rest)
    numbers = [float(word) for word in rest.split() if _is_number(word)]
    if not name or not numbers:
        raise ValueError(f"no default value in '{line.strip()}'")
    limits = tuple(numbers[1:5]) if len(numbers) >= 6 else None
    frozen = mark in "$*" or limits is None or numbers[5] < 0
    delta = numbers[5] if limits else 0.01
    return Entry(name, unit.strip(), numbers[0], limits, frozen, mark == "$", delta)


def _first_word(text: str) -> tuple[str, str]:
    word, *rest = text.split(None, 1)
    return word, rest[0] if rest else ""


def parse_model_dat(text: str) -> dict[str, Definition]:
    """All models of the text of a ``model.dat`` file, in its order.

    Raises
    ------
    ValueError
        If a line cannot be understood.
    """
    models: dict[str, Definition] = {}
    lines = iter([line for line in text.splitlines() if line.strip()])
    for line in lines:
        name, count, _, _, function, kind, *_ = line.split()
        entries = tuple(parse_entry(next(lines, "")) for _ in range(int(count)))
        symbol, single = symbol_of(function)
        models[name] = Definition(name, kind, symbol, single, _distinct(entries))
    return models


def _distinct(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Parameters are addressed by name, so a repeated name gets a number."""
    seen: dict[str, int] = {}
    result = []
    for entry in entries:
        key = entry.name.lower()
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1:
            entry = replace(entry, name=f"{entry.name}_{seen[key]}")
        result.append(entry)
    return tuple(result)


def read_model_dat(path: Path) -> dict[str, Definition]:
    """Models of the ``model.dat`` file at `path`.

    Raises
    ------
    UserError
        If the file is absent or is not a ``model.dat``.
    """
    remedy = "let HEADAS point at a complete HEASoft installation, or unset it to use that of xspectrampoline"
    try:
        models = parse_model_dat(path.read_text(encoding="latin-1"))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", source=path, remedy=remedy) from error
    except (ValueError, IndexError) as error:
        raise UserError(f"is not XSPEC's list of models ({error})", source=path, remedy=remedy) from error
    if not models:
        raise UserError("lists no model", source=path, remedy=remedy)
    return models
