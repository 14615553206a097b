"""The stage of the noisy encoder: batches, loss, real spectra, what is held, figures, weights."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch

from deepspec.errors import UserError
from deepspec.learned.checkpoint import read_weights, write_weights
from deepspec.learned.encoder import Posterior, column_density, standardised
from deepspec.learned.modules import load_encoder
from deepspec.training import encoder_figures
from deepspec.training.elbo import part, seen, through
from deepspec.training.encoder_figures import Examination, within
from deepspec.training.encoder_stage import EncoderStage
from deepspec.training.loop import run
from deepspec.training.observations import fold
from deepspec.training.sources import CLASS_NAMES
from tests.training.noisy import small_config, toy_decoder, write_catalogue


@pytest.fixture(scope="module")
def weights():
    return toy_decoder()


@pytest.fixture(scope="module")
def stage(weights):
    made = EncoderStage(small_config("encoder"), seed=1, previous=weights)
    yield made
    made.close()


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    return write_catalogue(tmp_path_factory.mktemp("catalogue") / "small.h5")


def train(stage, steps: int, rate: float = 3e-3) -> list[float]:
    optimiser = torch.optim.AdamW([{**g, "lr": rate * g["scale"]} for g in stage.parameter_groups()])
    losses = []
    for step in range(steps):
        loss, _ = stage.module(stage.batch(step), step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_a_batch_is_a_function_of_seed_and_step(stage, weights):
    first, again = stage.batch(7), stage.batch(7)
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = stage.batch(8)
    assert not torch.equal(first["counts"], other["counts"])
    assert not torch.equal(first["noise"], other["noise"])
    assert first["counts"].shape == (32, 238)
    assert first["noise"].shape == (32, 5)


def test_the_truth_has_no_excess(stage):
    """With the true shape in place of the decoder's, counts are those of the simulation and the misfit is zero."""
    observed = stage.stream.batch(3)
    batch = stage.batch(3)
    module = stage.module
    density = torch.log(observed.shape)
    point = torch.cat([torch.zeros(32, 3), standardised(observed.log_nH)[:, None], observed.log_counts[:, None]], -1)

    class Truth(torch.nn.Module):
        decoder = module.decoder.decoder

        def table(self):
            return None

        def log_density(self, z, table):
            return density

        def forward(self, z, table):
            return observed.shape

    held, module.held = module.held, False
    kept, module.decoder = module.decoder, Truth()
    try:
        source = module.source_counts(point, batch)
        norm = module.log_norm(point, batch)
        excess = module.excess(point, batch)
    finally:
        module.decoder, module.held = kept, held
    assert torch.allclose(source, batch["expected"], rtol=2e-4, atol=1e-5)
    assert torch.allclose(norm, torch.log(observed.norm), atol=2e-3)
    assert excess.abs().max() < 0.02


def test_counts_are_those_of_the_streams_own_fold(stage):
    observed, batch = stage.stream.batch(4), stage.batch(4)
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(32, 3, generator=generator), torch.randn(32, generator=generator)
    c = torch.full((32,), math.log(500.0))
    with torch.no_grad():
        found = stage.module.source_counts(torch.cat([u, v[:, None], c[:, None]], -1), batch)
        shape = stage.module.decoder(u)
        expected = fold(shape, -1.0 + 0.6 * v, c, observed, stage.cameras)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert torch.allclose(found.sum(-1), torch.full((32,), 500.0), rtol=1e-4)


def test_a_gradient_reaches_every_weight_of_the_encoder_and_none_of_the_decoder(stage):
    loss, logged = stage.module(stage.batch(0), 0)
    stage.module.zero_grad()
    loss.backward()
    assert set(logged) == {"misfit", "latent"}
    for name, weight in stage.module.named_parameters():
        if name.startswith("encoder"):
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad).all(), name
            assert weight.grad.abs().max() > 0, name
        else:
            assert weight.grad is None, name
            assert not weight.requires_grad, name
    assert [g["scale"] for g in stage.parameter_groups()] == [1.0]


def test_stray_draws_and_empty_spectra_stay_finite(stage):
    batch = stage.batch(1)
    batch["noise"] = 30.0 * batch["noise"]
    batch["counts"] = torch.where(torch.arange(32)[:, None] < 16, 0.0, batch["counts"])
    loss, _ = stage.module(batch, 0)
    stage.module.zero_grad()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in stage.module.encoder.parameters())


