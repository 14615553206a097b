"""A response in blocks is the response: forth, back, and differentiated twice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepspec.folding import Folding
from toy import toy_response


def banded(energies, bins, width, seed):
    generator = torch.Generator().manual_seed(seed)
    place = torch.arange(energies)[:, None] / energies - torch.arange(bins)[None, :] / bins
    matrix = torch.rand(energies, bins, generator=generator, dtype=torch.float64)
    return torch.where(place.abs() < width, matrix, 0.0)


@settings(max_examples=50)
@given(
    energies=st.integers(1, 60),
    bins=st.integers(1, 30),
    width=st.floats(0.0, 1.1),
    batch=st.sampled_from([(), (1,), (5,), (3, 4)]),
    seed=st.integers(0, 99),
)
def test_blocks_are_the_whole_matrix(energies, bins, width, batch, seed):
    matrix = banded(energies, bins, width, seed)
    folding = Folding(matrix)
    generator = torch.Generator().manual_seed(seed)
    flux = torch.rand(*batch, energies, generator=generator, dtype=torch.float64)
    weights = torch.rand(*batch, bins, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(folding.counts(flux), flux @ matrix, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(folding.back(weights), weights @ matrix.T, rtol=1e-12, atol=1e-12)


def test_a_camera_is_cut_and_a_full_matrix_is_not():
    _, camera = toy_response()
    assert "in 4 blocks" in repr(Folding(torch.as_tensor(camera.matrix).clamp(min=1e-6) - 1e-6))
    assert "in 1 blocks" in repr(Folding(torch.ones(40, 12, dtype=torch.float64)))


def test_a_broadcast_flux_folds():
    folding = Folding(banded(50, 20, 0.2, 1))
    flux = torch.rand(1, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(folding.counts(flux.expand(6, 50)), folding.counts(flux).expand(6, 20))


def test_derivatives_pass_through():
    folding = Folding(banded(24, 8, 0.3, 2))
    flux = torch.rand(3, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(folding.counts, flux)
    assert torch.autograd.gradgradcheck(lambda x: folding.counts(x) ** 2, flux)


@pytest.mark.parametrize("shape", [(30, 3), (3, 30), (1, 1)])
def test_few_rows_or_columns(shape):
    matrix = torch.eye(*shape, dtype=torch.float64)
    torch.testing.assert_close(Folding(matrix).counts(torch.eye(shape[0], dtype=torch.float64)), matrix)
