"""Decoders: every form gives positive photons of unit flux, with gradients."""

from __future__ import annotations

import pytest
import torch

from deepspec.learned.decoder import ComposedDecoder, DecoderConfig, build_decoder
from deepspec.learned.flow import FlowConfig, build_flow
from deepspec.learned.grids import COUNT, ENERGY_WEIGHTS
from deepspec.learned.oracle import OracleConfig, build_oracle

FORMS = {
    "log": {},
    "linear": {"combine": "linear"},
    "both": {"combine": "both"},
    "log, moving": {"moving": 3},
    "linear, moving": {"combine": "linear", "moving": 3},
    "both, moving": {"combine": "both", "moving": 3},
    "all moving": {"moving": 8},
    "mlp": {"kind": "mlp"},
}
SMALL = {"latent": 3, "templates": 8, "trunk_width": 16, "branch": (12,)}


def made(form: str):
    torch.manual_seed(0)
    return build_decoder(DecoderConfig(**(SMALL | FORMS[form])))


@pytest.mark.parametrize("form", FORMS)
def test_photons_are_positive_and_of_unit_flux(form):
    decoder = made(form)
    shape = decoder(2.0 * torch.randn(4, 5, 3))
    assert shape.shape == (4, 5, COUNT)
    assert (shape >= 0).all()
    assert torch.isfinite(shape).all()
    flux = shape.double() @ torch.as_tensor(ENERGY_WEIGHTS)
    torch.testing.assert_close(flux, torch.ones(4, 5, dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_a_table_made_before_changes_nothing(form):
    decoder, z = made(form), torch.randn(6, 3)
    torch.testing.assert_close(decoder(z, decoder.table()), decoder(z))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_differences(form):
    decoder = made(form).double()
    z = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    band = torch.linspace(0.0, 1.0, COUNT, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: decoder(z) @ band, (z,), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
def test_every_weight_learns(form):
    decoder = made(form)
    decoder.log_density(torch.randn(16, 3)).square().sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_tail_outside_the_band_cannot_underflow_the_band():
    decoder = made("mlp")
    y = torch.zeros(1, COUNT)
    y[0, -20:] = 200.0
    shape = decoder.normalised(y)
    assert torch.isfinite(shape).all()
    assert float(shape.double()[0] @ torch.as_tensor(ENERGY_WEIGHTS)) == pytest.approx(1.0, rel=1e-5)


def test_composed_decoder_applies_the_flow_first():
    torch.manual_seed(1)
    decoder, flow = made("log"), build_flow(FlowConfig(latent=3, transforms=2, hidden=(8,)))
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    u = torch.randn(5, 3)
    torch.testing.assert_close(ComposedDecoder(decoder, flow)(u), decoder(flow(u)))
    torch.testing.assert_close(ComposedDecoder(decoder)(u), decoder(u))


def test_oracle_shrinks_and_widens_as_counts_fall():
    torch.manual_seed(2)
    oracle, decoder = build_oracle(OracleConfig(latent=3, widths=(16,))), made("log")
    shape = decoder(torch.randn(1, 3)).detach().expand(4, -1)
    log_counts = torch.tensor([0.0, 5.0, 10.0, 20.0])
    mean, sd = oracle(shape, log_counts, torch.zeros(4), torch.zeros(4))
    assert (sd.diff(dim=0) < 0).all()
    assert (sd[0] > 0.9).all()
    assert (mean[0].abs() < 0.2).all()


def test_oracle_does_not_see_the_norm_nor_a_foreground_that_is_not_there():
    torch.manual_seed(3)
    oracle = build_oracle(OracleConfig(latent=3, widths=(16,)))
    shape = torch.rand(2, COUNT) + 0.1
    log_counts, none = torch.full((2,), 8.0), torch.zeros(2)
    one = oracle(shape, log_counts, torch.tensor([-1.0, 0.5]), none)
    other = oracle(7.0 * shape, log_counts, torch.tensor([0.3, -2.0]), none)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
