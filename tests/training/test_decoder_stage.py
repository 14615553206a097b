"""The noise-free decoder and its prior."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.learned.modules import load_decoder, load_flow
from deepspec.training.config import TrainConfig
from deepspec.training.decoder_stage import DecoderStage
from deepspec.training.noise_free import robust, shape_divergence
from deepspec.training.prior_stage import PriorStage

SMALL = {
    "populations": {"block": 128, "blocks": 2, "reuse": 2},
    "decoder": {"latent": 3, "templates": 8, "trunk_width": 32, "trunk_layers": 2, "branch": [32]},
    "oracle": {"widths": [48]},
    "prior": {"transforms": 2, "hidden": [16]},
    "stage": {
        "decoder": {"steps": 60, "batch": 64, "cameras": ["pn", "acis_s"]},
        "prior": {"steps": 40, "batch": 128},
    },
}


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    return TrainConfig.from_dict(SMALL)


@pytest.fixture(scope="module")
def stage(config):
    made = DecoderStage(config, seed=3)
    yield made
    made.close()


def test_divergence_of_shapes_is_half_of_cstat_per_count():
    rng = np.random.default_rng(0)
    true, model = rng.uniform(1.0, 5.0, (2, 40)), rng.uniform(1.0, 5.0, (2, 40))
    counts = 1e4
    n = counts * true / true.sum(-1, keepdims=True)
    m = counts * model / model.sum(-1, keepdims=True)
    cstat = 2.0 * (m - n + n * np.log(n / m)).sum(-1)
    found = shape_divergence(torch.as_tensor(true), torch.as_tensor(7.0 * model))
    np.testing.assert_allclose(2.0 * counts * found, cstat, rtol=1e-10)


def test_divergence_in_float32_does_not_cancel():
    torch.manual_seed(0)
    true = torch.rand(100, 238, dtype=torch.float64) + 0.5
    model = true * (1.0 + 1e-3 * torch.randn(100, 238, dtype=torch.float64))
    exact = shape_divergence(true, model)
    assert (shape_divergence(true.float(), model.float()) / exact - 1.0).abs().max() < 0.02


def test_large_losses_go_on_logarithmically_and_smoothly():
    loss = torch.tensor([1.0, 99.999, 100.0, 100.001, 1e6], requires_grad=True)
    found = robust(loss, 100.0)
    found.sum().backward()
    torch.testing.assert_close(found[:3], loss[:3])
    assert float(found[4].detach()) == pytest.approx(100.0 * (1.0 + np.log(1e4)))
    torch.testing.assert_close(loss.grad[:4], torch.ones(4), rtol=1e-4, atol=0)
    assert loss.grad[4] == pytest.approx(1e-4)


def test_batches_are_functions_of_the_step(config, stage):
    again = DecoderStage(config, seed=3)
    later, first = again.batch(7), again.batch(0)
    again.close()
    for step, batch in ((0, first), (7, later)):
        for name, value in stage.batch(step).items():
            assert torch.equal(value, batch[name]), name
    assert not torch.equal(first["shape"], later["shape"])
    assert int(first["camera"]) in (0, 1)


def test_reference_counts_and_foreground_are_those_asked_for(stage):
    batches = [stage.batch(step) for step in range(20)]
    counts = torch.cat([b["log_counts"] for b in batches]).exp()
    assert counts.min() >= 1e3
    assert counts.max() <= 3e5
    assert torch.cat([b["absorbed"] for b in batches]).mean() == pytest.approx(0.5, abs=0.06)


def test_loss_falls_and_a_perfect_decoder_has_none(config, stage):
    module, batch = stage.module, stage.batch(0)
    with torch.no_grad():
        exact = torch.log(batch["shape"]) + 3.0
        known, module.decoder.log_density = module.decoder.log_density, lambda z, table=None: exact
        _, logged = module(batch, 0)
        module.decoder.log_density = known
    assert logged["misfit"] < 0.1
    optimiser = torch.optim.AdamW(module.parameters(), 3e-3)
    losses = []
    for step in range(60):
        loss, _ = module(stage.batch(step), step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_validation_and_weights(stage):
    found = stage.validate(stage.module)
    assert next(iter(found)) == "excess 1e+04"
    assert all(np.isfinite(value) and value >= 0 for value in found.values())
    weights = stage.weights(stage.module, {"stages": {}})
    z = torch.randn(5, 3)
    torch.testing.assert_close(load_decoder(weights)(z), stage.module.decoder(z), rtol=1e-4, atol=1e-8)
    assert weights.oracle is not None


def test_prior_needs_a_decoder(config):
    with pytest.raises(UserError, match="--stage decoder"):
        PriorStage(config)


def test_prior_learns_where_the_oracle_puts_sources(config, stage):
    weights = stage.weights(stage.module, {})
    prior = PriorStage(config, seed=1, previous=weights)
    try:
        before = prior.validate(prior.module)
        # the mean and covariance that it starts from are better than N(0,1) already
        assert before["density"] < before["normal"]
        assert torch.equal(prior.batch(5)["z"], prior.batch(5)["z"])
        optimiser = torch.optim.Adam(prior.module.parameters(), 1e-2)
        for step in range(40):
            loss, _ = prior.module(prior.batch(step), step)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        after = prior.validate(prior.module)
        made = prior.weights(prior.module, {"stages": {}})
    finally:
        prior.close()
    assert after["density"] < before["density"]
    u = torch.randn(4, 3)
    torch.testing.assert_close(load_flow(made)(u), prior.module.flow(u))
    assert made.oracle is not None


@pytest.mark.parametrize("change", [{"counts": (5.0, 1.0)}, {"ideal": 2.0}, {"cameras": ()}, {"unabsorbed": -0.1}])
def test_impossible_settings(config, change):
    with pytest.raises(UserError, match="impossible"):
        dataclasses.replace(config.stage["decoder"], **change)
