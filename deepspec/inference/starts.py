"""Where a fit begins: the user's values, and random points over the ranges that sources occupy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepspec.problem import Problem

#: (low, high, logarithmic) by parameter name: the ranges of real sources, far inside XSPEC's limits.
RANGES = {
    "nH": (3e-3, 100.0, True),
    "PhoIndex": (0.0, 4.0, False),
    "PhoIndx1": (0.0, 3.0, False),
    "PhoIndx2": (0.5, 4.0, False),
    "kT": (0.06, 10.0, True),
    "Tin": (0.05, 4.0, True),
    "HighECut": (1.0, 100.0, True),
    "Abundanc": (0.1, 3.0, True),
    "CvrFract": (0.1, 0.98, False),
    "Sigma": (0.005, 0.5, True),
    "factor": (0.6, 1.6, True),
}
#: Parameters that are energies: they start inside the fitted band.
ENERGIES = ("LineE", "BreakE", "edgeE", "cutoffE")


def random_starts(problem: Problem, count: int, generator: torch.Generator) -> Tensor:
    """The present values, followed by `count` - 1 random vectors within the limits; shape (count, P)."""
    first = problem.parameters.vector()
    drawn = torch.rand((max(count - 1, 0), len(first)), generator=generator, dtype=torch.float64)
    columns = [_draw(problem, key, drawn[:, i]) for i, key in enumerate(problem.names)]
    if not columns:
        return first.unsqueeze(0)
    return torch.cat([first.unsqueeze(0), torch.stack(columns, dim=-1)])


def _draw(problem: Problem, key: str, uniform: Tensor) -> Tensor:
    entry = problem.parameters[key]
    if key in problem.priors and isinstance(
        problem.priors[key].distribution, torch.distributions.Normal | torch.distributions.LogNormal
    ):
        value = problem.priors[key].distribution.icdf(0.02 + 0.96 * uniform)
        return value.clamp(entry.low, entry.high)
    low, high, logarithmic = _range(problem, key)
    if logarithmic:
        return torch.exp(math.log(low) + uniform * math.log(high / low))
    return low + uniform * (high - low)


def _range(problem: Problem, key: str) -> tuple[float, float, bool]:
    entry, name = problem.parameters[key], key.rpartition(".")[2]
    if name in RANGES:
        low, high, logarithmic = RANGES[name]
    elif name in ENERGIES:
        low = min(float(d.binned.energy_low.min()) for d in problem.datasets)
        high = max(float(d.binned.energy_high.max()) for d in problem.datasets)
        logarithmic = True
    elif entry.parameter.log and entry.value > 0:
        low, high, logarithmic = entry.value / 10, entry.value * 10, True
    else:
        spread = 0.3 * abs(entry.value) + 0.3
        low, high, logarithmic = entry.value - spread, entry.value + spread, False
    if high <= entry.low or low >= entry.high or (low < entry.low and high > entry.high):
        low, high = entry.low, entry.high
    low, high = max(low, entry.low), min(high, entry.high)
    return low, high, logarithmic and low > 0
