"""XSPEC table models written, read back, and broken ones refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from astropy.io import fits

from deepspec.errors import UserError
from deepspec.io.table_files import TableFile, TableParameter, read_table_model, write_table_model


def parameter(name, values, log=False):
    values = np.asarray(values, float)
    return TableParameter(name, values[1], 0.1, values[0], values[0], values[-1], values[-1], values, log, "keV")


def table(additive=True, redshift=True, additional=True):
    edges = np.geomspace(0.3, 10, 41)
    first, second = parameter("kT", [0.5, 1.0, 2.0], log=True), parameter("slope", [1.0, 1.5, 2.5, 3.0])
    extra = (TableParameter("Fe", 1.0, 0.1, 0.0, 0.0, 5.0, 5.0, np.zeros(0), unit="solar"),) if additional else ()
    spectra = np.random.default_rng(3).uniform(0.1, 1.0, size=(1 + len(extra), 3, 4, 40))
    return TableFile("demo", additive, redshift, edges, (first, second), extra, spectra)


@pytest.mark.parametrize("additive", [True, False])
def test_written_and_read_back(tmp_path, additive):
    path, given = tmp_path / "demo.fits", table(additive)
    write_table_model(path, given)
    found = read_table_model(path)
    assert (found.name, found.additive, found.redshift) == ("demo", additive, True)
    np.testing.assert_allclose(found.edges, given.edges, rtol=1e-6)
    np.testing.assert_allclose(found.spectra, given.spectra, rtol=1e-6)
    assert [p.name for p in found.parameters + found.additional] == ["kT", "slope", "Fe"]
    assert found.parameters[0].log
    assert not found.parameters[1].log
    assert found.additional[0].unit == "solar"


def test_rows_may_come_in_any_order(tmp_path):
    path = tmp_path / "demo.fits"
    write_table_model(path, table())
    with fits.open(path) as file:
        file["SPECTRA"].data = file["SPECTRA"].data[::-1].copy()
        file.writeto(tmp_path / "turned.fits")
    np.testing.assert_array_equal(read_table_model(path).spectra, read_table_model(tmp_path / "turned.fits").spectra)


def spoil(path, change):
    write_table_model(path, table())
    with fits.open(path) as file:
        change(file)
        file.writeto(path, overwrite=True)


def drop_row(file):
    file["SPECTRA"].data = file["SPECTRA"].data[:-1].copy()


def put_nan(file):
    file["SPECTRA"].data["INTPSPEC"][2, 3] = np.nan


def falling_values(file):
    file["PARAMETERS"].data["VALUE"][0, :3] = [2.0, 1.0, 0.5]


def no_energies(file):
    del file["ENERGIES"]


def gap(file):
    file["ENERGIES"].data["ENERG_HI"][3] *= 0.99


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (drop_row, "missing, first kT = 2, slope = 3"),
        (put_nan, "NaN"),
        (falling_values, "do not rise"),
        (no_energies, "no ENERGIES"),
        (gap, "without gaps"),
    ],
)
def test_broken_tables_are_refused(tmp_path, change, word):
    path = tmp_path / "broken.fits"
    spoil(path, change)
    with pytest.raises(UserError, match=word) as found:
        read_table_model(path)
    assert "broken.fits" in str(found.value)


def test_truncated_absent_and_foreign_files(tmp_path):
    path = tmp_path / "short.fits"
    write_table_model(path, table())
    path.write_bytes(path.read_bytes()[:9000])
    for name in ("short.fits", "absent.fits"):
        with pytest.raises(UserError, match=name):
            read_table_model(tmp_path / name)
    (tmp_path / "text.fits").write_text("hello")
    with pytest.raises(UserError, match=r"text\.fits"):
        read_table_model(tmp_path / "text.fits")
    fits.PrimaryHDU(np.zeros(3)).writeto(tmp_path / "image.fits")
    with pytest.raises(UserError, match="no PARAMETERS"):
        read_table_model(tmp_path / "image.fits")


def test_nothing_half_written(tmp_path):
    given = table()
    wrong = dataclasses.replace(given, spectra=given.spectra[..., :-1])
    with pytest.raises((ValueError, TypeError)):
        write_table_model(tmp_path / "demo.fits", wrong)
    assert list(tmp_path.iterdir()) == []
