"""Profile intervals and grids: where the statistic has risen by delta, limits, better minima."""

import pytest
import torch

from deepspec.errors import UserError
from deepspec.inference.curvature import covariance
from deepspec.inference.maximum import maximum, minimise_from
from deepspec.inference.profile import intervals, step_grid
from deepspec.problem import Problem
from toy import toy_observation

MODEL = "tbabs*(powerlaw+bbody)"
VALUES = {"nH": 0.2, "PhoIndex": 2.2, "kT": 0.15, "powerlaw.norm": 1e-3, "bbody.norm": 2e-5}


@pytest.fixture(scope="module")
def fitted():
    observation, _ = toy_observation(MODEL, VALUES)
    problem = Problem([observation], MODEL)
    best = maximum(problem)
    return problem, best, covariance(problem, best.theta)[0]


@pytest.mark.parametrize("delta", [1.0, 2.706])
def test_the_statistic_has_risen_by_delta_at_both_ends(fitted, delta):
    problem, best, cov = fitted
    found = intervals(problem, best.theta, cov, delta=delta)
    assert found.better is None
    for interval in found.intervals:
        assert interval.low_reached
        assert interval.high_reached
        column = problem.names.index(interval.name)
        for end in (interval.low, interval.high):
            start = best.theta.unsqueeze(0).clone()
            start[0, column] = end
            fixed = torch.zeros_like(start, dtype=torch.bool)
            fixed[0, column] = True
            _, value, _ = minimise_from(problem, start, fixed=fixed)
            assert float(value) - best.value == pytest.approx(delta, rel=0.02)


def test_intervals_are_close_to_the_covariance_where_the_data_are_good():
    observation, _ = toy_observation("powerlaw", {"PhoIndex": 1.7, "norm": 1e-2})
    problem = Problem([observation], "powerlaw")
    best = maximum(problem)
    cov, _ = covariance(problem, best.theta)
    for i, interval in enumerate(intervals(problem, best.theta, cov).intervals):
        assert 0.5 * (interval.high - interval.low) == pytest.approx(float(cov[i, i].sqrt()), rel=0.02)


def test_a_limit_stops_the_search_and_says_so():
    observation, _ = toy_observation("powerlaw", {"PhoIndex": 1.7, "norm": 1e-5})
    problem = Problem([observation], "tbabs*powerlaw")
    best = maximum(problem)
    cov, _ = covariance(problem, best.theta, best.at_limit)
    interval = intervals(problem, best.theta, cov, ["nH"]).intervals[0]
    assert interval.low == 0.0
    assert not interval.low_reached
    assert interval.high_reached


def test_a_better_minimum_is_reported():
    observation, _ = toy_observation(MODEL, VALUES)
    problem = Problem([observation], MODEL)
    best = maximum(problem)
    wrong = best.theta.clone()
    wrong[problem.names.index("tbabs.nH")] *= 1.3
    found = intervals(problem, wrong, covariance(problem, wrong)[0], ["PhoIndex"])
    assert found.better is not None
    assert float(problem.objective(found.better)) < float(problem.objective(wrong)) - 0.01


def test_frozen_parameters_have_no_interval(fitted):
    problem, best, cov = fitted
    frozen = problem.with_parameters(problem.parameters.freeze("nH"))
    with pytest.raises(UserError, match="not free"):
        intervals(frozen, best.theta[1:], cov[1:, 1:], ["nH"])


def test_grid_in_one_parameter_has_its_minimum_at_the_fit(fitted):
    problem, best, cov = fitted
    column = problem.names.index("powerlaw.PhoIndex")
    sigma = float(cov[column, column].sqrt())
    axis = best.theta[column] + sigma * torch.linspace(-2, 2, 9, dtype=torch.float64)
    grid = step_grid(problem, best.theta, {"PhoIndex": axis})
    assert grid.value.shape == (9,)
    assert int(grid.value.argmin()) == 4
    assert float(grid.value.min()) == pytest.approx(best.value, abs=1e-3)
    assert float(grid.value[0]) - best.value == pytest.approx(4.0, rel=0.3)


def test_grid_in_two_parameters(fitted):
    problem, best, cov = fitted
    axes = {}
    for name in ("tbabs.nH", "powerlaw.PhoIndex"):
        column = problem.names.index(name)
        axes[name] = best.theta[column] + float(cov[column, column].sqrt()) * torch.linspace(
            -1, 1, 5, dtype=torch.float64
        )
    grid = step_grid(problem, best.theta, axes)
    assert grid.value.shape == (5, 5)
    assert grid.theta.shape == (5, 5, len(problem.names))
    # the two are correlated: the statistic is lower along the diagonal than across it
    assert float(grid.value[0, 0]) < float(grid.value[0, 4])
    with pytest.raises(UserError, match="leaves its limits"):
        step_grid(problem, best.theta, {"nH": torch.tensor([-1.0, 0.1])})
