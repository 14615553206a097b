"""Encoders: shapes, order of a batch, no counts, scales, gradients, saved and loaded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepspec.errors import UserError
from deepspec.learned.encoder import (
    ENCODERS,
    EncoderConfig,
    EncoderInput,
    Posterior,
    build_encoder,
    column_density,
    parameter_count,
    standardised,
)
from deepspec.learned.grids import DETECTOR_COUNT

SMALL = {
    "mlp": EncoderConfig(kind="mlp", latent=3, widths=(24, 16)),
    "mixer": EncoderConfig(
        kind="mixer", latent=3, widths=(16,), patch=34, width=8, blocks=2, token_hidden=8, channel_hidden=8
    ),
}


def encoder(kind: str, seed: int = 0):
    torch.manual_seed(seed)
    return build_encoder(SMALL[kind])


def observed(count: int = 6, level: float = 3.0, seed: int = 0) -> EncoderInput:
    """Counts of a sloping spectrum with background, a band cut off at the top."""
    rng = np.random.default_rng(seed)
    slope = np.exp(-np.linspace(0, 3, DETECTOR_COUNT) * rng.uniform(0.2, 2, (count, 1)))
    background = rng.poisson(2.0, (count, DETECTOR_COUNT))
    counts = rng.poisson(level * slope + 0.2)
    valid = np.broadcast_to(np.arange(DETECTOR_COUNT) < 220, counts.shape)
    numbers = [torch.as_tensor(x, dtype=torch.float32) for x in (counts, background, np.full((count, 1), 0.1), slope)]
    return EncoderInput(*numbers, torch.as_tensor(valid.copy()))


def rows(seen: EncoderInput, index) -> EncoderInput:
    return EncoderInput(*(getattr(seen, f.name)[index] for f in dataclasses.fields(seen)))


@pytest.mark.parametrize("kind", SMALL)
def test_answer_has_the_shapes_it_says(kind):
    answer = encoder(kind)(observed(6))
    assert answer.mean.shape == (6, 5)
    assert answer.tril.shape == (6, 5, 5)
    assert torch.equal(answer.tril, answer.tril.tril())
    assert (torch.diagonal(answer.tril, dim1=-2, dim2=-1) > 0).all()
    assert answer.divergence().shape == (6,)
    assert answer.draw(torch.zeros(6, 5)).equal(answer.mean)


@pytest.mark.parametrize("kind", SMALL)
def test_each_spectrum_is_answered_for_itself(kind):
    network, seen = encoder(kind), observed(6)
    order = torch.tensor([4, 0, 5, 1, 3, 2])
    together, shuffled, alone = network(seen), network(rows(seen, order)), network(rows(seen, 2))
    assert torch.allclose(together.mean[order], shuffled.mean, atol=1e-6)
    assert torch.allclose(together.tril[order], shuffled.tril, atol=1e-6)
    assert torch.allclose(together.mean[2], alone.mean, atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_without_counts_the_answer_is_near_the_prior(kind):
    empty = EncoderInput(
        torch.zeros(2, DETECTOR_COUNT),
        torch.zeros(2, DETECTOR_COUNT),
        torch.zeros(2, 1),
        torch.ones(2, DETECTOR_COUNT),
        torch.ones(2, DETECTOR_COUNT, dtype=torch.bool),
    )
    network = encoder(kind)
    answer = network(empty)
    answer.divergence().sum().backward()
    assert torch.isfinite(answer.mean).all()
    assert torch.isfinite(answer.tril).all()
    assert (answer.spread[:, :-1] > 0.9).all()
    assert (answer.mean[:, :-1].abs() < 0.2).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@given(kind=st.sampled_from(sorted(SMALL)), level=st.sampled_from([0.0, 1e-3, 1.0, 1e6]), seed=st.integers(0, 99))
def test_any_number_of_counts_gives_a_finite_answer(kind, level, seed):
    seen = observed(3, level, seed)
    heavy = dataclasses.replace(seen, background=1e4 * (1 + seen.background))
    for one in (seen, heavy):
        answer = encoder(kind, seed)(one)
        assert torch.isfinite(answer.mean).all()
        assert torch.isfinite(torch.log(torch.diagonal(answer.tril, dim1=-2, dim2=-1))).all()


@pytest.mark.parametrize("kind", SMALL)
def test_widths_fall_as_the_signal_to_noise_ratio_rises(kind):
    network = encoder(kind)
    faint, bright = (network(observed(6, level)).spread.mean(0) for level in (1.0, 1e4))
    assert (bright < 0.2 * faint).all()


@pytest.mark.parametrize("kind", SMALL)
def test_bins_that_are_not_used_do_not_matter(kind):
    network, seen = encoder(kind), observed(4)
    changed = seen.counts.clone()
    changed[:, 220:] = 1000.0
    other = dataclasses.replace(seen, counts=changed, area=torch.where(seen.valid, seen.area, torch.tensor(7.0)))
    assert torch.equal(network(seen).mean, network(other).mean)


def test_net_counts_are_positive_and_right_where_there_is_signal():
    seen = observed(50, 300.0)
    net, strength = seen.strength()
    plain = seen.counts.sum(-1, keepdim=True) - 0.1 * seen.background.sum(-1, keepdim=True)
    assert torch.allclose(net, plain, rtol=1e-4)
    assert torch.allclose(strength, plain, rtol=0.05)
    swamped = dataclasses.replace(seen, counts=0 * seen.counts, background=1e4 * seen.background)
    assert (swamped.strength()[0] > 0).all()


@pytest.mark.parametrize("kind", SMALL)
def test_every_weight_gets_a_gradient(kind):
    network = encoder(kind)
    answer = network(observed(8))
    noise = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    (answer.draw(noise).square().sum() + answer.divergence().sum()).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", SMALL)
def test_saved_and_loaded_it_answers_the_same(kind):
    first, second = encoder(kind, 0), encoder(kind, 1)
    seen = observed(3)
    assert not torch.equal(first(seen).mean, second(seen).mean)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(seen).mean, second(seen).mean)
    assert torch.equal(first(seen).tril, second(seen).tril)


def test_divergence_is_that_of_two_gaussians():
    generator = torch.Generator().manual_seed(3)
    mean = torch.randn(4, generator=generator, dtype=torch.float64)
    tril = 0.3 * torch.randn(4, 4, generator=generator, dtype=torch.float64).tril(-1) + torch.diag(
        0.2 + torch.rand(4, generator=generator, dtype=torch.float64)
    )
    answer = Posterior(mean, tril)
    inside = torch.distributions.MultivariateNormal(mean[:3], scale_tril=tril[:3, :3])
    standard = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), torch.eye(3).double())
    plain = torch.distributions.kl_divergence(inside, standard)
    # with c given (u, v) known exactly as wide as its last diagonal element: only that entropy is added
    mixed = 0.5 * tril[:3].square().sum() - 0.5 * (tril[:3, :3]).square().sum()
    assert torch.allclose(answer.divergence(), plain + mixed - torch.log(tril[3, 3]))
    assert mixed == 0


def test_constants_come_from_the_weights():
    """An encoder loaded from weights keeps the constants of its training, whatever the code says later."""
    network, seen = encoder("mlp"), observed(3)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    before = network(seen).mean
    for name in ("offset", "scale", "global_offset", "global_scale", "limits"):
        network.load_state_dict({**state, name: 1.5 * state[name]})
        assert not torch.equal(network(seen).mean, before), name
    network.load_state_dict(state)
    assert torch.equal(network(seen).mean, before)


def test_log_density_is_that_of_a_gaussian():
    answer = encoder("mlp")(observed(3))
    at = answer.draw(torch.randn(3, 5, generator=torch.Generator().manual_seed(2)))
    exact = torch.distributions.MultivariateNormal(answer.mean, scale_tril=answer.tril).log_prob(at)
    assert torch.allclose(answer.log_density(at), exact, rtol=1e-4)


def test_column_density_and_its_coordinate_are_inverse():
    v = torch.linspace(-3, 3, 7)
    assert torch.allclose(standardised(torch.log10(column_density(v))), v, atol=1e-5)
    assert column_density(torch.zeros(1)).item() == pytest.approx(0.1)


def test_published_sizes():
    latent2 = build_encoder(EncoderConfig(latent=2, widths=(320, 256, 256)))
    assert parameter_count(latent2) == 955 * 320 + 321 * 256 + 257 * 256 + 257 * 14


def test_settings_refuse_what_is_impossible():
    assert EncoderConfig.from_dict(SMALL["mixer"].as_dict()) == SMALL["mixer"]
    with pytest.raises(UserError, match="widths"):
        EncoderConfig.from_dict({"width5": (3,)})
    for wrong in ({"kind": "cnn"}, {"patch": 15}, {"latent": 0}, {"widths": ()}, {"blocks": 0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            EncoderConfig(**wrong)
    assert set(ENCODERS) == set(SMALL)
