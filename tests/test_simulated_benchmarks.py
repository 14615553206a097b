"""The benchmarks on simulated sources: what they compute, and that the page of the documentation takes their tables."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from deepspec.learned.checkpoint import write_weights
from deepspec.learned.decoder import ComposedDecoder
from deepspec.learned.grids import EDGES, energy_weights
from deepspec.learned.modules import make_weights
from deepspec.training.acceptance import View
from deepspec.training.cameras import camera
from deepspec.training.foreground import SIGMA
from learned.toy_weights import toy_modules

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def view() -> View:
    return View.of(camera("pn").matrix, SIGMA)


@pytest.fixture(scope="module")
def background() -> torch.Tensor:
    return torch.as_tensor(camera("pn").background.copy())


def power_laws(index: torch.Tensor) -> torch.Tensor:
    """Photons per bin of E^-index, shape (n, 600)."""
    edges = torch.as_tensor(EDGES)
    power = 1.0 - index.unsqueeze(-1)
    return (edges[1:] ** power - edges[:-1] ** power) / power


def test_fluxes_of_a_spectrum_and_its_counts(view):
    from posteriors import fluxes

    shape = power_laws(torch.tensor([1.7, 2.5]).double())
    log_nH = torch.tensor([-1.0, 0.5]).double()
    norm = torch.tensor([3.0, 0.2]).double()
    counts = (norm.unsqueeze(-1) * view.rates(shape, log_nH)).sum(-1)
    found = 10.0 ** fluxes(shape, log_nH, torch.log(counts), view)
    for column, (low, high) in enumerate(((0.5, 2.0), (2.0, 10.0))):
        weights = torch.as_tensor(energy_weights((low, high)))
        torch.testing.assert_close(found[:, column], norm * (shape @ weights))
        assert (found[:, column] > found[:, column + 2]).all()


@pytest.mark.parametrize("combine", ["log", "linear"])
def test_the_likelihood_of_the_posteriors_is_cash(view, background, combine):
    from posteriors import Posterior, observe

    decoder, flow = toy_modules(combine=combine)
    decoder = ComposedDecoder(decoder, flow).eval()
    generator = torch.Generator().manual_seed(1)
    index = torch.tensor([1.2, 2.0, 3.0]).double()
    log_nH = torch.tensor([-2.0, -1.0, 0.0]).double()
    observed = observe(power_laws(index), log_nH, view, background, 3000.0, generator)
    posterior = Posterior(decoder, view, observed)
    x = torch.randn((3, 40, posterior.dimension), generator=generator)
    with torch.no_grad():
        found = posterior.log_likelihood(x, torch.arange(3)).double()
        shape = decoder(x[..., :-2]).double()
    rates = view.rates(shape, posterior.log_nH(x[..., -2]).double())
    source = torch.exp(posterior.log_counts(x[..., -1]).double()).unsqueeze(-1) * rates
    expected = source / rates.sum(-1, keepdim=True) + observed.background.unsqueeze(1)
    counts = observed.counts.unsqueeze(1)
    by_hand = (torch.xlogy(counts, expected) - expected - torch.xlogy(counts, counts) + counts).sum(-1)
    # float32 and pairs of energy bins: far below the width of a likelihood, which is 1
    assert (found - by_hand).abs().max() < 0.02 + 2e-4 * by_hand.abs().max()


def test_the_coordinates_of_the_posterior_have_the_priors_of_the_truths(view, background):
    from posteriors import SPREAD, Posterior, observe

    from deepspec.training.foreground import draw_log_nH

    decoder, flow = toy_modules()
    generator = torch.Generator().manual_seed(2)
    log_nH = draw_log_nH(20000, generator).double()
    shape = power_laws(torch.tensor([2.0]).double()).expand(20000, -1)
    observed = observe(shape, log_nH, view, background, 300.0, generator)
    posterior = Posterior(ComposedDecoder(decoder, flow), view, observed)
    x = torch.randn(20000, generator=generator)
    at = torch.tensor([0.02, 0.16, 0.5, 0.84, 0.98])
    ours, theirs = posterior.log_nH(x).quantile(at), log_nH.float().quantile(at)
    torch.testing.assert_close(ours, theirs, atol=0.04, rtol=0)
    drawn = posterior.log_counts(x)
    assert float(drawn.min()) >= math.log(300.0) - SPREAD - 1e-4
    assert float(drawn.std()) == pytest.approx(2.0 * SPREAD / math.sqrt(12.0), rel=0.02)


@pytest.mark.parametrize("known", [True, False])
def test_the_batched_fit_finds_what_an_independent_one_does(view, background, known):
    from noisy_fits import classical, fit
    from posteriors import observe

    generator = torch.Generator().manual_seed(3)
    index, log_nH = torch.tensor([1.5, 2.4]).double(), torch.tensor([-1.0, -0.5]).double()
    observed = observe(power_laws(index), log_nH, view, background, 2000.0, generator)
    found = fit(classical()[0], observed.counts, observed.background, view, log_nH if known else None)
    assert found.free == (2 if known else 3)
    for i in range(2):

        def cash(theta, i=i):
            column = log_nH[i] if known else torch.tensor(theta[2]).double()
            rates = view.rates(power_laws(torch.tensor([theta[0]]).double()), column.reshape(1))[0]
            expected = math.exp(theta[1]) * rates / rates.sum() + observed.background[i]
            return float(2.0 * (expected - torch.xlogy(observed.counts[i], expected)).sum())

        start = [2.0, math.log(2000.0)] + ([] if known else [-1.0])
        best = minimize(cash, start, method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-6, "maxiter": 2000})
        assert float(found.statistic[i]) == pytest.approx(best.fun, abs=0.02)
        assert float(found.log_counts[i]) == pytest.approx(best.x[1], abs=0.01)


@pytest.mark.parametrize("latent", [2, 5])
def test_the_quick_flow_is_the_flow(latent):
    from quick_flow import QuickFlow

    _, flow = toy_modules(latent=latent)
    u = 3.0 * torch.randn((4000, latent), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(2.0)
        torch.testing.assert_close(QuickFlow(flow)(u), flow(u), atol=2e-4, rtol=1e-4)


def test_classical_spectra_are_finite_for_any_parameters():
    from noisy_fits import classical

    for model in classical():
        t = torch.randn((50, model.size), generator=torch.Generator().manual_seed(4)) * 4.0
        found = model.log_photons(t)
        assert found.shape == (50, 600), model.name
        assert torch.isfinite(found).all(), model.name


def test_net_counts_and_the_right_index_give_the_flux(view, background):
    from flux_bias import by_power_law
    from posteriors import Observations, fluxes

    shape, log_nH = power_laws(torch.tensor([1.7]).double()), torch.tensor([-1.0]).double()
    rates = view.rates(shape, log_nH)
    expected = 500.0 * rates / rates.sum()
    flat = 20.0 * background.unsqueeze(0)
    truth = fluxes(shape, log_nH, torch.tensor([math.log(500.0)]).double(), view)
    found = by_power_law(Observations(expected + flat, flat, 500.0, truth), view, log_nH)
    torch.testing.assert_close(found, truth, atol=3e-3, rtol=0)


@pytest.mark.slow
def test_every_script_fills_its_part_of_the_page(tmp_path):
    decoder, flow = toy_modules(latent=4)
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    write_weights(first, make_weights(decoder, flow))
    write_weights(second, make_weights(decoder))
    page = shutil.copy(ROOT / "docs/calibration.md", tmp_path / "page.md")

    def run(script: str, *options) -> str:
        command = [sys.executable, ROOT / "benchmarks" / script, "--page", page, *options]
        done = subprocess.run([str(each) for each in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    printed = run("held_out.py", "--weights", first, second, "-n", 40, "--counts", 1000, "--json", tmp_path / "a.json")
    assert "| counts | class | sources | first | second |" in printed
    levels = json.loads((tmp_path / "a.json").read_text())["weights"]["second"]["levels"]["1000"]
    assert sum(v["sources"] for k, v in levels.items() if k != "all") == levels["all"]["sources"] == 40
    small = ["--weights", first, "--out", tmp_path]
    run("flux_bias.py", *small, "--sources", 20, "--counts", 300)
    for option in ([], ["--closed"], ["--no-flow"]):
        run("coverage.py", *small, "--sources", 12, "--counts", 100, "--particles", 96, *option)
    ranks = json.loads((tmp_path / "coverage-closed.json").read_text())["levels"]["100"]["ranks"]
    assert all(np.sum(each) == 12 for each in ranks.values())
    text = page.read_text()
    assert text.count("| counts |") >= 9
    for command in ("held_out.py", "flux_bias.py", "coverage.py"):
        assert f"python benchmarks/{command}" in text
