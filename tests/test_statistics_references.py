"""Fit statistics against Sherpa, the XSPEC manual and independent numerical profiling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import xlogy

from deepspec.statistics import FLOOR, STATISTICS, CStat, PGStat, WStat
from statistic_cases import binned

# Against Sherpa -----------------------------------------------------------------------------------------------------


def sherpa_data(n, b=None, ratio=1.0, subtract=False):
    """A Sherpa data set whose BACKSCAL, AREASCAL and exposures differ and multiply to `ratio`, and a model holder."""
    from sherpa.astro.data import DataPHA

    channel = np.arange(1, len(n) + 1.0)
    exposure, backscal, areascal = 1500.0, 0.02, 0.8
    data = DataPHA("source", channel, n, exposure=exposure, backscal=backscal, areascal=areascal)
    if b is not None:
        more = ratio if np.ndim(ratio) == 0 else 1.0
        scale = backscal / (2.0 * more) if np.ndim(ratio) == 0 else np.full(len(n), backscal) / (2.0 * ratio)
        data.set_background(
            DataPHA("background", channel, b, exposure=exposure * 2.5, backscal=scale, areascal=areascal / 1.25)
        )
        # 1 / (2.5 x 1/(2 ratio) x 1/1.25) = ratio
        if subtract:
            data.subtract()
    return data


def sherpa_value(name, data, m):
    """Sherpa's statistic for predicted counts `m` per channel."""
    from sherpa import stats
    from sherpa.models.model import ArithmeticModel

    class Table(ArithmeticModel):
        def calc(self, p, *args, **kwargs):
            return m

    classes = {
        "cstat": stats.CStat,
        "wstat": stats.WStat,
        "chi2": stats.Chi2XspecVar,
        "chi2datavar": stats.Chi2DataVar,
        "chi2gehrels": stats.Chi2Gehrels,
        "chi2modvar": stats.Chi2ModVar,
        "chi2constvar": stats.Chi2ConstVar,
    }
    return classes[name]().calc_stat(data, Table("table"))[0]


@pytest.mark.parametrize("name", ["cstat", "chi2", "chi2datavar", "chi2gehrels", "chi2modvar", "chi2constvar"])
@pytest.mark.parametrize("level", [0.3, 5.0, 4000.0])
def test_sherpas_value_without_background(name, level):
    rng = np.random.default_rng(2)
    m = level * rng.uniform(0.5, 1.5, 300)
    n = rng.poisson(m) + (1.0 if name == "chi2datavar" else 0.0)
    ours = float(STATISTICS[name](binned(n)).value(torch.tensor(m)))
    assert ours == pytest.approx(sherpa_value(name, sherpa_data(n * 1.0), m), rel=1e-10)


@pytest.mark.parametrize("level", [0.3, 5.0, 4000.0])
@pytest.mark.parametrize("ratio", [0.05, 0.7, 3.0])
def test_sherpas_wstat(level, ratio):
    rng = np.random.default_rng(3)
    m = level * rng.uniform(0.2, 1.8, 300)
    b = rng.poisson(level * rng.uniform(0.2, 1.8, 300)) * 1.0
    n = rng.poisson(m + ratio * b) * 1.0
    n[:20], b[10:40] = 0.0, 0.0
    ours = float(STATISTICS["wstat"](binned(n, b, ratio)).value(torch.tensor(m)))
    assert ours == pytest.approx(sherpa_value("wstat", sherpa_data(n, b, ratio), m), rel=1e-10)


@pytest.mark.parametrize("case", ["no source counts", "no background counts", "neither"])
def test_sherpas_wstat_in_its_zero_cases(case):
    rng = np.random.default_rng(4)
    m = rng.uniform(0.01, 8.0, 200)  # on both sides of n α / (1 + α)
    n, b = rng.poisson(3.0, 200) * 1.0, rng.poisson(3.0, 200) * 1.0
    n = np.zeros(200) if case in ("no source counts", "neither") else n
    b = np.zeros(200) if case in ("no background counts", "neither") else b
    ours = float(STATISTICS["wstat"](binned(n, b, 0.4)).value(torch.tensor(m)))
    assert ours == pytest.approx(sherpa_value("wstat", sherpa_data(n, b, 0.4), m), rel=1e-10)


def test_sherpas_wstat_with_a_ratio_per_bin():
    rng = np.random.default_rng(5)
    ratio, m = rng.uniform(0.05, 2.0, 100), rng.uniform(0.1, 20.0, 100)
    n, b = rng.poisson(9.0, 100) * 1.0, rng.poisson(4.0, 100) * 1.0
    ours = float(STATISTICS["wstat"](binned(n, b, ratio)).value(torch.tensor(m)))
    assert ours == pytest.approx(sherpa_value("wstat", sherpa_data(n, b, ratio), m), rel=1e-10)


