"""The search without derivatives reaches the same minimum, and never ends higher than it began."""

import pytest
import torch

from deepspec.inference.maximum import maximum
from deepspec.inference.simplex import simplex
from deepspec.problem import Problem
from toy import toy_observation


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("tbabs*powerlaw", {"nH": 0.2, "PhoIndex": 1.8, "norm": 1e-3}),
        ("tbabs*(powerlaw+bbody)", {"nH": 0.2, "PhoIndex": 2.2, "kT": 0.15, "powerlaw.norm": 1e-3, "bbody.norm": 2e-5}),
    ],
)
def test_it_finds_the_minimum_of_the_fit(model, values):
    observation, truth = toy_observation(model, values)
    problem = Problem([observation], model)
    best = maximum(problem)
    start = truth.vector() * 1.15
    fisher = problem.linearise(start.unsqueeze(0)).fisher[0]
    theta, value, converged = simplex(problem, start, fisher)
    assert converged
    assert value == pytest.approx(best.value, abs=0.02)
    assert value == pytest.approx(float(problem.objective(theta)))


def test_it_is_never_worse_than_its_start():
    observation, _ = toy_observation("powerlaw", {"PhoIndex": 1.8, "norm": 1e-3})
    problem = Problem([observation], "powerlaw")
    best = maximum(problem)
    fisher = problem.linearise(best.theta.unsqueeze(0)).fisher[0]
    _, value, _ = simplex(problem, best.theta, fisher, evaluations=3)
    assert value <= best.value + 1e-9


def test_norms_alone_need_no_simplex():
    observation, truth = toy_observation("powerlaw", {"PhoIndex": 1.8, "norm": 1e-3})
    problem = Problem([observation], "powerlaw", parameters=truth.freeze("PhoIndex"))
    theta, _, converged = simplex(problem, torch.tensor([1e-3], dtype=torch.float64), torch.eye(1, dtype=torch.float64))
    assert converged
    assert theta.shape == (1,)
