"""Time per evaluation of the statistic: single and in batches, with and without derivatives, and how it grows."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import torch
from clock import Row, cpu
from observations import MODEL, Case, Sherpa, problem, spread

from deepspec.binned import BinnedData, FoldedResponse
from deepspec.problem import Problem

BATCH = 64
#: The observation for which the issue names an aim, and the aim [us per evaluation, batch of 64 with gradient].
AIM = ("pn_ngc7793_ulx4", 20.0)
SCALING_MODELS = ("powerlaw", MODEL, "tbabs*(powerlaw+bbody)", "tbabs*(powerlaw+bbody+gaussian)")


def single_and_batch(case: Case, quick: bool) -> list[Row]:
    """Part (a): one evaluation, and one of a batch of 64."""
    ours, theirs = problem(case), Sherpa(case)
    theirs.check(ours)
    callback, points = theirs.callback(), itertools.cycle(spread(ours, BATCH).numpy())
    reference = 1e6 * cpu(lambda: callback(next(points)), quick)
    rows = []
    for count, label in ((1, "single"), (BATCH, f"batch of {BATCH}")):
        theta = spread(ours, count)
        with torch.no_grad():
            plain = cpu(lambda theta=theta: ours.statistic(theta), quick)
            gradient = cpu(lambda theta=theta: ours.value_and_gradient(theta), quick)
            everything = cpu(lambda theta=theta: ours.linearise(theta), quick)
        aim = AIM[1] if (case.name, count) == (AIM[0], BATCH) else None
        for what, seconds, bound in (
            ("statistic", plain, None),
            ("statistic and gradient", gradient, aim),
            ("statistic, gradient and Fisher matrix", everything, None),
        ):
            rows.append(Row("evaluation", f"{what}, {label}", case.name, 1e6 * seconds / count, reference, "us", bound))
    return rows


class Cut:
    """An observation with fewer bins or energies, for measuring how time grows."""

    def __init__(self, problem: Problem, bins: int | None = None, energies: int | None = None):
        dataset = problem.datasets[0]
        binned, folded = dataset.observation.binned, dataset.observation.folded
        self.name = dataset.name
        edges, matrix = folded.edges, folded.matrix
        if bins is not None:
            binned, matrix = _fewer_bins(binned, bins), matrix[:, :bins]
        if energies is not None:
            first = np.arange(0, len(matrix), len(matrix) // energies)[:energies]
            matrix, edges = np.add.reduceat(matrix, first, axis=0), np.append(edges[first], edges[-1])
        self.binned, self.folded = binned, FoldedResponse(edges, np.ascontiguousarray(matrix))


def _fewer_bins(binned: BinnedData, count: int) -> BinnedData:
    names = ("counts", "energy_low", "energy_high", "channels", "background", "ratio")
    return replace(binned, **{name: getattr(binned, name)[:count] for name in names})


def scaling(case: Case, quick: bool) -> list[Row]:
    """Part (g): statistic, gradient and Fisher matrix against bins, energies, parameters and batch."""
    whole = problem(case)
    matrix = whole.datasets[0].folding.matrix
    rows = []

    def measure(label: str, problem: Problem, count: int = BATCH) -> None:
        theta = spread(problem, count)
        with torch.no_grad():
            seconds = cpu(lambda: problem.linearise(theta), quick)
        rows.append(Row("scaling", label, case.name, 1e6 * seconds / count, None, "us"))

    for share in (4, 2, 1):
        bins = matrix.shape[1] // share
        measure(f"{bins} bins", Problem([Cut(whole, bins=bins)], whole.model, "wstat", whole.parameters))
    for share in (8, 4, 2, 1):
        energies = matrix.shape[0] // share
        measure(
            f"{energies} energies", Problem([Cut(whole, energies=energies)], whole.model, "wstat", whole.parameters)
        )
    for model in SCALING_MODELS:
        made = problem(case, model)
        measure(f"{len(made.names)} parameters: {model}", made)
    for count in (1, 8, 64) if quick else (1, 8, 64, 512):
        measure(f"batch of {count}", whole, count)
    return rows