@pytest.mark.parametrize("name", ["chi2", "chi2datavar", "chi2gehrels", "chi2constvar"])
@pytest.mark.parametrize("ratio", [0.05, 0.7, 3.0])
def test_sherpas_chi2_of_subtracted_data(name, ratio):
    rng = np.random.default_rng(6)
    m = rng.uniform(0.5, 30.0, 300)
    b = rng.poisson(4.0, 300) * 1.0
    n = rng.poisson(m + ratio * b) * 1.0
    if name == "chi2":
        n[:30], b[20:50] = 0.0, 0.0
    else:
        n += 1.0
    ours = float(STATISTICS[name](binned(n, b, ratio)).value(torch.tensor(m)))
    assert ours == pytest.approx(sherpa_value(name, sherpa_data(n, b, ratio, subtract=True), m), rel=1e-10)


def test_cstat_of_an_impossible_bin_is_near_sherpas_truncation():
    n = np.array([0.0, 1.0, 7.0])
    m = np.array([0.0, 0.0, 0.0])
    ours = CStat(binned(n)).per_bin(torch.tensor(m))
    assert float(ours[0]) == 0.0
    # Sherpa evaluates at 1e-25 counts; ours adds the straight line's 2n.
    for i in (1, 2):
        theirs = sherpa_value("cstat", sherpa_data(n[i : i + 1]), m[i : i + 1])
        assert float(ours[i]) == pytest.approx(theirs + 2 * n[i], rel=1e-10)
    at_floor = float(CStat(binned(n)).per_bin(torch.full((3,), FLOOR, dtype=torch.float64))[2])
    assert at_floor == pytest.approx(sherpa_value("cstat", sherpa_data(n[2:]), np.array([FLOOR])), rel=1e-12)


# Against independent profiling --------------------------------------------------------------------------------------


def minus_log_poisson(n, mean):
    """2 (μ - n + n ln(n/μ)), SciPy's logarithms."""
    return 2.0 * (mean - n + xlogy(n, n) - xlogy(n, mean))


def profiled(function, highest):
    """Smallest value over the background, which is searched on a logarithmic scale and at (almost) 0."""
    coarse = np.concatenate([[-60.0], np.linspace(-12.0, np.log(highest), 200)])
    best = min(coarse, key=function)
    found = minimize_scalar(function, bounds=(best - 1.0, best + 1.0), method="bounded", options={"xatol": 1e-10})
    return min(found.fun, function(-60.0))


@given(
    n=st.integers(0, 60),
    b=st.integers(0, 60),
    a=st.floats(0.02, 3.0),
    m=st.one_of(st.just(0.0), st.floats(0.01, 80.0)),
)
def test_wstat_is_the_profile_likelihood(n, b, a, m):
    def joint(log_region):
        region = np.exp(log_region)
        return minus_log_poisson(n, m + a * region) + minus_log_poisson(b, region)

    ours = float(WStat.from_tensors([n], [b], [a]).value(torch.tensor([m], dtype=torch.float64)))
    assert ours == pytest.approx(profiled(joint, 1e4), abs=2e-7)


@given(
    n=st.integers(0, 60),
    b=st.floats(-5.0, 60.0),
    e=st.floats(0.2, 12.0),
    a=st.floats(0.05, 3.0),
    m=st.one_of(st.just(0.0), st.floats(0.01, 80.0)),
)
def test_pgstat_is_the_profile_likelihood(n, b, e, a, m):
    def joint(log_background):
        f = np.exp(log_background)
        return minus_log_poisson(n, m + f) + ((f - a * b) / (a * e)) ** 2

    statistic = PGStat.from_tensors([n], [b], [a], background_error=[e])
    ours = float(statistic.value(torch.tensor([m], dtype=torch.float64)))
    assert ours == pytest.approx(profiled(joint, 1e4), abs=2e-7)


def manual_pgstat(n, b, sigma, source_time, background_time, m):
    """XSPEC's manual, appendix B, in its own symbols: rates and times; returns the value and f."""
    ts, tb = source_time, background_time
    first = ts * sigma**2 - tb * b + tb**2 * m
    d = np.sqrt(first**2 - 4 * tb**2 * (ts * sigma**2 * m - n * sigma**2 - tb * b * m))
    f = (-first + d) / (2 * tb**2)
    value = ts * (m + f) - xlogy(n, ts * (m + f)) + (b - tb * f) ** 2 / (2 * sigma**2) - n * (1 - np.log(n))
    return 2 * value, f


