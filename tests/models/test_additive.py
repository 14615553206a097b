"""Power laws: known integrals, limits and the sense of each norm."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from deepspec.errors import UserError
from deepspec.models import COMPONENTS
from deepspec.models.base import Grid

EDGES = np.array([0.3, 0.31, 0.5, 1.0, 1.01, 2.0, 7.3, 10.0, 60.0])


def flux(name: str, edges=EDGES, **values) -> np.ndarray:
    made = COMPONENTS[name]()
    return made.evaluate(
        Grid(edges), **{k: torch.tensor([float(v)], dtype=torch.float64) for k, v in values.items()}
    ).numpy()


def integral(function, edges=EDGES) -> np.ndarray:
    return np.array([quad(function, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in pairwise(edges)])


@pytest.mark.parametrize("index", [-3.0, 0.0, 0.999999, 1.0, 1.0 + 1e-12, 1.7, 2.0, 10.0])
def test_powerlaw_is_its_integral(index):
    np.testing.assert_allclose(flux("powerlaw", PhoIndex=index), integral(lambda e: e**-index), rtol=1e-11)


def test_powerlaw_derivative_is_smooth_through_index_one():
    index = torch.tensor([[1.0 - 1e-9], [1.0], [1.0 + 1e-9]], dtype=torch.float64)
    _, slope = COMPONENTS["powerlaw"]().derivatives(Grid(EDGES), {"PhoIndex": index}, ["PhoIndex"])
    expected = integral(lambda e: -np.log(e) / e)
    for row in slope[0]:
        np.testing.assert_allclose(row.numpy(), expected, rtol=1e-7)


def test_powerlaw_from_a_grid_that_starts_next_to_zero():
    """Response files of XMM MOS start at zero energy, which becomes 1e-10 keV."""
    edges = np.array([1e-10, 0.005, 0.01])
    np.testing.assert_allclose(flux("powerlaw", edges, PhoIndex=1.0), np.log(edges[1:] / edges[:-1]), rtol=1e-12)
    np.testing.assert_allclose(flux("powerlaw", edges, PhoIndex=3.0)[0], 0.5 * (1e20 - 0.005**-2), rtol=1e-9)


@pytest.mark.parametrize(("index", "cut"), [(1.7, 50.0), (-1.0, 1.0), (3.0, 500.0), (1.0, 15.0), (2.0, 3.0)])
def test_cutoffpl_is_its_integral(index, cut):
    ours = flux("cutoffpl", PhoIndex=index, HighECut=cut)
    exact = integral(lambda e: e**-index * np.exp(-e / cut))
    np.testing.assert_allclose(ours, exact, rtol=1e-9, atol=1e-15 * exact.max())


def test_bknpower_is_continuous_and_exact_in_the_bin_of_the_break():
    law = lambda e: e**-1.3 if e < 3.0 else 3.0**1.2 * e**-2.5  # noqa: E731
    exact = np.array(
        [quad(law, a, b, points=[3.0] if a < 3 < b else None, epsabs=0, epsrel=1e-11)[0] for a, b in pairwise(EDGES)]
    )
    np.testing.assert_allclose(flux("bknpower", PhoIndx1=1.3, BreakE=3.0, PhoIndx2=2.5), exact, rtol=1e-9)


def test_bkn2pow_with_equal_indices_is_a_power_law():
    same = flux("bkn2pow", PhoIndx1=1.7, BreakE1=1.0, PhoIndx2=1.7, BreakE2=6.0, PhoIndx3=1.7)
    np.testing.assert_allclose(same, flux("powerlaw", PhoIndex=1.7), rtol=1e-12)


def test_bkn2pow_with_breaks_out_of_order_counts_no_energy_twice():
    swapped = flux("bkn2pow", PhoIndx1=1.0, BreakE1=6.0, PhoIndx2=1.0, BreakE2=1.0, PhoIndx3=1.0)
    np.testing.assert_allclose(swapped, flux("powerlaw", PhoIndex=1.0), rtol=1e-12)


@pytest.mark.parametrize("index", [0.0, 1.0, 2.0, 4.0])
def test_norm_of_pegpwrlw_is_its_energy_flux(index):
    edges = np.geomspace(2.0, 10.0, 4001)
    photons = flux("pegpwrlw", edges, PhoIndex=index, eMin=2.0, eMax=10.0)
    energy = (photons * np.sqrt(edges[1:] * edges[:-1])).sum() * 1.602e-9
    assert energy == pytest.approx(1e-12, rel=1e-6)


def test_pegpwrlw_pegged_at_one_energy_is_a_flux_density():
    edges = np.array([2.0, 2.0001])
    photons = flux("pegpwrlw", edges, PhoIndex=1.7, eMin=2.0, eMax=2.0)
    assert photons[0] / 0.0001 * 2.0 == pytest.approx(1.509e-3, rel=1e-4)


@pytest.mark.parametrize(("low", "high"), [(10.0, 2.0), (-1.0, 2.0), (0.0, 2.0)])
def test_pegpwrlw_refuses_a_band_that_is_none(low, high):
    with pytest.raises(UserError, match=r"pegpwrlw: eMin must be positive"):
        flux("pegpwrlw", PhoIndex=1.7, eMin=low, eMax=high)


@pytest.mark.parametrize(
    ("name", "rest", "values"),
    [
        ("zpowerlw", "powerlaw", {"PhoIndex": 2.2}),
        ("zcutoffpl", "cutoffpl", {"PhoIndex": 1.5, "HighECut": 20.0}),
        ("zbbody", "bbody", {"kT": 0.5}),
        ("zbremss", "bremss", {"kT": 3.0}),
        ("zgauss", "gaussian", {"LineE": 6.4, "Sigma": 0.3}),
    ],
)
def test_redshifted_is_the_rest_frame_on_shifted_bins(name, rest, values):
    shifted = flux(name, Redshift=1.2, **values)
    np.testing.assert_allclose(shifted, flux(rest, EDGES * 2.2, **values) / 2.2, rtol=1e-11, atol=1e-300)
    np.testing.assert_allclose(flux(name, Redshift=0.0, **values), flux(rest, **values), rtol=1e-12, atol=1e-300)


def test_a_frozen_redshift_keeps_the_rest_frame_grid():
    grid, made = Grid(EDGES), COMPONENTS["zbbody"]()
    values = {"kT": torch.full((4, 1), 0.5).double(), "Redshift": torch.full((4, 1), 0.3).double()}
    made.derivatives(grid, values, ["kT"])
    first = grid.memo("rest_frame", dict)["grid"]
    made.derivatives(grid, values, ["kT"])
    assert grid.memo("rest_frame", dict)["grid"] is first
    made.derivatives(grid, {**values, "Redshift": values["Redshift"] + 0.1}, ["kT"])
    assert grid.memo("rest_frame", dict)["grid"] is not first
