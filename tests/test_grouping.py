"""Grouping: laws that hold for every method, and the formula of optimal binning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepspec.errors import UserError
from deepspec.grouping import METHODS, Channels, assign, optimal_width, parse_grouping, runs

N = 120
TEXTS = [
    "none",
    "file",
    "min:1",
    "min:20",
    "snr:3",
    "width:0.21",
    "optimal",
    "minbkg:2",
    "optimal+minbkg:3",
    "width:0.1+min:7",
]


@st.composite
def spectra(draw):
    """Counts, background, groups of the file, quality and noticed ranges, all at random."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    level = draw(st.sampled_from([0.0, 0.05, 1.0, 30.0, 3000.0]))
    counts = rng.poisson(level * rng.gamma(0.5, 1.0, N)).astype(float)
    background = rng.poisson(draw(st.sampled_from([0.0, 0.3, 4.0])), N).astype(float)
    low = 0.1 + 0.05 * np.arange(N)
    channels = Channels(
        counts=counts,
        variance=counts,
        background=background,
        background_variance=background,
        ratio=np.full(N, 0.2),
        energy_low=low,
        energy_high=low + 0.05,
        fwhm=np.linspace(2.0, 9.0, N),
        flags=rng.choice([1, -1, -1, 0], N),
    )
    good = rng.random(N) > draw(st.sampled_from([0.0, 0.05, 0.5]))
    noticed = np.ones(N, dtype=bool)
    for _ in range(draw(st.integers(0, 3))):
        first = rng.integers(0, N)
        noticed[first : first + rng.integers(1, 30)] = False
    return channels, noticed, good


@pytest.mark.parametrize("text", TEXTS)
@given(data=spectra())
def test_every_noticed_good_channel_is_in_exactly_one_rising_bin(text, data):
    channels, noticed, good = data
    binning = assign(runs(noticed, good), channels, parse_grouping(text))
    assert np.array_equal(binning.used, noticed & good)
    steps = np.diff(binning.index[binning.used])
    assert set(np.unique(steps)) <= {0, 1}
    if binning.n_bin:
        assert binning.index[binning.used][0] == 0
        assert np.unique(binning.index[binning.used]).size == binning.n_bin


@pytest.mark.parametrize("text", TEXTS)
@given(data=spectra())
def test_counts_are_conserved_and_edges_rise(text, data):
    channels, noticed, good = data
    binning = assign(runs(noticed, good), channels, parse_grouping(text))
    assert binning.sum(channels.counts).sum() == channels.counts[noticed & good].sum()
    assert np.array_equal(binning.sum(channels.counts), channels.counts @ binning.matrix)
    low, high = binning.low(channels.energy_low), binning.high(channels.energy_high)
    assert np.all(low < high)
    assert np.all(low[1:] >= high[:-1] - 1e-12)


@pytest.mark.parametrize("text", TEXTS)
@given(data=spectra())
def test_no_bin_straddles_an_ignored_channel(text, data):
    channels, noticed, good = data
    binning = assign(runs(noticed, good), channels, parse_grouping(text))
    for number in range(binning.n_bin):
        inside = np.flatnonzero(binning.index == number)
        assert noticed[inside[0] : inside[-1] + 1].all()


REACHING = {
    "min:20": lambda c, b: b.sum(c.counts) >= 20,
    "minbkg:2": lambda c, b: b.sum(c.background) >= 2,
    "optimal+minbkg:3": lambda c, b: b.sum(c.background) >= 3,
    "width:0.21": lambda c, b: b.sum(c.energy_high - c.energy_low) >= 0.21 - 1e-9,
    "snr:3": lambda c, b: (
        b.sum(c.counts - c.ratio * c.background) >= 3 * np.sqrt(b.sum(c.counts + c.ratio**2 * c.background)) - 1e-9
    ),
}


@pytest.mark.parametrize("text", [t for t in REACHING if t != "snr:3"])
@given(data=spectra())
def test_target_is_reached_in_every_bin_of_a_run_that_can_reach_it(text, data):
    channels, noticed, good = data
    for run in runs(noticed, good):
        binning = assign([run], channels, parse_grouping(text))
        assert REACHING[text](channels, binning).all() or binning.n_bin == 1


@given(data=spectra())
def test_signal_to_noise_is_reached_in_all_bins_but_the_last(data):
    """What is left over joins the last bin, and may lower its ratio."""
    channels, noticed, good = data
    for run in runs(noticed, good):
        binning = assign([run], channels, parse_grouping("snr:3"))
        assert REACHING["snr:3"](channels, binning)[:-1].all()


