"""Are 68 % intervals 68 % intervals? Simulated sources of known truth, with background, W-stat."""

import pytest

from deepspec.fluxes import energy_flux, flux_with_errors
from deepspec.inference.curvature import covariance
from deepspec.inference.maximum import MaximumOptions, maximum
from deepspec.inference.profile import intervals
from deepspec.problem import Problem
from toy import toy_observation

MODEL = "tbabs*powerlaw"
BAND = (2.0, 10.0)
COUNT = 120


@pytest.mark.slow
@pytest.mark.parametrize("norm", [2e-5, 2e-4], ids=["500 counts", "3800 counts"])
def test_intervals_hold_the_truth_as_often_as_they_say(norm):
    held = dict.fromkeys(["tbabs.nH", "powerlaw.PhoIndex", "powerlaw.norm", "flux"], 0)
    for seed in range(COUNT):
        observation, truth = toy_observation(
            MODEL, {"nH": 0.2, "PhoIndex": 1.8, "norm": norm}, seed=seed, background=True
        )
        problem, theta = Problem([observation], MODEL), truth.vector()
        best = maximum(problem, MaximumOptions(starts=4, draws=24))
        matrix, _ = covariance(problem, best.theta, best.at_limit)
        for value, interval in zip(theta, intervals(problem, best.theta, matrix).intervals, strict=True):
            held[interval.name] += interval.low <= float(value) <= interval.high
        _, lower, upper = flux_with_errors(problem, best.theta, matrix, BAND, unabsorbed=True)
        held["flux"] += lower <= float(energy_flux(problem, theta, BAND, unabsorbed=True)) <= upper
    # the binomial error of 0.683 from 120 sources is 0.042; three of them either way
    assert all(0.55 < number / COUNT < 0.81 for number in held.values()), held
