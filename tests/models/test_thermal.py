"""Black bodies, disc and bremsstrahlung: known integrals and luminosities."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import k0e

from deepspec.models import COMPONENTS
from deepspec.models.base import Grid
from deepspec.models.bremsstrahlung import born, gaunt
from deepspec.models.thermal import disk_table


def flux(name: str, edges, **values) -> np.ndarray:
    made = COMPONENTS[name]()
    return made.evaluate(
        Grid(edges), **{k: torch.tensor([float(v)], dtype=torch.float64) for k, v in values.items()}
    ).numpy()


@pytest.mark.parametrize("kT", [0.1, 1.0, 10.0])
def test_norm_of_bbody_is_a_luminosity(kT):
    """L = 1e39 erg/s at 10 kpc is 8.357e-8 erg cm^-2 s^-1, and XSPEC's constant is 0.25 % above."""
    edges = np.geomspace(1e-4, 100.0, 40001) * kT
    energy = (flux("bbody", edges, kT=kT) * np.sqrt(edges[1:] * edges[:-1])).sum() * 1.602177e-9
    distance = 3.0857e22
    assert energy == pytest.approx(1e39 / (4 * np.pi * distance**2), rel=3e-3)


def test_bbody_and_bbodyrad_have_one_shape():
    edges = np.linspace(0.3, 10.0, 500)
    ratio = flux("bbody", edges, kT=0.7) / flux("bbodyrad", edges, kT=0.7)
    np.testing.assert_allclose(ratio, 8.0525 / 1.0344e-3 / 0.7**4, rtol=1e-12)


def test_bbody_is_the_trapezoid_of_its_edges():
    edges = np.array([1.0, 2.0])
    value = lambda e: 8.0525 * e**2 / (0.5**4 * np.expm1(e / 0.5))  # noqa: E731
    assert flux("bbody", edges, kT=0.5)[0] == pytest.approx(0.5 * (value(1.0) + value(2.0)), rel=1e-13)


def test_a_cold_black_body_is_zero_far_above_and_never_nan():
    value = flux("bbody", np.array([0.3, 10.0, 100.0]), kT=0.01)
    assert np.isfinite(value).all()
    assert 0.0 <= value[1] < 1e-200


@pytest.mark.parametrize("x", [1e-6, 1e-3, 0.1, 1.0, 5.0, 30.0, 300.0])
def test_disc_table_against_quadrature(x):
    scaled = quad(lambda t: (x + t) ** (5 / 3) * np.exp(-t) / -np.expm1(-(x + t)), 0, np.inf, epsabs=0, epsrel=1e-11)[0]
    expected = x ** (-2 / 3) * scaled * np.exp(-x)
    at = torch.tensor([x], dtype=torch.float64)
    value, slope = disk_table()(torch.log(at), at)
    assert float(value) == pytest.approx(expected, rel=2e-8)
    nearby = [float(disk_table()(torch.log(at * f), at * f)[0]) for f in (1 - 1e-5, 1 + 1e-5)]
    assert float(slope) == pytest.approx(np.log(nearby[1] / nearby[0]) / 2e-5, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("Tin", [0.3, 1.0, 8.0])
def test_diskbb_is_its_integral(Tin):
    edges = np.array([0.3, 0.35, 0.355, 0.5, 0.7, 1.0, 1.2, 2.0, 2.03, 2.4])

    def spectrum(energy):
        shape = lambda u: u ** (-11 / 3) / np.expm1(min(energy / (u * Tin), 700.0))  # noqa: E731
        peak = min(1.0, energy / Tin / 3)
        return energy**2 / 361 * sum(quad(shape, a, b, epsrel=1e-9, limit=200)[0] for a, b in ((0, peak), (peak, 1.0)))

    ours = flux("diskbb", edges, Tin=Tin)
    exact = [quad(spectrum, a, b, epsabs=0, epsrel=1e-7)[0] for a, b in pairwise(edges)]
    bright = np.array(exact) > 1e-6 * max(exact)
    np.testing.assert_allclose(ours[bright], np.array(exact)[bright], rtol=1e-5)


def test_a_disc_at_zero_temperature_has_no_photons():
    assert (flux("diskbb", np.array([0.1, 1.0, 10.0]), Tin=0.0) == 0.0).all()


def test_diskbb_on_a_wide_grid_equals_the_narrow_one():
    """The row interpolation of narrow grids and the table itself, which serves grids that start near zero, agree."""
    edges = np.linspace(0.3, 10.0, 500)
    alone = flux("diskbb", edges, Tin=0.9)
    together = flux("diskbb", np.concatenate([[1e-9, 1e-3], edges]), Tin=0.9)[2:]
    np.testing.assert_allclose(together, alone, rtol=2e-7)


def test_born_gaunt_factor_is_a_bessel_function():
    ratio = np.geomspace(1e-4, 50.0, 200)
    ours = born(torch.as_tensor(ratio)).numpy()
    np.testing.assert_allclose(ours, 0.5513 * k0e(ratio / 2), rtol=3e-7)


@pytest.mark.parametrize("charge", [1.0, 4.0])
def test_gaunt_factor_joins_at_the_limit_of_the_cool_table(charge):
    """The fits and the table of Kurucz meet within ten per cent: the numbers are in the right places."""
    ratio = torch.logspace(-2, 0.5, 40, dtype=torch.float64)
    limit = charge * 0.01358 / 0.1
    above, below = (gaunt(ratio, torch.tensor([limit * f], dtype=torch.float64)) for f in (1.001, 0.999))
    np.testing.assert_allclose(above.numpy(), below.numpy(), rtol=0.1)


def test_a_batch_of_hot_and_cold_plasma():
    edges, temperatures = np.linspace(0.3, 3.0, 50), [0.09, 0.3, 5.0]
    both = COMPONENTS["bremss"]().evaluate(Grid(edges), kT=torch.tensor(temperatures, dtype=torch.float64)[:, None])
    for row, kT in zip(both.numpy(), temperatures, strict=True):
        np.testing.assert_allclose(row, flux("bremss", edges, kT=kT), rtol=5e-7)
