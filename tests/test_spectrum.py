"""Spectra: frozen, notice and ignore by either rule, scale factors of one and several backgrounds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepspec.errors import UserError
from deepspec.spectrum import Spectrum
from small_files import N_CHANNEL, small_response, small_spectrum

BOUNDS = small_response().energy_bounds
WIDTH = BOUNDS[0, 1] - BOUNDS[0, 0]


def spectrum(**changes) -> Spectrum:
    return small_spectrum(energy_bounds=BOUNDS, **changes)


def test_arrays_are_read_only_and_fields_are_frozen():
    one = spectrum()
    with pytest.raises(ValueError, match="read-only"):
        one.counts[0] = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.exposure = 2.0
    with pytest.raises(TypeError):
        one.header["OBJECT"] = "other"


def test_the_caller_keeps_his_own_array():
    counts = np.ones(N_CHANNEL)
    one = spectrum(counts=counts)
    counts[0] = 7
    assert one.counts[0] == 1


def test_every_change_is_a_new_object():
    one = spectrum()
    noticed = one.notice(1, 5)
    assert one.noticed.all()
    assert noticed.noticed.sum() < len(one)
    assert noticed.group("min:20").grouping != one.grouping


def test_notice_touching_takes_the_channels_at_the_edges():
    low, high = BOUNDS[10, 0] + 0.3 * WIDTH, BOUNDS[20, 0] + 0.3 * WIDTH
    assert np.array_equal(np.flatnonzero(spectrum().notice(low, high).noticed), np.arange(10, 21))


def test_notice_inside_leaves_them_out():
    low, high = BOUNDS[10, 0] + 0.3 * WIDTH, BOUNDS[20, 0] + 0.3 * WIDTH
    assert np.array_equal(np.flatnonzero(spectrum().notice(low, high, rule="inside").noticed), np.arange(11, 20))


def test_limits_on_channel_edges_select_the_same_by_both_rules():
    low, high = BOUNDS[10, 0], BOUNDS[20, 1]
    for rule in ("touching", "inside"):
        assert np.array_equal(np.flatnonzero(spectrum().notice(low, high, rule=rule).noticed), np.arange(10, 21))


def test_inside_forgives_limits_stored_in_single_precision():
    bounds = BOUNDS.astype(np.float32).astype(float)
    one = small_spectrum(energy_bounds=bounds)
    assert np.flatnonzero(one.notice(BOUNDS[10, 0], BOUNDS[20, 1], rule="inside").noticed).tolist() == list(
        range(10, 21)
    )


def test_rounding_of_single_precision_selects_no_further_channel():
    bounds = BOUNDS.copy()
    bounds[9, 1] = bounds[10, 0] = BOUNDS[10, 0] * (1 + 4e-8)
    assert np.flatnonzero(small_spectrum(energy_bounds=bounds).notice(BOUNDS[10, 0], 5.0).noticed)[0] == 10


@given(low=st.floats(0.2, 9.0), width=st.floats(0.4, 5.0))
def test_inside_is_part_of_touching_and_both_keep_their_promise(low, width):
    high = low + width
    touching, inside = spectrum().notice(low, high).noticed, spectrum().notice(low, high, rule="inside").noticed
    assert np.all(touching | ~inside)
    assert BOUNDS[inside].min() >= low - WIDTH / 100
    assert BOUNDS[inside].max() <= high + WIDTH / 100
    assert np.array_equal(touching, (BOUNDS[:, 0] < high - 1e-6) & (BOUNDS[:, 1] > low + 1e-6))


def test_ranges_add_up_and_ignore_takes_away():
    one = spectrum().notice(1, 2).notice(4, 6).ignore(4.5, 5)
    expected = spectrum().notice(1, 2).noticed | (spectrum().notice(4, 6).noticed & spectrum().ignore(4.5, 5).noticed)
    assert np.array_equal(one.noticed, expected)
    assert one.notice().noticed.all()


def test_ignore_first_leaves_the_rest_noticed():
    one = spectrum().ignore(high=1.0)
    assert np.array_equal(one.noticed, BOUNDS[:, 0] >= 1.0)


def test_bad_channels_are_never_in():
    quality = np.zeros(N_CHANNEL, dtype=int)
    quality[[0, 30]] = [2, 5]
    one = spectrum(quality=quality)
    assert not one.noticed[[0, 30]].any()
    assert not one.notice(0.1, 10).noticed[[0, 30]].any()
    assert one.group("min:5").binning.index[30] == -1


def test_bad_channels_of_the_background_are_out_too():
    quality = np.zeros(N_CHANNEL, dtype=int)
    quality[12] = 1
    one = spectrum()
    one = dataclasses.replace(one, backgrounds=(dataclasses.replace(one.backgrounds[0], quality=quality),))
    assert np.flatnonzero(~one.noticed).tolist() == [12]


def test_file_groups_are_selected_whole_by_either_rule():
    flags = np.where(np.arange(N_CHANNEL) % 4 == 0, 1, -1)
    one = spectrum(flags=flags).group("file")
    low, high = BOUNDS[9, 0] + 0.1 * WIDTH, BOUNDS[21, 0] + 0.1 * WIDTH
    assert np.flatnonzero(one.notice(low, high).noticed).tolist() == list(range(8, 24))
    assert np.flatnonzero(one.notice(low, high, rule="inside").noticed).tolist() == list(range(12, 20))
    assert one.notice(low, high).binning.n_bin == 4


def test_the_order_of_group_and_notice_does_not_matter():
    flags = np.where(np.arange(N_CHANNEL) % 4 == 0, 1, -1)
    for method in ("file", "min:30", "snr:3", "minbkg:4"):
        a = spectrum(flags=flags).group(method).notice(1.03, 6.07)
        b = spectrum(flags=flags).notice(1.03, 6.07).group(method)
        assert np.array_equal(a.binning.index, b.binning.index)


def test_other_groupings_begin_and_end_at_the_noticed_edge():
    channels = spectrum().notice(1.03, 6.07)
    grouped = channels.group("min:30")
    assert np.array_equal(channels.noticed, grouped.noticed)
    assert grouped.range_used == channels.range_used


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: s.notice(5, 1), "empty or reversed"),
        (lambda s: s.notice(3, 3), "empty or reversed"),
        (lambda s: s.notice(float("nan"), 3), "empty or reversed"),
        (lambda s: s.notice(50, 60), "no channel lies in 50:60"),
        (lambda s: s.notice(3, 3.0001, rule="inside"), "no channel lies within"),
        (lambda s: s.notice(1, 2, rule="outside"), "unknown rule"),
        (lambda s: s.ignore(5, 1), "empty or reversed"),
        (lambda s: s.group("file"), "no GROUPING column"),
        (lambda s: s.group("nine"), "unknown grouping"),
        (lambda s: dataclasses.replace(s, backgrounds=()).group("minbkg:1"), "needs a background"),
        (lambda s: dataclasses.replace(s, energy_bounds=None).notice(1, 2), "have no energies"),
    ],
)
def test_mistakes_are_one_sentence(call, words):
    with pytest.raises(UserError, match=words) as caught:
        call(spectrum())
    assert caught.value.remedy


def test_ratio_is_exposure_backscal_areascal():
    one = spectrum()
    background = dataclasses.replace(one.backgrounds[0], exposure=500.0, areascal=2.0)
    one = dataclasses.replace(one, areascal=0.5, backgrounds=(background,))
    assert one.ratio == pytest.approx((1000 * 0.01 * 0.5) / (500 * 0.04 * 2.0))


def test_two_backgrounds_expect_what_their_sum_says():
    """Each region i expects s / r_i counts of a source-region background s: together s (1/r_1 + 1/r_2)."""
    one = spectrum()
    second = dataclasses.replace(one.backgrounds[0], backscal=0.02)
    both = dataclasses.replace(one, backgrounds=(one.backgrounds[0], second))
    assert both.ratio == pytest.approx(1 / (1 / 0.25 + 1 / 0.5))
    assert np.array_equal(both.background, 2 * one.backgrounds[0].counts)


def test_dead_channels_are_left_out():
    areascal = np.ones(N_CHANNEL)
    areascal[5] = 0.0
    assert np.flatnonzero(~spectrum(areascal=areascal).noticed).tolist() == [5]
    one = spectrum()
    dead = dataclasses.replace(one.backgrounds[0], backscal=np.where(np.arange(N_CHANNEL) == 7, 0.0, 0.04))
    assert np.flatnonzero(~dataclasses.replace(one, backgrounds=(dead,)).noticed).tolist() == [7]


def test_variance_is_that_of_the_file_only_where_its_errors_are_in_force():
    counts, error = np.full(N_CHANNEL, 4.0), np.full(N_CHANNEL, 3.0)
    assert np.all(spectrum(counts=counts, error=error).variance == 4)
    assert np.all(spectrum(counts=counts, error=error, use_errors=True).variance == 9)
    assert np.all(spectrum(counts=counts - 0.5, error=error).variance == 9)
    assert not spectrum(counts=counts, error=error, use_errors=True).poisson
    assert not spectrum(counts=counts - 5, error=error).poisson