@given(data=spectra())
def test_bins_of_minimum_counts_are_as_short_as_can_be(data):
    channels, noticed, good = data
    for run in runs(noticed, good):
        binning = assign([run], channels, parse_grouping("min:20"))
        for number in range(binning.n_bin - 1):
            inside = np.flatnonzero(binning.index == number)
            assert channels.counts[inside[:-1]].sum() < 20


@given(data=spectra())
def test_runs_do_not_see_each_other(data):
    """The bins of one run do not depend on what lies beyond an ignored range (sherpa#718, #149)."""
    channels, noticed, good = data
    parts = runs(noticed, good)
    for text in ("min:20", "optimal", "minbkg:2"):
        whole = assign(parts, channels, parse_grouping(text)) if parts else None
        for part in parts:
            alone = assign([part], channels, parse_grouping(text)).index[part]
            assert np.array_equal(alone, whole.index[part] - whole.index[part].min())


def test_optimal_bins_are_never_wider_than_the_resolution():
    channels = Channels(counts=np.full(N, 2.0), fwhm=np.linspace(2.0, 9.0, N))
    binning = assign([np.arange(N)], channels, parse_grouping("optimal"))
    for number in range(binning.n_bin):
        inside = np.flatnonzero(binning.index == number)
        assert len(inside) <= max(channels.fwhm[inside].min(), 1.0)


def test_optimal_bins_shrink_as_counts_grow():
    sizes = []
    for level in (0.01, 10.0, 1e4, 1e7):
        channels = Channels(counts=np.full(N, level), fwhm=np.full(N, 12.0))
        sizes.append(assign([np.arange(N)], channels, parse_grouping("optimal")).n_bin)
    assert sizes == sorted(sizes)
    assert sizes[0] == N // 12
    assert sizes[-1] > 2 * sizes[0]


def test_optimal_width_follows_the_published_formula():
    """Kaastra & Bleeker (2016), section 5, worked by hand for x = 2.119, 5 and 10."""
    counts = np.exp(np.array([2.119, 5.0, 10.0]))
    expected = [1.0, (0.08 + 1.4 + 0.072) / 2.18, (0.08 + 0.7 + 0.018) / 1.59]
    assert optimal_width(counts, 1.0) == pytest.approx(expected, rel=1e-4)


def test_optimal_width_counts_the_resolution_elements():
    assert optimal_width(np.array([50.0]), 100.0) == pytest.approx(
        optimal_width(np.array([50.0 * (1 + 0.2 * np.log(100))]), 1.0)
    )


def test_optimal_width_is_one_without_counts_and_continuous_at_the_change():
    assert np.all(optimal_width(np.array([0.0, 1e-9, 1.0]), 1.0) == 1.0)
    edge = np.exp(2.119)
    assert optimal_width(np.array([edge * 1.0001]), 1.0)[0] == pytest.approx(1.0, abs=1e-4)


def test_bad_channels_inside_a_range_do_not_end_a_bin():
    counts = np.full(10, 5.0)
    good = np.ones(10, dtype=bool)
    good[3] = False
    binning = assign(runs(np.ones(10, dtype=bool), good), Channels(counts=counts), parse_grouping("min:20"))
    assert binning.index.tolist() == [0, 0, 0, -1, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("text", TEXTS)
def test_parsing_gives_back_the_text(text):
    assert str(parse_grouping(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("minn:5", "did you mean min"),
        ("min", "positive number"),
        ("min:", "positive number"),
        ("min:-3", "positive number"),
        ("min:nan", "positive number"),
        ("snr:inf", "positive number"),
        ("width:0", "positive number"),
        ("optimal:3", "takes no number"),
        ("file:1", "takes no number"),
        ("min:5+optimal", "only come first"),
        ("", "unknown grouping"),
        ("optimal+", "unknown grouping"),
    ],
)
def test_nonsense_is_one_sentence(text, words):
    with pytest.raises(UserError, match=words) as caught:
        parse_grouping(text)
    assert caught.value.remedy


def test_methods_that_need_what_is_absent_say_so():
    channels = Channels(counts=np.ones(5))
    for name, (_, meaning, need) in METHODS.items():
        text = name if meaning is None else f"{name}:1"
        if need is not None:
            with pytest.raises(UserError, match="needs"):
                assign([np.arange(5)], channels, parse_grouping(text))
