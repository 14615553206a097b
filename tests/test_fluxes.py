"""Band fluxes against closed forms, errors against the scatter of draws, luminosities against astropy."""

import math

import pytest
import torch

from deepspec.errors import UserError
from deepspec.fluxes import (
    ERG_PER_KEV,
    band_grid,
    energy_flux,
    energy_flux_and_gradient,
    flux_with_errors,
    luminosity_distance_cm,
    luminosity_with_errors,
)
from deepspec.inference.curvature import covariance
from deepspec.problem import Problem
from toy import toy_observation


def setup(model="tbabs*powerlaw", **values):
    observation, truth = toy_observation(model, {"PhoIndex": 1.7, "norm": 1e-3, **values})
    return Problem([observation], model, parameters=truth), truth.vector()


def power_law_flux(low, high, index=1.7, norm=1e-3):
    return norm * (high ** (2 - index) - low ** (2 - index)) / (2 - index) * ERG_PER_KEV


@pytest.mark.parametrize("band", [(0.5, 2.0), (2.0, 10.0), (0.3, 0.31)])
def test_unabsorbed_power_law(band):
    problem, theta = setup(nH=0.5)
    assert float(energy_flux(problem, theta, band, unabsorbed=True)) == pytest.approx(power_law_flux(*band), rel=1e-6)
    assert float(energy_flux(problem, theta, band)) < power_law_flux(*band)


def test_gradient_against_differences():
    problem, theta = setup(nH=0.5)
    flux, gradient = energy_flux_and_gradient(problem, theta.unsqueeze(0), (0.5, 2.0))
    for i in range(3):
        step = 1e-6 * float(theta[i])
        up = theta.clone()
        up[i] += step
        assert float((energy_flux(problem, up, (0.5, 2.0)) - flux[0]) / step) == pytest.approx(
            float(gradient[0, i]), rel=1e-4
        )


def test_error_is_the_scatter_of_draws():
    problem, theta = setup(nH=0.2)
    cov, _ = covariance(problem, theta)
    value, lower, upper = flux_with_errors(problem, theta, cov, (0.5, 2.0))
    generator = torch.Generator().manual_seed(1)
    factor = torch.linalg.cholesky(cov)
    draws = theta + torch.randn(4000, 3, generator=generator, dtype=torch.float64) @ factor.T
    scatter = float(energy_flux(problem, draws, (0.5, 2.0)).log().std())
    assert math.log(upper / value) == pytest.approx(scatter, rel=0.06)
    assert math.log(value / lower) == pytest.approx(scatter, rel=0.06)


def test_luminosity_needs_no_k_correction():
    problem, theta = setup(nH=0.2)
    cov, _ = covariance(problem, theta)
    value, _, _ = luminosity_with_errors(problem, theta, cov, (2.0, 10.0), 1.0)
    assert value == pytest.approx(4 * math.pi * luminosity_distance_cm(1.0) ** 2 * power_law_flux(1.0, 5.0), rel=1e-6)


@pytest.mark.parametrize("band", [(2.0, 1.0), (0.0, 1.0), (-1.0, 2.0), (1.0, math.inf)])
def test_bands_that_are_none(band):
    with pytest.raises(UserError, match="not an interval"):
        band_grid(*band)


def test_redshift_must_be_positive():
    with pytest.raises(UserError, match="redshift"):
        luminosity_distance_cm(0.0)
