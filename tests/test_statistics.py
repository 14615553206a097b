"""Fit statistics: laws, closed-form derivatives, Fisher weights, simulated and batched data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from deepspec.statistics import STATISTICS, CStat, WStat
from statistic_cases import EVERY, POISSON, SIZE, binned, counts_of, errors, made, predicted, ratios


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


@pytest.mark.parametrize("name", POISSON)
def test_negative_predictions_are_worse_than_none(name):
    statistic = made(name, [0.0, 2.0, 50.0], [3.0, 0.0, 4.0], [0.3] * 3, [1.0] * 3)
    m = torch.tensor([[-5.0] * 3, [-1.0] * 3, [0.0] * 3], dtype=torch.float64)
    value = statistic.value(m)
    assert value[0] > value[1] > value[2]
    assert (statistic.slope(m[:2]) < 0).all()


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
