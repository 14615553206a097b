"""The flow: inverse, density, tails, and that it can be fitted."""

from __future__ import annotations

import math

import pytest
import torch

from deepspec.learned.flow import TAIL, FlowConfig, build_flow, spline


def random_flow(latent: int, spread: float = 0.1, **others):
    torch.manual_seed(0)
    flow = build_flow(FlowConfig(latent=latent, hidden=(16,), **others)).double()
    for layer in flow.layers:
        # a rotation rounded to float32 is none to 1e-8
        layer.rotation.copy_(torch.linalg.qr(layer.rotation)[0])
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return flow


@pytest.mark.parametrize(("latent", "transforms"), [(1, 0), (2, 3), (5, 4), (12, 2)])
def test_inverse_undoes(latent, transforms):
    flow = random_flow(latent, transforms=transforms)
    u = 2.0 * torch.randn(4, 50, latent).double()
    with torch.no_grad():
        back, _ = flow.inverse(flow(u))
    torch.testing.assert_close(back, u, rtol=0, atol=1e-8)


def test_density_is_that_of_the_change_of_variables():
    flow = random_flow(3, transforms=3)
    u = torch.randn(3).double()
    jacobian = torch.autograd.functional.jacobian(flow, u)
    normal = -0.5 * (u**2).sum() - 1.5 * math.log(2.0 * math.pi)
    expected = normal - torch.linalg.slogdet(jacobian)[1]
    assert float(flow.log_prob(flow(u)).detach()) == pytest.approx(float(expected.detach()), abs=1e-9)


def test_density_integrates_to_one():
    flow = random_flow(2, transforms=2)
    line = torch.linspace(-14.0, 14.0, 561).double()
    z = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)
    with torch.no_grad():
        total = flow.log_prob(z).exp().sum() * (line[1] - line[0]) ** 2
    assert float(total) == pytest.approx(1.0, abs=2e-3)


def test_spline_is_monotonic_and_the_identity_in_its_tails():
    torch.manual_seed(1)
    raw = 2.0 * torch.randn(1, 23).double()
    value = torch.linspace(-TAIL - 2.0, TAIL + 2.0, 2001).double()[:, None]
    found, log_slope = spline(value, raw.expand(len(value), 1, 23), 8)
    assert (found.diff(dim=0) > 0).all()
    outside = value.abs() >= TAIL
    torch.testing.assert_close(found[outside], value[outside])
    assert (log_slope[outside] == 0).all()


def test_new_flow_is_a_rotation():
    torch.manual_seed(2)
    flow = build_flow(FlowConfig(latent=4))
    u = torch.randn(100, 4)
    torch.testing.assert_close(flow(u).norm(dim=-1), u.norm(dim=-1))


def test_fit_gaussian_takes_up_mean_and_covariance():
    torch.manual_seed(3)
    samples = torch.randn(20000, 3) @ torch.randn(3, 3) + torch.tensor([1.0, -2.0, 0.5])
    flow = build_flow(FlowConfig(latent=3, transforms=0))
    flow.fit_gaussian(samples)
    u, _ = flow.inverse(samples)
    torch.testing.assert_close(torch.cov(u.T), torch.eye(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(u.mean(0), torch.zeros(3), rtol=0, atol=1e-4)


def test_training_finds_two_clouds():
    torch.manual_seed(4)

    def draw(n: int) -> torch.Tensor:
        return torch.where(torch.rand(n, 1) < 0.5, -1.5, 1.5) * torch.tensor([1.0, 0.5]) + 0.4 * torch.randn(n, 2)

    flow, unseen = build_flow(FlowConfig(latent=2, hidden=(32,))), draw(4000)
    flow.fit_gaussian(unseen)
    optimiser = torch.optim.Adam(flow.parameters(), 5e-3)
    before = float(flow.log_prob(unseen).mean().detach())
    for _ in range(250):
        optimiser.zero_grad()
        (-flow.log_prob(draw(512)).mean()).backward()
        optimiser.step()
    after = float(flow.log_prob(unseen).mean().detach())
    parts = torch.stack([-((unseen - s * torch.tensor([1.5, 0.75])) ** 2).sum(-1) / 0.32 for s in (-1.0, 1.0)])
    truth = float((torch.logsumexp(parts, 0) - math.log(2 * 2 * math.pi * 0.16)).mean())
    assert before < truth - 0.15
    assert after > truth - 0.1
