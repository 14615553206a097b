"""Fake spectra: folding over all channels, backgrounds, statistics of the draws, messages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from deepspec.errors import UserError
from deepspec.models.base import Grid
from deepspec.observation import Observation
from deepspec.response import Response
from deepspec.simulate import expected_counts, simulate_observation
from deepspec.spectrum import Spectrum

CHANNELS = 40


def power_law(norm, index=1.7):
    """Photons cm^-2 s^-1 per bin of a power law, integrated by hand."""

    def model(grid: Grid):
        a, b = grid.low, grid.high
        return norm * (b ** (1 - index) - a ** (1 - index)) / (1 - index)

    return model


def response():
    edges = np.linspace(0.3, 8.0, 61)
    middle = 0.5 * (edges[1:] + edges[:-1])
    bounds = np.linspace(0.2, 8.2, CHANNELS + 1)
    centre = 0.5 * (bounds[1:] + bounds[:-1])
    matrix = np.exp(-0.5 * ((centre[None] - middle[:, None]) / 0.2) ** 2)
    matrix /= matrix.sum(1, keepdims=True)
    area = 300.0 * np.exp(-0.5 * np.log(middle / 1.5) ** 2)
    return Response(edges, csr_matrix(matrix), area, np.column_stack([bounds[:-1], bounds[1:]]))


def spectrum(counts, exposure=1000.0, backscal=1.0, areascal=1.0, **more):
    return Spectrum(np.arange(CHANNELS) + 1, counts, exposure, backscal, areascal, np.zeros(CHANNELS), **more)


def observation(*backgrounds, **more):
    return Observation("made", spectrum(np.ones(CHANNELS), backgrounds=backgrounds, **more), response())


def test_expected_counts_by_hand():
    made = observation(areascal=np.linspace(0.5, 1.0, CHANNELS))
    flux = power_law(0.01)(Grid(made.response.edges.copy())).numpy()
    by_hand = (flux * made.response.area) @ made.response.matrix.toarray()
    by_hand = by_hand * made.spectrum.areascal * 2500.0
    np.testing.assert_allclose(expected_counts(made, power_law(0.01), 2500.0), by_hand, rtol=1e-12)


def test_expected_counts_are_those_that_a_fit_predicts():
    made = observation(areascal=0.7).group("none").notice(1.0, 5.0)
    folded = made.folded
    predicted = power_law(0.01)(Grid(folded.edges.copy())).numpy() @ folded.matrix
    everywhere = expected_counts(made, power_law(0.01))
    np.testing.assert_allclose(made.binning.sum(everywhere), predicted, rtol=1e-12)


def test_expected_counts_of_a_batch_of_models():
    made = observation()

    def both(grid):
        return torch.stack([power_law(0.01)(grid), power_law(0.02, 2.5)(grid)])

    counts = expected_counts(made, both)
    assert counts.shape == (2, CHANNELS)
    np.testing.assert_allclose(counts[1], expected_counts(made, power_law(0.02, 2.5)), rtol=1e-12)


def test_mean_and_variance_of_many_draws():
    background = spectrum(np.arange(CHANNELS) + 3.0, exposure=4000.0, backscal=2.0, areascal=0.8)
    made = observation(background, areascal=0.9)
    rng = np.random.default_rng(1)
    runs = [simulate_observation(made, power_law(0.02), 3000.0, rng=rng) for _ in range(4000)]
    counts = np.array([run.counts for run in runs])
    region = np.array([run.background for run in runs])
    source = expected_counts(made, power_law(0.02), 3000.0)
    beneath = (np.arange(CHANNELS) + 3.0) * (3000.0 * 0.9) / (4000.0 * 2.0 * 0.8)
    np.testing.assert_allclose(runs[0].expected, source)
    np.testing.assert_allclose(runs[0].expected_background, beneath, rtol=1e-12)
    for drawn, mean in ((counts, source + beneath), (region, np.arange(CHANNELS) + 3.0)):
        assert (np.abs(drawn.mean(0) - mean) < 5 * np.sqrt(mean / 4000)).all()
        # The variance of a Poisson variance estimate is (μ + 2μ²) / N.
        assert (np.abs(drawn.var(0) - mean) < 5 * np.sqrt((mean + 2 * mean**2) / 4000)).all()
        assert (drawn == np.round(drawn)).all()


def test_a_seed_decides_every_count():
    made = observation(spectrum(np.full(CHANNELS, 5.0)))
    first, again, other = (simulate_observation(made, power_law(0.02), rng=np.random.default_rng(s)) for s in (7, 7, 8))
    assert (first.counts == again.counts).all()
    assert (first.background == again.background).all()
    assert (first.counts != other.counts).any()


def test_without_noise_the_expectation_itself():
    made = observation(spectrum(np.full(CHANNELS, 5.0), exposure=2000.0))
    exact = simulate_observation(made, power_law(0.02), 4000.0, noise=False)
    np.testing.assert_allclose(exact.counts, expected_counts(made, power_law(0.02), 4000.0) + 10.0, rtol=1e-12)
    np.testing.assert_allclose(exact.background, 5.0)


def test_no_background_when_none_is_wanted_or_there_is_none():
    with_one = observation(spectrum(np.full(CHANNELS, 500.0)))
    for made, kind in ((with_one, "none"), (observation(), "like")):
        run = simulate_observation(made, power_law(0.02), background=kind, rng=np.random.default_rng(1))
        assert run.background is None
        assert not run.expected_background.any()
        assert run.observation.spectrum.backgrounds == ()
    assert "no background" in run.notes[0]


def test_several_backgrounds_are_drawn_as_one():
    parts = (spectrum(np.full(CHANNELS, 8.0), backscal=4.0), spectrum(np.full(CHANNELS, 30.0), backscal=12.0))
    made = observation(*parts)
    exact = simulate_observation(made, power_law(0.02), noise=False)
    np.testing.assert_allclose(exact.expected_background, made.spectrum.scaled_background)
    # 38 counts in 16 source areas: 2.375 in the source region and four times that in the first background.
    np.testing.assert_allclose(exact.background, 4 * 38 / 16)
    np.testing.assert_allclose(exact.observation.spectrum.scaled_background, exact.expected_background)
    assert "2 backgrounds were combined" in exact.notes[0]


def test_a_background_with_errors_scatters_by_them():
    wide = spectrum(np.full(CHANNELS, 6.5), error=np.full(CHANNELS, 2.0), use_errors=True)
    made = observation(wide)
    rng = np.random.default_rng(3)
    runs = [simulate_observation(made, power_law(0.02), rng=rng) for _ in range(500)]
    drawn = np.array([run.background for run in runs])
    assert drawn.mean() == pytest.approx(6.5, abs=0.1)
    assert drawn.std() == pytest.approx(2.0, rel=0.03)
    binned = runs[0].observation.binned
    assert not binned.background_poisson
    np.testing.assert_allclose(binned.background_error, 2.0)


def test_a_negative_background_counts_as_nothing():
    values = np.full(CHANNELS, 4.5)
    values[3] = -2.0
    made = observation(spectrum(values, error=np.ones(CHANNELS), use_errors=True))
    run = simulate_observation(made, power_law(0.02), rng=np.random.default_rng(4))
    assert run.expected_background[3] == 0.0
    assert "negative in 1 channels" in run.notes[0]


def test_the_simulated_observation_can_be_fitted():
    made = observation(spectrum(np.full(CHANNELS, 50.0), backscal=5.0)).notice(1.0, 6.0).group("min:20")
    fake = simulate_observation(made, power_law(0.05), 5000.0, rng=np.random.default_rng(5)).observation
    assert fake.spectrum.exposure == 5000.0
    assert fake.spectrum.path == ""
    assert fake.spectrum.grouping == made.spectrum.grouping
    assert (fake.spectrum.noticed == made.spectrum.noticed).all()
    assert fake.binned.poisson
    assert fake.binned.background_poisson
    np.testing.assert_allclose(fake.spectrum.ratio, 5000.0 / (1000.0 * 5.0))
    predicted = power_law(0.05)(Grid(fake.folded.edges.copy())).numpy() @ fake.folded.matrix
    net = fake.binned.counts - fake.binned.ratio * fake.binned.background
    error = np.sqrt(fake.binned.counts + fake.binned.ratio**2 * fake.binned.background)
    assert (np.abs(net - predicted) < 5 * error).all()


@pytest.mark.parametrize(
    ("made", "options", "words"),
    [
        (Observation("bare", spectrum(np.ones(CHANNELS))), {}, ["no response", "--rmf"]),
        (observation(), {"exposure": 0.0}, ["--exposure", "not positive"]),
        (observation(), {"exposure": float("nan")}, ["--exposure", "not positive"]),
        (observation(exposure=0.0), {}, ["made", "not positive", "--exposure"]),
        (observation(), {"background": "perhaps"}, ["perhaps", "like or none"]),
        (observation(), {"model": power_law(-1.0)}, ["--model", "negative", "40 channels"]),
        (observation(), {"model": power_law(1e20)}, ["too many to draw", "--set"]),
        (observation(), {"model": power_law(float("nan"))}, ["--model", "not a number"]),
    ],
)
def test_what_cannot_be_simulated_is_said_in_a_sentence(made, options, words):
    options = {"model": power_law(0.01), "rng": np.random.default_rng(1), **options}
    with pytest.raises(UserError) as caught:
        simulate_observation(made, **options)
    for word in words:
        assert word in str(caught.value)


def test_noise_needs_a_generator():
    with pytest.raises(ValueError, match="generator"):
        simulate_observation(observation(), power_law(0.01))