def test_pgstat_is_the_manuals_formula_where_its_background_is_positive():
    rng = np.random.default_rng(7)
    size, ts, tb = 500, 3.0, 7.0
    n, m = rng.poisson(12.0, size) + 1.0, rng.uniform(0.05, 5.0, size)
    b, sigma = rng.normal(15.0, 6.0, size), rng.uniform(0.5, 5.0, size)
    value, f = manual_pgstat(n, b, sigma, ts, tb, m)
    positive = f > 0
    assert positive.mean() > 0.8
    statistic = PGStat.from_tensors(n, b, np.full(size, ts / tb), background_error=sigma)
    ours = statistic.per_bin(torch.tensor(ts * m)).numpy()
    np.testing.assert_allclose(ours[positive], value[positive], rtol=1e-10, atol=1e-10)
    ours_background = statistic.background(torch.tensor(ts * m)).numpy()
    np.testing.assert_allclose(ours_background[positive], ts * f[positive], rtol=1e-9)
    assert (ours[~positive] >= value[~positive]).all()


def test_pgstat_without_error_is_cstat_on_a_known_background():
    rng = np.random.default_rng(8)
    n, b, m = rng.poisson(5.0, 50) * 1.0, rng.uniform(0.0, 8.0, 50), torch.tensor(rng.uniform(0.1, 9.0, 50))
    exact = PGStat.from_tensors(n, b, np.full(50, 0.5), background_error=np.zeros(50))
    torch.testing.assert_close(exact.per_bin(m), CStat.from_tensors(n).per_bin(m + torch.tensor(0.5 * b)))


def test_pgstat_with_a_large_poisson_background_is_near_wstat():
    rng = np.random.default_rng(9)
    n, b, m = rng.poisson(300.0, 50) * 1.0, rng.poisson(4000.0, 50) * 1.0, torch.tensor(rng.uniform(50.0, 150.0, 50))
    gaussian = PGStat.from_tensors(n, b, np.full(50, 0.05), background_error=np.sqrt(b)).value(m)
    counted = WStat.from_tensors(n, b, np.full(50, 0.05)).value(m)
    assert float(gaussian) == pytest.approx(float(counted), rel=0.01)


# Real spectra -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["acis_3c273", "pn_ngc7793_ulx4", "xrt_pc_op313"])
def test_real_spectra_have_sherpas_wstat(name, shared_data):
    """Counts, scale factors and background of a real file, for an arbitrary positive prediction."""
    from sherpa.astro.io import read_pha

    from deepspec.io import read_observation

    path = shared_data / "spectra" / name / "src.pha"
    ours = read_observation(path).notice(0.5, 7.0).group("none")
    theirs = read_pha(str(path))
    theirs.ungroup()
    used = np.isin(theirs.channel, ours.spectrum.channels[ours.spectrum.noticed])
    theirs.mask = used
    m = np.random.default_rng(17).uniform(0.01, 3.0, int(used.sum()))
    value = float(STATISTICS["wstat"](ours.binned).value(torch.tensor(m)))
    assert value == pytest.approx(sherpa_value("wstat", theirs, m), rel=1e-10)


# The bias that docs/statistics.md warns of ----------------------------------------------------------------------------


def fitted_norm(counts, background, ratio, shape):
    """Norm of a model `shape` with the smallest W-stat for each row of data, by damped scoring."""
    statistic = WStat.from_tensors(counts, background, np.array([ratio]))
    shape, norm = torch.tensor(shape), torch.ones((len(counts), 1), dtype=torch.float64)
    for _ in range(40):
        _, slope, weight = statistic.terms(norm * shape)
        step = (slope * shape).sum(-1, keepdim=True) / (weight * shape**2).sum(-1, keepdim=True)
        norm = torch.clamp(norm - step.clamp(-0.3, 0.3), min=1e-6)
    assert ((statistic.slope(norm * shape) * shape).sum(-1).abs() < 1e-3 * shape.sum()).all()
    return norm.squeeze(-1).numpy()


def test_wstat_is_biased_by_scarce_background_counts_and_grouping_cures_it():
    rng = np.random.default_rng(18)
    counts, background = rng.poisson(0.5 + 0.5 * 2.0, (60, 600)) * 1.0, rng.poisson(2.0, (60, 600)) * 1.0
    as_it_is = fitted_norm(counts, background, 0.5, np.full(600, 0.5))
    grouped = fitted_norm(
        counts.reshape(60, 120, 5).sum(-1), background.reshape(60, 120, 5).sum(-1), 0.5, np.full(120, 2.5)
    )
    assert as_it_is.mean() == pytest.approx(1.109, abs=0.06)
    assert grouped.mean() == pytest.approx(1.0, abs=0.06)
    assert (as_it_is - grouped).mean() > 0.07
