"""Exact Hessians, and covariances that say when they mean nothing."""

import pytest
import torch

from deepspec.inference.curvature import _differenced_gradient, covariance, hessian
from deepspec.inference.maximum import maximum
from deepspec.problem import Problem
from toy import toy_observation

VALUES = {"nH": 0.2, "PhoIndex": 2.0, "kT": 0.3, "powerlaw.norm": 1e-3, "bbody.norm": 2e-5}


@pytest.mark.parametrize("background", [False, True])
def test_automatic_and_differenced_hessians_agree(background):
    observation, truth = toy_observation("tbabs*(powerlaw+bbody)", VALUES, background=background)
    problem = Problem([observation], "tbabs*(powerlaw+bbody)", parameters=truth)
    theta = truth.vector()
    exact, differenced = hessian(problem, theta), _differenced_gradient(problem, theta)
    scale = torch.diagonal(exact).abs().rsqrt()
    torch.testing.assert_close(exact * scale.outer(scale), differenced * scale.outer(scale), rtol=0, atol=2e-4)


def test_covariance_predicts_the_scatter_of_fits():
    fitted = []
    for seed in range(40):
        observation, truth = toy_observation("powerlaw", {"PhoIndex": 1.7, "norm": 1e-4}, seed=seed)
        problem = Problem([observation], "powerlaw", parameters=truth)
        fitted.append(maximum(problem).theta)
    scatter = torch.cov(torch.stack(fitted).T)
    predicted, warning = covariance(problem, truth.vector())
    assert warning is None
    ratio = torch.diagonal(scatter) / torch.diagonal(predicted)
    # the variance of a sample variance of 40 is 2/39: three sigma is a factor of 1.68
    assert bool(((ratio > 0.4) & (ratio < 1.7)).all())


def test_degenerate_parameters_are_named():
    observation, _ = toy_observation("powerlaw", {"PhoIndex": 1.7, "norm": 1e-4})
    problem = Problem([observation], "powerlaw+powerlaw")
    theta = torch.tensor([1.7, 5e-5, 1.7, 5e-5], dtype=torch.float64)
    _, warning = covariance(problem, theta)
    assert "degenerate" in warning
    assert "norm" in warning


def test_parameters_without_influence_do_not_spoil_the_others():
    observation, truth = toy_observation(
        "powerlaw+gaussian", {"PhoIndex": 1.7, "powerlaw.norm": 1e-4, "gaussian.norm": 0.0}
    )
    problem = Problem([observation], "powerlaw+gaussian", parameters=truth)
    found, warning = covariance(problem, truth.vector())
    assert "gaussian.LineE" in warning
    assert torch.isnan(found[problem.names.index("gaussian.LineE")]).all()
    assert torch.isfinite(torch.diagonal(found)[:2]).all()


def test_held_parameters_have_no_error():
    observation, truth = toy_observation("powerlaw", {"PhoIndex": 1.7, "norm": 1e-4})
    problem = Problem([observation], "powerlaw", parameters=truth)
    found, _ = covariance(problem, truth.vector(), held=("powerlaw.PhoIndex",))
    assert torch.isnan(found[0]).all()
    assert float(found[1, 1]) > 0


def test_kinked_parameters_have_the_gradient_differenced():
    values = {"kT": 0.8, "Abundanc": 0.5, "Redshift": 0.05, "norm": 1e-3}
    observation, truth = toy_observation("mekal", values)
    problem = Problem([observation], "mekal", parameters=truth.thaw("Abundanc").thaw("Redshift"))
    theta = problem.parameters.vector()
    found = hessian(problem, theta)
    torch.testing.assert_close(found, _differenced_gradient(problem, theta))
    frozen = problem.with_parameters(problem.parameters.freeze("Redshift"))
    exact = hessian(frozen, frozen.parameters.vector())
    scale = torch.diagonal(exact).rsqrt()
    keep = [problem.names.index(name) for name in frozen.names]
    torch.testing.assert_close(exact * scale.outer(scale), found[keep][:, keep] * scale.outer(scale), rtol=0, atol=2e-3)
