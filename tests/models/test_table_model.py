"""Table models as components: interpolation, redshift, bins, derivatives."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.io.table_files import TableFile, TableParameter, write_table_model
from deepspec.models.base import Grid, row_derivatives
from deepspec.models.table_model import load_table_model

EDGES = np.geomspace(0.3, 10.0, 61)
KT, SLOPE = np.array([0.5, 1.0, 2.0, 4.0]), np.array([1.0, 1.5, 2.5])


def parameter(name, values, log=False):
    return TableParameter(name, values[1], 0.1, values[0], values[0], values[-1], values[-1], values, log)


def table(additive=True, redshift=True, additional=False, **changes):
    middle = np.sqrt(EDGES[1:] * EDGES[:-1])
    kT, slope = KT[:, None, None], SLOPE[None, :, None]
    if additive:
        spectra = [np.exp(-middle / kT) * middle**-slope * np.diff(EDGES)]
    else:
        spectra = [np.exp(-0.3 * kT * middle**-slope)]
    extra = ()
    if additional:
        spectra.append(0.1 * spectra[0] * (middle > 2))
        extra = (TableParameter("Fe", 1.0, 0.1, 0.0, 0.0, 5.0, 5.0, np.zeros(0)),)
    first = TableFile(
        "demo",
        additive,
        redshift,
        EDGES,
        (parameter("kT", KT, True), parameter("slope", SLOPE)),
        extra,
        np.stack(spectra),
    )
    return dataclasses.replace(first, **changes)


@pytest.fixture
def component(tmp_path):
    def make(kind="atable", **options):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.fits"
        write_table_model(path, table(kind == "atable", **options))
        return load_table_model(path, kind)

    return make


def values(**given):
    return {name: torch.tensor(np.atleast_1d(value), dtype=torch.float64)[:, None] for name, value in given.items()}


def interpolated(given, kT, slope):
    """Bilinear, in the logarithm of kT; independent of the code under test."""
    i = min(np.searchsorted(KT, kT, side="right") - 1, len(KT) - 2)
    j = min(np.searchsorted(SLOPE, slope, side="right") - 1, len(SLOPE) - 2)
    t = np.log(kT / KT[i]) / np.log(KT[i + 1] / KT[i])
    u = (slope - SLOPE[j]) / (SLOPE[j + 1] - SLOPE[j])
    s = given.spectra[0]
    low = (1 - u) * s[i, j] + u * s[i, j + 1]
    return (1 - t) * low + t * ((1 - u) * s[i + 1, j] + u * s[i + 1, j + 1])


@pytest.mark.parametrize(("kT", "slope"), [(1.3, 1.7), (0.5, 2.5), (4.0, 1.0), (1.0, 1.5)])
def test_interpolation_on_its_own_bins(component, kT, slope):
    flux = component().evaluate(Grid(EDGES), **values(kT=kT, slope=slope, Redshift=0.0))[0]
    np.testing.assert_allclose(flux, interpolated(table(), kT, slope), rtol=1e-5)


def test_photons_are_kept_on_any_bins(component):
    expected = interpolated(table(), 1.3, 1.7).sum()
    for edges in (np.linspace(0.1, 12, 77), np.geomspace(0.2, 15, 1000), [0.2, 11.0]):
        flux = component().evaluate(Grid(edges), **values(kT=1.3, slope=1.7, Redshift=0.0))
        assert float(flux.sum()) == pytest.approx(expected, rel=1e-5)
        assert float(flux.min()) >= 0.0


def test_redshift_moves_and_dilutes(component):
    made = component()
    near = made.evaluate(Grid(EDGES), **values(kT=1.0, slope=1.5, Redshift=0.0))
    far = made.evaluate(Grid(EDGES / 1.5), **values(kT=1.0, slope=1.5, Redshift=0.5))
    torch.testing.assert_close(far, near / 1.5, rtol=1e-5, atol=1e-12)


def test_additional_parameters_scale_their_own_spectrum(component):
    made = component(additional=True, redshift=False)
    assert [p.name for p in made.parameters] == ["kT", "slope", "Fe"]
    grid = Grid(EDGES)
    without, one, three = (made.evaluate(grid, **values(kT=1.2, slope=1.2, Fe=fe)) for fe in (0.0, 1.0, 3.0))
    torch.testing.assert_close(three - without, 3 * (one - without), rtol=1e-6, atol=1e-15)
    assert float((one - without)[0, -1] / without[0, -1]) == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("kind", ["mtable", "etable"])
def test_a_factor_is_the_mean_over_the_bin(component, kind):
    made = component(kind, redshift=False)
    factor = interpolated(table(False), 1.3, 1.7)
    factor = np.exp(-factor) if kind == "etable" else factor
    pairs = factor.reshape(-1, 2).mean(1)  # XSPEC's rule: whole bins of the table weigh the same
    found = made.evaluate(Grid(EDGES[::2]), **values(kT=1.3, slope=1.7))[0]
    np.testing.assert_allclose(found, pairs, rtol=1e-5)


def test_a_factor_outside_its_energies_is_what_the_file_says(component):
    made = component("mtable", redshift=False, low_outside=0.25, high_outside=1.0)
    found = made.evaluate(Grid([0.1, 0.2, 11.0, 12.0]), **values(kT=1.0, slope=1.5))[0]
    assert float(found[0]) == pytest.approx(0.25)
    assert float(found[2]) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["atable", "mtable", "etable"])
def test_derivatives_against_differences(component, kind):
    made, grid = component(kind), Grid(np.linspace(0.4, 6.0, 90))
    given = values(kT=[1.3, 2.7], slope=[1.2, 2.2], Redshift=[0.1, 0.3])
    wanted = list(given)
    _, slopes = made.derivatives(grid, given, wanted)
    again = row_derivatives(lambda **v: made.evaluate(grid, **v), given, wanted)[1]
    torch.testing.assert_close(slopes, again)
    for number, name in enumerate(wanted):
        step = 1e-7
        high, low = (made.evaluate(grid, **{**given, name: given[name] + s}) for s in (step, -step))
        numeric = (high - low) / (2 * step)
        assert float((slopes[number] - numeric).abs().max() / numeric.abs().max()) < 1e-5


def test_batched_values_and_grids(component):
    made = component()
    given = values(kT=[0.7, 3.0], slope=[1.1, 2.0], Redshift=[0.0, 0.4])
    edges = torch.tensor([[1.0], [1.2]], dtype=torch.float64) * torch.linspace(0.3, 8, 50, dtype=torch.float64)
    together = made.evaluate(Grid(edges), **given)
    for i in range(2):
        alone = made.evaluate(Grid(edges[i]), **{name: v[i] for name, v in given.items()})
        torch.testing.assert_close(together[i], alone)


def test_kind_must_fit_the_file(tmp_path):
    path = tmp_path / "demo.fits"
    write_table_model(path, table())
    with pytest.raises(UserError, match=r"holds photons, so mtable cannot use it; write atable\{"):
        load_table_model(path, "mtable")
    write_table_model(path, table(additive=False))
    with pytest.raises(UserError, match="holds a factor, so atable"):
        load_table_model(path, "atable")


def test_a_name_used_twice_is_refused(tmp_path):
    twice = (parameter("kT", KT, True), parameter("kT", SLOPE))
    write_table_model(tmp_path / "demo.fits", table(parameters=twice))
    with pytest.raises(UserError, match="kT is used twice"):
        load_table_model(tmp_path / "demo.fits", "atable")


_XSPEC = """
import ctypes, sys
import numpy as np
import xspectrampoline
functions = xspectrampoline.get_libraries().lib_xs_functions
array = np.ctypeslib.ndpointer(np.float32, flags="C")
functions.tabint.argtypes = [array, ctypes.c_int, array, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, array, array]
functions.tabint.restype = None
edges, out, error = np.load(sys.argv[1]).astype(np.float32), [], None
for values in np.load(sys.argv[2]).astype(np.float32):
    flux = np.zeros(len(edges) - 1, np.float32)
    file, kind = sys.argv[4].encode(), sys.argv[5].encode()
    functions.tabint(edges, len(flux), values, len(values), file, 1, kind, flux, np.zeros_like(flux))
    out.append(flux)
