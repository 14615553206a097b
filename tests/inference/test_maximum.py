"""The fit finds the minimum: from far away, at limits, with links and priors; and says when it did not."""

import numpy as np
import pytest
import scipy.optimize
import torch

from deepspec.inference.maximum import MaximumOptions, maximum, minimise_from
from deepspec.inference.norms import solve_norms
from deepspec.priors import parse_prior
from deepspec.problem import Problem
from toy import toy_observation

CASES = {
    "tbabs*powerlaw": {"nH": 0.2, "PhoIndex": 1.8, "norm": 1e-3},
    "tbabs*(powerlaw+bbody)": {"nH": 0.2, "PhoIndex": 2.2, "kT": 0.15, "powerlaw.norm": 1e-3, "bbody.norm": 2e-5},
    "tbabs*(diskbb+powerlaw)": {"nH": 0.3, "Tin": 0.8, "PhoIndex": 2.2, "diskbb.norm": 0.3, "powerlaw.norm": 5e-4},
    "tbabs*pcfabs*powerlaw": {"tbabs.nH": 0.1, "pcfabs.nH": 5.0, "CvrFract": 0.6, "PhoIndex": 1.9, "norm": 2e-3},
}


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("model", CASES)
def test_no_other_optimiser_gets_lower(model, background):
    observation, truth = toy_observation(model, CASES[model], background=background)
    problem = Problem([observation], model)
    best = maximum(problem)
    assert best.converged
    assert best.value <= float(problem.objective(truth.vector()))
    scale = best.theta.abs().numpy()

    def objective(x):
        value = float(problem.objective(torch.as_tensor(x * scale)))
        return value if np.isfinite(value) else 1e30

    low, high = (b.numpy() / scale for b in problem.parameters.bounds())
    for start in (best.theta.numpy() / scale, truth.vector().numpy() / scale):
        found = scipy.optimize.minimize(
            objective,
            start.clip(low, high),
            method="Nelder-Mead",
            bounds=list(zip(low, high, strict=True)),
            options={"maxiter": 600},
        )
        assert best.value <= found.fun + 1e-3


def test_the_gradient_vanishes_at_the_fit():
    model = "tbabs*(powerlaw+bbody)"
    observation, _ = toy_observation(model, CASES[model])
    problem = Problem([observation], model)
    best = maximum(problem)
    at = problem.linearise(best.theta.unsqueeze(0))
    sigma = torch.diagonal(torch.linalg.inv(0.5 * at.fisher[0])).sqrt()
    assert float((at.gradient[0] * sigma).abs().max()) < 1e-2


def test_same_seed_same_answer():
    model = "tbabs*(diskbb+powerlaw)"
    observation, _ = toy_observation(model, CASES[model])
    problem = Problem([observation], model)
    first, second = (maximum(problem, MaximumOptions(seed=7)) for _ in range(2))
    assert torch.equal(first.theta, second.theta)
    assert first.value == second.value


def test_parameter_at_its_limit_is_named():
    observation, _ = toy_observation("powerlaw", {"PhoIndex": 1.5, "norm": 1e-4})
    problem = Problem([observation], "tbabs*powerlaw")
    problem = problem.with_parameters(problem.parameters.limit("nH", 0.5, 10.0))
    best = maximum(problem)
    assert best.converged
    assert best.at_limit == ("tbabs.nH",)
    assert float(best.theta[0]) == 0.5


def test_too_few_steps_is_a_status():
    model = "tbabs*(powerlaw+bbody)"
    observation, _ = toy_observation(model, CASES[model])
    best = maximum(Problem([observation], model), MaximumOptions(steps=1, starts=2))
    assert not best.converged
    assert "not converged after 1 steps" in best.message


def test_frozen_model_is_evaluated_only():
    observation, truth = toy_observation("powerlaw", {"PhoIndex": 1.5, "norm": 1e-4})
    problem = Problem([observation], "powerlaw", parameters=truth.freeze("PhoIndex").freeze("norm"))
    best = maximum(problem)
    assert best.converged
    assert best.theta.shape == (0,)
    assert best.value == pytest.approx(float(problem.statistic(best.theta)))


def test_a_strong_prior_wins():
    observation, _ = toy_observation("tbabs*powerlaw", CASES["tbabs*powerlaw"])
    best = maximum(Problem([observation], "tbabs*powerlaw", priors={"PhoIndex": parse_prior("normal(2.5,0.001)")}))
    assert best.converged
    assert float(best.theta[1]) == pytest.approx(2.5, abs=0.01)


def test_linked_indices_agree_with_one_component():
    observation, _ = toy_observation("powerlaw", {"PhoIndex": 1.5, "norm": 1e-4})
    single = maximum(Problem([observation], "powerlaw"))
    problem = Problem([observation], "powerlaw+powerlaw")
    tied = problem.parameters.link("powerlaw_2.PhoIndex", "powerlaw.PhoIndex").link("powerlaw_2.norm", "powerlaw.norm")
    both = maximum(problem.with_parameters(tied))
    assert both.value == pytest.approx(single.value, abs=1e-4)
    assert float(both.theta[1]) == pytest.approx(0.5 * float(single.theta[1]), rel=1e-3)


def test_solved_norms_are_the_minimum_and_never_worse():
    model = "tbabs*(powerlaw+bbody)"
    observation, truth = toy_observation(model, CASES[model])
    problem = Problem([observation], model)
    theta = truth.vector().repeat(4, 1)
    theta[:, problem.free_norms] *= torch.tensor(
        [[1.0, 1.0], [0.0, 3.0], [10.0, 0.01], [1e-3, 1e3]], dtype=torch.float64
    )
    solved = solve_norms(problem, theta, steps=40)
    values = problem.objective(solved)
    assert bool((values <= problem.objective(theta) + 1e-9).all())
    assert float(values.max() - values.min()) < 1e-4


def test_fixed_coordinates_stay():
    model = "tbabs*(powerlaw+bbody)"
    observation, truth = toy_observation(model, CASES[model])
    problem = Problem([observation], model)
    start = truth.vector().repeat(2, 1)
    fixed = torch.zeros_like(start, dtype=torch.bool)
    fixed[0, 0] = fixed[1, problem.names.index("bbody.norm")] = True
    theta, value, converged = minimise_from(problem, start, fixed=fixed)
    assert converged.all()
    assert torch.equal(theta[fixed], start[fixed])
    assert bool((value >= maximum(problem).value - 1e-6).all())


def test_a_thick_partial_absorber_is_found_though_its_valley_looks_poor_from_afar():
    """Starts chosen by the statistic at the points drawn ended 8.7 higher here, and 23 higher on the coronal star MN Lup."""
    model = "tbabs*pcfabs*powerlaw"
    values = {"tbabs.nH": 0.5, "pcfabs.nH": 15.0, "CvrFract": 0.9, "PhoIndex": 5.0, "norm": 6e-4}
    observation, truth = toy_observation(model, values, seed=3)
    problem = Problem([observation], model)
    _, value, _ = minimise_from(problem, truth.vector().unsqueeze(0))
    assert maximum(problem).value <= float(value) + 1e-3
