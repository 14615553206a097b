"""Observations: counts and model through one binning, equal to Sherpa's folding, and the checks before a fit."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepspec.errors import UserError
from deepspec.io import read_observation
from deepspec.io.fits_files import quiet
from deepspec.observation import Observation
from small_files import N_CHANNEL, N_ENERGY, small_observation, small_response, small_spectrum

SETS = {
    "pn_ngc7793_ulx4": (0.3, 10),
    "mos1_ngc7793_ulx4": (0.3, 10),
    "mos2_ngc7793_ulx4": (0.3, 10),
    "acis_q1127": (0.5, 7),
    "acis_cluster_annulus05": (0.5, 7.5),
    "pn_psrj0855": (0.5, 10),
    "mos1_psrj0855": (0.5, 10),
    "acis_psrj0855": (0.5, 7),
    "xrt_pc_op313": (0.3, 10),
    "erosita_pks0447": (0.2, 8),
    "nustar_a_op313": (3, 50),
    "asca_sis0_a2029": (0.6, 10),
    "pn_mcg6_30_15": (0.3, 10),
    "acis_3c273": (0.5, 7),
    "acis_3c186": (0.5, 7),
    "acis_m31_r0043": (0.5, 7),
    "acis_cdfs179": (0.5, 7),
    "pn_circinus": (0.5, 10),
    "acis_b3_0710": (0.5, 7),
    "acis_sdssj1030": (0.5, 7),
    "mos1_mnlup": (0.3, 7),
    "acis_ngc4258": (0.5, 8),
}


def source(shared_data, name):
    folder = shared_data / "spectra" / name
    return next(folder.glob("src.pha*"))


@functools.cache
def observed(path):
    """An observation is never changed, so one reading serves all tests."""
    return read_observation(path)


# --- laws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["none", "min:20", "snr:3", "width:0.5", "optimal", "minbkg:3", "auto"])
@given(low=st.floats(0.2, 4.0), width=st.floats(1.5, 6.0))
def test_grouping_the_model_is_grouping_the_counts(method, low, width):
    """The folded matrix is the channel matrix summed by the same assignment that sums the counts."""
    observation = small_observation().notice(low, low + width).group(method)
    binned, folded, spectrum = observation.binned, observation.folded, observation.spectrum
    response = observation.response
    per_channel = (response.matrix.toarray() * response.area[:, None]) * spectrum.exposure
    flux = np.random.default_rng(1).random(N_ENERGY)
    at = np.searchsorted(response.edges, folded.edges)
    assert np.array_equal(response.edges[at], folded.edges)
    expected = [(flux @ per_channel)[observation.binning.index == i].sum() for i in range(len(binned))]
    assert flux[at[0] : at[-1]] @ folded.matrix == pytest.approx(expected, rel=1e-12)
    counts = [spectrum.counts[observation.binning.index == i].sum() for i in range(len(binned))]
    assert binned.counts.tolist() == counts
    assert binned.channels.sum() == spectrum.noticed.sum()


def test_only_energies_that_reach_a_noticed_channel_are_folded():
    observation = small_observation().notice(3.0, 4.0)
    folded = observation.folded
    assert folded.edges[0] > 1.0
    assert folded.edges[-1] < 6.0
    assert folded.matrix[0].any()
    assert folded.matrix[-1].any()
    assert folded.matrix.flags.c_contiguous
    assert folded.matrix.dtype == np.float64


def test_areascal_scales_channels_of_the_model():
    areascal = np.ones(N_CHANNEL)
    areascal[30:] = 0.5
    whole, half = small_observation().folded.matrix, small_observation(areascal=areascal).folded.matrix
    assert half[:, :30] == pytest.approx(whole[:, :30])
    assert half[:, 30:] == pytest.approx(0.5 * whole[:, 30:])


def test_background_is_binned_like_the_source():
    observation = small_observation().group("min:50")
    binned = observation.binned
    expected = observation.binning.sum(observation.spectrum.backgrounds[0].counts)
    assert np.array_equal(binned.background, expected)
    assert binned.ratio == pytest.approx(0.25)
    assert binned.poisson
    assert binned.background_poisson
    assert binned.background_error is None


def test_a_ratio_that_changes_with_channel_is_averaged_over_the_bin():
    backscal = np.linspace(0.04, 0.08, N_CHANNEL)
    observation = small_observation()
    background = dataclasses.replace(observation.spectrum.backgrounds[0], backscal=backscal)
    observation = observation.with_spectrum(dataclasses.replace(observation.spectrum, backgrounds=(background,)))
    binned = observation.group("width:1.1").binned
    assert binned.ratio[0] == pytest.approx(np.mean(0.01 / backscal[: int(binned.channels[0])]))


def test_errors_add_in_quadrature_and_make_the_counts_not_poisson():
    spectrum = small_spectrum(error=np.full(N_CHANNEL, 2.0), use_errors=True)
    binned = Observation("small", spectrum, small_response()).group("width:1.1").binned
    assert not binned.poisson
    assert binned.error == pytest.approx(2.0 * np.sqrt(binned.channels))


def test_errors_of_the_file_stay_out_unless_asked_for():
    binned = Observation("small", small_spectrum(error=np.full(N_CHANNEL, 2.0)), small_response()).binned
    assert binned.poisson
    assert binned.error is None


def test_the_default_grouping_minds_the_background_only_where_it_matters():
    rich = small_observation()
    assert rich.spectrum.background.sum() >= 300
    assert str(rich.default_grouping()) == "optimal+minbkg:5"
    assert (rich.group().binned.background >= 5).all()
    region = rich.spectrum.backgrounds[0]
    region = dataclasses.replace(region, counts=np.floor(region.counts / 4), backscal=region.backscal / 4)
    poor = rich.with_spectrum(dataclasses.replace(rich.spectrum, backgrounds=(region,)))
    assert 0 < region.counts.sum() < 300
    assert str(poor.default_grouping()) == "optimal+minbkg:1"
    assert str(small_observation(background=False).default_grouping()) == "optimal"
    faint = small_observation(seed=5)
    little = dataclasses.replace(faint.spectrum.backgrounds[0], backscal=4.0)
    faint = faint.with_spectrum(dataclasses.replace(faint.spectrum, backgrounds=(little,)))
    assert str(faint.default_grouping()) == "optimal"


def test_rates_keep_the_groups_of_their_file():
    flags = np.where(np.arange(N_CHANNEL) % 4 == 0, 1, -1)
    counts = small_spectrum().counts - 0.5
    observation = small_observation(counts=counts, flags=flags, error=np.ones(N_CHANNEL))
    assert str(observation.default_grouping()) == "file"


def test_changes_leave_the_old_observation_alone():
    observation = small_observation()
    before = len(observation.binned)
    observation.notice(1, 2).group("min:20").without_background().with_name("other")
    assert len(observation.binned) == before
    assert observation.name == "small"


def test_another_response_moves_the_noticed_channels():
    observation = small_observation().notice(2.0, 3.0)
    bounds = 2.0 * observation.response.energy_bounds
    moved = observation.with_response(small_response(energy_bounds=bounds))
    assert moved.spectrum.range_used[0] == pytest.approx(2.0, abs=0.4)
    assert moved.spectrum.noticed.sum() < observation.spectrum.noticed.sum()


def test_description_says_rule_range_and_grouping():
    observation = small_observation().notice(1.0, 5.0).group("min:20")
    words, grouping = observation.describe()
    used = observation.spectrum.range_used
    count = int(observation.spectrum.noticed.sum())
    assert words == f"touching: {used[0]:.3f}-{used[1]:.3f} keV, {len(observation.binned)} bins, {count} channels"
    assert "min:20" in grouping
    assert "background has the bins of the source" in grouping
    assert small_observation().notice(1, 5, rule="inside").describe_range().startswith("inside: ")
    assert small_observation().describe_range().startswith("all good channels: ")


# --- checks ---------------------------------------------------------------------------------------------------------


def rates_of_exposure_one(observation):
    background = dataclasses.replace(
        observation.spectrum.backgrounds[0],
        counts=np.full(N_CHANNEL, 1e-4),
        error=np.full(N_CHANNEL, 2e-5),
        exposure=1.0,
        is_rate=True,
    )
    return observation.with_spectrum(dataclasses.replace(observation.spectrum, backgrounds=(background,)))


@pytest.mark.parametrize("statistic", ["auto", "wstat", "cstat"])
def test_background_of_rates_with_exposure_one_is_refused_for_poisson_statistics(statistic):
    observation = rates_of_exposure_one(small_observation())
    with pytest.raises(UserError, match="EXPOSURE 1") as caught:
        observation.check_fittable(statistic)
    assert "--stat pgstat" in caught.value.remedy
    assert "--bkg none" in caught.value.remedy


def test_rates_without_exposure_and_errors_are_of_no_use():
    observation = rates_of_exposure_one(small_observation())
    background = dataclasses.replace(observation.spectrum.backgrounds[0], error=None)
    observation = observation.with_spectrum(dataclasses.replace(observation.spectrum, backgrounds=(background,)))
    with pytest.raises(UserError, match="no errors") as caught:
        observation.check_fittable("pgstat")
    assert "--bkg none" in caught.value.remedy


@pytest.mark.parametrize("statistic", ["pgstat", "chi2gehrels"])
def test_and_fitted_by_its_errors_where_asked(statistic):
    observation = rates_of_exposure_one(small_observation())
    observation.check_fittable(statistic)
    binned = observation.group("width:1.1").binned
    assert not binned.background_poisson
    assert binned.background_error == pytest.approx(2e-5 * np.sqrt(binned.channels))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dataclasses.replace(small_observation(), response=None), "no response"),
        (lambda: small_observation(quality=np.ones(N_CHANNEL, dtype=int)), "flagged bad"),
        (lambda: small_observation().ignore(0.0, 20.0), "all channels are ignored"),
        (lambda: small_observation().notice(3.0, 3.01), "only one bin"),
        (lambda: small_observation().group("min:100000"), "only one bin"),
    ],
)
def test_what_cannot_be_fitted_is_one_sentence(make, words):
    with pytest.raises(UserError, match=words) as caught:
        make().check_fittable()
    assert caught.value.remedy


def test_negative_counts_are_refused_for_a_poisson_statistic_only():
    counts = small_spectrum().counts.copy()
    counts[3] = -2.0
    observation = small_observation(counts=counts, error=np.ones(N_CHANNEL))
    observation.check_fittable("chi2")
    observation.check_fittable("auto")
    with pytest.raises(UserError, match=r"cstat needs Poisson counts.*negative"):
        observation.check_fittable("cstat")


def test_bins_without_an_error_are_refused():
    error = np.ones(N_CHANNEL)
    error[10] = 0.0
    observation = small_observation(counts=small_spectrum().counts + 0.5, error=error)
    with pytest.raises(UserError, match="1 of 64 bins have no error"):
        observation.check_fittable("chi2")


def test_matrix_of_another_instrument_is_refused():
    whole = small_response()
    other = small_response(matrix=whole.matrix[:, :63], energy_bounds=whole.energy_bounds[:63])
    with pytest.raises(UserError, match="64 channels, its response 63"):
        Observation("small", small_spectrum(), other)


# --- Sherpa ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_counts_and_folded_model_equal_sherpas(shared_data, name):
    """notice, ignore_bad, eval_model_to_fit: same bins, same counts, same model to 1e-12, grouped or not."""
    path = source(shared_data, name)
    low, high = SETS[name]
    with quiet():
        from sherpa.astro.instrument import Response1D
        from sherpa.astro.io import read_pha
        from sherpa.models.basic import PowLaw1D

        pha = read_pha(str(path))
        model = PowLaw1D("power")
        model.gamma = 1.7
        pha.set_analysis("energy")
    observation = observed(path).notice(low, high)
    for method in ["none"] if observation.spectrum.flags is None else ["file", "none"]:
        with quiet():
            pha.notice()
            if method == "none":
                pha.ungroup()
            if pha.grouped and pha.quality is not None:
                pha.ignore_bad()
            pha.notice(low, high)
            if not pha.grouped and pha.quality is not None:
                pha.ignore_bad()
            expected = pha.eval_model_to_fit(Response1D(pha)(model))
            counts = pha.to_fit()[0]
        grouped = observation.group(method)
        folded = grouped.folded
        ours = model(folded.edges[:-1], folded.edges[1:]) @ folded.matrix
        assert np.array_equal(grouped.binned.counts, counts)
        assert ours == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", SETS)
def test_scaled_background_equals_sherpas(shared_data, name):
    """Whatever the columns and factors, the background expected in the source region is Sherpa's."""
    path = source(shared_data, name)
    with quiet():
        from sherpa.astro.io import read_pha

        pha = read_pha(str(path))
        pha.ungroup()
        expected = None
        if pha.background_ids:
            expected = pha.sum_background_data()
    ours = observed(path).spectrum.scaled_background
    if expected is None:
        assert ours is None
    else:
        assert ours == pytest.approx(expected, rel=1e-6, abs=1e-9 * max(expected.max(), 1))


@pytest.mark.parametrize("name", SETS)
def test_default_grouping_of_every_set_is_fit_for_a_fit(shared_data, name):
    observation = observed(source(shared_data, name)).notice(*SETS[name]).group()
    if name == "acis_cluster_annulus05":
        with pytest.raises(UserError, match="EXPOSURE 1"):
            observation.check_fittable()
        observation = observation.without_background()
    observation.check_fittable()
    binned, folded = observation.binned, observation.folded
    assert 10 < len(binned) < 400
    assert np.all(np.diff(folded.edges) > 0)
    assert folded.edges[0] > 0
    assert np.isfinite(folded.matrix).all()
    if binned.background is not None and "minbkg" in str(observation.spectrum.grouping):
        assert (binned.background >= 1).all()


@pytest.mark.parametrize(("rule", "bins"), [("touching", 110), ("inside", 108)])
def test_rules_select_what_sherpa_and_jaxspec_select(shared_data, rule, bins):
    """0.3-8 keV of the grouped pn spectrum is 110 bins in Sherpa and 108 in jaxspec: one rule each."""
    observation = observed(source(shared_data, "pn_ngc7793_ulx4")).group("file").notice(0.3, 8, rule=rule)
    assert len(observation.binned) == bins
