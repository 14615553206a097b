"""Collisional plasma in ionisation equilibrium: mekal, vmekal, apec, vapec, each from a compact table.

``flux = sum_Z a_Z part_Z(kT, E (1 + z)) / (1 + z)``, with the part of every element read from a table (`plasma_table`).
mekal's ships with the package (scripts/make_plasma_table.py); apec's is made from the user's own AtomDB files by
``deepspec tables build apec``. Norm: 1e-14 / (4 pi (D_A (1 + z))^2) times the integral of n_e n_H dV, in cm, as in XSPEC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from deepspec import resources
from deepspec.errors import UserError
from deepspec.models.absorption import ABUNDANCES
from deepspec.models.base import NORM, Additive, Grid, Parameter
from deepspec.models.plasma_table import PlasmaTable, is_plain, read_plasma_table
from deepspec.models.redshift import REDSHIFT, rest_frame
from deepspec.registry import did_you_mean

METALS = ("C", "N", "O", "Ne", "Na", "Mg", "Al", "Si", "S", "Ar", "Ca", "Fe", "Ni")
APEC_METALS = tuple(element for element in METALS if element != "Na")
IN_ABSORPTION_TABLE = ("H", "He", *METALS[:9], "Cl", "Ar", "Ca", "Cr", "Fe", "Co", "Ni")
"""Order of the elements in the abundances of ``absorption.h5``."""

DENSITY = Parameter("nH", 1.0, "cm-3", 1e-6, 1e-5, 1e19, 1e20, frozen=True)
SWITCH = Parameter("switch", 1.0, "", 0.0, 0.0, 1.0, 1.0, frozen=True, switch=True)


def _abundance(name: str, top: float = 1000.0) -> Parameter:
    return Parameter(name, 1.0, "", 0.0, 0.0, top, top, frozen=True)


def user_folder() -> Path:
    """Folder of the tables that the user made: DEEPSPEC_TABLES, or the system's place for a user's data."""
    return resources.user_folder("tables", "DEEPSPEC_TABLES")


def table_path(model: str) -> Path:
    """The table of a plasma model: the user's own, else the one that ships.

    Raises
    ------
    UserError
        There is none; the sentence says how to make it and what works now.
    """
    own = user_folder() / f"{model}.h5"
    if own.is_file():
        return own
    if (resources.folder() / f"{model}.h5").is_file():
        return resources.table_path(f"{model}.h5")
    raise UserError(
        f"{model} needs a table made from AtomDB files, and there is none at {own}",
        remedy=f"make it once with `deepspec tables build {model} --from FOLDER` (the modelData folder of HEASoft or CIAO), "
        "or use mekal, which works now",
    )


@cache
def relative_abundances(abundances: str) -> dict[str, float]:
    """Number abundance of each element in the named table, relative to Anders & Grevesse 1989 (angr)."""
    with resources.open_table("absorption.h5") as table:
        ratio = table[f"phabs/abundances/{abundances}"][:] / table["phabs/abundances/angr"][:]
    return {name: float(r) for name, r in zip(IN_ABSORPTION_TABLE, ratio, strict=True) if name in ("He", *METALS)}


@cache
def _loaded(path: Path, changed: int, groups: tuple[tuple[tuple[str, float], ...], ...]) -> PlasmaTable:
    """The table with its parts combined; `changed` (time of the file) makes a rebuilt table load anew."""
    return read_plasma_table(path).combined([dict(group) for group in groups])


class Plasma(Additive):
    """Base of the four: a table, and which of its parts each abundance parameter multiplies.

    Parameters
    ----------
    abundances : str, optional
        The solar table that abundances refer to, one of `absorption.ABUNDANCES`; "wilm" unless said otherwise.

    Raises
    ------
    UserError
        An unknown abundance table; at evaluation: no table of the model.
    """

    kinks = ("Redshift",)
    table_name: ClassVar[str]
    scaled: ClassVar[dict[str, tuple[str, ...]]]
    """Abundance parameter -> elements it multiplies; what is not named is solar."""
    norm = NORM("1e-14 int n_e n_H dV / (4 pi D^2)")

    def __init__(self, abundances: str = "wilm"):
        if abundances not in ABUNDANCES:
            raise UserError(f"unknown abundance table '{abundances}'", remedy=did_you_mean(abundances, ABUNDANCES))
        self.abundances = abundances

    @property
    def settings(self) -> dict[str, str]:
        """What was chosen for this component beside its parameters; recorded with every result."""
        return {"abundances": self.abundances, "table": str(table_path(self.table_name))}

    @property
    def table(self) -> PlasmaTable:
        """The table, its first part what no parameter scales, then one part per abundance parameter."""
        path = table_path(self.table_name)
        ratio = relative_abundances(self.abundances)
        scaled = [{element: ratio[element] for element in group} for group in self.scaled.values()]
        named = {element for group in scaled for element in group}
        fixed = {"H": 1.0, "trace": 1.0} | {e: r for e, r in ratio.items() if e not in named}
        groups = tuple(tuple(group.items()) for group in (fixed, *scaled))
        return _loaded(path, path.stat().st_mtime_ns, groups)

    def evaluate(self, grid: Grid, *, kT: Tensor, Redshift: Tensor, **others: Tensor) -> Tensor:
        self.check(others)
        return self.table.flux(rest_frame(grid, Redshift), kT, self._abundances(others)) / (1.0 + Redshift)

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        known = {"kT": -1} | {name: index for index, name in enumerate(self.scaled, start=1)}
        rest = rest_frame(grid, values["Redshift"])
        if not wanted or not is_plain(rest) or not set(wanted) <= set(known):
            return super().derivatives(grid, values, wanted)
        self.check(values)
        with torch.no_grad():
            columns = [known[name] for name in wanted]
            flux, slopes = self.table.flux_and_slopes(rest, values["kT"], self._abundances(values), columns)
            return flux / (1.0 + values["Redshift"]), slopes / (1.0 + values["Redshift"])

    def _abundances(self, values: Mapping[str, Tensor]) -> Tensor:
        """One per part of the table, shape (..., n_part)."""
        scaled = [values[name] for name in self.scaled]
        return torch.cat(torch.broadcast_tensors(torch.ones_like(scaled[0]), *scaled), -1)

    def check(self, others: Mapping[str, Tensor]) -> None:
        """Refuse settings that the table cannot serve."""


class Mekal(Plasma):
    """Hot diffuse gas after Mewe, Kaastra and Liedahl: kT, metal abundance (helium is solar), redshift.

    nH is accepted and does nothing: up to 1e10 cm^-3 the spectrum depends on it by less than 1e-6. switch 0 and 1 (calculate,
    interpolate) both use the table. Covers 0.05-100 keV in the frame of the plasma and is 0 outside; made for CCD
    resolution: nodes are 2.0 eV apart at 0.8 keV and 7.6 eV at 6.7 keV.
    """

    name = "mekal"
    table_name = "mekal"
    source = "Mewe, Gronenschild & van den Oord 1985, A&AS 62, 197; Liedahl, Osterheld & Goldstein 1995, ApJ 438, L115"
    scaled = {"Abundanc": METALS}
    parameters = (
        Parameter("kT", 1.0, "keV", 0.0808, 0.0808, 79.9, 79.9, log=True),
        DENSITY,
        _abundance("Abundanc"),
        REDSHIFT,
        SWITCH,
    )

    def evaluate(self, grid: Grid, *, kT: Tensor, nH: Tensor, **others: Tensor) -> Tensor:
        # nH takes part with weight 0, so that its derivative is 0 and not undefined
        return super().evaluate(grid, kT=kT + 0.0 * nH, **others)

    def check(self, others: Mapping[str, Tensor]) -> None:
        switch = others["switch"]
        if not bool(((switch == 0) | (switch == 1)).all()):
            wrong = float(switch[(switch != 0) & (switch != 1)].reshape(-1)[0])
            remedy = "use apec or vapec" if wrong == 2 else "give 0 or 1"
            what = "asks for the APEC code" if wrong == 2 else "means nothing"
            raise UserError(f"switch = {wrong:g} of {self.name} {what}", remedy=remedy)


class Vmekal(Mekal):
    """`Mekal` with an abundance for each of 14 elements."""

    name = "vmekal"
    scaled = {element: (element,) for element in ("He", *METALS)}
    parameters = (Mekal.parameters[0], DENSITY, *map(_abundance, ("He", *METALS)), REDSHIFT, SWITCH)


class Apec(Plasma):
    """Hot diffuse gas from AtomDB: kT, metal abundance (helium and trace elements are solar), redshift.

    Needs a table that ``deepspec tables build apec`` makes from the AtomDB files of the user's HEASoft or CIAO. Linear in kT
    between AtomDB's temperatures, as XSPEC; lines are not broadened.
    """

    name = "apec"
    kinks = ("kT", "Redshift")
    table_name = "apec"
    source = (
        "Smith, Brickhouse, Liedahl & Raymond 2001, ApJ 556, L91; Foster, Ji, Smith & Brickhouse 2012, ApJ 756, 128"
    )
    scaled = {"Abundanc": APEC_METALS}
    parameters = (
        Parameter("kT", 1.0, "keV", 0.008, 0.008, 64.0, 64.0, log=True),
        _abundance("Abundanc", 5.0),
        REDSHIFT,
    )


class Vapec(Apec):
    """`Apec` with an abundance for each of 13 elements."""

    name = "vapec"
    scaled = {element: (element,) for element in ("He", *APEC_METALS)}
    parameters = (
        Parameter("kT", 6.5, "keV", 0.0808, 0.0808, 68.447, 68.447, log=True),
        *map(_abundance, ("He", *APEC_METALS)),
        REDSHIFT,
    )
