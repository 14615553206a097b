"""Factors: values that can be written down."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from deepspec.models import COMPONENTS
from deepspec.models.base import Grid


def factor(name: str, edges, **values) -> np.ndarray:
    made = COMPONENTS[name]()
    return made.evaluate(
        Grid(edges), **{k: torch.tensor([float(v)], dtype=torch.float64) for k, v in values.items()}
    ).numpy()


def test_constant():
    np.testing.assert_array_equal(factor("constant", [1.0, 2.0, 3.0], factor=0.7), [0.7, 0.7])


def test_edge_weights_the_two_sides_of_its_bin():
    value = factor("edge", [6.0, 7.0, 8.0, 9.0], edgeE=7.25, MaxTau=0.5)
    at = lambda e: np.exp(-0.5 * (7.25 / e) ** 3)  # noqa: E731
    expected = [1.0, 0.25 + 0.75 * 0.5 * (at(7.25) + at(8.0)), 0.5 * (at(8.0) + at(9.0))]
    np.testing.assert_allclose(value, expected, rtol=1e-14)


def test_redshifted_edge_is_seen_lower():
    value = factor("zedge", np.linspace(1.0, 9.0, 801), edgeE=7.1, MaxTau=3.0, Redshift=1.0)
    assert np.argmin(value) == pytest.approx((3.55 - 1.0) / 0.01, abs=1)


def test_expabs_and_highecut_are_means_of_the_edges():
    edges = np.array([1.0, 2.0])
    assert factor("expabs", edges, LowECut=2.0)[0] == pytest.approx(0.5 * (np.exp(-2.0) + np.exp(-1.0)), rel=1e-14)
    high = factor("highecut", edges, cutoffE=1.5, foldE=4.0)[0]
    assert high == pytest.approx(0.5 * (np.exp(-0.001 / 4) + np.exp(-0.5 / 4)), rel=1e-14)


@pytest.mark.parametrize(("sigma", "strength"), [(0.05, 0.05), (0.01, 0.3), (1.0, 2.0)])
def test_gabs_is_the_mean_of_the_factor_over_the_bin(sigma, strength):
    edges = np.linspace(5.0, 8.0, 31)
    depth = strength / (sigma * np.sqrt(2 * np.pi))
    line = lambda e: -np.expm1(-depth * np.exp(-0.5 * ((e - 6.52) / sigma) ** 2))  # noqa: E731
    lost = [
        quad(line, a, b, points=[6.52] if a < 6.52 < b else None, epsabs=1e-12)[0] / (b - a) for a, b in pairwise(edges)
    ]
    value = factor("gabs", edges, LineE=6.52, Sigma=sigma, Strength=strength)
    np.testing.assert_allclose(value, 1.0 - np.array(lost), rtol=1e-6)


def test_gabs_without_width_darkens_one_bin():
    value = factor("gabs", [1.0, 2.0, 3.0, 4.0], LineE=2.5, Sigma=0.0, Strength=0.3)
    np.testing.assert_allclose(value, [1.0, np.exp(-0.3), 1.0], rtol=1e-14)
