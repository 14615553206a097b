"""Lines: where the photons are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from deepspec.models import COMPONENTS
from deepspec.models.base import Grid


def line(edges, energy, sigma) -> np.ndarray:
    values = {"LineE": torch.tensor([float(energy)]).double(), "Sigma": torch.tensor([float(sigma)]).double()}
    return COMPONENTS["gaussian"]().evaluate(Grid(edges), **values).numpy()


def test_all_photons_of_a_line_are_counted():
    assert line(np.linspace(5.0, 8.0, 300), 6.4, 0.1).sum() == pytest.approx(1.0, abs=1e-14)


def test_a_line_cut_by_zero_energy_has_all_its_photons_above():
    assert line(np.linspace(1e-9, 30.0, 3000), 0.5, 1.0).sum() == pytest.approx(1.0, abs=1e-8)


def test_far_wings_keep_their_precision():
    value = line(np.array([7.6, 7.61]), 6.4, 0.1)[0]
    assert value == pytest.approx(ndtr(-12.0) - ndtr(-12.1), rel=1e-10)


@pytest.mark.parametrize(("energy", "place"), [(2.5, 1), (2.0, 0), (1.0, 0), (4.0, 2)])
def test_a_line_without_width_is_in_one_bin(energy, place):
    """On an edge it belongs to the bin below, on the lowest edge to the first bin, as XSPEC has it."""
    expected = np.zeros(3)
    expected[place] = 1.0
    np.testing.assert_array_equal(line(np.array([1.0, 2.0, 3.0, 4.0]), energy, 0.0), expected)


def test_a_line_outside_the_grid_leaves_nothing():
    assert line(np.array([1.0, 2.0, 3.0]), 0.5, 0.0).sum() == 0.0


def test_a_narrow_and_a_wide_line_in_one_batch():
    edges = np.linspace(6.0, 7.0, 11)
    made = COMPONENTS["gaussian"]()
    values = {"LineE": torch.full((2, 1), 6.45).double(), "Sigma": torch.tensor([[0.0], [0.1]]).double()}
    both, slopes = made.derivatives(Grid(edges), values, ["LineE", "Sigma"])
    np.testing.assert_array_equal(both[0].numpy(), line(edges, 6.45, 0.0))
    np.testing.assert_allclose(both[1].numpy(), line(edges, 6.45, 0.1), rtol=1e-14)
    assert (slopes[:, 0] == 0.0).all()
    assert (slopes[:, 1] != 0.0).any()
