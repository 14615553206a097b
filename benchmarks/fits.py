"""Whole fits, error bars and loading, in this process."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from clock import Row, cpu
from observations import Case, Sherpa, load, problem
from sherpa.estmethods import Confidence, Covariance
from sherpa.optmethods import LevMar, NelderMead

from deepspec.inference.curvature import covariance
from deepspec.inference.maximum import MaximumOptions, maximum
from deepspec.inference.profile import intervals
from deepspec.io import read_observation

#: Aim for a global fit from 32 starts [s].
GLOBAL_AIM = 0.5


def whole_fits(case: Case, quick: bool) -> list[Row]:
    """Part (b): from the starting values to the minimum."""
    ours, theirs = problem(case), Sherpa(case)
    rows = []
    references = {}
    for name, method in (("levmar", LevMar()), ("neldermead", NelderMead())):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            references[name] = cpu(lambda method=method: theirs.fit(method).fit(), quick, rounds=3)
    for starts in (1, 16, 32):
        options = MaximumOptions(starts=starts)
        seconds = cpu(lambda options=options: maximum(ours, options), quick, rounds=3)
        against = "levmar" if starts == 1 else "neldermead"
        rows.append(
            Row(
                "fit",
                f"{starts} start{'s' if starts > 1 else ''} (Sherpa: {against})",
                case.name,
                1e3 * seconds,
                1e3 * references[against],
                "ms",
                1e3 * GLOBAL_AIM if starts == 32 else None,
            )
        )
    return rows


def error_bars(case: Case, quick: bool) -> list[Row]:
    """Part (c): covariance, and 68 % intervals of all parameters by profiles."""
    ours, theirs = problem(case), Sherpa(case)
    best = maximum(ours).theta
    matrix, _ = covariance(ours, best)
    seconds = {
        "covariance": cpu(lambda: covariance(ours, best), quick, rounds=3),
        "profile intervals": cpu(lambda: intervals(ours, best, matrix), quick, rounds=1),
    }
    rows = []
    for what, method in (("covariance", Covariance()), ("profile intervals", Confidence())):
        fit = theirs.fit(LevMar(), method)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            fit.fit()
            if what != "covariance":
                method.config.update(parallel=False, max_rstat=1e9)
            reference = cpu(fit.est_errors, quick or what != "covariance", rounds=1)
        label = f"{what} (Sherpa: {'covar' if what == 'covariance' else 'conf'})"
        rows.append(Row("errors", label, case.name, 1e3 * seconds[what], 1e3 * reference, "ms"))
    return rows


def loading(case: Case, quick: bool) -> list[Row]:
    """Part (d): PHA, ARF, RMF and background from disk, and the matrix that fits use."""

    def ours():
        observation = read_observation(case.file).group(case.group).notice(*case.band)
        return observation.binned, torch.as_tensor(observation.folded.matrix)

    seconds, reference = cpu(ours, quick, rounds=3), cpu(lambda: load(case), quick, rounds=3)
    return [Row("loading", "spectrum, response, background", case.name, 1e3 * seconds, 1e3 * reference, "ms")]
