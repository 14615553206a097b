"""Priors as text: densities are scipy's, nonsense is refused."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from deepspec.errors import UserError
from deepspec.priors import JointPrior, parse_prior

CASES = {
    "normal(1.8, 0.2)": scipy.stats.norm(1.8, 0.2),
    "uniform(0.5,3)": scipy.stats.uniform(0.5, 2.5),
    "loguniform(1e-3,10)": scipy.stats.loguniform(1e-3, 10),
    "lognormal(0.5,0.7)": scipy.stats.lognorm(0.7, scale=0.5),
    "log10normal(-1,0.6)": scipy.stats.lognorm(0.6 * math.log(10), scale=0.1),
}


@pytest.mark.parametrize("text", CASES)
def test_density(text):
    x = np.array([-1.0, 0.01, 0.6, 1.7, 2.9, 11.0])
    with np.errstate(divide="ignore"):
        expected = CASES[text].logpdf(x)
    np.testing.assert_allclose(parse_prior(text).log_prob(torch.tensor(x)).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize(
    "text",
    [
        "normal",
        "normal(1)",
        "normal(a,b)",
        "normal(1,-1)",
        "uniform(3,1)",
        "loguniform(0,1)",
        "cauchy(0,1)",
        "normal(nan,1)",
        "",
    ],
)
def test_nonsense(text):
    with pytest.raises(UserError):
        parse_prior(text)


def test_a_flat_prior_has_no_slope():
    joint = JointPrior(["a", "b"], {"a": parse_prior("uniform(0,2)"), "b": parse_prior("normal(1,2)")})
    first, second, value = joint.terms(torch.tensor([[0.5, 3.0]], dtype=torch.float64))
    assert first[0].tolist() == [0.0, 1.0]
    assert second[0].tolist() == [0.0, 0.5]
    assert float(value) == pytest.approx(2 * math.log(2) + 1.0 + 2 * math.log(2) + math.log(2 * math.pi))
