"""A small made-up camera for tests: an observation without files, drawn from a model with known parameters."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from scipy.stats import norm

from deepspec.binned import BinnedData, FoldedResponse
from deepspec.models.model import Model
from deepspec.parameters import ParameterSet
from deepspec.problem import Problem


def toy_response(energies=300, bins=80, low=0.3, high=10.0, exposure=2e4, area=800.0):
    """Bin edges and a folded response: smooth area, Gaussian redistribution of 50 eV x sqrt(E)."""
    edges = np.geomspace(0.7 * low, 1.3 * high, energies + 1)
    middle = np.sqrt(edges[1:] * edges[:-1])
    effective = area * np.exp(-0.5 * np.log(middle / 1.5) ** 2)
    limits = np.geomspace(low, high, bins + 1)
    share = np.diff(norm.cdf((limits[None, :] - middle[:, None]) / (0.05 * np.sqrt(middle))[:, None]), axis=1)
    return limits, FoldedResponse(edges, exposure * effective[:, None] * share)


def toy_observation(model, values, seed=1, background=False, name="toy", **camera):
    """An observation drawn from `model` at `values`, and the parameter set of the truth."""
    limits, folded = toy_response(**camera)
    size = len(limits) - 1
    exposure = camera.get("exposure", 2e4)

    def binned(counts, region=None, ratio=None):
        return BinnedData(counts, limits[:-1], limits[1:], np.ones(size), exposure, region, ratio)

    observation = SimpleNamespace(name=name, binned=binned(np.ones(size)), folded=folded)
    truth = ParameterSet(Model(model).parameters)
    for key, value in values.items():
        truth = truth.set(key, value)
    expected = Problem([observation], model, "cstat", truth).predict(truth.vector())[0].numpy()
    rng = np.random.default_rng(seed)
    if background:
        region = rng.poisson(np.full(size, 20.0)).astype(float)
        observation.binned = binned(rng.poisson(expected + 2.0).astype(float), region, np.full(size, 0.1))
    else:
        observation.binned = binned(rng.poisson(expected).astype(float))
    return observation, truth
