"""The joint stage: the plain autoencoder from nothing, and the polish after the other stages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.learned.checkpoint import read_weights, write_weights
from deepspec.learned.decoder import DecoderConfig, build_decoder
from deepspec.learned.encoder import EncoderConfig, build_encoder, parameter_count
from deepspec.training.config import TrainConfig
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


def test_the_published_size_with_two_latent_coordinates():
    """475,206 parameters are quoted for the plain autoencoder of the talks; these settings come within three."""
    decoder = build_decoder(
        DecoderConfig(latent=2, templates=10, moving=10, trunk_width=48, trunk_layers=3, branch=(96, 96))
    )
    encoder = build_encoder(EncoderConfig(latent=2, widths=(320, 256, 256)))
    assert parameter_count(decoder) + parameter_count(encoder) == 475_209