def test_the_loss_falls(weights):
    stage = EncoderStage(small_config("encoder"), seed=2, previous=weights)
    try:
        before = stage.validate(stage.module)
        losses = train(stage, 60)
        after = stage.validate(stage.module)
    finally:
        stage.close()
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert next(iter(after)) == "loss"
    assert after["loss"] < 0.8 * before["loss"]
    assert after["excess 1e2"] < before["excess 1e2"]


def test_figures_are_the_same_each_time_and_of_every_class(stage):
    first, again = stage.validate(stage.module), stage.validate(stage.module)
    assert first == again
    assert {f"excess 1e3 {kind}" for kind in CLASS_NAMES} <= set(first)
    for name in ("nH 68 1e2", "flux 68 1e2", "nH 68 1e3", "flux 68 1e3"):
        assert 0.0 <= first[name] <= 1.0
    assert not any("1e4" in name for name in first)


def test_right_widths_hold_two_thirds_of_the_truths():
    generator = torch.Generator().manual_seed(0)
    mean, spread = torch.randn(20000, generator=generator), 0.1 + torch.rand(20000, generator=generator)
    truth = mean + spread * torch.randn(20000, generator=generator)
    assert within(mean, spread, truth) == pytest.approx(0.6827, abs=0.01)
    assert within(mean, 0.5 * spread, truth) == pytest.approx(0.3829, abs=0.01)


def test_levels_outside_of_the_training_are_not_examined(stage):
    found = Examination(stage.cameras, (10.0, 20.0), stage.stream.settings, 5, per_class=2)
    assert found.levels == (20.0,)


def test_the_loop_runs_it_and_a_cut_run_goes_on_with_the_same_losses(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_figures, "LEVELS", (300.0,))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    config = small_config("encoder", steps=4)
    config = config.with_changes({"run": {"log_every": 1, "validate_every": 2}})

    def made():
        return EncoderStage(config, seed=1, previous=weights)

    for folder in (whole, cut):
        folder.mkdir()
    run(made(), whole)
    stage = made()
    forward = stage.batch

    def interrupted(step):
        if step == 3:
            raise KeyboardInterrupt
        return forward(step)

    stage.batch = interrupted
    with pytest.raises(KeyboardInterrupt):
        run(stage, cut)
    run(made(), cut, resume=True)
    first, second = (
        [row["loss"] for row in csv.DictReader((f / "encoder.csv").read_text().splitlines())] for f in (whole, cut)
    )
    assert len(first) == 4
    assert first == second
    assert read_weights(whole / "encoder.h5").encoder is not None


def test_weights_hold_the_encoder_and_leave_the_rest(stage, weights, tmp_path):
    made = stage.weights(stage.module, {"name": "test"})
    read = read_weights(write_weights(tmp_path / "w.h5", made).path)
    assert read.card["name"] == "test"
    for name, array in weights.decoder.arrays.items():
        assert np.array_equal(read.decoder.arrays[name], array)
    batch = stage.batch(2)
    with torch.no_grad():
        first, second = stage.module.encoder(seen(batch)), load_encoder(read)(seen(batch))
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.tril, second.tril)


def test_an_encoder_of_the_same_architecture_is_taken_up(stage, weights):
    made = stage.weights(stage.module, {})
    later = EncoderStage(small_config("encoder"), seed=9, previous=made)
    later.close()
    ours, theirs = stage.module.encoder.state_dict(), later.module.encoder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_real_spectra_take_their_share(weights, catalogue):
    config = small_config("encoder", real=0.25, catalogue=str(catalogue))
    stage = EncoderStage(config, seed=1, previous=weights)
    try:
        batch = stage.batch(5)
        assert len(batch["counts"]) == 24
        assert len(batch["real_counts"]) == 8
        assert int(batch["real_runs"].sum()) == 8
        again = stage.batch(5)
        assert all(torch.equal(batch[name], again[name]) for name in batch)
        loss, logged = stage.module(batch, 0)
        assert torch.isfinite(loss)
        assert "real" in logged
        losses = [float(stage.module.real(part(stage.batch(s), "real_"))[0].detach().mean()) for s in range(4)]
        train(stage, 60)
        after = [float(stage.module.real(part(stage.batch(s), "real_"))[0].detach().mean()) for s in range(4)]
        assert np.mean(after) < np.mean(losses)
    finally:
        stage.close()


