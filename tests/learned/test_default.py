"""The weights that ship: what the file says of itself, and that a user's first fit with them is a good one."""

from __future__ import annotations

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import deepspec
from deepspec.catalogue import components
from deepspec.learned.amortised import estimate
from deepspec.learned.checkpoint import read_weights
from deepspec.learned.finding import package_folder
from deepspec.learned.modules import load_decoder
from deepspec.models.base import Grid
from deepspec.models.model import Model
from deepspec.training.acceptance import View, excess
from deepspec.training.cameras import camera
from deepspec.training.foreground import SIGMA, draw_log_nH
from deepspec.training.sources import held_out

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "data" / "binary_a.pha"
CLASSICAL = "tbabs*(powerlaw+bbody)"
TRUTH = {
    "tbabs.nH": 0.25,
    "powerlaw.PhoIndex": 1.8,
    "powerlaw.norm": 2.5e-4,
    "bbody.kT": 0.35,
    "bbody.norm": 4.0e-6,
}
"""Of the bundled binary; data/README.md."""
KEV = 1.602176634e-9
"""[erg]"""


def tracked(path: Path) -> bool:
    """Whether the history of this checkout has the file."""
    try:
        asked = subprocess.run(["git", "ls-files", "--error-unmatch", path], cwd=ROOT, capture_output=True)
    except OSError:  # no git: a tree without a history
        return False
    return asked.returncode == 0


@pytest.fixture(scope="module")
def path() -> Path:
    found = package_folder() / "default.h5"
    if not found.exists():
        if tracked(found):
            pytest.fail(f"{found} belongs to the package and is gone")
        pytest.skip("this checkout has no default weights yet")
    return found


@pytest.fixture(scope="module")
def weights(path):
    return read_weights(path)


@pytest.fixture(scope="module")
def learned(path):
    """The fit that a user makes first."""
    return deepspec.fit(BINARY, "tbabs*deepspec")


@pytest.fixture(scope="module")
def answer(weights):
    """What the encoder says of the same observation."""
    return estimate(deepspec.read(BINARY).notice(0.3, 10.0), weights)


def energy_flux(model: Model, values: dict[str, float], band: tuple[float, float]) -> float:
    """Energy flux [erg cm^-2 s^-1], by a fine sum."""
    edges = np.geomspace(*band, 20001)
    columns = {key: torch.full((1, 1), float(value), dtype=torch.float64) for key, value in values.items()}
    photons = model.flux(Grid(edges), columns).reshape(-1).numpy()
    return float(photons @ np.sqrt(edges[1:] * edges[:-1]) * KEV)


def true_flux(band: tuple[float, float]) -> float:
    """Of the bundled binary, behind its absorption [erg cm^-2 s^-1]."""
    return energy_flux(Model(CLASSICAL), TRUTH, band)


def flux_of(fit, band: tuple[float, float], kind: str) -> float:
    return next(f.value for f in fit.result.fluxes if f.kind == kind and tuple(f.band) == band)


def test_the_file_is_small_and_holds_every_network(path, weights):
    assert path.stat().st_size < 10e6
    assert [name for name, _ in weights.sections()] == ["decoder", "flow", "oracle", "encoder"]
    assert weights.latent == 12
    assert weights.band == (0.3, 10.0)


def test_the_card_says_how_to_make_it(weights):
    stages = weights.card["stages"]
    assert list(weights.card["config"]["stages"]) == ["decoder", "prior", "encoder"]
    assert set(stages) == {"decoder", "prior", "encoder"}
    for name, told in stages.items():
        assert told["step"] == told["steps"] > 0, f"stage {name} was not finished"
        assert told["command"].startswith("deepspec train --preset default"), name
        assert isinstance(told["seed"], int)
        assert all(re.match(r"\d+\.\d+", told[package]) for package in ("deepspec", "torch", "numpy", "python")), name
        assert told["validation"], name
    assert len({told["seed"] for told in stages.values()}) == 1
    made = [stages[name]["time"] for name in ("decoder", "prior", "encoder")]
    assert all(earlier < later for earlier, later in pairwise(made))


def test_deepspec_is_the_component_of_these_weights(weights):
    (found,) = components(["deepspec"])
    assert [p["name"] for p in found["parameters"]] == [*(f"z{i + 1}" for i in range(12)), "norm"]


@pytest.mark.slow
def test_sources_never_seen_are_told_from_the_truth_by_few_counts_only(weights):
    """Half of the sources lie within 4 of their true model at 10,000 counts."""
    sources = held_out(150, seed=41)
    log_nH = draw_log_nH(150, torch.Generator().manual_seed(41)).double()
    view = View.of(camera("pn").matrix, SIGMA)
    found = excess(load_decoder(weights), sources.shape, log_nH, view, counts=(1e4,), starts=2)
    assert torch.isfinite(found.value).all()
    assert 0.0 < float(found.value.median()) < 4.0


@pytest.mark.parametrize("band", [(0.5, 2.0), (2.0, 10.0), (0.3, 10.0)])
def test_the_encoder_knows_the_flux_that_arrives(answer, band):
    """Of the bundled binary, without any fit, to 20 %; how much of it is absorbed is what an encoder knows least."""
    model = Model("tbabs*deepspec")
    values = {"tbabs.nH": answer.nH, "deepspec.norm": answer.norm}
    values |= {f"deepspec.z{i + 1}": value for i, value in enumerate(answer.z)}
    assert energy_flux(model, values, band) == pytest.approx(true_flux(band), rel=0.2)


def test_the_encoder_gives_a_start(answer):
    assert 0.5 < answer.nH / TRUTH["tbabs.nH"] < 2.0
    assert np.abs(answer.z).max() < 4.0
    assert np.linalg.eigvalsh(answer.covariance).min() > 0


def test_the_bundled_binary_is_fitted_as_well_as_by_the_models_it_is_made_of(learned):
    classical = deepspec.fit(BINARY, CLASSICAL, notice=learned.result.data[0].band)
    assert learned.result.converged
    assert learned.result.data[0].band == pytest.approx((0.3, 10.0), rel=0.02)
    assert learned.result.data[0].bins == classical.result.data[0].bins
    assert learned.result.statistic.value < classical.result.statistic.value + 10.0


@pytest.mark.parametrize("band", [(0.5, 2.0), (2.0, 10.0)])
def test_its_flux_is_that_of_the_source(learned, band):
    assert flux_of(learned, band, "observed") == pytest.approx(true_flux(band), rel=0.05)
