"""The apec table, built from a small synthetic file in AtomDB's format with known lines and continua."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from astropy.io import fits

from deepspec.errors import UserError
from deepspec.io.atomdb_files import ANGSTROM_KEV, find_atomdb
from deepspec.models import COMPONENTS
from deepspec.models.atomdb import build_apec, integrals
from deepspec.models.base import Grid
from deepspec.models.plasma_table import read_plasma_table

KT = np.array([0.5, 1.0, 2.0])
LINES = [(8, 0.6537, 2e-17), (26, 6.7, 5e-17), (25, 6.15, 1e-18)]  # element (25 is a trace element), keV, at kT = 1
ENERGY = np.linspace(0.05, 30.0, 600)


def hydrogen(kT):
    return 1e-15 * np.exp(-ENERGY / kT) / ENERGY


def write_atomdb(folder, version="3.1.2", kT=KT):
    """lines scale with kT; hydrogen has a continuum, iron a flat pseudo-continuum of 1e-19."""
    parameters = [fits.Column("kT", "E", array=kT), fits.Column("NELEMENT", "J", array=[3] * len(kT))]
    head = fits.BinTableHDU.from_columns(parameters, name="PARAMETERS")
    lines, continua = [fits.PrimaryHDU(), head], [fits.PrimaryHDU(), head.copy()]
    for temperature in kT:
        element, energy, flux = (np.array(x) for x in zip(*LINES, strict=True))
        columns = [
            ("Lambda", "E", ANGSTROM_KEV / energy),
            ("Epsilon", "E", flux * temperature),
            ("Element", "J", element),
        ]
        lines.append(
            fits.BinTableHDU.from_columns([fits.Column(n, f, array=a) for n, f, a in columns], name="EMISSIVITY")
        )
        n = len(ENERGY)
        zero = np.zeros(n)
        # the row with rmJ = 25 is one ion's share of iron and must not be added again
        columns = [
            ("Z", "J", [1, 26, 26]),
            ("rmJ", "J", [0, 0, 25]),
            ("N_Cont", "J", [n, 2, 2]),
            ("E_Cont", f"{n}E", [ENERGY, ENERGY, ENERGY]),
            ("Continuum", f"{n}E", [hydrogen(temperature), zero, zero + 1.0]),
            ("N_Pseudo", "J", [0, n, n]),
            ("E_Pseudo", f"{n}E", [ENERGY, ENERGY, ENERGY]),
            ("Pseudo", f"{n}E", [zero, zero + 1e-19, zero + 1.0]),
        ]
        columns = [fits.Column(name, form, array=np.array(array)) for name, form, array in columns]
        continua.append(fits.BinTableHDU.from_columns(columns, name="EMISSIVITY"))
    fits.HDUList(lines).writeto(folder / f"apec_v{version}_line.fits")
    fits.HDUList(continua).writeto(folder / f"apec_v{version}_coco.fits")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("atomdb")
    write_atomdb(folder)
    build_apec(folder, folder / "apec.h5")
    return folder


@pytest.fixture
def apec(built, monkeypatch):
    monkeypatch.setenv("DEEPSPEC_TABLES", str(built))
    return COMPONENTS["apec"](abundances="angr"), COMPONENTS["vapec"](abundances="angr")


def flux_in(component, low, high, **given):
    values = {p.name: torch.tensor([[given.get(p.name, p.default)]], dtype=torch.float64) for p in component.parameters}
    return float(component.evaluate(Grid([low, high]), **values)[0, 0])


@pytest.mark.parametrize(("kT", "between"), [(1.0, 1.0), (0.75, 0.75), (1.5, 1.5)])
def test_line_and_continuum_have_the_expected_flux(apec, kT, between):
    """Lines grow as kT in this file, so linear interpolation in kT gives them exactly."""
    iron = 1e14 * (5e-17 * between + 1e-19 * 0.4)
    lower, upper = max(t for t in KT if t <= kT), min(t for t in KT if t >= kT)
    share = 0.0 if upper == lower else (kT - lower) / (upper - lower)
    density = (1 - share) * hydrogen(lower) + share * hydrogen(upper)
    hydrogenic = 1e14 * integrals(ENERGY, density, np.array([6.5, 6.9]))[0]
    assert flux_in(apec[0], 6.5, 6.9, kT=kT) == pytest.approx(iron + hydrogenic, rel=2e-3)


def test_abundances_scale_their_elements_only(apec):
    for component, name in ((apec[0], "Abundanc"), (apec[1], "Fe")):
        zero, one, three = (flux_in(component, 6.5, 6.9, kT=1.0, **{name: a}) for a in (0.0, 1.0, 3.0))
        assert three - zero == pytest.approx(3 * (one - zero), rel=1e-9)
        assert one - zero == pytest.approx(1e14 * (5e-17 + 4e-20), rel=2e-3)
        # manganese is a trace element and stays solar
        assert flux_in(component, 6.1, 6.2, kT=1.0, **{name: 0.0}) > 0.9e-4
    assert flux_in(apec[1], 0.6, 0.7, kT=1.0, Fe=5.0, O=0.0) < flux_in(apec[1], 0.6, 0.7, kT=1.0, Fe=0.0)


def test_a_redshifted_line_is_where_it_should_be(apec):
    with_line = flux_in(apec[0], 6.7 / 1.2 - 0.05, 6.7 / 1.2 + 0.05, kT=1.0, Redshift=0.2)
    assert with_line > 0.99 * 1e14 * 5e-17 / 1.2


def test_building_is_deterministic_and_leaves_nothing_else(built, tmp_path):
    steps = []
    build_apec(built, tmp_path / "apec.h5", progress=lambda *n: steps.append(n))
    assert (tmp_path / "apec.h5").read_bytes() == (built / "apec.h5").read_bytes()
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert [p.name for p in tmp_path.iterdir()] == ["apec.h5"]
    assert "apec_v3.1.2_coco.fits" in read_plasma_table(tmp_path / "apec.h5").about["source"]


def test_integrals_are_exact_for_straight_lines():
    edges = np.array([-1.0, 0.5, 1.5, 1.7, 3.0, 9.0])
    energy, density = np.array([0.0, 1.0, 2.0, 4.0]), np.array([0.0, 2.0, 2.0, 6.0])
    np.testing.assert_allclose(integrals(energy, density, edges), [0.25, 1.75, 0.4, 3.6, 5.0])


def test_the_newest_version_is_taken(tmp_path):
    for version in ("2.0.2", "3.0.9", "3.0.10"):
        for kind in ("coco", "line"):
            (tmp_path / f"apec_v{version}_{kind}.fits").touch()
    assert find_atomdb(tmp_path)[0].name == "apec_v3.0.10_coco.fits"


def test_missing_or_broken_files_are_named(tmp_path):
    with pytest.raises(UserError, match="holds no pair"):
        build_apec(tmp_path, tmp_path / "apec.h5")
    with pytest.raises(UserError, match="not a folder"):
        build_apec(tmp_path / "absent", tmp_path / "apec.h5")
    write_atomdb(tmp_path)
    coco = tmp_path / "apec_v3.1.2_coco.fits"
    coco.write_bytes(coco.read_bytes()[:20000])
    with pytest.raises(UserError, match=r"apec_v3\.1\.2_coco\.fits"):
        build_apec(tmp_path, tmp_path / "apec.h5")
    assert not (tmp_path / "apec.h5").exists()


def test_files_of_different_versions_do_not_mix(tmp_path):
    write_atomdb(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    write_atomdb(other, kT=KT * 1.1)
    (other / "apec_v3.1.2_line.fits").replace(tmp_path / "apec_v3.1.2_line.fits")
    with pytest.raises(UserError, match="temperatures are not those"):
        build_apec(tmp_path, tmp_path / "apec.h5")
