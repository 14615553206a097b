"""The foreground's column and cross-section."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deepspec.learned.grids import CENTRES, COUNT, EDGES
from deepspec.models import COMPONENTS
from deepspec.models.base import Grid
from deepspec.training.foreground import LIMITS, SIGMA, draw_log_nH


def transmission(nH: float, pieces: int) -> np.ndarray:
    """tbabs on bins of the grid, each the mean of finer ones."""
    edges = np.geomspace(EDGES[0], EDGES[-1], COUNT * pieces + 1)
    factor = COMPONENTS["tbabs"]().evaluate(Grid(torch.as_tensor(edges)), nH=torch.tensor([nH], dtype=torch.float64))
    return factor.reshape(COUNT, pieces).numpy().mean(-1)


@pytest.mark.parametrize(("nH", "in_the_oxygen_line"), [(0.01, 0.05), (0.1, 1e-3), (1.0, 5e-3)])
def test_sigma_is_tbabs(nH, in_the_oxygen_line):
    exact, mine = transmission(nH, 400), np.exp(-nH * SIGMA)
    matters = exact > 1e-4
    assert np.quantile(np.abs(mine / exact - 1)[matters], 0.95) < 2e-3
    apart = np.abs(mine - exact)
    line = np.argmin(np.abs(CENTRES - 0.5258))
    assert apart[line] < in_the_oxygen_line
    assert np.delete(apart, line).max() < 3e-3


def test_sigma_falls_with_energy_and_cannot_be_changed():
    assert SIGMA.shape == (COUNT,)
    assert SIGMA.dtype == np.float64
    slope = np.polyfit(np.log(CENTRES), np.log(SIGMA), 1)[0]
    assert -3.0 < slope < -2.0
    with pytest.raises(ValueError, match="read-only"):
        SIGMA[0] = 1.0


def test_columns_are_a_cut_normal():
    values = draw_log_nH(50000, torch.Generator().manual_seed(1))
    assert values.dtype == torch.float32
    assert values.shape == (50000,)
    assert LIMITS[0] <= float(values.min()) <= float(values.max()) <= LIMITS[1]
    inside = values[(values > -1.6) & (values < -0.4)]
    share = math.erf(1 / math.sqrt(2)) / (0.5 * (math.erf(2 / 0.6 / math.sqrt(2)) + math.erf(1.7 / 0.6 / math.sqrt(2))))
    assert len(inside) / 50000 == pytest.approx(share, abs=0.01)
    assert float(values.median()) == pytest.approx(-1.0, abs=0.02)


def test_columns_are_reproducible():
    first, second = (draw_log_nH(100, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, draw_log_nH(100, torch.Generator().manual_seed(6)))
