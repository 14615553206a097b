"""Fit statistics: laws, closed-form derivatives, Sherpa's values, zero cases, choice and messages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar
from scipy.special import xlogy

from deepspec.binned import BinnedData
from deepspec.errors import UserError
from deepspec.statistics import FLOOR, STATISTICS, CStat, PGStat, WStat, choose_statistic

SIZE = 8
POISSON = ["cstat", "wstat", "pgstat"]
EVERY = list(STATISTICS)


def made(name, counts, background, ratio, error):
    """A statistic with the fields that it takes."""
    cls = STATISTICS[name]
    if name == "cstat":
        return cls.from_tensors(counts)
    if name == "pgstat":
        return cls.from_tensors(counts, background, ratio, background_error=error)
    return cls.from_tensors(counts, background, ratio)


def binned(counts, background=None, ratio=None, **more):
    """Data whose bins are 1 keV wide."""
    counts = np.asarray(counts, float)
    edges = np.arange(len(counts) + 1.0)
    if background is not None:
        background = np.asarray(background, float)
        ratio = np.broadcast_to(np.asarray(ratio, float), counts.shape)
    return BinnedData(counts, edges[:-1], edges[1:], np.ones(len(counts)), 1.0, background, ratio, **more)


few = arrays(float, SIZE, elements=st.integers(0, 6).map(float))
many = arrays(float, SIZE, elements=st.integers(0, 3000).map(float))
counts_of = st.one_of(few, many)
predicted = arrays(float, SIZE, elements=st.one_of(st.just(0.0), st.floats(1e-6, 1e-2), st.floats(1e-2, 3000.0)))
ratios = arrays(float, SIZE, elements=st.floats(1e-3, 4.0))
errors = arrays(float, SIZE, elements=st.one_of(st.just(0.0), st.floats(0.1, 30.0)))


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=40)
@given(n=counts_of, b=counts_of, a=ratios, e=errors, m=predicted)
def test_everything_is_finite_with_zeros_anywhere(name, n, b, a, e, m):
    n[0], b[0] = 0.0, 0.0
    n[1], b[1], m[1] = 0.0, 0.0, 0.0
    n[2], m[2] = 3.0, 0.0
    statistic = made(name, n, b, a, e)
    m = torch.tensor(m, requires_grad=True)
    value = statistic.per_bin(m)
    (gradient,) = torch.autograd.grad(value.sum(), m, create_graph=True)
    second = torch.zeros_like(m)
    if gradient.requires_grad:
        (second,) = torch.autograd.grad(gradient.sum(), m)
    plain = m.detach()
    for tensor in (
        value,
        gradient,
        second,
        statistic.slope(plain),
        statistic.curvature(plain),
        statistic.weight(plain),
    ):
        assert torch.isfinite(tensor).all()
    assert (statistic.weight(plain) > 0).all()
    assert (value > -1e-9 * (1 + torch.tensor(n + b))).all()


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=40)
@given(n=counts_of, b=counts_of, a=ratios, e=errors, m=predicted)
def test_slope_and_curvature_are_the_derivatives(name, n, b, a, e, m):
    statistic = made(name, n, b, a, e)
    m = torch.tensor(m, requires_grad=True)
    (gradient,) = torch.autograd.grad(statistic.value(m), m, create_graph=True)
    second = torch.zeros_like(m)
    if gradient.requires_grad:
        (second,) = torch.autograd.grad(gradient.sum(), m)
    plain = m.detach()
    torch.testing.assert_close(statistic.slope(plain), gradient.detach(), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(statistic.curvature(plain), second, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_gradcheck(name):
    rng = np.random.default_rng(1)
    n, b = rng.poisson(4.0, SIZE) * 1.0, rng.poisson(6.0, SIZE) * 1.0
    n[:2], b[1:3] = 0.0, 0.0
    statistic = made(name, n, b, rng.uniform(0.05, 2.0, SIZE), rng.uniform(0.5, 3.0, SIZE))
    m = torch.tensor(rng.uniform(0.5, 9.0, (2, SIZE)), requires_grad=True)
    assert torch.autograd.gradcheck(statistic.per_bin, m)
    assert torch.autograd.gradgradcheck(statistic.per_bin, m)


@pytest.mark.parametrize("name", POISSON)
@given(n=counts_of, b=counts_of, a=ratios, e=errors)
def test_zero_and_stationary_where_the_model_is_the_data(name, n, b, a, e):
    e = np.maximum(e, 0.1)
    m = torch.tensor(n if name == "cstat" else n - a * b)
    possible = m >= 0
    statistic = made(name, n, b, a, e)
    value = torch.where(possible, statistic.per_bin(m), 0.0)
    slope = torch.where(possible & (torch.tensor(n) > 0), statistic.slope(m), 0.0)
    scale = torch.tensor(1.0 + n + b)
    assert (value.abs() < 1e-9 * scale).all()
    assert (slope.abs() < 1e-7).all()


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


@pytest.mark.parametrize("name", POISSON)
def test_negative_predictions_are_worse_than_none(name):
    statistic = made(name, [0.0, 2.0, 50.0], [3.0, 0.0, 4.0], [0.3] * 3, [1.0] * 3)
    m = torch.tensor([[-5.0] * 3, [-1.0] * 3, [0.0] * 3], dtype=torch.float64)
    value = statistic.value(m)
    assert value[0] > value[1] > value[2]
    assert (statistic.slope(m[:2]) < 0).all()


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


# Fisher weights and simulated data ----------------------------------------------------------------------------------


def test_fisher_weight_of_cstat_is_the_mean_curvature():
    rng = np.random.default_rng(10)
    m = torch.tensor([0.3, 1.0, 4.0, 30.0], dtype=torch.float64).expand(40000, -1)
    drawn = CStat.from_tensors(np.zeros(4)).draw(m, rng)
    torch.testing.assert_close(drawn.curvature(m).mean(0), drawn.weight(m)[0], rtol=0.03, atol=0.0)


def test_fisher_weight_of_chi2modvar_is_the_mean_curvature():
    rng = np.random.default_rng(11)
    m = torch.tensor([3.0, 10.0, 200.0], dtype=torch.float64).expand(40000, -1)
    drawn = STATISTICS["chi2modvar"].from_tensors(np.zeros(3)).draw(m, rng)
    torch.testing.assert_close(drawn.curvature(m).mean(0), drawn.weight(m)[0], rtol=0.01, atol=0.0)


@pytest.mark.parametrize("name", ["wstat", "pgstat"])
@pytest.mark.parametrize(("ratio", "agreement"), [(0.1, 0.02), (1.0, 0.05)])
def test_fisher_weight_with_a_background_is_near_the_mean_curvature(name, ratio, agreement):
    rng = np.random.default_rng(12)
    m = torch.tensor([10.0, 30.0, 100.0, 3.0], dtype=torch.float64).expand(40000, -1)
    region = np.array([10.0, 30.0, 3.0, 100.0])
    a = np.full(4, ratio)
    counts = m.numpy() + a * region  # at these data the profiled background is `region`
    start = made(name, counts[0], region, a, np.sqrt(region))
    drawn = start.draw(m, rng)
    exact = torch.tensor(2.0 / (m[0].numpy() + a * region + a**2 * region))
    torch.testing.assert_close(drawn.curvature(m).mean(0), exact, rtol=agreement, atol=0.0)
    torch.testing.assert_close(drawn.weight(m).mean(0), exact, rtol=agreement, atol=0.0)
    torch.testing.assert_close(start.weight(m[0]), exact, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("name", EVERY)
def test_drawn_data_have_the_right_mean_and_shape(name):
    rng = np.random.default_rng(13)
    m = torch.tensor([5.0, 20.0, 80.0], dtype=torch.float64).expand(20000, -1)
    region, a = np.array([40.0, 4.0, 12.0]), np.array([0.2, 0.5, 1.0])
    start = made(name, m[0].numpy() + a * region, region, a, np.array([3.0, 2.0, 4.0]))
    drawn = start.draw(m, rng)
    assert drawn.counts.shape == m.shape
    assert drawn.value(m).shape == (20000,)
    expected = m[0] + start.background(m[0])
    error = torch.sqrt(expected / 20000)
    assert ((drawn.counts.mean(0) - expected).abs() < 5 * error).all()
    if start.uses_background:
        region, spread = torch.tensor(region), torch.sqrt(torch.tensor(region))
        if name == "pgstat":
            spread = torch.tensor([3.0, 2.0, 4.0])
        assert ((drawn.background_counts.mean(0) - region).abs() < 5 * spread / 20000**0.5).all()
        torch.testing.assert_close(drawn.background_counts.std(0), spread.double(), rtol=0.03, atol=0.0)
    again = start.draw(m, np.random.default_rng(13))
    torch.testing.assert_close(again.counts, drawn.counts, rtol=0, atol=0)


def test_chi2_draws_with_the_errors_of_the_file():
    start = STATISTICS["chi2"](binned([5.5, 40.0], poisson=False, error=np.array([2.0, 3.0])))
    m = torch.tensor([6.0, 41.0], dtype=torch.float64).expand(20000, -1)
    drawn = start.draw(m, np.random.default_rng(14))
    torch.testing.assert_close(drawn.counts.std(0), torch.tensor([2.0, 3.0]).double(), rtol=0.03, atol=0.0)
    assert float(drawn.value(m).mean()) == pytest.approx(2.0, rel=0.03)


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_of_data_is_each_data_set_by_itself(name):
    rng = np.random.default_rng(15)
    n, b = rng.poisson(6.0, (5, SIZE)) * 1.0, rng.poisson(9.0, (5, SIZE)) * 1.0
    a, e = rng.uniform(0.1, 1.0, SIZE), rng.uniform(1.0, 4.0, SIZE)
    m = torch.tensor(rng.uniform(0.0, 12.0, (5, SIZE)))
    together = made(name, n, b, a, e).value(m)
    alone = torch.stack([made(name, n[i], b[i], a, e).value(m[i]) for i in range(5)])
    torch.testing.assert_close(together, alone)
    # Starts as one more axis in front of the data sets.
    many_starts = made(name, n, b, a, e).value(torch.stack([m, m + 1.0, m + 2.0]))
    torch.testing.assert_close(many_starts[0], together)


def test_map_selects_data_sets_and_bins():
    n, b, a = np.arange(12.0).reshape(3, 4), np.full((3, 4), 5.0), np.full(4, 0.5)
    statistic = WStat.from_tensors(n, b, a)
    m = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    picked = statistic.map(lambda t: t[1] if t.dim() > 1 else t)
    torch.testing.assert_close(picked.value(m), statistic.value(m)[1])
    bins = statistic.map(lambda t: t[..., 1:])
    torch.testing.assert_close(bins.per_bin(m[1:]), statistic.per_bin(m)[:, 1:])


def test_data_in_use_do_not_change_with_the_array_they_came_from():
    counts = np.array([1.0, 2.0])
    statistic = CStat.from_tensors(counts)
    counts[:] = 99.0
    assert statistic.counts.tolist() == [1.0, 2.0]


# chi2 ---------------------------------------------------------------------------------------------------------------


def test_chi2_takes_the_errors_of_the_files():
    data = binned(
        [10.5, -3.0],
        [4.5, 8.0],
        0.5,
        poisson=False,
        error=np.array([2.0, 3.0]),
        background_poisson=False,
        background_error=np.array([1.0, 4.0]),
    )
    value = STATISTICS["chi2"](data).per_bin(torch.tensor([7.0, 1.0]).double())
    expected = [(10.5 - 2.25 - 7.0) ** 2 / (4 + 0.25), (-3.0 - 4.0 - 1.0) ** 2 / (9 + 0.25 * 16)]
    np.testing.assert_allclose(value, expected, rtol=1e-14)


def test_chi2modvar_of_subtracted_data():
    statistic = STATISTICS["chi2modvar"](binned([20.0], [10.0], 0.5))
    value = float(statistic.value(torch.tensor([12.0]).double()))
    assert value == pytest.approx((20 - 5 - 12) ** 2 / (12 + 5 + 2.5))


def test_churazov_averages_over_the_nearest_bins_with_ten_counts():
    counts = [0.0, 2.0, 3.0, 1.0, 40.0, 0.0, 0.0]
    variance = STATISTICS["chi2churazov"](binned(counts)).variance
    # The windows reach bin 4 at half-width 4, 3, 2, 1, 0, 1, 2; at the ends they are cut.
    by_hand = [46 / 5, 46 / 5, 46 / 5, 44 / 3, 40.0, 40 / 3, 40 / 3]
    np.testing.assert_allclose(variance, by_hand)


# choice and messages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (binned([3.0, 4.0]), "cstat", "no background"),
        (binned([3.0, 4.0], [1.0, 2.0], 0.5), "wstat", "both Poisson"),
        (
            binned([3.0, 4.0], [1.5, 2.0], 0.5, background_poisson=False, background_error=np.ones(2)),
            "pgstat",
            "Gaussian errors",
        ),
        (binned([3.5, 4.0], poisson=False, error=np.ones(2)), "chi2", "not Poisson"),
    ],
)
def test_the_data_choose_the_statistic(data, name, reason):
    chosen, why = choose_statistic(data)
    assert chosen == name
    assert why.startswith(f"{name}, because")
    assert reason in why
    assert STATISTICS[chosen](data).name == name


def test_the_choice_warns_of_empty_background_bins():
    few_empty = binned(np.full(20, 3.0), np.r_[0.0, np.full(19, 2.0)], 0.5)
    many_empty = binned(np.full(20, 3.0), np.r_[np.zeros(13), np.full(7, 2.0)], 0.5)
    assert "minbkg" not in choose_statistic(few_empty)[1]
    assert "65% of the bins" in choose_statistic(many_empty)[1]
    assert "--group minbkg:" in choose_statistic(many_empty)[1]
    assert "--group minbkg:" in WStat(many_empty).notes[0]


def test_cstat_says_that_it_ignores_a_background():
    assert CStat(binned([3.0])).notes == ()
    assert "wstat" in CStat(binned([3.0], [1.0], 0.5)).notes[0]


GAUSSIAN = binned([3.5, -4.0], poisson=False, error=np.ones(2))
BARE = binned([3.5, -4.0], poisson=False)
PLAIN = binned([3.0, 0.0])
RATES = binned([3.0, 4.0], [1.5, 2.0], 0.5, background_poisson=False)
COUNTED = binned([3.0, 4.0], [1.0, 2.0], 0.5)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        *((name, GAUSSIAN, ["Poisson counts", "--stat"]) for name in EVERY if name not in ("chi2", "chi2datavar")),
        ("wstat", PLAIN, ["needs a background", "--bkg"]),
        ("pgstat", PLAIN, ["needs a background", "--bkg"]),
        ("wstat", RATES, ["Poisson counts in the background", "pgstat"]),
        ("pgstat", COUNTED, ["errors of the background", "wstat"]),
        ("chi2", BARE, ["errors", "STAT_ERR"]),
        ("chi2", RATES, ["errors of the background", "STAT_ERR"]),
        ("chi2gehrels", RATES, ["background is not Poisson"]),
        ("chi2datavar", PLAIN, ["1 of 2 bins", "zero variance", "--group"]),
        ("chi2", binned([3.5, 1.0], poisson=False, error=np.array([1.0, 0.0])), ["1 of 2 bins", "zero variance"]),
        ("wstat", binned([3.0, 1.0], [1.0, 1.0], [0.5, 0.0]), ["BACKSCAL", "1 of 2 bins"]),
        ("chi2", binned([3.0, 1.0], [1.0, 1.0], [0.5, np.nan]), ["BACKSCAL", "1 of 2 bins"]),
        (
            "pgstat",
            binned([3.0], [-1.5], 0.5, background_poisson=False, background_error=np.zeros(1)),
            ["background errors", "1 of 1 bins"],
        ),
    ],
)
def test_unsuitable_data_are_refused_in_a_sentence(name, data, words):
    with pytest.raises(UserError) as caught:
        STATISTICS[name](data)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "data", [BARE, binned([3.0], [1.5], 0.5, background_poisson=False)], ids=["source", "background"]
)
def test_no_statistic_suits_numbers_without_errors(data):
    with pytest.raises(UserError, match="no statistic suits"):
        choose_statistic(data)


@pytest.mark.parametrize(("other", "ours"), [("chi2xspecvar", "chi2"), ("chi", "chi2"), ("CSTAT", "cstat")])
def test_other_programs_spellings(other, ours):
    assert STATISTICS[other] is STATISTICS[ours]


def test_every_statistic_shows_its_formula():
    for name, cls in STATISTICS.items():
        assert cls.name == name
        assert "Σ" in cls.formula
        assert "\n" not in cls.formula


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=40)
@given(n=counts_of, b=counts_of, a=ratios, e=errors, m=predicted)
def test_terms_are_value_slope_and_weight(name, n, b, a, e, m):
    statistic, m = made(name, n, b, a, e), torch.tensor(m - 0.5)
    for together, alone in zip(statistic.terms(m), (statistic.per_bin, statistic.slope, statistic.weight), strict=True):
        torch.testing.assert_close(together, alone(m), rtol=0, atol=0)


@pytest.mark.parametrize("name", EVERY)
def test_forward_mode_and_vmap(name):
    rng = np.random.default_rng(16)
    n, b = rng.poisson(3.0, SIZE) * 1.0, rng.poisson(3.0, SIZE) * 1.0
    statistic = made(name, n, b, rng.uniform(0.1, 1.0, SIZE), rng.uniform(0.5, 2.0, SIZE))
    m = torch.tensor(rng.uniform(0.1, 9.0, (3, SIZE)))
    _, forward = torch.func.jvp(statistic.per_bin, (m,), (torch.ones_like(m),))
    torch.testing.assert_close(forward, statistic.slope(m))
    hessian = torch.func.vmap(torch.func.jacfwd(torch.func.grad(statistic.value)))(m)
    torch.testing.assert_close(hessian.diagonal(dim1=-2, dim2=-1), statistic.curvature(m))
