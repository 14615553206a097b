"""Is the fit good? Simulated data sets refitted, and the expected C-stat of Kaastra (2017)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deepspec.inference.maximum import MaximumOptions, minimise_from
from deepspec.problem import Problem


@dataclass(frozen=True, eq=False)
class Goodness:
    """Statistics of data sets simulated from the best fit and fitted again.

    Attributes
    ----------
    observed : statistic of the data.
    simulated : Tensor, shape (n,)
    p_value : share of simulations with a statistic at least as high, (k + 1) / (n + 1).
    percent_below : share with a lower statistic in %, what XSPEC's ``goodness`` prints.
    """

    observed: float
    simulated: Tensor
    p_value: float
    percent_below: float


def goodness(
    problem: Problem,
    theta: Tensor,
    count: int,
    rng: np.random.Generator,
    options: MaximumOptions | None = None,
    progress: Callable[[int], None] | None = None,
    batch: int = 64,
) -> Goodness:
    """Draw `count` data sets from the model at `theta`, refit each, compare the statistics.

    Parameters
    ----------
    theta : Tensor, shape (P,)
        The best fit; each refit starts there.
    progress : callable, optional
        Told how many simulations are done.
    """
    options = options or MaximumOptions(starts=1, steps=60)
    found = []
    with torch.no_grad():
        predicted = problem.predict(theta)
        for first in range(0, count, batch):
            size = min(batch, count - first)
            drawn = [
                d.statistic.draw(m.expand(size, -1), rng) for d, m in zip(problem.datasets, predicted, strict=True)
            ]
            _, value, _ = minimise_from(problem.with_statistics(drawn), theta.repeat(size, 1), options)
            found.append(value)
            if progress:
                progress(first + size)
    simulated = torch.cat(found)
    observed = float(problem.objective(theta))
    above = int((simulated >= observed).sum())
    return Goodness(observed, simulated, (above + 1) / (count + 1), 100.0 * (1.0 - above / count))
