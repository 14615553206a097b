"""Gradients of weighted sums of a batch of spectra: equal to automatic ones through the torch modules."""

from __future__ import annotations

import pytest
import torch

from deepspec.learned.checkpoint import read_weights
from deepspec.learned.grids import COUNT
from deepspec.learned.modules import load_decoder
from deepspec.learned.pulled import Pulled, pulled_at
from tests.learned.test_tabulated import KINDS
from tests.learned.toy_weights import toy_weights


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_automatic_ones(kind, tmp_path):
    path = toy_weights(tmp_path, **KINDS[kind])
    module = load_decoder(read_weights(path), dtype=torch.float64)
    draw = torch.Generator().manual_seed(3)
    # far out too: beyond the splines' tails
    z = (3.0 * torch.randn(7, module.latent, dtype=torch.float64, generator=draw)).requires_grad_()
    weights = torch.randn(7, COUNT, dtype=torch.float64, generator=draw)
    shape = module(z)
    (exact,) = torch.autograd.grad((shape * weights).sum(), z)
    batch = pulled_at(path)
    assert isinstance(batch, Pulled) == (kind in ("log", "one latent", "odd", "no flow"))
    found, pull = batch(z.detach().T.contiguous())
    assert torch.allclose(found.T, shape, rtol=1e-10, atol=0.0)
    assert torch.allclose(pull(weights.T).T, exact, rtol=1e-10, atol=1e-10 * float(exact.abs().max()))
    # a batch stays what it was when another one follows
    before = found.clone()
    batch(torch.zeros_like(z.detach().T))
    assert torch.equal(found, before)
