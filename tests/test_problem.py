"""Predictions, derivatives and objective of a batch of parameter vectors."""

import pytest
import torch

from deepspec.errors import UserError
from deepspec.priors import parse_prior
from deepspec.problem import Problem
from toy import toy_observation

MODEL = "tbabs*(powerlaw+bbody)"
VALUES = {"nH": 0.2, "PhoIndex": 2.0, "kT": 0.3, "powerlaw.norm": 1e-3, "bbody.norm": 2e-5}


def problem(background=False, **options):
    observation, truth = toy_observation(MODEL, VALUES, background=background)
    return Problem([observation], MODEL, parameters=truth, **options)


def two_cameras(link=None):
    first, _ = toy_observation(MODEL, VALUES, seed=2, name="one")
    second, _ = toy_observation(MODEL, VALUES, seed=3, background=True, name="two", area=300.0)
    return Problem([first, second], MODEL, crosscal=True)


def batch(made, spread=0.1, count=3):
    generator = torch.Generator().manual_seed(5)
    theta = made.parameters.vector()
    return theta * (1.0 + spread * (torch.rand(count, len(theta), generator=generator, dtype=torch.float64) - 0.5))


@pytest.mark.parametrize("make", [problem, lambda: problem(background=True), two_cameras])
def test_gradient_is_the_objectives(make):
    made = make()
    theta = batch(made)
    at = made.linearise(theta)
    variable = theta.clone().requires_grad_()
    objective = made.objective(variable)
    (gradient,) = torch.autograd.grad(objective.sum(), variable)
    torch.testing.assert_close(at.value, objective.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(at.gradient, gradient, rtol=1e-8, atol=1e-8)
    value, folded_back = made.value_and_gradient(theta)
    torch.testing.assert_close(value, at.value, rtol=1e-12, atol=0)
    torch.testing.assert_close(folded_back, gradient, rtol=1e-8, atol=1e-8)


def test_gradient_through_links_and_priors():
    made = problem()
    linked = made.parameters.link("bbody.norm", "0.02*powerlaw.norm*powerlaw.PhoIndex")
    observation = made.datasets[0].observation
    made = Problem([observation], MODEL, parameters=linked, priors={"PhoIndex": parse_prior("normal(1.8,0.1)")})
    theta = batch(made)
    variable = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(made.objective(variable).sum(), variable)
    torch.testing.assert_close(made.linearise(theta).gradient, gradient, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(made.value_and_gradient(theta)[1], gradient, rtol=1e-8, atol=1e-8)


def test_prediction_is_linear_in_the_norm_columns():
    made = two_cameras()
    theta = batch(made)
    norms = made.free_norms
    assert [made.names[i] for i in norms] == ["powerlaw.norm", "bbody.norm"]
    moved = theta.clone()
    moved[:, norms] *= 3.0
    for (counts, columns), expected in zip(made.norm_columns(theta), made.predict(moved), strict=True):
        change = ((moved - theta)[:, norms].unsqueeze(-1) * columns).sum(-2)
        torch.testing.assert_close(counts + change, expected, rtol=1e-10, atol=0)


def test_crosscalibration_constants():
    made = two_cameras()
    assert made.names[-1] == "crosscal_2.factor"
    theta = made.parameters.vector()
    doubled = theta.clone()
    doubled[-1] = 2.0
    first, second = made.predict(theta)
    assert torch.equal(made.predict(doubled)[0], first)
    torch.testing.assert_close(made.predict(doubled)[1], 2.0 * second)


def test_statistic_is_chosen_by_the_data():
    made = two_cameras()
    assert [d.statistic.name for d in made.datasets] == ["cstat", "wstat"]
    assert made.statistic_name == "cstat+wstat"
    assert made.degrees_of_freedom == made.bins - len(made.names)


def test_linked_values_beyond_limits_are_infinitely_bad():
    made = problem()
    linked = made.with_parameters(made.parameters.link("bbody.kT", "-powerlaw.PhoIndex"))
    assert torch.isinf(linked.objective(linked.parameters.vector()))
    assert torch.isinf(linked.linearise(linked.parameters.vector().unsqueeze(0)).value).all()


def test_refusals():
    observation, _ = toy_observation(MODEL, VALUES)
    with pytest.raises(UserError, match="no observation"):
        Problem([], MODEL)
    with pytest.raises(UserError, match="source of photons"):
        Problem([observation], "tbabs")
    made = problem()
    with pytest.raises(UserError, match="is not free"):
        Problem(
            [observation], MODEL, parameters=made.parameters.freeze("nH"), priors={"nH": parse_prior("normal(1,1)")}
        )
    with pytest.raises(UserError, match="excludes all"):
        Problem([observation], MODEL, priors={"kT": parse_prior("uniform(1e5,2e5)")})


@pytest.mark.parametrize("frozen", [None, "powerlaw.norm", "bbody.norm"])
@pytest.mark.parametrize("model", ["tbabs*(powerlaw+bbody)", "zashift*(powerlaw+bbody)", "cflux*(powerlaw+bbody)"])
def test_counts_and_jacobian_are_those_of_the_prediction(model, frozen):
    """Counts are summed from the folded terms only where the model is linear in all norms and all are free."""
    observation, _ = toy_observation("tbabs*powerlaw", {"nH": 0.2, "norm": 1e-3})
    problem = Problem([observation], model)
    parameters = problem.parameters.set("powerlaw.norm", 1e-3).set("bbody.norm", 2e-5)
    problem = problem.with_parameters(parameters.freeze(frozen) if frozen else parameters)
    theta = problem.parameters.vector().repeat(3, 1) * torch.tensor([[1.0], [1.1], [0.9]], dtype=torch.float64)
    ((counts, jacobian),) = problem.jacobian(theta)
    torch.testing.assert_close(counts, problem.predict(theta)[0], rtol=1e-12, atol=1e-12)
    for column in range(theta.shape[1]):
        step = torch.zeros_like(theta)
        step[:, column] = 1e-6 * theta[:, column].abs().clamp(min=1e-3)
        rise = problem.predict(theta + step)[0] - problem.predict(theta - step)[0]
        expected = rise / (2 * step[:, column : column + 1])
        torch.testing.assert_close(jacobian[:, column], expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
