"""Models of XSPEC's library as components: values, derivatives, batches, threads, settings."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from deepspec.errors import UserError
from deepspec.models import COMPONENTS
from deepspec.models.base import Grid, Kind
from deepspec.models.xspec import Settings, xspec_component, xspec_models
from deepspec.models.xspec.library import library

pytestmark = pytest.mark.usefixtures("xspec_library")
EDGES = np.geomspace(0.3, 10.0, 301)
#: Any difference to numbers from the same library must be rounding of the stored ones.
DOUBLE, SINGLE = 1e-12, 1e-6


@pytest.fixture
def grid():
    return Grid(EDGES)


def numbers(**values):
    return {name: torch.tensor([value], dtype=torch.float64) for name, value in values.items()}


def defaults(component):
    return numbers(**{p.name: p.default for p in component.parameters})


# Values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["powerlaw", "tbabs", "nthComp", "pexrav", "bbody", "diskbb", "phabs", "wabs", "compTT", "edge"]
)
def test_values_are_those_of_the_reference(shared_data, key):
    with h5py.File(shared_data / "xspec_reference" / "xspec_reference.h5") as file:
        (name,) = [known for known in file["models"] if known.lower() == key.lower()]
        model = file["models"][name]
        component = xspec_component(model.attrs["model"])
        for case in ("set0", "set2"):
            values = numbers(**dict(zip(model.attrs["parameters"], model[case]["parameters"], strict=True)))
            flux = component.evaluate(Grid(file["grids/chandra"][:]), **values).numpy()
            tolerance = SINGLE if model.attrs["precision"] == "single" else DOUBLE
            np.testing.assert_allclose(flux, model[case]["chandra"][:], rtol=tolerance, atol=1e-37)


@pytest.mark.parametrize("key", ["simpl", "cflux", "zashift"])
def test_convolutions_are_those_of_the_reference(shared_data, key):
    with h5py.File(shared_data / "xspec_reference" / "xspec_reference.h5") as file:
        model, inner = file["models"][key], torch.from_numpy(file["grids_con_input/log"][:])
        component = xspec_component(key)
        assert component.kind is Kind.CONVOLUTION
        values = numbers(**dict(zip(model.attrs["parameters"], model["set1"]["parameters"], strict=True)))
        flux = component.apply(Grid(file["grids/log"][:]), lambda grid: inner, **values).numpy()
        np.testing.assert_allclose(flux, model["set1"]["log"][:], rtol=DOUBLE)


def test_mekal_by_its_switch_and_data_folder(shared_data, monkeypatch):
    monkeypatch.setenv("XSPEC_MDATA_DIR", str(shared_data / "plasma" / "mekal"))
    component = xspec_component("mekal")
    with h5py.File(shared_data / "xspec_reference" / "xspec_reference.h5") as file:
        model, grid = file["models/mekal"], Grid(file["grids/chandra"][:])
        values = numbers(**dict(zip(model.attrs["parameters"], model["set0"]["parameters"], strict=True)))
        assert float(values["switch"]) == 0.0
        np.testing.assert_allclose(component.evaluate(grid, **values).numpy(), model["set0"]["chandra"][:], rtol=SINGLE)
    with pytest.raises(UserError, match=r"switch=1.*mekal\.mod is not in .*plasma/mekal/.*native mekal"):
        component.evaluate(grid, **{**values, "switch": torch.tensor([1.0])})
    with pytest.raises(UserError, match=r"segmentation fault.*switch=2.*apec_v"):
        component.evaluate(grid, **{**values, "switch": torch.tensor([2.0])})


def test_abundances_are_those_of_each_component(shared_data):
    with h5py.File(shared_data / "xspec_reference" / "xspec_reference.h5") as file:
        grid = Grid(file["grids/chandra"][:])
        one, other = file["models/phabs"], file["models/phabs__angr_bcmc"]
        plain, changed = xspec_component("phabs"), xspec_component("phabs", Settings("angr", "bcmc"))
        for component, model in ((plain, one), (changed, other), (plain, one)):
            values = numbers(nH=model["set0"]["parameters"][0])
            np.testing.assert_allclose(
                component.evaluate(grid, **values).numpy(), model["set0"]["chandra"][:], rtol=SINGLE
            )
    assert changed.settings["abundances"] == "angr"
    assert plain.settings == {**changed.settings, "abundances": "wilm", "cross_sections": "vern"}
    assert plain.settings["library"].startswith("xspectrampoline ")
    with pytest.raises(UserError, match="no abundance table 'wilms'; did you mean wilm"):
        Settings("wilms")


def test_native_and_library_powerlaw_agree(grid):
    values = numbers(PhoIndex=1.7)
    native, ours = (
        COMPONENTS["powerlaw"]().evaluate(grid, **values),
        xspec_component("xs_powerlaw").evaluate(grid, **values),
    )
    np.testing.assert_allclose(ours.numpy(), native.numpy(), rtol=1e-11)


def test_outside_the_hard_limits_is_nan_and_the_model_is_not_called(grid, monkeypatch):
    component = xspec_component("nthComp")
    monkeypatch.setattr(library(), "evaluate", None)
    values = {**defaults(component), "Gamma": torch.tensor([[0.5], [np.nan], [20.0]], dtype=torch.float64)}
    assert component.evaluate(grid, **values).isnan().all()


def test_one_bin(grid):
    wide = xspec_component("powerlaw").evaluate(Grid([1.0, 2.0]), **numbers(PhoIndex=2.0))
    np.testing.assert_allclose(wide.numpy(), [0.5], rtol=1e-12)


def test_models_talk_only_to_the_log():
    code = (
        "import torch; from deepspec.models.base import Grid; from deepspec.models.xspec import xspec_component;"
        "print('before'); component = xspec_component('tbabs'); grid = Grid([1., 2., 3.]);"
        "print(float(component.evaluate(grid, nH=torch.ones(1))[0] > 0)); print('after')"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("before\n1.0\nafter\n", "")


# Batches and threads -----------------------------------------------------------------------------------------------


def test_equal_rows_of_a_batch_are_evaluated_once(grid, monkeypatch):
    component, calls = xspec_component("gaussian"), []
    plain = library().evaluate
    monkeypatch.setattr(library(), "evaluate", lambda *given: calls.append(1) or plain(*given))
    energy = torch.tensor([6.4, 6.7, 6.4, 6.4], dtype=torch.float64).reshape(2, 2, 1)
    flux = component.evaluate(grid, LineE=energy, Sigma=torch.tensor([0.1], dtype=torch.float64))
    assert flux.shape == (2, 2, len(grid))
    assert len(calls) == 2
    assert torch.equal(flux[0, 0], flux[1, 1])
    component.evaluate(grid, LineE=energy[0, 0], Sigma=torch.tensor([0.1], dtype=torch.float64))
    assert len(calls) == 2


def test_a_batch_of_grids(grid):
    component, factor = xspec_component("bbody"), torch.tensor([[1.0], [1.5]], dtype=torch.float64)
    both = component.evaluate(grid.times(factor), kT=torch.tensor([0.8], dtype=torch.float64))
    for row, f in zip(both, (1.0, 1.5), strict=True):
        assert torch.equal(row, component.evaluate(Grid(EDGES * f), kT=torch.tensor([0.8], dtype=torch.float64)))


def test_threads_get_the_same_numbers():
    names = ["tbabs", "phabs", "diskbb", "bremss", "gaussian", "powerlaw"]
    components = {name: xspec_component(name) for name in names}

    def evaluate(name):
        return components[name].evaluate(Grid(EDGES), **defaults(components[name])).numpy()

    alone = {name: evaluate(name) for name in names}
    with ThreadPoolExecutor(4) as pool:
        for name, flux in zip(names * 8, pool.map(evaluate, names * 8), strict=True):
            np.testing.assert_array_equal(flux, alone[name])


# Derivatives -------------------------------------------------------------------------------------------------------


def slope_of(component, grid, values, name):
    return component.derivatives(grid, values, [name])[1][0].numpy()


@pytest.mark.parametrize(
    ("name", "value"), [("powerlaw", 1.7), ("powerlaw", -3.0), ("powerlaw", 10.0), ("powerlaw", 0.0)]
)
def test_derivative_of_a_double_model_also_at_its_limits(grid, name, value):
    values = numbers(PhoIndex=value)
    exact = COMPONENTS["powerlaw"]().derivatives(grid, values, ["PhoIndex"])[1][0].numpy()
    got = slope_of(xspec_component(name), grid, values, "PhoIndex")
    np.testing.assert_allclose(got, exact, rtol=1e-3, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("value", [0.0, 1e-3, 0.05, 1.0])
def test_derivative_of_a_single_precision_model(grid, value):
    component, values = xspec_component("phabs"), numbers(nH=value)
    sigma = -np.log(component.evaluate(grid, **numbers(nH=1e-2)).numpy()) / 1e-2
    flux = component.evaluate(grid, **values).numpy()
    # Where little is absorbed, the flux near 1 is known to 6e-8 only: an error of 1e-4 of the largest slope.
    np.testing.assert_allclose(
        slope_of(component, grid, values, "nH"), -sigma * flux, rtol=5e-3, atol=1e-4 * sigma.max()
    )


def test_derivative_by_a_redshift_of_a_single_precision_model(grid):
    values = numbers(kT=0.9, Redshift=0.0)
    exact = COMPONENTS["zbbody"]().derivatives(grid, values, ["Redshift"])[1][0].numpy()
    got = slope_of(xspec_component("zbbody"), grid, values, "Redshift")
    np.testing.assert_allclose(got, exact, rtol=0.02, atol=0.02 * np.abs(exact).max())


def test_forward_backward_and_direct_derivatives_agree(grid):
    component = xspec_component("nthComp")
    values = {name: value.expand(3, 1).clone() for name, value in defaults(component).items()}
    values["Gamma"][:, 0] = torch.tensor([1.6, 1.9, 2.4])
    direct = component.derivatives(grid, values, ["Gamma", "kT_bb"])[1]
    with forward_ad.dual_level():
        dual = {**values, "Gamma": forward_ad.make_dual(values["Gamma"], torch.ones(3, 1, dtype=torch.float64))}
        forward = forward_ad.unpack_dual(component.evaluate(grid, **dual)).tangent
    assert torch.equal(forward, direct[0])
    leaves = {name: value.requires_grad_(name in ("Gamma", "kT_bb")) for name, value in values.items()}
    component.evaluate(grid, **leaves).sum().backward()
    np.testing.assert_allclose(leaves["Gamma"].grad[:, 0].numpy(), direct[0].sum(-1).numpy(), rtol=1e-12)
    np.testing.assert_allclose(leaves["kT_bb"].grad[:, 0].numpy(), direct[1].sum(-1).numpy(), rtol=1e-12)


def test_derivative_through_shifted_edges(grid):
    component, native = xspec_component("cutoffpl"), COMPONENTS["cutoffpl"]()
    values = numbers(PhoIndex=1.6, HighECut=7.0)

    def tangent(which):
        with forward_ad.dual_level():
            shift = forward_ad.make_dual(torch.tensor([1.2], dtype=torch.float64), torch.ones(1, dtype=torch.float64))
            return forward_ad.unpack_dual(which.evaluate(grid.times(shift), **values)).tangent.numpy()

    np.testing.assert_allclose(tangent(component), tangent(native), rtol=1e-4)
    shift = torch.tensor([1.2], dtype=torch.float64, requires_grad=True)
    with pytest.raises(NotImplementedError, match="forward mode"):
        component.evaluate(grid.times(shift), **values).sum().backward()


def test_derivatives_of_a_convolution(grid):
    component = xspec_component("cflux")
    assert component.kind is Kind.CONVOLUTION
    assert component.twice_differentiable is False
    values = numbers(Emin=0.5, Emax=8.0, lg10Flux=-11.0)
    inner = torch.from_numpy(EDGES[:-1] ** -1.8 * np.diff(EDGES))
    one = torch.ones(1, dtype=torch.float64)
    with forward_ad.dual_level():
        dual = {**values, "lg10Flux": forward_ad.make_dual(values["lg10Flux"], one)}
        flux, slope = forward_ad.unpack_dual(component.apply(grid, lambda g: inner, **dual))
    np.testing.assert_allclose(slope.numpy(), np.log(10.0) * flux.numpy(), rtol=1e-3)
    with forward_ad.dual_level():  # scaling the argument changes nothing: cflux fixes the flux
        scaled = forward_ad.make_dual(inner, inner.clone())
        flux, slope = forward_ad.unpack_dual(component.apply(grid, lambda g: scaled, **values))
    assert float(slope.abs().max()) < 1e-6 * float(flux.max())
    with pytest.raises(NotImplementedError, match="forward mode"):
        component.apply(grid, lambda g: inner.clone().requires_grad_(), **values).sum().backward()


def test_a_switch_has_no_derivative(grid, shared_data, monkeypatch):
    monkeypatch.setenv("XSPEC_MDATA_DIR", str(shared_data / "plasma" / "mekal"))
    component = xspec_component("mekal")
    values = {**defaults(component), **numbers(switch=0.0)}
    assert component.derivatives(grid, values, ["kT"])[1].shape == (1, len(grid))
    with pytest.raises(ValueError, match="a switch has no derivative"):
        component.derivatives(grid, values, ["switch"])


# Names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TBabs", "tbabs", "xs_tbabs", "xspec.TBABS"])
def test_names_in_any_case_and_with_a_prefix(name):
    component = xspec_component(name)
    assert component.name == "TBabs"
    assert component.origin == "xspec"
    assert component.absorption
    (parameter,) = component.parameters
    assert (parameter.name, parameter.unit, parameter.hard_max, parameter.soft_max) == ("nH", "10^22", 1e6, 1e5)


def test_unknown_and_unusable_names():
    with pytest.raises(UserError, match="no model 'nthcmp'; did you mean nthComp"):
        xspec_component("nthcmp")
    with pytest.raises(UserError, match="pileup acts on the response"):
        xspec_component("pileup")
    assert xspec_models()["nthComp"].startswith("additive: Gamma, kT_e [keV], kT_bb [keV]")
    assert "pileup" not in xspec_models()


def test_importing_the_room_loads_nothing_heavy():
    code = (
        "import sys, deepspec.models.xspec as x; x.available(); len(x.xspec_models());"
        "print([m for m in ('torch', 'xspectrampoline', 'astropy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
