"""mekal and vmekal against XSPEC's own values, and what apec says while it has no table."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.models import COMPONENTS
from deepspec.models.base import Grid
from deepspec.models.plasma import METALS, relative_abundances, table_path
from deepspec.resources import folder


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def values_of(component, **given):
    """Defaults, with what is given put in."""
    values = {p.name: column(p.default) for p in component.parameters}
    return values | {name: column(*np.atleast_1d(value)) for name, value in given.items()}


def smeared(edges, flux, energy=None):
    """Seen at CCD resolution: sigma 45 eV at 1.5 keV, growing as the square root of energy."""
    middle = 0.5 * (edges[1:] + edges[:-1])
    energy = middle if energy is None else energy
    sigma = 0.045 * np.sqrt(middle / 1.5)
    return (np.exp(-0.5 * ((energy[:, None] - middle) / sigma) ** 2) / sigma) @ flux


def errors(edges, found, expected):
    """Relative errors at CCD resolution, 0.4-9 keV, above a thousandth of the peak."""
    energy = np.arange(0.4, 9.0, 0.02)
    found, expected = smeared(edges, found, energy), smeared(edges, expected, energy)
    seen = expected > 1e-3 * expected.max()
    return np.abs(found / expected - 1.0)[seen]


@pytest.mark.parametrize("name", ["mekal", "vmekal"])
@pytest.mark.parametrize("grid", ["xmm", "chandra"])
def test_against_reference_vectors(shared_data, name, grid):
    import h5py

    component = COMPONENTS[name]()
    with h5py.File(shared_data / "xspec_reference" / "xspec_reference.h5") as file:
        edges = file[f"grids/{grid}"][:]
        for number in range(4):
            entry = file[f"models/{name}/set{number}"]
            given = dict(zip((p.name for p in component.parameters), entry["parameters"][:], strict=True))
            flux = component.evaluate(Grid(edges), **values_of(component, **given))[0].numpy()
            error = errors(edges, flux, entry[grid][:])
            # XSPEC puts a whole line in the middle of a bin of 5-10 eV: that alone moves its own smeared spectrum by up to 6.5 %
            # from what it gives on fine bins. test_against_xspec_between_rows measures the table itself.
            assert error.max() < 0.07, (number, error.max())
            assert np.median(error) < 0.007, (number, np.median(error))


@pytest.mark.parametrize("name", ["mekal", "vmekal", "apec", "vapec"])
def test_parameters_are_those_of_xspec(shared_data, name):
    known = json.loads((shared_data / "xspec_reference" / "model_list.json").read_text())[name]["pars"]
    ours = COMPONENTS[name]().parameters
    assert [p.name for p in ours] == [p["name"] for p in known]
    for mine, xspec in zip(ours, known, strict=True):
        assert (mine.default, mine.unit, mine.frozen) == (xspec["default"], xspec["unit"], xspec["frozen"])
        assert mine.switch == (xspec["kind"] == "switch")
        if not mine.switch:
            limits = [xspec[key] for key in ("hard_min", "soft_min", "soft_max", "hard_max")]
            assert [mine.hard_min, mine.soft_min, mine.soft_max, mine.hard_max] == limits


def test_mekal_is_vmekal_with_equal_metals():
    mekal, vmekal, grid = COMPONENTS["mekal"](), COMPONENTS["vmekal"](), Grid(np.linspace(0.3, 10, 200))
    one = mekal.evaluate(grid, **values_of(mekal, kT=2.0, Abundanc=0.4))
    other = vmekal.evaluate(grid, **values_of(vmekal, kT=2.0, **dict.fromkeys(METALS, 0.4)))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=0)


def test_abundance_tables_convert_by_number():
    angr, wilm = (COMPONENTS["vmekal"](abundances=name) for name in ("angr", "wilm"))
    grid, ratio = Grid(np.linspace(0.3, 10, 100)), relative_abundances("wilm")
    assert ratio["Fe"] == pytest.approx(2.69e-5 / 4.68e-5, rel=1e-3)
    torch.testing.assert_close(
        wilm.evaluate(grid, **values_of(wilm)), angr.evaluate(grid, **values_of(angr, **ratio)), rtol=1e-9, atol=0
    )
    with pytest.raises(UserError, match="wilm"):
        COMPONENTS["mekal"](abundances="wilms")


def test_a_batch_of_redshifts_equals_each_alone():
    component, grid = COMPONENTS["mekal"](), Grid(np.linspace(0.3, 10, 300))
    together = component.evaluate(grid, **values_of(component, Redshift=[0.0, 0.1, 1.5]))
    for row, redshift in zip(together, (0.0, 0.1, 1.5), strict=True):
        alone = component.evaluate(grid, **values_of(component, Redshift=redshift))[0]
        torch.testing.assert_close(row, alone, rtol=1e-8, atol=1e-13 * float(alone.max()))


def test_derivative_by_redshift():
    component, grid = COMPONENTS["mekal"](), Grid(np.linspace(0.3, 10, 300))
    values = values_of(component, kT=3.0, Redshift=0.2)
    step = 1e-6
    high, low = (component.evaluate(grid, **values_of(component, kT=3.0, Redshift=0.2 + s)) for s in (step, -step))
    _, slopes = component.derivatives(grid, values, ["Redshift"])
    numeric = (high - low) / (2 * step)
    assert float((slopes[0] - numeric).abs().max() / numeric.abs().max()) < 1e-5


def test_switch_two_names_apec():
    component = COMPONENTS["mekal"]()
    with pytest.raises(UserError, match="use apec"):
        component.evaluate(Grid([1.0, 2.0]), **values_of(component, switch=2.0))
    with pytest.raises(UserError, match="give 0 or 1"):
        component.derivatives(Grid([1.0, 2.0]), values_of(component, switch=5.0), ["kT"])


def test_apec_without_a_table_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSPEC_TABLES", str(tmp_path))
    component = COMPONENTS["apec"]()
    with pytest.raises(UserError, match=r"deepspec tables build apec --from FOLDER.*mekal"):
        component.evaluate(Grid([1.0, 2.0]), **values_of(component))


def test_the_shipped_table_is_small_and_a_users_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSPEC_TABLES", str(tmp_path))
    assert table_path("mekal") == folder() / "mekal.h5"
    assert table_path("mekal").stat().st_size < 3e6
    (tmp_path / "mekal.h5").write_bytes(b"own")
    assert table_path("mekal") == tmp_path / "mekal.h5"
    with pytest.raises(UserError, match=r"mekal\.h5"):
        COMPONENTS["mekal"]().evaluate(Grid([1.0, 2.0]), **values_of(COMPONENTS["mekal"]()))


_XSPEC = """
import ctypes, sys
import numpy as np
import xspectrampoline
libraries = xspectrampoline.get_libraries()
functions = libraries.lib_xs_functions
functions.FPSOLR.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_int)]
functions.FPSOLR(b"angr", ctypes.byref(ctypes.c_int(0)))
model, edges, out = libraries.get_model("C_mekal"), np.load(sys.argv[1]), []
for kT, abundance in np.load(sys.argv[2]):
    flux = np.full(len(edges) - 1, np.nan)
    model(edges, np.array([kT, 1.0, abundance, 0.0, 0.0]), flux, np.zeros(len(flux)))
    out.append(flux)