np.save(sys.argv[3], out)
"""


@pytest.mark.parametrize("kind", ["atable", "mtable"])
def test_against_xspec(tmp_path, kind):
    """XSPEC's own interpolation and rebinning, inside the energies of the table."""
    import importlib.util
    import subprocess
    import sys

    if importlib.util.find_spec("xspectrampoline") is None:
        pytest.skip("xspectrampoline is not installed")
    path = tmp_path / "demo.fits"
    write_table_model(path, table(kind == "atable"))
    edges = np.linspace(0.5, 6.0, 400).astype(np.float32).astype(float)
    cases = np.array([[1.3, 1.7, 0.0], [1.3, 1.7, 0.5], [0.5, 2.5, 0.1]])
    names = [str(tmp_path / name) for name in ("edges.npy", "cases.npy", "flux.npy")]
    np.save(names[0], edges)
    np.save(names[1], cases)
    command = [sys.executable, "-c", _XSPEC, *names, str(path), "add" if kind == "atable" else "mul"]
    subprocess.run(command, check=True, capture_output=True)
    found = load_table_model(path, kind).evaluate(
        Grid(edges), **values(kT=cases[:, 0], slope=cases[:, 1], Redshift=cases[:, 2])
    )
    np.testing.assert_allclose(found, np.load(names[2]), rtol=2e-4)
