"""Photoelectric absorption by gas and dust, from tabulated cross-sections.

Cross-sections come from the shipped table ``absorption.h5`` (scripts/make_absorption_table.py): straight lines in
log(cross-section) against log(energy). The cross-section of a bin is the mean of those at its two edges, as in XSPEC.
Below the table (0.01 keV) its first value is kept; above 100 keV nothing is absorbed, as in XSPEC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from deepspec import resources
from deepspec.errors import UserError
from deepspec.models.base import Exponent, Grid, Multiplicative, Parameter
from deepspec.models.redshift import REDSHIFT, RedshiftedFactor
from deepspec.registry import did_you_mean

ABUNDANCES = {
    "wilm": "Wilms, Allen & McCray 2000",
    "angr": "Anders & Grevesse 1989",
    "aspl": "Asplund et al. 2009",
    "lodd": "Lodders 2003",
    "grsa": "Grevesse & Sauval 1998",
    "feld": "Feldman 1992",
    "aneb": "Anders & Ebihara 1982",
    "lpgp": "Lodders, Palme & Gail 2009, photosphere",
    "lpgs": "Lodders, Palme & Gail 2009, proto-solar",
}
"""Solar abundance tables, by XSPEC's names."""

COLUMN = Parameter("nH", 1.0, "10^22", 0.0, 0.0, 1e5, 1e6)
FRACTION = Parameter("CvrFract", 0.5, "", 0.0, 0.05, 0.95, 1.0)
SMALLEST = 1e-30
"""Stands for a cross-section of zero in the logarithm [1e-22 cm2]."""


EDGE_GAP = 2e-6
"""Two knots nearer than this in ln E are the two sides of an absorption edge."""
LAST = math.log(100.0)
"""ln of the energy [keV] above which XSPEC's cross-sections are zero."""


class CrossSection:
    """A cross-section against energy as straight lines in logarithms.

    Parameters
    ----------
    energy : array, shape (n_knot,) [keV], rising
    value : array, shape (n_knot,) [1e-22 cm2 per H atom]
    """

    def __init__(self, energy, value):
        self.log_energy = torch.log(torch.as_tensor(energy, dtype=torch.float64))
        self.log_value = torch.log(torch.as_tensor(value, dtype=torch.float64).clamp(min=SMALLEST))
        gap = torch.diff(self.log_energy)
        self.slope = torch.diff(self.log_value) / gap
        # an absorption edge is a step: the derivative between its two knots would be an accident of the table
        self.smooth_slope = torch.where(gap < EDGE_GAP, 0.0, self.slope)

    def __call__(self, log_energy: Tensor) -> Tensor:
        """Cross-section at the given ln(energy), any shape; differentiable except at the knots."""
        place = torch.searchsorted(self.log_energy, log_energy.detach().contiguous(), right=True) - 1
        place = place.clamp(0, len(self.slope) - 1)
        away = (log_energy - self.log_energy[place]).clamp(min=0.0)
        fixed = away.detach()
        value = torch.exp(self.log_value[place] + self.slope[place] * fixed + self.smooth_slope[place] * (away - fixed))
        return torch.where(log_energy.detach() > LAST, 0.0, value)


@cache
def cross_section(kind: str, abundances: str) -> CrossSection:
    """The cross-section of ``"tbabs"``, ``"ztbabs"`` or ``"phabs"`` with the named abundances, loaded once."""
    with resources.open_table("absorption.h5") as table:
        if kind == "phabs":
            value = table[f"phabs/abundances/{abundances}"][:] @ table["phabs/per_atom"][:].astype(float)
            return CrossSection(table["phabs/energy"][:], value)
        return CrossSection(table["tbabs/energy"][:], table[f"tbabs/{kind}/{abundances}"][:].astype(float))