np.save(sys.argv[3], out)
"""


@pytest.mark.slow
def test_against_xspec_between_rows(shared_data, tmp_path):
    """0.25 eV bins, so that lines fall where they are: the table's own error at CCD resolution."""
    import importlib.util
    import os
    import subprocess
    import sys

    if importlib.util.find_spec("xspectrampoline") is None:
        pytest.skip("xspectrampoline is not installed")
    rng = np.random.default_rng(8)
    cases = np.stack([10 ** rng.uniform(np.log10(0.15), 1.2, 10), rng.uniform(0.2, 1.5, 10)], axis=1)
    edges = np.arange(0.2, 10.2, 0.00025)
    paths = [str(tmp_path / name) for name in ("edges.npy", "cases.npy", "flux.npy")]
    np.save(paths[0], edges)
    np.save(paths[1], cases)
    environment = os.environ | {"XSPEC_MDATA_DIR": f"{shared_data}/plasma/mekal/"}
    subprocess.run([sys.executable, "-c", _XSPEC, *paths], env=environment, check=True, capture_output=True)
    component, grid = COMPONENTS["mekal"](abundances="angr"), Grid(edges)
    for (kT, abundance), expected in zip(cases, np.load(paths[2]), strict=True):
        flux = component.evaluate(grid, **values_of(component, kT=kT, Abundanc=abundance))[0].numpy()
        error = errors(edges, flux, expected)
        assert error.max() < 0.015, (kT, abundance, error.max())
        assert np.median(error) < 0.0035, (kT, abundance, np.median(error))
