"""Energy fluxes and luminosities of a fitted model, with errors carried over from the fit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.models.base import Grid
from deepspec.problem import Problem

#: erg per keV (CODATA 2018, exact since 2019).
ERG_PER_KEV = 1.602176634e-9
#: Flat LambdaCDM for luminosities: H0 [km/s/Mpc] and matter density.
COSMOLOGY = {"H0": 70.0, "Om0": 0.3}


def band_grid(low: float, high: float, width: float = 0.002) -> Grid:
    """Bins for a flux integral: logarithmic, `width` wide in ln E, with the band's ends as edges.

    Raises
    ------
    UserError
        The band is no interval of positive energies.
    """
    if not (0.0 < low < high < math.inf):
        raise UserError(
            f"the flux band {low:g}-{high:g} keV is not an interval", remedy="give LOW:HIGH with 0 < LOW < HIGH"
        )
    count = max(16, math.ceil(math.log(high / low) / width))
    return Grid(torch.logspace(math.log10(low), math.log10(high), count + 1, dtype=torch.float64))


def energy_flux(problem: Problem, theta: Tensor, band: tuple[float, float], unabsorbed: bool = False) -> Tensor:
    """Energy flux in a band [erg cm^-2 s^-1].

    Parameters
    ----------
    theta : Tensor, shape (..., P)
    band : (low, high) [keV]
    unabsorbed : bool
        Leave out every absorption factor of the model (tbabs, phabs, pcfabs, ... and their redshifted forms).

    Returns
    -------
    Tensor, shape (...,)
    """
    grid = band_grid(*band)
    model = problem.model.unabsorbed if unabsorbed else problem.model
    flux = model.flux(grid, problem.parameters.expand(theta))
    return (flux * grid.middle).sum(-1) * ERG_PER_KEV


def energy_flux_and_gradient(
    problem: Problem, theta: Tensor, band: tuple[float, float], unabsorbed: bool = False
) -> tuple[Tensor, Tensor]:
    """Energy flux (B,) and its derivatives by the free parameters (B, P), for `theta` of shape (B, P)."""
    grid = band_grid(*band)
    model = problem.model.unabsorbed if unabsorbed else problem.model
    varying = problem.parameters.varying()
    wanted = [key for key in varying if key in model.parameters]
    flux, slopes = model.flux_and_derivatives(grid, problem.parameters.expand(theta), wanted)
    full = theta.new_zeros(len(theta), len(varying))
    summed = (slopes * grid.middle).sum(-1) * ERG_PER_KEV
    for column, key in enumerate(wanted):
        full[:, varying.index(key)] = summed[..., column]
    gradient = torch.einsum("bv,bvp->bp", full, problem.parameters.chain(theta))
    return ((flux * grid.middle).sum(-1) * ERG_PER_KEV).expand(len(theta)), gradient


def flux_with_errors(
    problem: Problem, theta: Tensor, covariance: Tensor, band: tuple[float, float], unabsorbed: bool = False
) -> tuple[float, float, float]:
    """Flux and its 68 % interval [erg cm^-2 s^-1], propagated linearly in ln F from the covariance of the fit.

    Parameters
    ----------
    theta : Tensor, shape (P,)
    covariance : Tensor, shape (P, P)
        NaN rows (parameters at a limit) do not contribute.

    Returns
    -------
    value, lower, upper : float
        The interval is NaN where the covariance does not exist.
    """
    with torch.no_grad():
        flux, gradient = energy_flux_and_gradient(problem, theta.unsqueeze(0), band, unabsorbed)
    value = float(flux[0])
    usable = torch.isfinite(torch.diagonal(covariance))
    if value <= 0 or (not usable.any() and len(theta)):
        return value, math.nan, math.nan
    inner = covariance[usable][:, usable]
    variance = float(gradient[0, usable] @ inner @ gradient[0, usable])
    sigma = math.sqrt(max(variance, 0.0)) / value
    return value, value * math.exp(-sigma), value * math.exp(min(sigma, 600.0))


def luminosity_distance_cm(redshift: float) -> float:
    """Luminosity distance [cm] in the flat cosmology of `COSMOLOGY`.

    Raises
    ------
    UserError
        The redshift is not positive.
    """
    if not (0.0 < redshift < 100.0):
        raise UserError(f"a redshift of {redshift:g} gives no luminosity", "--redshift", "give a number above 0")
    from astropy.cosmology import FlatLambdaCDM

    return float(FlatLambdaCDM(**COSMOLOGY).luminosity_distance(redshift).to("cm").value)


def luminosity_with_errors(
    problem: Problem, theta: Tensor, covariance: Tensor, band: tuple[float, float], redshift: float
) -> tuple[float, float, float]:
    """Unabsorbed luminosity in a rest-frame band and its 68 % interval [erg s^-1].

    The rest-frame band low-high is observed at low/(1+z)-high/(1+z), so no K-correction is assumed.
    """
    area = 4.0 * math.pi * luminosity_distance_cm(redshift) ** 2
    observed = (band[0] / (1.0 + redshift), band[1] / (1.0 + redshift))
    return tuple(area * v for v in flux_with_errors(problem, theta, covariance, observed, unabsorbed=True))
