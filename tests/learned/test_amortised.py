"""An encoder's answer to an observation, in the parameters of a fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.learned.amortised import (
    channel_coverage,
    channel_shares,
    cross_section,
    estimate,
    photon_shares,
    sight,
)
from deepspec.learned.encoder import EncoderConfig, build_encoder
from deepspec.learned.grids import DETECTOR_EDGES, EDGES
from deepspec.learned.modules import load_decoder, make_weights
from deepspec.models import COMPONENTS
from deepspec.models.base import Grid
from tests.learned.toy_weights import toy_modules
from tests.small_files import small_observation


@pytest.fixture(scope="module")
def weights():
    decoder, flow = toy_modules(latent=3)
    torch.manual_seed(5)
    return make_weights(decoder, flow, encoder=build_encoder(EncoderConfig(latent=3, widths=(16,))))


def test_counts_are_kept_and_the_grouping_does_not_matter():
    observation = small_observation().notice(0.3, 10.0)
    seen = sight(observation).seen
    assert float(seen.counts.sum()) == pytest.approx(
        observation.spectrum.counts[observation.spectrum.noticed].sum(), rel=0.02
    )
    grouped = sight(observation.group("min:20")).seen
    assert torch.equal(seen.counts, grouped.counts)
    assert float(seen.ratio) == pytest.approx(0.25)
    assert float(seen.area.max()) == pytest.approx(1.0)


def test_expected_counts_agree_with_the_folded_response():
    observation = small_observation().notice(0.4, 9.0).group("none")
    flux = np.exp(-np.linspace(0, 2, 600))
    folded = observation.folded
    through = (flux @ photon_shares(folded.edges)) @ folded.matrix
    # the outermost channels lie partly outside of bins that count
    assert flux @ sight(observation).reach == pytest.approx(through.sum(), rel=0.03)


def test_ignored_energies_are_not_valid():
    seen = sight(small_observation().notice(1.0, 5.0)).seen
    low, high = DETECTOR_EDGES[:-1][seen.valid.numpy()], DETECTOR_EDGES[1:][seen.valid.numpy()]
    assert 0.8 < low.min() < 1.05
    assert 4.95 < high.max() < 5.2
    assert not seen.counts[DETECTOR_EDGES[1:] < 0.8].any()


def test_without_background_nothing_is_subtracted():
    seen = sight(small_observation(background=False)).seen
    assert float(seen.background.sum()) == 0.0
    assert float(seen.ratio) == 0.0


def test_shares_add_up():
    limits = np.linspace(0.35, 9.5, 500)
    bounds = np.column_stack([limits[:-1], limits[1:]])
    assert np.allclose(channel_shares(bounds).sum(1), 1.0)
    covered = channel_coverage(bounds)
    assert covered.max() == pytest.approx(1.0)
    assert covered[0] == 0.0
    assert np.allclose(photon_shares(np.array([0.1, 0.5, 3.0, 20.0])).sum(1), 1.0)


def test_cross_section_is_that_of_tbabs():
    nH = torch.tensor([0.3], dtype=torch.float64)
    exact = COMPONENTS["tbabs"]().evaluate(Grid(EDGES), nH=nH)
    assert torch.allclose(torch.exp(-0.3 * cross_section()), exact.reshape(-1), rtol=1e-9)


def test_norm_gives_the_counts_that_the_encoder_expects(weights):
    observation = small_observation()
    found = estimate(observation, weights)
    assert found.names == ("z1", "z2", "z3", "log10 nH", "ln norm")
    decoder = load_decoder(weights, dtype=torch.float64)
    with torch.no_grad():
        shape = decoder(torch.as_tensor(found.z)).numpy()
    counts = found.norm * (shape * np.exp(-found.nH * cross_section().numpy())) @ sight(observation).reach
    net = observation.spectrum.counts.sum() - 0.25 * observation.spectrum.background.sum()
    assert counts == pytest.approx(net, rel=0.3)


def test_covariance_is_that_of_the_draws(weights):
    found = estimate(small_observation(), weights)
    draws = found.draws(20000, seed=1)
    assert np.allclose(draws.mean(0), found.mean, atol=0.05)
    assert np.allclose(draws.std(0), np.sqrt(np.diag(found.covariance)), rtol=0.1)
    assert np.allclose(np.cov(draws.T), found.covariance, atol=0.1 * np.diag(found.covariance).max())
    assert np.array_equal(draws, found.draws(20000, seed=1))


def test_no_counts_at_all_give_a_finite_answer(weights):
    observation = small_observation()
    spectrum = dataclasses.replace(observation.spectrum, counts=np.zeros(len(observation.spectrum)))
    found = estimate(observation.with_spectrum(spectrum), weights)
    assert np.isfinite(found.mean).all()
    assert np.isfinite(found.covariance).all()
    assert np.linalg.eigvalsh(found.covariance).min() > 0


def test_weights_without_encoder_are_refused(weights):
    with pytest.raises(UserError, match="no encoder"):
        estimate(small_observation(), dataclasses.replace(weights, encoder=None))


def test_energies_outside_the_band_are_refused(weights):
    with pytest.raises(UserError, match="too few noticed channels"):
        estimate(small_observation().notice(0.1, 0.2), weights)


def test_a_real_spectrum(shared_data, weights):
    from deepspec.io import read_observation

    observation = read_observation(shared_data / "spectra" / "xrt_pc_op313" / "src.pha").notice(0.3, 10.0)
    seen = sight(observation).seen
    assert float(seen.counts.sum()) == pytest.approx(observation.binned.counts.sum(), rel=0.01)
    found = estimate(observation, weights)
    assert 1e-3 < found.norm < 1e3
