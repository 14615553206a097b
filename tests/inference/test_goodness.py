"""Goodness by simulation: fair for the true model, damning for a wrong one."""

import numpy as np

from deepspec.inference.goodness import goodness
from deepspec.inference.maximum import maximum
from deepspec.problem import Problem
from toy import toy_observation


def run(true, fitted, values, count=100, background=False):
    observation, _ = toy_observation(true, values, background=background)
    problem = Problem([observation], fitted)
    best = maximum(problem)
    told = []
    found = goodness(problem, best.theta, count, np.random.default_rng(3), progress=told.append)
    assert told[-1] == count
    assert found.simulated.shape == (count,)
    return found


def test_the_true_model_is_acceptable():
    for background in (False, True):
        found = run(
            "tbabs*powerlaw", "tbabs*powerlaw", {"nH": 0.2, "PhoIndex": 1.8, "norm": 1e-3}, background=background
        )
        assert 0.01 < found.p_value < 0.99


def test_a_wrong_model_is_not():
    found = run(
        "tbabs*(powerlaw+bbody)", "tbabs*bbody", {"nH": 0.1, "kT": 0.3, "powerlaw.norm": 1e-3, "bbody.norm": 2e-5}
    )
    assert found.p_value == 1 / 101
    assert found.percent_below == 100.0