class Absorber(Multiplicative):
    """``exp(-nH sigma(E))``, nH in 1e22 cm^-2 of hydrogen.

    Parameters
    ----------
    abundances : str, optional
        One of `ABUNDANCES`; "wilm" unless said otherwise.

    Raises
    ------
    UserError
        An unknown abundance table.
    """

    parameters = (COLUMN,)
    absorption = True
    table: ClassVar[str]

    def __init__(self, abundances: str = "wilm"):
        if abundances not in ABUNDANCES:
            raise UserError(f"unknown abundance table '{abundances}'", remedy=did_you_mean(abundances, ABUNDANCES))
        self.abundances = abundances

    @property
    def settings(self) -> dict[str, str]:
        """What was chosen for this component beside its parameters; recorded with every result."""
        return {"abundances": self.abundances, "cross_sections": "vern"}

    def sigma(self, grid: Grid) -> Tensor:
        """Cross-section per bin, shape (..., n) [1e-22 cm2 per H atom]; kept with the grid."""

        def make():
            at_edges = cross_section(self.table, self.abundances)(grid.log_edges)
            return 0.5 * (at_edges[..., 1:] + at_edges[..., :-1])

        return grid.memo(("sigma", self.table, self.abundances), make)

    def evaluate(self, grid: Grid, *, nH: Tensor) -> Tensor:
        return torch.exp(-nH * self.sigma(grid))

    def exponent(self, grid: Grid, values: Mapping[str, Tensor]) -> Exponent | None:
        if grid.edges.dim() > 1 or self.parameters != (COLUMN,):
            return None
        column = values["nH"]
        return Exponent(-column, self.sigma(grid).unsqueeze(0), {"nH": -torch.ones_like(column)})

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not wanted:
            return super().derivatives(grid, values, wanted)
        with torch.no_grad():
            sigma = self.sigma(grid)
            factor = (sigma * -values["nH"]).exp_()
            return factor, (factor * sigma).neg_()[None]


class TBabs(Absorber):
    """Interstellar absorption by gas, molecules and grains: ``exp(-nH sigma(E))``.

    Within 1.5e-3 of XSPEC in the few bins at the O K and Fe L edges and about 1e-4 elsewhere.
    """

    name = "tbabs"
    source = "Wilms, Allen & McCray 2000, ApJ 542, 914"
    table = "tbabs"


class _RestZTBabs(Absorber):
    """zTBabs without its redshift: gas and molecules, no grains."""

    name = "ztbabs"
    table = "ztbabs"


class Phabs(Absorber):
    """Photoelectric absorption by neutral gas: ``exp(-nH sigma(E))``, Verner cross-sections.

    Within 1.3e-4 of XSPEC in the factor, mostly 1e-5.
    """

    name = "phabs"
    source = "Verner & Yakovlev 1995, A&AS 109, 125; Verner et al. 1996, ApJ 465, 487"
    table = "phabs"


class PartialPhabs(Absorber):
    """Partial covering: ``CvrFract phabs(nH) + 1 - CvrFract``."""

    name = "pcfabs"
    parameters = (COLUMN, FRACTION)
    source = "XSPEC manual, pcfabs"
    table = "phabs"

    def evaluate(self, grid: Grid, *, nH: Tensor, CvrFract: Tensor) -> Tensor:
        return 1.0 + CvrFract * torch.expm1(-nH * self.sigma(grid))

    def derivatives(self, grid: Grid, values: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not wanted:
            return super().derivatives(grid, values, wanted)
        with torch.no_grad():
            sigma, fraction = self.sigma(grid), values["CvrFract"]
            lost = torch.expm1(-values["nH"] * sigma)
            parts = {"nH": lambda: -fraction * sigma * (lost + 1.0), "CvrFract": lambda: lost}
            return 1.0 + fraction * lost, torch.stack([parts[name]() for name in wanted])


class _RedshiftedAbsorber(RedshiftedFactor):
    """An absorber at redshift z; `rest_class` is the absorber in its own frame."""

    absorption = True
    kinks = ("Redshift",)
    rest_class: ClassVar[type[Absorber]]

    def __init__(self, abundances: str = "wilm"):
        self.rest = self.rest_class(abundances)

    @property
    def settings(self) -> dict[str, str]:
        """As `Absorber.settings`."""
        return self.rest.settings


class ZTBabs(_RedshiftedAbsorber):
    """Absorption by gas and molecules at redshift z; unlike `TBabs` without grains, as in XSPEC."""

    name = "ztbabs"
    parameters = (COLUMN, REDSHIFT)
    source = TBabs.source
    rest_class = _RestZTBabs


class ZPhabs(_RedshiftedAbsorber):
    """`Phabs` at redshift z: ``phabs(E (1 + z))``."""

    name = "zphabs"
    parameters = (COLUMN, REDSHIFT)
    source = Phabs.source
    rest_class = Phabs


class ZPartialPhabs(_RedshiftedAbsorber):
    """`PartialPhabs` at redshift z."""

    name = "zpcfabs"
    parameters = (COLUMN, FRACTION, REDSHIFT)
    source = PartialPhabs.source
    rest_class = PartialPhabs
