"""The likelihoods of training against the statistics of fits, in float32 and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepspec.statistics.counting import CStat, WStat
from deepspec.training.likelihood import THRESHOLD, cash, profiled_background, robust, wstat


def case(seed: int, level: float, bins: int = 238) -> tuple[torch.Tensor, ...]:
    """Counts, background counts, ratio, source, background of bins between empty and `level`; float64."""
    rng = np.random.default_rng(seed)
    source = level * rng.lognormal(0.0, 1.5, bins)
    region = rng.choice([0.0, 0.3, 3.0, 0.5 * level], bins) * rng.lognormal(0.0, 0.5, bins)
    ratio = float(rng.choice([0.01, 0.1, 1.0, 3.0]))
    counts, background = rng.poisson(source + ratio * region), rng.poisson(region)
    wrong = source * np.exp(0.1 * rng.standard_normal(bins))
    return tuple(torch.as_tensor(np.asarray(x, dtype=np.float64)) for x in (counts, background, ratio, wrong, region))


def agree(found: torch.Tensor, exact: torch.Tensor, size: torch.Tensor) -> None:
    """Equal to 1e-4, in bins of many counts to what rounding them to float32 leaves; sums to 1e-4."""
    allowed = 1e-4 * (1 + exact.abs()) + 2e-7 * size
    assert ((found.double() - exact).abs() <= allowed).all()
    assert float(found.double().sum()) == pytest.approx(float(exact.sum()), rel=1e-4)


@given(seed=st.integers(0, 10_000), level=st.sampled_from([0.01, 0.3, 10.0, 3e3]))
def test_cash_is_half_of_cstat(seed, level):
    counts, _, ratio, source, region = case(seed, level)
    expected = source + ratio * region
    exact = 0.5 * CStat.from_tensors(counts).per_bin(expected)
    found = cash(counts.float(), expected.float(), counts.float())
    agree(found, exact, counts + expected)


@given(seed=st.integers(0, 10_000), level=st.sampled_from([0.01, 0.3, 10.0, 3e3]))
def test_wstat_is_half_of_wstat(seed, level):
    counts, background, ratio, source, _ = case(seed, level)
    statistic = WStat.from_tensors(counts, background, ratio=ratio.expand(len(counts)))
    exact = 0.5 * statistic.per_bin(source)
    single = [x.float() for x in (counts, background, ratio, source)]
    found = wstat(*single)
    agree(found, exact, counts + source + background)


def test_wstat_has_the_slope_of_the_statistic():
    counts, background, ratio, source, _ = case(3, 5.0)
    source.requires_grad_()
    (slope,) = torch.autograd.grad(wstat(counts, background, ratio, source).sum(), source)
    statistic = WStat.from_tensors(counts, background, ratio=ratio.expand(len(counts)))
    assert torch.allclose(slope, 0.5 * statistic.slope(source.detach()), rtol=1e-9, atol=1e-9)


def test_relative_to_the_truth_nothing_is_lost_at_a_million_counts():
    counts, _, _, source, _ = case(4, 1e4)
    wrong = source * (1 + 1e-4 * torch.sin(torch.arange(len(source), dtype=torch.float64)))
    exact = ((wrong - source) - counts * torch.log(wrong / source)).sum()
    found = cash(counts.float(), wrong.float(), source.float()).sum()
    # the predictions themselves carry 6e-8 of rounding, which (1 - n/r) turns into this much
    rounding = 2e-7 * float((source - counts).abs().sum())
    assert abs(float(found) - float(exact)) < max(rounding, 1e-3)


def test_nothing_expected_and_nothing_seen():
    zero = torch.zeros(5)
    model = torch.tensor([0.0, 1e-30, 0.5, 2.0, 1e4], requires_grad=True)
    value = cash(zero, model, zero)
    assert torch.allclose(value, model.detach(), atol=1e-9)
    (slope,) = torch.autograd.grad(value.sum(), model)
    assert torch.isfinite(slope).all()
    assert torch.allclose(slope[2:], torch.ones(3))


def test_counts_where_nothing_is_expected_stay_finite():
    counts, model = torch.tensor([3.0, 3.0]), torch.tensor([0.0, 1e-20], requires_grad=True)
    for value in (
        cash(counts, model, counts),
        cash(counts, model, torch.tensor([2.0, 2.0])),
        wstat(counts, torch.zeros(2), torch.ones(1), model),
        wstat(counts, torch.ones(2), torch.full((1,), 0.1), model),
    ):
        assert torch.isfinite(value).all()
        (slope,) = torch.autograd.grad(value.sum(), model)
        assert torch.isfinite(slope).all()


def test_the_profiled_background_is_a_minimum():
    counts, background, ratio, source, _ = case(5, 3.0)
    best = profiled_background(counts, background, ratio, source)

    def value(region):
        return cash(counts, source + ratio * region, counts) + cash(background, region, background)

    for factor in (0.99, 1.01):
        assert (value(best * factor) >= value(best) - 1e-12).all()


def test_robust_is_continuous_with_its_derivative():
    at = torch.tensor([-5.0, 0.0, 10.0, THRESHOLD - 1e-3, THRESHOLD + 1e-3, 3000.0], dtype=torch.float64)
    at.requires_grad_()
    value = robust(at)
    (slope,) = torch.autograd.grad(value.sum(), at)
    at, value = at.detach(), value.detach()
    assert torch.equal(value[:4], at[:4])
    assert float(value[4] - value[3]) == pytest.approx(2e-3, rel=1e-3)
    assert slope[4] == pytest.approx(1.0, rel=1e-4)
    assert float(value[5]) == pytest.approx(THRESHOLD * (1 + np.log(10)))
    assert float(slope[5]) == pytest.approx(0.1)
