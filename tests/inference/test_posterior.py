"""Draws from the posterior of a problem, against what is known of it."""

from __future__ import annotations

import math

import pytest
import torch

from deepspec.inference.curvature import covariance
from deepspec.inference.maximum import MaximumOptions, maximum
from deepspec.inference.posterior import Reference, posterior_draws
from deepspec.problem import Problem
from toy import toy_observation


def test_the_reference_is_a_t_distribution():
    """Density from torch's own along one axis; moments of the draws."""
    reference = Reference(torch.tensor([2.0], dtype=torch.float64), torch.tensor([[0.5]], dtype=torch.float64))
    x = torch.linspace(-3, 7, 11, dtype=torch.float64).unsqueeze(-1)
    known = torch.distributions.StudentT(5.0, 2.0, 0.5).log_prob(x[:, 0])
    assert torch.allclose(reference.log_prob(x), known)
    wide = Reference(torch.zeros(3, dtype=torch.float64), torch.linalg.cholesky(torch.eye(3).double() + 0.5))
    drawn = wide.sample(40000, torch.arange(1), torch.Generator().manual_seed(1))[0]
    # of a t-distribution the covariance is scale x nu / (nu - 2)
    assert torch.allclose(torch.cov(drawn.T), (torch.eye(3).double() + 0.5) * 5 / 3, atol=0.1)


@pytest.fixture(scope="module")
def bright():
    """Many counts: the posterior is Gaussian with the covariance of the fit."""
    observation, truth = toy_observation("powerlaw", {"PhoIndex": 1.7, "norm": 1e-3})
    problem = Problem([observation], "powerlaw", "cstat", truth)
    return problem, maximum(problem, MaximumOptions(starts=2, draws=12)).theta


def test_many_counts_give_the_covariance_of_the_fit(bright):
    problem, theta = bright
    found = posterior_draws(problem, theta, 1500, seed=3)
    expected, _ = covariance(problem, theta)
    sigma = torch.diagonal(expected).sqrt()
    assert found.settled
    assert ((found.theta.mean(0) - theta) / sigma).abs().max() < 0.15
    assert torch.allclose(found.theta.std(0) / sigma, torch.ones(2).double(), atol=0.12)
    assert torch.allclose(found.log_prob, problem.log_prob(found.theta))


def test_the_same_seed_gives_the_same_draws_and_progress_is_told(bright):
    problem, theta = bright
    told = []
    first, again, other = (posterior_draws(problem, theta, 60, seed, told.append) for seed in (1, 1, 2))
    assert torch.equal(first.theta, again.theta)
    assert not torch.equal(first.theta, other.theta)
    assert told[0] == 60
    assert first.evaluations in told


def test_a_limit_cuts_the_posterior_and_a_prior_shifts_it():
    """One free norm, m counts expected at norm 1: the posterior is a gamma distribution, cut at the limit."""
    observation, truth = toy_observation("powerlaw", {"PhoIndex": 1.7, "norm": 3e-6})
    truth = truth.freeze("PhoIndex")
    problem = Problem([observation], "powerlaw", "cstat", truth)
    counts = float(observation.binned.counts.sum())
    per_norm = float(problem.predict(truth.vector())[0].sum()) / 3e-6
    theta = torch.tensor([counts / per_norm], dtype=torch.float64)
    gamma = torch.distributions.Gamma(torch.tensor(counts + 1.0), torch.tensor(1.0))
    free = posterior_draws(problem, theta, 2000).theta[:, 0] * per_norm
    assert float(free.mean()) == pytest.approx(float(gamma.mean), rel=0.03)
    assert float(free.std()) == pytest.approx(float(gamma.stddev), rel=0.1)
    low = counts / per_norm
    cut = Problem([observation], "powerlaw", "cstat", truth.limit("norm", low, 1.0))
    found = posterior_draws(cut, theta, 1000).theta[:, 0]
    assert float(found.min()) >= low
    drawn = gamma.sample((200000,))
    expected = float(drawn[drawn > counts].mean())
    assert float(found.mean()) * per_norm == pytest.approx(expected, rel=0.03)


def test_a_parameter_that_the_data_do_not_know_keeps_its_prior():
    from deepspec.priors import parse_prior

    observation, truth = toy_observation("tbabs*powerlaw", {"nH": 0.01, "PhoIndex": 1.7, "norm": 1e-8})
    problem = Problem(
        [observation],
        "tbabs*powerlaw",
        "cstat",
        truth.freeze("norm"),
        {"PhoIndex": parse_prior("normal(1.8,0.3)"), "nH": parse_prior("uniform(0,2)")},
    )
    found = posterior_draws(problem, torch.tensor([0.5, 1.8], dtype=torch.float64), 2000).theta
    assert float(found[:, 1].mean()) == pytest.approx(1.8, abs=0.05)
    assert float(found[:, 1].std()) == pytest.approx(0.3, abs=0.04)
    # flat between 0 and 2: the mean 1, the standard deviation 2 / sqrt(12)
    assert float(found[:, 0].mean()) == pytest.approx(1.0, abs=0.08)
    assert float(found[:, 0].std()) == pytest.approx(2 / math.sqrt(12), abs=0.05)