def test_real_spectra_go_through_their_own_matrices(weights, catalogue):
    config = small_config("encoder", real=0.25, catalogue=str(catalogue))
    stage = EncoderStage(config, seed=1, previous=weights)
    try:
        batch = part(stage.batch(0), "real_")
        rows = stage.catalogue.at(0, 8, 1, "training")
        order = np.argsort(rows["rmf"], kind="stable")
        photons = torch.exp(-torch.linspace(0, 3, 600)).repeat(8, 1)
        ours = through(photons * torch.exp(batch["log_area"]), batch)
        theirs = stage.catalogue.fold(photons, {name: values[order] for name, values in rows.items()})
        assert torch.allclose(ours / ours.sum(-1, keepdim=True), theirs / theirs.sum(-1, keepdim=True), atol=1e-6)
    finally:
        stage.close()


@pytest.mark.parametrize("own", [0.5, 0.3])
def test_own_spectra_are_at_the_coordinates_that_the_loss_is_told(weights, own):
    stage = EncoderStage(small_config("encoder", own=own), seed=1, previous=weights)
    try:
        batch, observed = stage.batch(2), stage.stream.batch(2)
        count = len(batch["own_counts"])
        assert count == int(32 * own)
        assert len(batch["counts"]) == 32 - count == int(batch["runs"].sum())
        with torch.no_grad():
            shape = stage.module.decoder(batch["own_truth"][:, :3])
        rows = stage.mixed.own
        assert torch.allclose(observed.shape[rows], shape, rtol=1e-4, atol=1e-9)
        assert torch.equal(observed.counts[rows], batch["own_counts"])
        assert torch.equal(observed.counts[stage.mixed.others], batch["counts"])
        assert torch.allclose(column_density(batch["own_truth"][:, -2]), 10 ** observed.log_nH[rows], rtol=1e-4)
        assert torch.equal(batch["own_truth"][:, -1], observed.log_counts[rows])
        # those that are left still go through the cameras they were seen with
        photons = (observed.shape * torch.exp(observed.tilt))[stage.mixed.others]
        left = through(photons, batch)
        everyone = stage.cameras.fold(observed.shape * torch.exp(observed.tilt), observed.cameras)
        assert torch.allclose(left, everyone[stage.mixed.others], rtol=1e-4)
        loss, logged = stage.module(batch, 0)
        loss.backward()
        assert torch.isfinite(loss)
        assert "own" in logged
    finally:
        stage.close()


def test_own_spectra_teach_widths_that_hold_the_truth(weights):
    """-ln q of the truth is smallest where the widths are right: narrower and wider answers cost more."""
    stage = EncoderStage(small_config("encoder", own=0.5), seed=1, previous=weights)
    try:
        train(stage, 40)
        batch = part(stage.batch(50), "own_")
    finally:
        stage.close()
    with torch.no_grad():
        answer = stage.module.answer(seen(batch))
        white = torch.linalg.solve_triangular(answer.tril, (batch["truth"] - answer.mean).unsqueeze(-1), upper=False)
        best = float(white.square().mean().sqrt())

        def loss(scale):
            return float(-Posterior(answer.mean, scale * answer.tril).log_density(batch["truth"]).mean())

        assert loss(best) < min(loss(0.7 * best), loss(1.4 * best))
        assert float(stage.module.own(batch).mean()) == pytest.approx(loss(1.0), rel=1e-5)


def test_own_spectra_need_a_decoder_that_is_held():
    with pytest.raises(UserError, match="own"):
        small_config("encoder", own=0.5, decoder_rate=0.1)


def test_the_decoder_may_follow_at_a_small_rate(weights):
    stage = EncoderStage(small_config("encoder", decoder_rate=0.1), seed=1, previous=weights)
    try:
        assert [g["scale"] for g in stage.parameter_groups()] == [1.0, 0.1]
        train(stage, 2)
        made = stage.weights(stage.module, {})
    finally:
        stage.close()
    changed = [n for n, a in weights.decoder.arrays.items() if not np.array_equal(made.decoder.arrays[n], a)]
    assert changed
    assert any(not np.array_equal(made.flow.arrays[n], a) for n, a in weights.flow.arrays.items())


def test_what_cannot_be_is_refused(weights, tmp_path):
    with pytest.raises(UserError, match="no trained decoder"):
        EncoderStage(small_config("encoder"))
    with pytest.raises(UserError, match="catalogue"):
        small_config("encoder", real=0.5)
    missing = small_config("encoder", real=0.5, catalogue=str(tmp_path / "none.h5"))
    with pytest.raises(UserError, match="no such file"):
        EncoderStage(missing, previous=weights)
