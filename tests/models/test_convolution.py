"""Convolutions: redshift and band fluxes, also where the band leaves the grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.models import COMPONENTS
from deepspec.models.base import Grid, row_derivatives
from deepspec.models.convolution import ERG_PER_KEV

GRID = Grid(np.linspace(0.5, 8.0, 751))


def one(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def powerlaw(grid: Grid) -> torch.Tensor:
    return COMPONENTS["powerlaw"]().evaluate(grid, PhoIndex=one(1.7))


def band_flux(low: float, high: float) -> float:
    """Energy flux of the power law of index 1.7 [erg cm^-2 s^-1]."""
    return (high**0.3 - low**0.3) / 0.3 * ERG_PER_KEV


@pytest.mark.parametrize("band", [(1.0, 5.0), (0.5, 8.0), (0.1, 30.0), (0.2, 2.0), (9.0, 20.0)])
def test_cflux_gives_the_flux_of_the_whole_band(band):
    """Also where part of the band, or all of it, lies outside the grid: the argument is evaluated there."""
    scaled = COMPONENTS["cflux"]().apply(GRID, powerlaw, Emin=one(band[0]), Emax=one(band[1]), lg10Flux=one(-11.0))
    assert scaled.shape == (1, len(GRID))
    factor = (scaled / powerlaw(GRID)).numpy()
    np.testing.assert_allclose(factor, 1e-11 / band_flux(*band), rtol=5e-5)


def test_cpflux_gives_the_photon_flux():
    scaled = COMPONENTS["cpflux"]().apply(GRID, powerlaw, Emin=one(1.0), Emax=one(5.0), Flux=one(0.25))
    inside = (GRID.low >= 1.0 - 1e-9) & (GRID.high <= 5.0 + 1e-9)
    assert float(scaled[0, inside].sum()) == pytest.approx(0.25, rel=1e-12)


def test_cflux_keeps_the_shape_and_takes_part_of_a_bin():
    scaled = COMPONENTS["cflux"]().apply(GRID, powerlaw, Emin=one(1.003), Emax=one(4.998), lg10Flux=one(-12.0))
    np.testing.assert_allclose((scaled / powerlaw(GRID)).numpy(), 1e-12 / band_flux(1.003, 4.998), rtol=1e-4)


@pytest.mark.parametrize("band", [(5.0, 2.0), (0.0, 2.0), (2.0, 2.0)])
def test_a_band_that_is_none_is_refused(band):
    with pytest.raises(UserError, match=r"cflux: Emin must be positive and below Emax"):
        COMPONENTS["cflux"]().apply(GRID, powerlaw, Emin=one(band[0]), Emax=one(band[1]), lg10Flux=one(-12.0))


def test_a_model_without_flux_in_the_band_is_refused():
    dark = lambda grid: torch.zeros(1, len(grid), dtype=torch.float64)  # noqa: E731
    with pytest.raises(UserError, match="no flux in the band"):
        COMPONENTS["cflux"]().apply(GRID, dark, Emin=one(1.0), Emax=one(2.0), lg10Flux=one(-12.0))


def test_zashift_is_exact_up_to_the_last_bin():
    shifted = COMPONENTS["zashift"]().apply(GRID, powerlaw, Redshift=one(0.5))
    np.testing.assert_allclose(shifted.numpy(), powerlaw(GRID).numpy() * 1.5**-1.7, rtol=1e-12)


def test_zashift_is_differentiable_in_the_redshift():
    convolution = COMPONENTS["zashift"]()
    value, slope = row_derivatives(
        lambda **v: convolution.apply(GRID, powerlaw, **v), {"Redshift": one(0.5)}, ["Redshift"]
    )
    np.testing.assert_allclose(slope[0].numpy(), -1.7 / 1.5 * value.numpy(), rtol=1e-10)
