"""The joint stage: the plain autoencoder from nothing, and the polish after the other stages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.learned.checkpoint import read_weights, write_weights
from deepspec.learned.encoder import parameter_count
from deepspec.training.config import TrainConfig, load_config
from deepspec.training.joint_stage import JointStage
from tests.training.noisy import small_config, toy_decoder
from tests.training.test_encoder_stage import train


def test_from_nothing_everything_is_trained_and_the_loss_falls(tmp_path):
    stage = JointStage(small_config("joint", beta=0.02, beta_hold=0.4, beta_full=0.75), seed=3)
    try:
        start = {name: value.clone() for name, value in stage.module.named_parameters()}
        losses = train(stage, 60)
        figures = stage.validate(stage.module)
        made = stage.weights(stage.module, {"name": "plain"})
    finally:
        stage.close()
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert all(not torch.equal(value, start[name]) for name, value in stage.module.named_parameters())
    assert np.isfinite(list(figures.values())).all()
    read = read_weights(write_weights(tmp_path / "w.h5", made).path)
    assert read.flow is None
    assert read.encoder is not None
    assert read.latent == 3


def test_the_kullback_leibler_weight_follows_its_schedule():
    settings = small_config("joint", steps=100, beta=0.1, beta_hold=0.2, beta_full=0.6).stage["joint"]
    assert settings.beta_at(0) == pytest.approx(0.1)
    assert settings.beta_at(20) == pytest.approx(0.1)
    assert settings.beta_at(40) == pytest.approx(0.55)
    assert settings.beta_at(60) == pytest.approx(1.0)


def test_its_weight_in_the_loss_is_that_of_the_schedule():
    stage = JointStage(small_config("joint", beta=0.25, beta_hold=0.5, beta_full=1.0), seed=3)
    try:
        batch = stage.batch(0)
        with torch.no_grad():
            early, _ = stage.module(batch, 0)
            late, logged = stage.module(batch, 60)
    finally:
        stage.close()
    assert float(late - early) == pytest.approx(0.75 * float(logged["latent"]), rel=1e-3)


def test_after_the_other_stages_it_goes_on_from_their_networks():
    weights = toy_decoder()
    stage = JointStage(small_config("joint"), seed=3, previous=weights)
    stage.close()
    decoder = stage.module.decoder.decoder.state_dict()
    assert all(np.array_equal(decoder[name].numpy(), array) for name, array in weights.decoder.arrays.items())
    assert stage.module.decoder.flow is not None
    assert [g["scale"] for g in stage.parameter_groups()] == [1.0, 1.0]
    made = stage.weights(stage.module, {})
    assert made.flow is not None
    assert made.check is None


def test_a_decoder_cannot_be_held_here():
    with pytest.raises(UserError, match="decoder_rate"):
        TrainConfig.from_dict({"stage": {"joint": {"decoder_rate": 0.0}}})


@pytest.mark.parametrize(("preset", "published"), [("talk2", 475_206), ("talk16", None)])
def test_presets_of_the_talks_take_a_step(preset, published):
    config = load_config(preset=preset).with_changes(
        {
            "cameras": {"names": ["pn"], "relatives": 0},
            "populations": {"block": 64, "blocks": 1},
            "stage": {"joint": {"batch": 8}},
        }
    )
    stage = JointStage(config, seed=1)
    try:
        loss, _ = stage.module(stage.batch(0), 0)
        loss.backward()
    finally:
        stage.close()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in stage.module.parameters())
    assert stage.previous is None
    assert stage.module.decoder.latent == (2 if preset == "talk2" else 16)
    if published is not None:
        assert parameter_count(stage.module) == pytest.approx(published, abs=50)
