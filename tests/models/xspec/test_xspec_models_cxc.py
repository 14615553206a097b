"""``xspec_models_cxc`` needs a compiled HEASoft, so a module of its documented shape stands in."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.models.base import Grid, Kind
from deepspec.models.xspec import Settings, available, library, probe, xspec_component, xspec_models

FAKE = Path(__file__).with_name("fake_xspec_models_cxc.py")
EDGES = np.linspace(1.0, 3.0, 21)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The stand-in as an importable module, found before xspectrampoline."""
    (tmp_path / "xspec_models_cxc.py").write_text(FAKE.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HEADAS", str(tmp_path))
    monkeypatch.setattr(library, "_LIBRARIES", {})
    monkeypatch.setattr(probe, "_SEEN", {})
    yield tmp_path
    sys.modules.pop("xspec_models_cxc", None)


def numbers(**values):
    return {name: torch.tensor([value], dtype=torch.float64) for name, value in values.items()}


def test_it_comes_before_xspectrampoline(fake):
    assert available() == (True, f"xspec_models_cxc 1.2.3 ({fake})")
    assert xspec_models() == {
        "Slope": "additive: PhoIndex",
        "wabs": "multiplicative: nH [10^22], method",
        "double": "convolution: factor",
        "broken": "additive: kT [keV]",
    }


def test_parameters_are_those_of_info(fake):
    component = xspec_component("WABS")
    assert component.kind is Kind.MULTIPLICATIVE
    density, method = component.parameters
    assert (density.name, density.unit, density.soft_max, density.hard_max, density.frozen) == (
        "nH",
        "10^22",
        1e5,
        1e6,
        False,
    )
    assert (method.switch, method.frozen, method.default) == (True, True, 1.0)


def test_values_precision_and_settings(fake):
    grid = Grid(EDGES)
    slope = xspec_component("slope", Settings("angr", "bcmc", H0=50.0)).evaluate(grid, **numbers(PhoIndex=2.0))
    np.testing.assert_allclose(slope.numpy(), EDGES[:-1] ** -2.0 * np.diff(EDGES), rtol=1e-14)
    module = sys.modules["xspec_models_cxc"]
    assert (module.abundance(), module.cross_section(), module.cosmology()["h0"]) == ("angr", "bcmc", 50.0)
    wabs = xspec_component("wabs").evaluate(grid, **numbers(nH=0.5, method=1.0))
    np.testing.assert_array_equal(wabs.numpy(), np.exp(-np.float32(0.5) / EDGES[:-1].astype(np.float32)).astype(float))
    assert (module.abundance(), module.cosmology()["h0"], module.chatter()) == ("wilm", 70.0, 0)


def test_convolution_in_place(fake):
    flux = xspec_component("double").apply(
        Grid(EDGES), lambda grid: torch.ones(20, dtype=torch.float64), **numbers(factor=3.0)
    )
    assert torch.equal(flux, torch.full((20,), 3.0, dtype=torch.float64))


def test_a_model_that_crashes_does_so_in_the_child(fake):
    with pytest.raises(
        UserError, match=r"XSPEC model broken: it crashes \(aborted\) when tried at its default parameters"
    ):
        xspec_component("broken").evaluate(Grid(EDGES), **numbers(kT=1.0))


def test_without_headas_it_says_so(fake, monkeypatch):
    monkeypatch.delenv("HEADAS")
    with pytest.raises(UserError, match=r"xspec_models_cxc needs HEADAS; .*headas-init\.sh"):
        xspec_component("slope")


def test_a_module_that_cannot_be_imported(fake):
    (fake / "xspec_models_cxc.py").write_text("raise ImportError('libXS.so: cannot open shared object file')\n")
    ok, why = available()
    assert not ok
    assert "installed but cannot be imported (libXS.so" in why
