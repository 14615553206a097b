"""Absorption: table, abundances, edges and what is recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from deepspec import resources
from deepspec.errors import UserError
from deepspec.models import COMPONENTS
from deepspec.models.absorption import ABUNDANCES, CrossSection, cross_section
from deepspec.models.base import Grid

ABSORBERS = ["tbabs", "ztbabs", "phabs", "zphabs", "pcfabs", "zpcfabs"]
GRID = np.linspace(0.3, 10.0, 400)


def factor(name: str, edges=GRID, abundances="wilm", **values) -> np.ndarray:
    values = {"Redshift": 0.0, "CvrFract": 0.6, "nH": 0.1, **values}
    made = COMPONENTS[name](abundances=abundances)
    named = {p.name: torch.tensor([values[p.name]], dtype=torch.float64) for p in made.parameters}
    return made.evaluate(Grid(edges), **named).numpy()


@pytest.mark.parametrize("name", ABSORBERS)
def test_absorbers_say_so_and_record_their_settings(name):
    made = COMPONENTS[name](abundances="aspl")
    assert made.absorption
    assert made.settings == {"abundances": "aspl", "cross_sections": "vern"}
    assert COMPONENTS[name]().settings["abundances"] == "wilm"


@pytest.mark.parametrize("name", ABSORBERS)
def test_an_unknown_abundance_table_is_refused(name):
    with pytest.raises(UserError, match=r"unknown abundance table 'wilms'; did you mean wilm"):
        COMPONENTS[name](abundances="wilms")


@pytest.mark.parametrize("abundances", ABUNDANCES)
@pytest.mark.parametrize("kind", ["tbabs", "ztbabs", "phabs"])
def test_every_abundance_table_is_shipped(kind, abundances):
    """The cross-section at 1 keV is near 2e-22 cm2 whatever the table."""
    sigma = cross_section(kind, abundances)(torch.log(torch.tensor([1.0], dtype=torch.float64)))
    assert 1.2 < float(sigma) < 3.0


@pytest.mark.parametrize("name", ABSORBERS)
def test_nothing_is_absorbed_without_gas(name):
    np.testing.assert_array_equal(factor(name, nH=0.0), 1.0)


def test_the_abundance_choice_matters():
    assert np.abs(factor("tbabs", nH=1.0) - factor("tbabs", nH=1.0, abundances="angr")).max() > 0.02


def test_columns_multiply():
    np.testing.assert_allclose(factor("tbabs", nH=0.7), factor("tbabs", nH=0.3) * factor("tbabs", nH=0.4), rtol=1e-12)


def test_partial_covering_mixes_the_absorbed_and_the_free_part():
    expected = 0.6 * factor("phabs", nH=2.0) + 0.4
    np.testing.assert_allclose(factor("pcfabs", nH=2.0, CvrFract=0.6), expected, rtol=1e-13)


def test_redshifted_absorption_is_that_of_higher_energies():
    np.testing.assert_allclose(factor("zphabs", nH=1.0, Redshift=1.5), factor("phabs", GRID * 2.5, nH=1.0), rtol=1e-12)


def test_ztbabs_has_no_grains():
    """At z = 0 zTBabs absorbs 0.1 to 2.5 % more than TBabs, as XSPEC's own two models do."""
    ratio = np.log(factor("ztbabs", nH=1.0)) / np.log(factor("tbabs", nH=1.0))
    low = GRID[:-1] < 3.0
    assert ratio[low].min() > 0.999
    assert 1.002 < ratio[low].max() < 1.03


@pytest.mark.parametrize("name", ["tbabs", "ztbabs", "phabs"])
def test_outside_the_table(name):
    """Opaque at the lowest energies of a response that starts at zero, transparent above 100 keV; never a NaN."""
    value = factor(name, np.array([1e-10, 0.005, 0.02, 99.0, 101.0, 1000.0]), nH=1.0)
    assert np.isfinite(value).all()
    assert ((value >= 0.0) & (value <= 1.0)).all()
    assert value[1] < 1e-10
    assert value[-1] == 1.0


def test_the_cross_section_is_kept_with_the_grid():
    grid, made = Grid(GRID), COMPONENTS["tbabs"]()
    assert made.sigma(grid) is made.sigma(grid)
    assert COMPONENTS["tbabs"](abundances="angr").sigma(grid) is not made.sigma(grid)


@pytest.mark.parametrize(("row", "charge"), [(0, "1"), (1, "2")])
def test_hydrogen_and_helium_of_the_table_are_the_published_fits(row, charge, shared_data):
    """Verner et al. 1996, equation 1, from the published coefficients; 1 Mb = 1e4 x 1e-22 cm2."""
    fits = json.loads((shared_data / "plasma" / "verner_neutral.json").read_text())["ph2"]
    e0, sigma0, ya, p, yw, y0, y1 = fits[charge]
    energies = np.geomspace(0.1, 10.0, 30)
    x = energies * 1e3 / e0 - y0
    y = np.hypot(x, y1)
    published = 1e4 * sigma0 * ((x - 1) ** 2 + yw**2) * y ** (0.5 * p - 5.5) * (1 + np.sqrt(y / ya)) ** -p
    with resources.open_table("absorption.h5") as table:
        ours = CrossSection(table["phabs/energy"][:], table["phabs/per_atom"][row].astype(float))
    np.testing.assert_allclose(ours(torch.log(torch.as_tensor(energies))).numpy(), published, rtol=5e-4)
