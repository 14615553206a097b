"""deepspec as a component: units, bins, derivatives, priors, bands, and a fit from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import deepspec
from deepspec.errors import UserError
from deepspec.fluxes import ERG_PER_KEV
from deepspec.inference.starts import random_starts
from deepspec.learned.component import Deepspec
from deepspec.learned.domain import check_bands, flux_warnings, trained_band
from deepspec.learned.grids import EDGES
from deepspec.models.base import Grid, row_derivatives
from deepspec.models.model import Model
from deepspec.problem import Problem
from deepspec.results import load_result
from tests.learned.toy_weights import toy_weights
from toy import toy_observation

DATA = Path(__file__).resolve().parents[2] / "data"
NARROW = np.arange(0.31, 9.9, 0.004)
WIDE = np.concatenate([np.linspace(0.1, 1.0, 12), np.geomspace(1.2, 20.0, 9)])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return toy_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def text(path):
    return f"tbabs*deepspec{{{path}}}"


def columns(values) -> dict[str, torch.Tensor]:
    """z1, z2, ... as tensors of shape (B, 1)."""
    values = torch.as_tensor(values, dtype=torch.float64)
    return {f"z{i}": values[..., i - 1 : i] for i in range(1, values.shape[-1] + 1)}


@pytest.fixture(scope="module")
def points():
    return columns(1.2 * np.random.default_rng(5).standard_normal((4, 3)))


def test_parameters_are_the_latents_and_a_norm(path):
    model = Model(f"deepspec{{{path}}}")
    assert list(model.parameters) == ["deepspec.z1", "deepspec.z2", "deepspec.z3", "deepspec.norm"]
    assert {p.prior for p in model.components["deepspec"].parameters} == {"normal(0,1)"}
    twice = Model(f"deepspec{{{path}}}+deepspec{{{path}}}")
    assert "deepspec_2.z1" in twice.parameters


def test_the_norm_is_the_energy_flux(path, points):
    edges = np.geomspace(0.3, 10.0, 20001)
    flux = Deepspec(path).evaluate(Grid(edges), **points)
    energy = (flux * torch.as_tensor(0.5 * (edges[1:] + edges[:-1]))).sum(-1) * ERG_PER_KEV
    # the middle stands for each narrow bin
    assert torch.allclose(energy, torch.full((4,), 1e-12, dtype=torch.float64), rtol=1e-7)


@pytest.mark.parametrize("edges", [NARROW, WIDE, EDGES])
def test_closed_derivatives_equal_automatic_ones(path, points, edges):
    component, grid = Deepspec(path), Grid(edges)
    value, slopes = component.derivatives(grid, points, ["z3", "z1"])
    expected, exact = row_derivatives(lambda **v: component.evaluate(grid, **v), points, ["z3", "z1"])
    assert torch.allclose(value, expected, rtol=1e-10)
    assert torch.allclose(slopes, exact, rtol=1e-8, atol=1e-10 * float(exact.abs().max()))
    bare, none = component.derivatives(grid, points, [])
    assert torch.equal(bare, value)
    assert none.shape == (0, *value.shape)


def test_automatic_derivatives_are_right_twice(path):
    component, grid = Deepspec(path), Grid(np.geomspace(0.15, 16.0, 9))

    def scaled(z):
        return 1e4 * component.evaluate(grid, **columns(z))

    z = torch.tensor([[0.4, -0.8, 1.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(scaled, z)
    assert torch.autograd.gradgradcheck(scaled, z, atol=1e-4)


def test_no_photons_outside_the_range(path, points):
    flux = Deepspec(path).evaluate(Grid(np.array([0.01, 0.05, 0.2, 14.0, 50.0])), **points)
    assert (flux[:, [0, 1, 3]] == 0).all()
    assert (flux[:, 2] > 0).all()


def test_leading_axes_and_shared_values(path):
    component, grid = Deepspec(path), Grid(NARROW)
    z = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    flux = component.evaluate(grid, **columns(z))
    assert flux.shape == (2, 5, len(grid))
    mixed = {**columns(z), "z2": torch.tensor([0.5], dtype=torch.float64)}
    value, slopes = component.derivatives(grid, mixed, ["z1"])
    assert slopes.shape == (1, 2, 5, len(grid))
    z[..., 1] = 0.5
    assert torch.allclose(value, component.evaluate(grid, **columns(z)), rtol=1e-10)


@pytest.mark.parametrize("edges", [NARROW, WIDE])
def test_redshift_stretches_the_spectrum(path, points, edges):
    """f(E (1 + z)) / (1 + z), also where every row has bins of its own."""
    model, grid = Model(f"zashift*deepspec{{{path}}}"), Grid(edges)
    values = {f"deepspec.{k}": v for k, v in points.items()} | {"deepspec.norm": torch.ones(1, dtype=torch.float64)}

    def at(redshift):
        return model.flux(grid, values | {"zashift.Redshift": redshift})

    z = torch.tensor([0.3], dtype=torch.float64)
    shifted = at(z)
    assert torch.allclose(shifted, Deepspec(path).evaluate(Grid(edges * 1.3), **points) / 1.3, rtol=1e-12)
    rows = torch.tensor([[0.3], [0.0], [0.3], [0.1]], dtype=torch.float64)
    assert torch.allclose(at(rows)[[0, 2]], shifted[[0, 2]], rtol=1e-10, atol=1e-10 * float(shifted.max()))
    key = "zashift.Redshift"
    inside = values | {key: torch.tensor([[0.3]] * 4, dtype=torch.float64)}
    _, found = model.derivatives(grid, inside, [key, "deepspec.z1"])
    step = 1e-6
    numeric = (at(z + step) - at(z - step)) / (2 * step)
    # a step function has kinks where an edge of the bins meets one of the grid
    close = (found[key] - numeric).abs() < 1e-3 * numeric.abs().max()
    assert close.double().mean() > 0.98


def test_unknown_weights_are_refused_by_the_model(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSPEC_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match=r"tbabs\*deepspec\{mine\}.*no weights called 'mine'"):
        Model("tbabs*deepspec{mine}")
    with pytest.raises(UserError, match="braces after deepspec are empty"):
        Model("deepspec{ }")
    (tmp_path / "x.h5").write_text("no")
    with pytest.raises(UserError, match="no readable file of weights"):
        Model(f"deepspec{{{tmp_path / 'x.h5'}}}")


def test_the_prior_is_part_of_the_problem(path, text):
    observation, truth = toy_observation(text, {"nH": 0.2, "z1": 0.5, "deepspec.norm": 3.0})
    problem = Problem([observation], text, "cstat", truth)
    assert {key: p.text for key, p in problem.priors.items()} == {f"deepspec.z{i}": "normal(0,1)" for i in (1, 2, 3)}
    theta = problem.parameters.vector()
    z = theta[1:4]
    rise = problem.objective(theta) - problem.statistic(theta) - 3 * np.log(2 * np.pi)
    assert torch.allclose(rise, (z**2).sum(), rtol=1e-9)
    assert len(Problem([observation], text, "cstat", truth.freeze("z2")).priors) == 2
    value, gradient = problem.value_and_gradient(theta.unsqueeze(0))
    x = theta.clone().requires_grad_()
    (exact,) = torch.autograd.grad(problem.objective(x), x)
    assert torch.allclose(value[0], problem.objective(theta))
    assert torch.allclose(gradient[0], exact, rtol=1e-8)
    assert problem.free_norms == [4]


def test_starts_follow_the_prior(text):
    observation, truth = toy_observation(text, {"z1": 0.5})
    problem = Problem([observation], text, "cstat", truth)
    drawn = random_starts(problem, 2000, torch.Generator().manual_seed(1))[1:, 1:4]
    assert abs(float(drawn.mean())) < 0.05
    assert 0.85 < float(drawn.std()) < 1.0  # the outermost four per cent are left out


def test_without_information_no_parameter_counts(text):
    """An effective parameter is one that the data decide."""
    for exposure, least, most in ((1e-3, 0.0, 0.6), (2e7, 4.0, 5.0)):
        observation, truth = toy_observation(text, {"nH": 0.2, "deepspec.norm": 3.0}, exposure=exposure)
        problem = Problem([observation], text, "cstat", truth.freeze("nH").freeze("norm") if exposure < 1 else truth)
        assert least <= problem.effective_parameters(problem.parameters.vector()) <= most


def test_bands(path, text):
    model = Model(text)
    assert trained_band(model) == (0.3, 10.0)
    assert trained_band(Model("tbabs*powerlaw")) is None

    def value(key):
        return {"zashift.Redshift": 1.0}.get(key, 0.0)

    assert check_bands(model, value, [("pn", 0.3, 10.02)]) == []
    assert "was trained for 0.3-10 keV" in check_bands(model, value, [("pn", 0.25, 12.0)])[0]
    with pytest.raises(UserError, match=r"nustar: the fitted bins reach from 3 to 78 keV.*--notice 0\.3:10"):
        check_bands(model, value, [("nustar", 3.0, 78.0)])
    far = Model(f"zashift*deepspec{{{path}}}")
    with pytest.raises(UserError, match=r"1 \+ z = 2.*--notice 0\.15:5"):
        check_bands(far, value, [("pn", 0.3, 10.0)])
    assert flux_warnings(model, value, [(0.5, 2.0), (0.2, 14.0)]) == []
    assert "is that of 2-14 keV" in flux_warnings(model, value, [(2.0, 50.0)])[0]
    assert "has no photons in 20-50 keV" in flux_warnings(model, value, [(20.0, 50.0)])[0]


def test_a_fit_from_end_to_end(text, tmp_path):
    found = deepspec.fit(DATA / "binary_a.pha", text, starts=4)
    assert found.result.converged
    assert found.result.data[0].band == pytest.approx((0.3, 10.0), rel=0.01)
    prior = found.result.prior
    latents = prior["latents"]["deepspec"]
    z = [found.result.parameters[f"deepspec.z{i}"].value for i in (1, 2, 3)]
    assert latents["square"] == pytest.approx(np.square(z).sum())
    assert latents["dimension"] == 3
    assert 0.0 < latents["probability"] < 1.0
    assert prior["objective"] == pytest.approx(
        found.result.statistic.value + latents["square"] + 3 * np.log(2 * np.pi), abs=1e-6
    )
    assert found.result.statistic.dof == found.result.statistic.bins - round(prior["effective_parameters"])
    assert len(found.result.settings["deepspec"]["sha256"]) == 64
    assert "|z|^2" in str(found)
    files = found.save(tmp_path / "out")
    assert [f.name for f in files] == ["result.json", "spectrum.png", "unfolded.png"]
    assert load_result(files[0]).prior == prior
    json.loads(files[0].read_text())


def test_a_band_beyond_the_range_is_refused(text):
    with pytest.raises(UserError, match=r"knows 0\.2-14 keV; choose energies it knows"):
        deepspec.fit(DATA / "binary_a.pha", text, notice="0.1:10")


@pytest.mark.parametrize("expression", ["deepspec{FILE}", "tbabs*deepspec{FILE}", "tbabs*(deepspec{FILE}+powerlaw)"])
def test_weighted_sums_equal_the_derivatives(path, expression):
    """What a gradient uses, against the derivatives bin by bin."""
    model, grid = Model(expression.replace("FILE", str(path))), Grid(NARROW)
    rng = np.random.default_rng(2)
    values = {key: torch.full((3, 1), 0.7, dtype=torch.float64) for key in model.parameters}
    values["deepspec.z1"] = torch.as_tensor(rng.standard_normal((3, 1)))
    wanted = [key for key in model.parameters if key != "deepspec.z2"]
    weights = torch.as_tensor(rng.standard_normal((3, len(grid))))
    flux, slopes = model.derivatives(grid, values, wanted)
    value, pull = model.pullback(grid, values, wanted)
    found = pull(weights)
    assert torch.allclose(value, flux, rtol=1e-12)
    assert set(found) == set(wanted)
    for key in wanted:
        assert torch.allclose(found[key], (weights * slopes[key]).sum(-1), rtol=1e-9, atol=1e-15), key
